"""A HashCheckService: it says whether it has a hash, and to whoever has the password."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from uploadguard.testing.fakes.messages import Request, Response
from uploadguard.testing.fakes.server import FakeServer

__all__ = ["FakeEokm"]

_PATH = re.compile(r"/v1/(?P<test>test/)?check/(?P<format>[a-z0-9]+)")
_HASHES = {
    "md5": re.compile(r"[0-9a-fA-F]{32}"),
    "sha1": re.compile(r"[0-9a-fA-F]{40}"),
    "photodna": re.compile(r"[0-9a-fA-F]{288}|[0-9A-Za-z+/]{192}"),
}


class FakeEokm(FakeServer):
    """Answers ``true`` for a hash that was added, ``false`` for others; in the test and in the live environment.

    ``username`` and ``password`` are what it lets in; change them at will. ``asked`` counts the questions it answered,
    by environment and format.
    """

    def __init__(self, *, username: str = "host", password: str = "made-up", **server: Any) -> None:  # noqa: S107
        super().__init__(**server)
        self.username = username
        self.password = password
        self.asked: Counter[str] = Counter()
        self._hashes: set[tuple[str, str, str]] = set()

    def add(self, format_: str, text: str, *, environment: str = "test") -> None:
        """Have it know a hash, as it stands in a question."""
        with self.lock:
            self._hashes.add((environment, format_, _folded(format_, text)))

    def remove(self, format_: str, text: str, *, environment: str = "test") -> None:
        """Have it forget one."""
        with self.lock:
            self._hashes.discard((environment, format_, _folded(format_, text)))

    def answer(self, request: Request) -> Response:
        """Look one hash up."""
        found = _PATH.fullmatch(request.path)
        if found is None or found["format"] not in _HASHES:
            return Response(404)
        if not request.is_from(self.username, self.password):
            return Response(401, headers={"WWW-Authenticate": 'Basic realm="hash check"'})
        if request.method != "POST":
            return Response(405, headers={"Allow": "POST"})
        text = request.body.decode("latin-1")
        if _HASHES[found["format"]].fullmatch(text) is None:
            return Response(400)
        environment = "test" if found["test"] else "live"
        self.asked[f"{environment} {found['format']}"] += 1
        known = (environment, found["format"], _folded(found["format"], text)) in self._hashes
        return Response(200, b"true" if known else b"false", {"Content-Type": "text/plain"})

    def snapshot(self) -> dict[str, Any]:
        """What was asked."""
        return {"requests": len(self.requests), "asked": dict(self.asked)}


def _folded(format_: str, text: str) -> str:
    return text if format_ == "photodna" and len(text) == 192 else text.lower()


if __name__ == "__main__":
    from uploadguard.testing.fakes.process import run_fake

    run_fake(FakeEokm)
