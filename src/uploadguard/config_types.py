"""What the settings models are made of."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, TypeAlias, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer, Strict

__all__ = ["NO_KEYS", "Count", "Flag", "Frozen", "LimitBits", "Names", "Section", "Span", "UniqueNames", "Whole"]

T = TypeVar("T")


def _unique(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < len(names):
        raise ValueError("the same name stands there twice")
    return names


Flag: TypeAlias = Annotated[bool, Strict()]
Whole: TypeAlias = Annotated[int, Strict()]
Names: TypeAlias = tuple[Annotated[str, Field(min_length=1)], ...]
UniqueNames: TypeAlias = Annotated[Names, AfterValidator(_unique)]
# Half of PDQ's 256 bits is where unrelated pictures lie.
LimitBits: TypeAlias = Annotated[int, Strict(), Field(ge=0, le=127)]
Frozen: TypeAlias = Annotated[Mapping[str, T], AfterValidator(MappingProxyType), PlainSerializer(dict)]
Count: TypeAlias = Annotated[int, Strict(), Field(ge=0)]
Span: TypeAlias = Annotated[float, Strict(), Field(ge=0, allow_inf_nan=False)]

NO_KEYS: Any = Field(default_factory=lambda: MappingProxyType({}))


class Section(BaseModel):
    """One table."""

    model_config = ConfigDict(frozen=True, extra="forbid")
