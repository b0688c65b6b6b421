"""XARF v4 reports of the category ``content`` and the type ``csam``.

They hold hashes and addresses, and never a picture.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, TypeAlias
from urllib.parse import quote, urlsplit

from pydantic import AfterValidator, Field

from uploadguard.actions import Task
from uploadguard.config_types import Frozen, Section
from uploadguard.errors import RefusedError

__all__ = ["Classification", "Email", "Party", "ReportOptions", "build_report"]

Classification: TypeAlias = Literal["baseline", "A1", "A2", "B1", "B2"]

_XARF_VERSION = "4.0.0"
"""The first one that has all that is in these reports, so that every receiver of version 4 knows it."""

_CLASSIFICATIONS: Mapping[str, Classification] = {
    "baseline": "baseline", "a1": "A1", "a2": "A2", "b1": "B1", "b2": "B2"
}  # fmt: skip
_HASHES = ("md5", "sha1", "sha256", "photodna")
_MEDIA_TYPES = ("image", "video", "audio", "text")
_HOST = r"(?=.{1,253}\Z)[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?(\.[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)*"
_LOCAL_PART = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*"
_TAG = re.compile(r"[a-z0-9][a-z0-9_+-]*:[a-z0-9][a-z0-9_+.-]*")
_MAX_TAGS = 20


def _email(text: str) -> str:
    local, _, domain = text.rpartition("@")
    if len(text) > 254 or not re.fullmatch(_LOCAL_PART, local) or not re.fullmatch(_HOST, domain):
        raise ValueError("must be an e-mail address, without a name")
    return text


def _domain(text: str) -> str:
    if not re.fullmatch(_HOST, text):
        raise ValueError("must be a domain, as example.com")
    return text


def _name(text: str) -> str:
    if not text.strip() or not text.isprintable() or len(text) > 200:
        raise ValueError("must be a name of at most 200 characters")
    return text


def _tags(tags: tuple[str, ...]) -> tuple[str, ...]:
    if len(tags) > _MAX_TAGS or not all(_TAG.fullmatch(tag) for tag in tags):
        raise ValueError(f"must be {_MAX_TAGS} tags at most, each as namespace:predicate")
    return tags


Email = Annotated[str, AfterValidator(_email)]


class Party(Section):
    """Who reports, or who sends it for them."""

    org: Annotated[str, AfterValidator(_name)]
    contact: Email
    domain: Annotated[str, AfterValidator(_domain)]


class ReportOptions(Section):
    """What a report needs besides the decision.

    ``content_url`` stands for the URL where a context has none: ``{object_id}`` and ``{reference}`` in it are filled
    in. ``classifications`` translates the categories of lists, ``classification`` is for what has none.
    """

    reporter: Party
    sender: Party | None = None
    content_url: str | None = None
    classification: Classification | None = None
    classifications: Frozen[Classification] = Field(default_factory=dict)
    tags: Annotated[tuple[str, ...], AfterValidator(_tags)] = ()


def build_report(task: Task, options: ReportOptions) -> dict[str, Any]:
    """The report of a task, the same in each attempt.

    Raises :class:`~uploadguard.errors.RefusedError` naming all that is missing which the format requires.
    """
    context, decision = task.context, task.decision
    url = _url_of(task, options)
    classification = _classification_of(task, options)
    missing = []
    if url is None:
        missing.append("an absolute URL of the content (Context.url, or content_url)")
    if classification is None:
        missing.append("a classification (from the list's category, classifications, or classification)")
    if missing:
        raise RefusedError(f"an XARF report needs {' and '.join(missing)}")
    ip = _ip(context.ip)
    report: dict[str, Any] = {
        "xarf_version": _XARF_VERSION,
        "report_id": task.key,
        "timestamp": _time(context.uploaded_at or task.decided_at),
        "reporter": options.reporter.model_dump(),
        "sender": (options.sender or options.reporter).model_dump(),
        "source_identifier": ip or url,
        "category": "content",
        "type": "csam",
        "url": url,
        "evidence_source": "automated_scan",
        "classification": classification,
        "detection_method": _detection_method(task),
    }
    if ip and context.port is not None and 1 <= context.port <= 65535:
        report["source_port"] = context.port
    kind = (decision.media.media_type or "").partition("/")[0]
    if kind in _MEDIA_TYPES:
        report["media_type"] = kind
    if values := _hash_values(task):
        report["hash_values"] = values
    if options.tags:
        report["tags"] = list(options.tags)
    return report


def _detection_method(task: Task) -> str:
    """What is true: a person who did not look at the file has not found it by reviewing it."""
    if task.confirmed_at is not None and task.viewed:
        return "manual_review"
    if any(not match.allow for match in task.decision.matches):
        return "hash_match"
    return "manual_review" if task.confirmed_at is not None else "automated_scan"


def _classification_of(task: Task, options: ReportOptions) -> Classification | None:
    """Of the first match whose category says one: matches come the weightiest first."""
    for match in task.decision.matches:
        category = match.category if not match.allow else None
        if category is not None:
            found = options.classifications.get(category) or _CLASSIFICATIONS.get(category.strip().lower())
            if found is not None:
                return found
    return options.classification


def _url_of(task: Task, options: ReportOptions) -> str | None:
    url = task.context.url
    if url is None and options.content_url is not None:
        names = {"object_id": task.context.object_id, "reference": task.decision.reference}
        url = options.content_url
        for name, value in names.items():
            if f"{{{name}}}" in url:
                if value is None:
                    return None
                url = url.replace(f"{{{name}}}", quote(value, safe="", errors="replace"))
    if url is None:
        return None
    # Other characters may stand in what a host calls a URL, but not in a URI.
    url = quote(url, safe="%/:?#[]@!$&'()*+,;=-._~", errors="replace")
    try:
        parts = urlsplit(url)
        return url if parts.scheme and parts.hostname else None
    except ValueError:
        return None


def _hash_values(task: Task) -> dict[str, str]:
    """Of the file, or of the first frame as it is; in hex."""
    found: dict[str, str] = {}
    for one in task.decision.hashes:
        if one.signal_type in _HASHES and one.variant == "original" and one.frame == 0:
            found.setdefault(one.signal_type, one.value.hex())
    return found


def _ip(text: str | None) -> str | None:
    try:
        address = ipaddress.ip_address((text or "").strip().partition("%")[0])
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped if mapped is not None else address)


def _time(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
