"""The form of the documents: which elements, in which order, how many, with which values.

Of the CyberTipline's schema this has the part that the plugin sends. :func:`build` makes a document of plain values and
refuses what the schema would.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias, get_args
from xml.etree import ElementTree as ET

from uploadguard_ncmec.values import clean, is_address, is_email, is_flag, is_id, is_port, is_time, time_text

__all__ = ["FILE_DETAILS", "NAMES", "REPORT", "Attributed", "DocumentError", "Group", "IncidentType", "Leaf", "build"]


class DocumentError(Exception):
    """A document cannot be made of these values. The text names the element, never a value."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """An element with text. ``lines``: the text may have several; ``attribute`` is one that it must have."""

    name: str
    check: Callable[[str], bool] | None = None
    max_chars: int = 4000
    lines: bool = False
    attribute: str | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """An element with elements, in this order."""

    name: str
    uses: tuple[Use, ...]


@dataclass(frozen=True, slots=True)
class Use:
    """An element's place in a group."""

    element: Element
    required: bool = False
    many: bool = False


Element: TypeAlias = Leaf | Group


@dataclass(frozen=True, slots=True)
class Attributed:
    """The text of a leaf, with the value of its attribute."""

    text: str = field(repr=False)
    attribute: str


def one(element: Element) -> Use:
    """Exactly one."""
    return Use(element, required=True)


def many(element: Element) -> Use:
    """Any number."""
    return Use(element, many=True)


def maybe(*elements: Element) -> tuple[Use, ...]:
    """At most one of each."""
    return tuple(Use(element) for element in elements)


IncidentType = Literal[
    "Child Pornography (possession, manufacture, and distribution)",
    "Child Sex Trafficking",
    "Child Sex Tourism",
    "Child Sexual Molestation",
    "Misleading Domain Name",
    "Misleading Words or Digital Images on the Internet",
    "Online Enticement of Children for Sexual Acts",
    "Unsolicited Obscene Material Sent to a Child",
]
_MAX_INFO_CHARS = 20_000

_INFO = Leaf("additionalInfo", max_chars=_MAX_INFO_CHARS, lines=True)
_EMAIL = Leaf("email", is_email)
_PERSON = (*maybe(Leaf("firstName"), Leaf("lastName")), many(Leaf("phone")), many(_EMAIL))
_IP_CAPTURE = Group(
    "ipCaptureEvent",
    (
        one(Leaf("ipAddress", is_address)),
        *maybe(
            Leaf("eventName", ("Upload",).__contains__),
            Leaf("dateTime", is_time),
            Leaf("possibleProxy", is_flag),
            Leaf("port", is_port),
        ),
    ),
)

REPORT = Group(
    "report",
    (
        one(
            Group(
                "incidentSummary",
                (
                    one(Leaf("incidentType", get_args(IncidentType).__contains__)),
                    *maybe(Leaf("platform")),
                    one(Leaf("incidentDateTime", is_time)),
                    *maybe(Leaf("incidentDateTimeDescription")),
                ),
            )
        ),
        many(Group("internetDetails", (one(Group("webPageIncident", (many(Leaf("url")), *maybe(_INFO)))),))),
        one(
            Group(
                "reporter",
                (
                    one(Group("reportingPerson", _PERSON)),
                    *maybe(
                        Group("contactPerson", _PERSON),
                        Leaf("companyTemplate", lines=True),
                        Leaf("termsOfService", lines=True),
                        Leaf("legalURL"),
                    ),
                ),
            )
        ),
        many(
            Group(
                "personOrUserReported",
                (
                    *maybe(
                        Group("personOrUserReportedPerson", _PERSON),
                        Leaf("espIdentifier"),
                        Leaf("espService"),
                        Leaf("screenName"),
                    ),
                    many(Leaf("profileUrl")),
                    many(_IP_CAPTURE),
                    *maybe(_INFO),
                ),
            )
        ),
        *maybe(_INFO),
    ),
)

FILE_DETAILS = Group(
    "fileDetails",
    (
        one(Leaf("reportId", is_id)),
        one(Leaf("fileId")),
        *maybe(
            Leaf("fileName"),
            Leaf("originalFileName"),
            Leaf("uploadedToEspTimestamp", is_time),
            Leaf("locationOfFile"),
            Leaf("fileViewedByEsp", is_flag),
            Leaf("exifViewedByEsp", is_flag),
            Leaf("publiclyAvailable", is_flag),
            Leaf("industryClassification", ("A1", "A2", "B1", "B2").__contains__),
        ),
        many(Leaf("originalFileHash", attribute="hashType")),
        *maybe(_IP_CAPTURE),
        many(_INFO),
    ),
)


def _names(element: Element) -> set[str]:
    if isinstance(element, Leaf):
        return {element.name}
    return {element.name}.union(*(_names(use.element) for use in element.uses))


NAMES = frozenset(_names(REPORT) | _names(FILE_DETAILS))
"""The names of all elements."""


def build(group: Group, values: Mapping[str, Any]) -> bytes:
    """The document as UTF-8.

    ``values`` has, by element name, text, truth values, numbers, times, :class:`Attributed`, mappings of the same kind,
    and sequences of these. What is None or empty is left out. Raises :class:`DocumentError`.
    """
    root = _group(group, values, group.name)
    if root is None:
        raise DocumentError(f"{group.name}: is empty")
    document: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return document


def _group(group: Group, values: object, place: str) -> ET.Element | None:
    """The element, or None where it would be empty."""
    if not isinstance(values, Mapping):
        raise DocumentError(f"{place}: holds elements")
    unknown = values.keys() - {use.element.name for use in group.uses}
    if unknown:
        raise DocumentError(f"{place}: has no place for {', '.join(sorted(unknown))}")
    parent = ET.Element(group.name)
    missing = []
    for use in group.uses:
        value = values.get(use.element.name)
        items = value if use.many and isinstance(value, Sequence) and not isinstance(value, str) else (value,)
        made = [_element(use.element, item, f"{place}/{use.element.name}") for item in items if item is not None]
        parent.extend([element for element in made if element is not None])
        if use.required and not any(element is not None for element in made):
            missing.append(use.element.name)
    if len(parent) == 0:
        return None
    if missing:
        raise DocumentError(f"{place}/{missing[0]}: is missing")
    return parent


def _element(element: Element, value: object, place: str) -> ET.Element | None:
    return _leaf(element, value, place) if isinstance(element, Leaf) else _group(element, value, place)


def _leaf(leaf: Leaf, value: object, place: str) -> ET.Element | None:
    attributes = {}
    if isinstance(value, Attributed):
        if leaf.attribute is None:
            raise DocumentError(f"{place}: has no attribute")
        attributes[leaf.attribute] = clean(value.attribute, 100)
        value = value.text
    elif leaf.attribute is not None:
        raise DocumentError(f"{place}: needs the attribute {leaf.attribute}")
    text = clean(_text(value, place), leaf.max_chars, lines=leaf.lines)
    if not text:
        return None
    if leaf.check is not None and not leaf.check(text):
        raise DocumentError(f"{place}: its value is not allowed")
    made = ET.Element(leaf.name, attributes)
    made.text = text
    return made


def _text(value: object, place: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, datetime):
        return time_text(value.astimezone(UTC))
    raise DocumentError(f"{place}: cannot hold a {type(value).__name__}")
