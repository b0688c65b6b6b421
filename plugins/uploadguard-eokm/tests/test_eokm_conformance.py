"""The matcher passes the suite for matchers, with whatever the service can do wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
from eokm_stubs import PASSWORD, make_matcher, query_of

from uploadguard.matchers import Query
from uploadguard.testing import fakes
from uploadguard.testing.conformance import RemoteMatcherConformance
from uploadguard.testing.fakes.eokm import FakeEokm
from uploadguard_eokm import EokmMatcher

ODD = (b'"false"', b"False", b"false\n", b" false", b"falsefalse", b"0", b"<html>false</html>")


class TestEokm(RemoteMatcherConformance):
    secrets = (PASSWORD, "private.jpg")
    encoding = "base64"
    formats: tuple[str, ...] = ("md5", "sha1")

    misbehaviours = (
        *(fakes.Garbage(body) for body in ODD),
        *(fakes.Status(code, body=b"false") for code in (201, 203, 206, 401, 403, 404, 500)),
        fakes.Status(200, {"Content-Encoding": "gzip"}, b"false"),
    )
    fake: FakeEokm

    @pytest.fixture(autouse=True)
    def _service(self, fake: FakeEokm) -> None:
        self.fake = fake
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

    def faults(self) -> Iterator[tuple[str, Callable[[], AbstractContextManager[None]]]]:
        yield from super().faults()
        yield "a wrong password", self.wrong_password

    @contextmanager
    def wrong_password(self) -> Iterator[None]:
        self.fake.password = "another"  # noqa: S105 - of the fake
        yield
        self.fake.password = PASSWORD


class TestPhotoDna(TestEokm):
    formats = ("photodna",)
    encoding = "hex"

    def _list(self, content: bytes) -> None:
        self.fake.add("photodna", query_of(content, "photodna").hashes[0].value.hex())

    def faults(self) -> Iterator[tuple[str, Callable[[], AbstractContextManager[None]]]]:
        yield "garbage", lambda: self.misbehaving(fakes.Garbage())
