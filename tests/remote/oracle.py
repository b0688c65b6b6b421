"""A service that knows MD5 hashes, and its matcher: as small as they can be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from uploadguard.matchers import Query
from uploadguard.models import Context, Hash, Match
from uploadguard.remote import RemoteMatcher, RemoteOptions, read_remote_options
from uploadguard.testing.fakes import FakeServer, Request, Response

PASSWORD = "made-up:password-of-tests ü"


class Oracle(FakeServer):
    """Says yes to what is known."""

    def __init__(self, **server: Any) -> None:
        super().__init__(**server)
        self.known: set[bytes] = set()

    def answer(self, request: Request) -> Response:
        if not request.is_from("host", PASSWORD):
            return Response(401)
        return Response(200, b"yes" if request.body in self.known else b"no")


class OracleMatcher(RemoteMatcher[bytes, bool]):
    """Asks it."""

    def __init__(self, name: str, table: dict[str, Any]) -> None:
        super().__init__(name, read_remote_options(RemoteOptions, name, table), signal_types=frozenset({"md5"}))

    def known(self, query: Query) -> Sequence[Match] | None:
        answers = [self._cache.get(item.value) for item in query.hashes]
        if True in answers:
            return self._matches()
        return None if None in answers else ()

    def match(self, query: Query, until: float) -> Sequence[Match]:
        for item in query.hashes:
            found = self._ask("/ask", item.value, until, self._read, headers={"Content-Type": "text/plain"})
            self._cache.put(item.value, found, found=found)
            if found:
                return self._matches()
        return ()

    def _matches(self) -> tuple[Match, ...]:
        return (Match(self.name, "known", None, "md5", 0, exact=True),)

    @staticmethod
    def _read(body: bytes) -> bool:
        if body not in (b"yes", b"no"):
            raise ValueError("is neither yes nor no")
        return body == b"yes"


def oracle_table(url: str, **options: Any) -> dict[str, Any]:
    """A table of the configuration."""
    common = {"kind": "oracle", "base_url": url, "username": "host", "password_env": "ORACLE_PASSWORD"}
    return {**common, "deadline_s": 20.0, **options}


def query(text: str) -> Query:
    """An upload with this made-up MD5."""
    return Query((Hash("md5", text.encode().ljust(16, b".")),), Context())
