"""Both matchers pass the suite for matchers, with whatever the service can do wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Literal

import pytest
from arachnid_stubs import PASSWORD, jpeg, make_matcher, media_query, pdq_of, pdq_query

from uploadguard.matchers import Query
from uploadguard.testing import fakes
from uploadguard.testing.conformance import RemoteMatcherConformance
from uploadguard.testing.fakes.arachnid import FakeArachnid
from uploadguard_arachnid import MediaMatcher, PdqMatcher

ODD = (
    b"{}", b"[]", b"null", b"false", b'{"scanned_hashes": {}}', b'{"scanned_hashes": null}',
    b'{"classification": "no-known-match", "match_type": null}', b"[" * 100_000,
    b'{"a": 1, "a": 2}', b'{"scanned_hashes": NaN}', b'{"detail": "made up"}',
)  # fmt: skip


class TestPdq(RemoteMatcherConformance):
    secrets = (PASSWORD, "private.jpg")
    send: Literal["pdq", "media"] = "pdq"

    misbehaviours = (
        *(fakes.Garbage(body) for body in ODD),
        *(fakes.Status(code, body=b'{"detail": "made up"}') for code in (400, 401, 404, 415, 500)),
    )
    fake: FakeArachnid

    @pytest.fixture(autouse=True)
    def _service(self, fake: FakeArachnid) -> None:
        self.fake = fake
        for number in range(10):
            fake.add_pdq(pdq_of(b"listed %d" % number))
            fake.add_media(jpeg(b"listed %d" % number))

    def make(self) -> PdqMatcher | MediaMatcher:
        return make_matcher(self.fake.url, deadline_s=self.deadline_s, send=self.send)

    def listed(self, number: int = 0) -> Query:
        return pdq_query(b"listed %d" % number)

    def unlisted(self, number: int = 0) -> Query:
        return pdq_query(b"unlisted %d" % number)

    def faults(self) -> Iterator[tuple[str, Callable[[], AbstractContextManager[None]]]]:
        yield from super().faults()
        yield "a wrong password", self.wrong_password

    @contextmanager
    def wrong_password(self) -> Iterator[None]:
        self.fake.password = "another"  # noqa: S105 - of the fake
        yield
        self.fake.password = PASSWORD


class TestMedia(TestPdq):
    send = "media"

    def listed(self, number: int = 0) -> Query:
        return media_query(b"listed %d" % number)

    def unlisted(self, number: int = 0) -> Query:
        return media_query(b"unlisted %d" % number)
