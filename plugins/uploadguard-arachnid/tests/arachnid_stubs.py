"""Made-up uploads, and matchers of a fake service."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from typing import Any

from uploadguard.matchers import Query
from uploadguard.models import Context, Hash, Match
from uploadguard.signals.pdq import VARIANTS
from uploadguard_arachnid import MediaMatcher, PdqMatcher, uploadguard_matchers

PASSWORD = "made-up:password-of-tests ü"  # noqa: S105 - of the fake
CONTEXT = Context(filename="private.jpg")


def table(url: str, **options: Any) -> dict[str, Any]:
    """A table of the configuration."""
    return {
        "kind": "arachnid",
        "base_url": url,
        "username": "host",
        "password_env": "ARACHNID_PASSWORD",
        "deadline_s": 20.0,
        **options,
    }


def make_matcher(url: str, **options: Any) -> PdqMatcher | MediaMatcher:
    """The matcher that the plugin makes of such a table."""
    [matcher] = uploadguard_matchers({"shield": table(url, **options), "other": {"kind": "made-up"}})
    assert isinstance(matcher, PdqMatcher | MediaMatcher)
    return matcher


def pdq_of(content: bytes, variant: str = "original") -> bytes:
    """A made-up hash; those of different contents are far apart."""
    return hashlib.sha256(content + variant.encode()).digest()


def pdq_query(content: bytes, *, quality: int = 90, variants: Sequence[str] = VARIANTS) -> Query:
    """What the check makes of a picture."""
    return Query(tuple(Hash("pdq", pdq_of(content, name), quality, name) for name in variants), CONTEXT)


def jpeg(text: bytes) -> bytes:
    """What is taken for a JPEG by its first bytes."""
    return b"\xff\xd8\xff\xe0" + text


def media_query(text: bytes) -> Query:
    """What the check makes of these bytes before they are decoded."""
    content = jpeg(text)
    return Query((Hash("sha256", hashlib.sha256(content).digest()),), CONTEXT, content=content)


def ask(matcher: PdqMatcher | MediaMatcher, query: Query, wait_s: float = 20.0) -> Sequence[Match]:
    """The answer."""
    return matcher.match(query, time.monotonic() + wait_s)
