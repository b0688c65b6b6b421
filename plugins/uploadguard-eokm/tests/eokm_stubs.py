"""Made-up uploads, and matchers of a fake service."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from typing import Any

from uploadguard.matchers import Query
from uploadguard.models import Context, Hash, Match
from uploadguard_eokm import EokmMatcher, uploadguard_matchers

PASSWORD = "made-up:password-of-tests ü"  # noqa: S105 - of the fake


def table(url: str, **options: Any) -> dict[str, Any]:
    """A table of the configuration."""
    return {
        "kind": "eokm",
        "base_url": url,
        "username": "host",
        "password_env": "EOKM_PASSWORD",
        "deadline_s": 20.0,
        **options,
    }


def make_matcher(url: str, **options: Any) -> EokmMatcher:
    """The matcher that the plugin makes of such a table."""
    [matcher] = uploadguard_matchers({"eokm": table(url, **options), "other": {"kind": "made-up"}})
    assert isinstance(matcher, EokmMatcher)
    return matcher


def hashes_of(content: bytes, *names: str) -> tuple[Hash, ...]:
    """The digests of these bytes; for photodna, 144 bytes made of them."""
    return tuple(Hash(name, _value(content, name)) for name in names)


def _value(content: bytes, name: str) -> bytes:
    if name == "photodna":
        return (hashlib.sha512(content).digest() * 3)[:144]
    return hashlib.new(name, content).digest()


def query_of(content: bytes, *names: str) -> Query:
    """What an upload of these bytes makes of it."""
    return Query(hashes_of(content, *(names or ("md5", "sha1"))), Context(filename="private.jpg"))


def ask(matcher: EokmMatcher, query: Query, wait_s: float = 20.0) -> Sequence[Match]:
    """The answer."""
    return matcher.match(query, time.monotonic() + wait_s)
