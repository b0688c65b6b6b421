"""Both matchers pass the suite for matchers, with whatever the service can do wrong."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Literal

import pytest
from arachnid_stubs import PASSWORD, jpeg, make_matcher, media_query, pdq_of, pdq_query

from uploadguard.matchers import Query
from uploadguard.testing import fakes
from uploadguard.testing.conformance import MatcherConformance
from uploadguard.testing.fakes.arachnid import FakeArachnid
from uploadguard_arachnid import MediaMatcher, PdqMatcher

FAULTS: tuple[fakes.Misbehaviour, ...] = (
    *fakes.CHAOS,
    *(fakes.Status(code, body=b'{"detail": "made up"}') for code in (400, 401, 403, 404, 413, 415, 422, 500)),
    *(fakes.Status(code, body=b'{"scanned_hashes": {}}') for code in (201, 204, 206)),
    *(
        fakes.Garbage(body)
        for body in (
            b"", b"{}", b"[]", b"null", b"false", b'{"scanned_hashes": {}}', b'{"scanned_hashes": null}',
            b'{"classification": "no-known-match", "match_type": null}', b"<html></html>", b"[" * 100_000,
            b'{"a": 1, "a": 2}', b'{"scanned_hashes": NaN}', json.dumps({"detail": "made up"}).encode(),
        )
    ),
    fakes.Redirect("http://127.0.0.1:9/v1/pdq/"),
    fakes.Huge(),
    fakes.throttled(30),
)  # fmt: skip
SLOW: tuple[fakes.Misbehaviour, ...] = (fakes.Slow(60), fakes.Drip(0.5))


class TestPdq(MatcherConformance):
    secrets = (PASSWORD, "private.jpg")
    send: Literal["pdq", "media"] = "pdq"

    @pytest.fixture(autouse=True)
    def _service(self, fake: FakeArachnid) -> None:
        self.fake = fake
        self.deadline_s = 20.0
        for number in range(10):
            fake.add_pdq(pdq_of(b"listed %d" % number))
            fake.add_media(jpeg(b"listed %d" % number))

    def make(self) -> PdqMatcher | MediaMatcher:
        return make_matcher(self.fake.url, deadline_s=self.deadline_s, send=self.send)

    def listed(self, number: int = 0) -> Query:
        return pdq_query(b"listed %d" % number)

    def unlisted(self, number: int = 0) -> Query:
        return pdq_query(b"unlisted %d" % number)

    def traffic(self) -> int:
        return len(self.fake.requests)

    def faults(self) -> Iterator[tuple[str, Callable[[], AbstractContextManager[None]]]]:
        for kind in (*FAULTS, *SLOW):
            yield repr(kind)[:80], partial(self.misbehaving, kind)
        yield "a wrong password", self.wrong_password
        yield "nobody there", self.down

    def hangs(self) -> AbstractContextManager[None]:
        return self.misbehaving(fakes.Slow(600))

    @contextmanager
    def misbehaving(self, kind: fakes.Misbehaviour) -> Iterator[None]:
        self.deadline_s = 0.2 if kind in SLOW else 20.0
        self.fake.misbehave(kind, times=None)
        yield
        self.fake.behave()
        self.deadline_s = 20.0

    @contextmanager
    def wrong_password(self) -> Iterator[None]:
        self.fake.password = "another"  # noqa: S105 - of the fake
        yield
        self.fake.password = PASSWORD

    @contextmanager
    def down(self) -> Iterator[None]:
        self.fake.stop()
        yield
        self.fake.start()


class TestMedia(TestPdq):
    send = "media"

    def listed(self, number: int = 0) -> Query:
        return media_query(b"listed %d" % number)

    def unlisted(self, number: int = 0) -> Query:
        return media_query(b"unlisted %d" % number)
