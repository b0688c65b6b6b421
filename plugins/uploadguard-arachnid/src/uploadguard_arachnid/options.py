"""The options in a table ``[matchers.NAME]`` of the kind ``arachnid``."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, Strict, model_validator

from uploadguard.config_types import Flag, Whole
from uploadguard.destinations.http import check_base_url
from uploadguard.remote import RemoteOptions

__all__ = ["ArachnidOptions"]


class ArachnidOptions(RemoteOptions):
    """See the plugin's README, which describes each of them."""

    kind: Literal["arachnid"]
    base_url: Annotated[str, AfterValidator(check_base_url)] = "https://shield.projectarachnid.com"
    deadline_s: Annotated[float, Strict(), Field(ge=0.05, le=60, allow_inf_nan=False)] = 5.0
    send: Literal["pdq", "media"] = "pdq"
    min_quality: Annotated[Whole, Field(ge=0, le=100)] = 50
    variants: Flag = True
    batch: Annotated[Whole, Field(ge=1, le=1000)] = 64
    block: tuple[Literal["csam", "harmful-abusive-material"], ...] = ("csam",)

    @model_validator(mode="after")
    def _at_hand(self) -> Self:
        if self.send == "media" and self.mode == "prefetch":
            raise ValueError('send = "media" needs mode = "inline": later, the upload is no longer at hand')
        return self
