"""What is asked, what counts as an answer, what is kept, and when the service is left alone."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from eokm_stubs import PASSWORD, ask, hashes_of, make_matcher, query_of
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from uploadguard.errors import MatcherError
from uploadguard.matchers import Query
from uploadguard.models import Context, Hash, Match
from uploadguard.testing import fakes
from uploadguard.testing.fakes.eokm import FakeEokm
from uploadguard_eokm import EokmMatcher

CONTENT = b"an ordinary picture, as far as anybody here knows"


@pytest.fixture
def matcher(fake: FakeEokm) -> Iterator[EokmMatcher]:
    made = make_matcher(fake.url)
    yield made
    made.close()


def text_of(name: str, content: bytes = CONTENT) -> str:
    return hashes_of(content, name)[0].value.hex()


def in_the_end(matcher: EokmMatcher, query: Query) -> Sequence[Match]:
    """The answer, once it is asked again."""
    until = time.monotonic() + 20.0
    while time.monotonic() < until:
        with suppress(MatcherError):
            return ask(matcher, query)
    pytest.fail("it is never asked again")


class TestQuestions:
    def test_each_format_is_asked_with_the_bare_hash(self, fake: FakeEokm, matcher: EokmMatcher) -> None:
        assert ask(matcher, query_of(CONTENT)) == ()
        asked = [(request.method, request.path, request.body.decode()) for request in fake.requests]
        assert asked == [
            ("POST", "/v1/test/check/md5", text_of("md5")),
            ("POST", "/v1/test/check/sha1", text_of("sha1")),
        ]
        assert fake.requests[0].is_from("host", PASSWORD)
        assert not any(b"private" in request.body for request in fake.requests)

    def test_the_live_environment_is_asked_when_it_is_named(self, fake: FakeEokm) -> None:
        fake.add("md5", text_of("md5"), environment="live")
        assert ask(make_matcher(fake.url), query_of(CONTENT)) == ()
        [match] = ask(make_matcher(fake.url + "/", environment="live"), query_of(CONTENT))
        assert fake.requests[-1].path == "/v1/check/md5"
        assert match.fields == {"service": "eokm", "environment": "live"}

    @pytest.mark.parametrize(("encoding", "length"), [("base64", 192), ("hex", 288)])
    def test_photodna(self, fake: FakeEokm, encoding: str, length: int) -> None:
        query = query_of(CONTENT, "photodna")
        made = make_matcher(fake.url, formats=["photodna"], photodna_encoding=encoding)
        assert made.signal_types == {"photodna"}
        assert ask(made, query) == ()
        assert len(fake.requests[0].body) == length
        fake.add("photodna", fake.requests[0].body.decode())
        [match] = ask(make_matcher(fake.url, formats=["photodna"], photodna_encoding=encoding), query)
        assert not match.exact
        assert match.signal_type == "photodna"

    def test_of_several_frames_each_hash_is_asked_once_and_no_mirrored_one(self, fake: FakeEokm) -> None:
        [one], [other] = hashes_of(b"1", "photodna"), hashes_of(b"2", "photodna")
        hashes = (
            Hash("photodna", one.value),
            Hash("photodna", one.value, frame=1),
            Hash("photodna", bytes(144), variant="rot90"),
            Hash("photodna", other.value, variant="thumbnail.original", frame=2),
        )
        made = make_matcher(fake.url, formats=["photodna"], photodna_encoding="hex")
        fake.add("photodna", other.value.hex())
        [match] = ask(made, Query(hashes, Context()))
        assert (match.frame, match.variant) == (2, "thumbnail.original")
        assert len(fake.requests) == 2

    def test_a_digest_that_is_not_there_is_a_failure(self, fake: FakeEokm, matcher: EokmMatcher) -> None:
        with pytest.raises(MatcherError, match="has no sha1"):
            ask(matcher, query_of(CONTENT, "md5"))
        assert matcher.known(query_of(CONTENT, "md5")) is None
        fake.add("md5", text_of("md5", b"other"))
        assert len(ask(matcher, query_of(b"other", "md5"))) == 1

    def test_a_picture_that_is_not_there_is_not_the_service_s_failure(self, fake: FakeEokm) -> None:
        made = make_matcher(fake.url, formats=["md5", "photodna"])
        assert ask(made, query_of(CONTENT, "md5")) == ()

    def test_connections_are_used_again(self, fake: FakeEokm, matcher: EokmMatcher) -> None:
        for number in range(20):
            ask(matcher, query_of(b"%d" % number))
        clients = matcher._client._clients
        assert clients is not None
        assert clients.kept is not None
        assert len(clients.kept._idle) == 1
        assert len(fake.requests) == 40


class TestAnswers:
    def test_a_match(self, fake: FakeEokm, matcher: EokmMatcher) -> None:
        fake.add("md5", text_of("md5").upper())
        [match] = ask(matcher, query_of(CONTENT))
        assert (match.list_name, match.entry_id, match.signal_type) == ("eokm", "md5", "md5")
        assert match.exact
        assert match.category is None
        assert match.distance_bits == 0
        assert fake.asked == {"test md5": 1}  # the other format need not be asked any more

    @pytest.mark.parametrize("kind", [fakes.Garbage(), fakes.Status(500), fakes.Reset()], ids=repr)
    def test_a_match_counts_even_if_the_other_look_up_failed(
        self, fake: FakeEokm, matcher: EokmMatcher, kind: fakes.Misbehaviour
    ) -> None:
        fake.misbehave(kind, path="*/md5", times=None)
        fake.add("sha1", text_of("sha1"))
        assert len(ask(matcher, query_of(CONTENT))) == 1
        with pytest.raises(MatcherError):
            ask(matcher, query_of(b"unknown"))

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=80, deadline=None)
    @given(st.binary(max_size=80) | st.text("truefalseTRUEFALSE \r\n\t\"'{}01", max_size=8).map(str.encode))
    @example(b"true\n")
    @example(b'"true"')
    @example(b"True")
    @example(b"TRUE")
    @example(b"\xef\xbb\xbftrue")
    @example(b"true\x00")
    @example(b"truefalse")
    @example(b"null")
    @example(b"f")
    def test_nothing_else_is_an_answer(self, fake: FakeEokm, body: bytes) -> None:
        fake.behave()
        fake.misbehave(fakes.Status(200, body=body), times=None)
        made = make_matcher(fake.url, formats=["md5"], breaker_failures=10_000)
        query = query_of(CONTENT, "md5")
        if body in (b"true", b"false"):
            assert len(ask(made, query)) == (body == b"true")
            return
        with pytest.raises(MatcherError):
            ask(made, query)
        assert made.known(query) is None
        made.close()

    @pytest.mark.parametrize(
        ("kind", "text"),
        [
            (fakes.Garbage(b"TRUE"), "neither true nor false"),
            (fakes.Status(401), "user name and password"),
            (fakes.Status(403), "user name and password"),
            (fakes.Status(404), "404"),
            (fakes.Status(204), "204"),
            (fakes.Redirect("http://127.0.0.1:9/"), "redirects are not followed"),
            (fakes.Huge(), "too long"),
            (fakes.Truncated(), "broke off"),
            (fakes.Status(200, {"Content-Encoding": "br"}, b"false"), "packed"),
        ],
        ids=repr,
    )
    def test_errors_say_what_is_wrong(
        self, fake: FakeEokm, matcher: EokmMatcher, kind: fakes.Misbehaviour, text: str
    ) -> None:
        fake.misbehave(kind, times=None)
        with pytest.raises(MatcherError, match=text):
            ask(matcher, query_of(CONTENT))

    def test_a_redirect_takes_no_credentials_along(self, fake: FakeEokm, matcher: EokmMatcher) -> None:
        with FakeEokm() as elsewhere:
            fake.misbehave(fakes.Redirect(elsewhere.url + "/v1/test/check/md5"), times=None)
            with pytest.raises(MatcherError):
                ask(matcher, query_of(CONTENT))
            assert elsewhere.requests == []

    def test_a_password_file_is_read_anew(self, fake: FakeEokm, tmp_path: Path) -> None:
        file = tmp_path / "password"
        file.write_text("an old one\n")
        made = make_matcher(fake.url, password_env=None, password_file=file, breaker_pause_s=0.01)
        with pytest.raises(MatcherError, match="user name and password"):
            ask(made, query_of(CONTENT))
        file.unlink()
        fake.clock.advance(1)
        with pytest.raises(MatcherError):
            ask(made, query_of(CONTENT))
        file.write_text(PASSWORD + "\n")
        assert in_the_end(made, query_of(CONTENT)) == ()


class TestKept:
    def test_answers_are_kept(self, fake: FakeEokm, matcher: EokmMatcher) -> None:
        fake.add("md5", text_of("md5"))
        assert matcher.known(query_of(CONTENT)) is None
        [match] = ask(matcher, query_of(CONTENT))
        assert ask(matcher, query_of(b"unknown")) == ()
        assert matcher.known(query_of(CONTENT)) == (match,)
        assert matcher.known(query_of(b"unknown")) == ()
        fake.stop()
        assert list(ask(matcher, query_of(CONTENT))) == [match]
        assert ask(matcher, query_of(b"unknown")) == ()

    def test_half_an_answer_is_not_known_but_not_asked_again(self, fake: FakeEokm, matcher: EokmMatcher) -> None:
        fake.misbehave(fakes.Status(500), path="*/sha1")
        with pytest.raises(MatcherError):
            ask(matcher, query_of(CONTENT))
        assert matcher.known(query_of(CONTENT)) is None
        assert ask(matcher, query_of(CONTENT)) == ()
        assert fake.asked == {"test md5": 1, "test sha1": 1}

    def test_an_answer_that_another_thread_got_meanwhile_counts(
        self, fake: FakeEokm, matcher: EokmMatcher, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fake.add("sha1", text_of("sha1"))
        ask(matcher, query_of(CONTENT))
        monkeypatch.setattr(matcher, "known", lambda _: None)
        assert len(ask(matcher, query_of(CONTENT))) == 1

    def test_nothing_is_kept_if_so_wished(self, fake: FakeEokm) -> None:
        made = make_matcher(fake.url, cache_entries=0)
        for _ in range(2):
            ask(made, query_of(CONTENT))
        assert made.known(query_of(CONTENT)) is None
        assert len(fake.requests) == 4

    def test_no_more_than_so_many(self, fake: FakeEokm) -> None:
        made = make_matcher(fake.url, cache_entries=10)
        for number in range(40):
            if number < 20:
                fake.add("md5", text_of("md5", b"%d" % number))
            ask(made, query_of(b"%d" % number))
        assert len(made._cache) == 20


class TestLeftAlone:
    def test_after_failures_in_a_row(self, fake: FakeEokm) -> None:
        made = make_matcher(fake.url, formats=["md5"], breaker_failures=3)
        fake.misbehave(fakes.Status(500), times=None)
        for number in range(10):
            with pytest.raises(MatcherError):
                ask(made, query_of(b"%d" % number, "md5"))
        assert len(fake.requests) == 3
        fake.behave()
        with pytest.raises(MatcherError, match="not asked for a while, since it answered 500"):
            ask(made, query_of(CONTENT, "md5"))

    @pytest.mark.parametrize(
        "kind", [fakes.Status(401), fakes.Status(403), fakes.throttled(60), fakes.throttled(9, 503)]
    )
    def test_at_once_where_there_is_no_point_in_asking(self, fake: FakeEokm, kind: fakes.Misbehaviour) -> None:
        made = make_matcher(fake.url)
        fake.misbehave(kind, times=None)
        for number in range(5):
            with pytest.raises(MatcherError):
                ask(made, query_of(b"%d" % number))
        assert len(fake.requests) == 1

    def test_until_it_answers_again(self, fake: FakeEokm) -> None:
        made = make_matcher(fake.url, formats=["md5"], breaker_failures=1, breaker_pause_s=0.05)
        fake.misbehave(fakes.Status(500))
        with pytest.raises(MatcherError):
            ask(made, query_of(CONTENT, "md5"))
        assert in_the_end(made, query_of(CONTENT, "md5")) == ()
        assert len(fake.requests) == 2

    def test_not_for_what_one_upload_did(self, fake: FakeEokm) -> None:
        made = make_matcher(fake.url, formats=["md5"], breaker_failures=2)
        for code in (400, 413, 415, 422):
            fake.misbehave(fakes.Status(code))
            with pytest.raises(MatcherError):
                ask(made, query_of(CONTENT, "md5"))
        assert ask(made, query_of(CONTENT, "md5")) == ()


def test_no_more_calls_at_once_than_allowed(fake: FakeEokm) -> None:
    made = make_matcher(fake.url, formats=["md5"], max_calls=2)
    fake.misbehave(fakes.Slow(60), times=None)
    with ThreadPoolExecutor(2) as pool:
        begun = [pool.submit(ask, made, query_of(b"%d" % number, "md5")) for number in range(2)]
        while len(fake.requests) < 2:
            pass
        for number in range(4):
            with pytest.raises(MatcherError, match="too many questions were waiting"):
                ask(made, query_of(b"further %d" % number, "md5"), 0.02)
        fake.stop()
        assert all(future.exception() for future in begun)
    fake.behave()
    fake.start()
    assert ask(made, query_of(CONTENT, "md5")) == ()


def test_many_threads_and_a_service_that_fails_at_random(fake: FakeEokm) -> None:
    """No listed upload ever passes for unknown, whatever happens to its look-ups."""
    fake.misbehave(*fakes.CHAOS, *(fakes.Garbage(body) for body in (b"", b"False")), times=None, probability=0.3)
    listed = [b"listed %d" % number for number in range(60)]
    for content in listed:
        fake.add("sha1", text_of("sha1", content))
    made = make_matcher(fake.url, breaker_failures=50, breaker_pause_s=0.01)
    uploads = [*listed, *(b"unlisted %d" % number for number in range(60))] * 4
    random.Random(7).shuffle(uploads)  # noqa: S311 - nothing secret

    def outcome(content: bytes) -> tuple[bool, int | None]:
        try:
            return content.startswith(b"listed"), len(ask(made, query_of(content)))
        except MatcherError:
            return content.startswith(b"listed"), None

    with ThreadPoolExecutor(16) as pool:
        outcomes = set(pool.map(outcome, uploads))
    assert (True, 0) not in outcomes
    assert (False, 1) not in outcomes
    assert {(True, 1), (False, 0)} <= outcomes


def test_neither_hashes_nor_secrets_are_logged(fake: FakeEokm, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        fake.add("md5", text_of("md5"))
        made = make_matcher(fake.url, breaker_failures=1)
        ask(made, query_of(CONTENT))
        fake.misbehave(fakes.Status(401, body=PASSWORD.encode()))
        with pytest.raises(MatcherError):
            ask(made, query_of(b"another"))
    assert "not asked for a while" in caplog.text
    for secret in (PASSWORD, text_of("md5"), text_of("md5", b"another"), "private", "host:"):
        assert secret not in caplog.text
        assert secret not in repr(made)
