"""The matcher passes the suite for matchers, with whatever the service can do wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial

import pytest
from eokm_stubs import PASSWORD, make_matcher, query_of

from uploadguard.matchers import Query
from uploadguard.testing import fakes
from uploadguard.testing.conformance import MatcherConformance
from uploadguard.testing.fakes.eokm import FakeEokm
from uploadguard_eokm import EokmMatcher

FAULTS: tuple[fakes.Misbehaviour, ...] = (
    *fakes.CHAOS,
    *(fakes.Status(code, body=body) for code in (201, 204, 206, 404, 500) for body in (b"false", b"true")),
    fakes.Status(401, body=b"false"),
    fakes.Status(403, body=b"false"),
    fakes.Status(400, body=b"false"),
    fakes.Status(200, {"Content-Encoding": "gzip"}, b"false"),
    *(
        fakes.Garbage(body)
        for body in (b"", b'"false"', b"False", b"false\n", b" false", b"falsefalse", b"0", b"<html>false</html>")
    ),
    fakes.Redirect("http://127.0.0.1:9/v1/check/md5"),
    fakes.Huge(),
    fakes.throttled(30),
)
SLOW: tuple[fakes.Misbehaviour, ...] = (fakes.Slow(60), fakes.Drip(0.5))


class TestEokm(MatcherConformance):
    secrets = (PASSWORD, "private.jpg")
    encoding = "base64"
    formats: tuple[str, ...] = ("md5", "sha1")

    @pytest.fixture(autouse=True)
    def _service(self, fake: FakeEokm) -> None:
        self.fake = fake
        self.deadline_s = 20.0
        for number in range(10):
            self._list(b"listed %d" % number)

    def _list(self, content: bytes) -> None:
        self.fake.add("sha1", query_of(content).hashes[1].value.hex())

    def make(self) -> EokmMatcher:
        return make_matcher(
            self.fake.url, deadline_s=self.deadline_s, formats=self.formats, photodna_encoding=self.encoding
        )

    def listed(self, number: int = 0) -> Query:
        return query_of(b"listed %d" % number, *self.formats)

    def unlisted(self, number: int = 0) -> Query:
        return query_of(b"unlisted %d" % number, *self.formats)

    def traffic(self) -> int:
        return len(self.fake.requests)

    def faults(self) -> Iterator[tuple[str, Callable[[], AbstractContextManager[None]]]]:
        for kind in (*FAULTS, *SLOW):
            yield repr(kind), partial(self.misbehaving, kind)
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


class TestPhotoDna(TestEokm):
    formats = ("photodna",)
    encoding = "hex"

    def _list(self, content: bytes) -> None:
        self.fake.add("photodna", query_of(content, "photodna").hashes[0].value.hex())

    def faults(self) -> Iterator[tuple[str, Callable[[], AbstractContextManager[None]]]]:
        yield "garbage", lambda: self.misbehaving(fakes.Garbage())
