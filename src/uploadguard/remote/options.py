"""The options that all tables ``[matchers.NAME]`` of services over HTTP take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, Strict, StringConstraints, model_validator

from uploadguard.config_types import Count, Section, Span, Whole
from uploadguard.destinations.http import check_base_url
from uploadguard.destinations.options import EnvName, SecretFile, read_options

__all__ = ["RemoteOptions", "read_remote_options"]


def _no_allow(value: object) -> object:
    if value == "allow":
        raise ValueError(
            "must not be allow: an upload that the service was not asked about would pass as if it had been; "
            "not_scanned tells the two apart and lets the host choose"
        )
    return value


class RemoteOptions(Section):
    """See docs/match-services.md, which describes each of them. A kind adds its own, and may set other defaults."""

    kind: str
    base_url: Annotated[str, AfterValidator(check_base_url)]
    username: Annotated[str, StringConstraints(min_length=1, pattern="^[^:]+$"), Field(repr=False)]
    password_env: EnvName | None = None
    password_file: SecretFile | None = None
    mode: Literal["inline", "prefetch"] = "inline"
    on_failure: Annotated[Literal["queue", "block", "not_scanned"], BeforeValidator(_no_allow)] = "queue"
    deadline_s: Annotated[float, Strict(), Field(ge=0.05, le=60, allow_inf_nan=False)] = 2.0
    retry_s: Span = 900.0
    max_calls: Annotated[Whole, Field(ge=1, le=1024)] = 16
    cache_entries: Count = 100_000
    cache_matches_s: Span = 86_400.0
    cache_others_s: Span = 300.0
    breaker_failures: Annotated[Whole, Field(ge=1)] = 5
    breaker_pause_s: Annotated[Span, Field(gt=0, le=3600)] = 10.0

    @model_validator(mode="after")
    def _one_password(self) -> Self:
        if (self.password_env is None) == (self.password_file is None):
            raise ValueError("needs either password_env or password_file")
        return self


M = TypeVar("M", bound=RemoteOptions)


def read_remote_options(model: type[M], name: str, table: Mapping[str, Any]) -> M:
    """The options in the table ``[matchers.NAME]``. Raises :class:`~uploadguard.errors.ConfigError`."""
    return read_options(model, name, table, section="matchers")
