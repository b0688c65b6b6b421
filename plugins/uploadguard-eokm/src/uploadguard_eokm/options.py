"""The options in a table ``[matchers.NAME]`` of the kind ``eokm``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from uploadguard.destinations.http import check_base_url
from uploadguard.remote import RemoteOptions

__all__ = ["EokmOptions", "Format"]

Format = Literal["md5", "sha1", "photodna"]


def _once(formats: tuple[Format, ...]) -> tuple[Format, ...]:
    if len(set(formats)) < len(formats):
        raise ValueError("the same format stands there twice")
    return formats


class EokmOptions(RemoteOptions):
    """See the plugin's README, which describes each of them."""

    kind: Literal["eokm"]
    base_url: Annotated[str, AfterValidator(check_base_url)] = "https://api.eokmhashdb.nl"
    environment: Literal["test", "live"] = "test"
    formats: Annotated[tuple[Format, ...], Field(min_length=1), AfterValidator(_once)] = ("md5", "sha1")
    photodna_encoding: Literal["base64", "hex"] = "base64"

    @property
    def path(self) -> str:
        """Where hashes are looked up, below the base URL; a format's name follows."""
        return "/v1/test/check/" if self.environment == "test" else "/v1/check/"
