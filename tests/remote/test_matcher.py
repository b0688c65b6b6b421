"""What all matchers of services over HTTP have: options, credentials, bounds, and failures that stay failures."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.remote.oracle import PASSWORD, Oracle, OracleMatcher, oracle_table, query
from uploadguard.errors import ConfigError, MatcherError
from uploadguard.matchers import Matcher, Query
from uploadguard.models import Verdict
from uploadguard.remote import RemoteOptions, ServiceFailure
from uploadguard.testing import fakes
from uploadguard.testing.conformance import RemoteMatcherConformance
from uploadguard.testing.offline import loopback_only

URL = "http://127.0.0.1:9"
DEFAULTS = {"kind": "oracle", "base_url": URL, "username": "host", "password_env": "ORACLE_PASSWORD"}


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with loopback_only():
        monkeypatch.setenv("ORACLE_PASSWORD", PASSWORD)
        yield


@pytest.fixture
def oracle() -> Iterator[Oracle]:
    with Oracle() as server:
        yield server


def ask(matcher: OracleMatcher, text: str = "a", wait_s: float = 20.0) -> bool:
    return len(matcher.match(query(text), time.monotonic() + wait_s)) > 0


class TestConformance(RemoteMatcherConformance):
    secrets = (PASSWORD,)

    @pytest.fixture(autouse=True)
    def _service(self, oracle: Oracle) -> None:
        self.fake = oracle
        oracle.known.update(self.listed(number).hashes[0].value for number in range(10))

    def make(self) -> Matcher:
        return OracleMatcher("oracle", oracle_table(self.fake.url, deadline_s=self.deadline_s))

    def listed(self, number: int = 0) -> Query:
        return query(f"listed {number}")

    def unlisted(self, number: int = 0) -> Query:
        return query(f"unlisted {number}")


class TestOptions:
    def test_defaults(self) -> None:
        matcher = OracleMatcher("oracle", DEFAULTS)
        assert matcher.on_failure is Verdict.QUEUE
        assert not matcher.prefetch
        assert (matcher.deadline_s, matcher.max_calls, matcher.retry_s) == (2.0, 16, 900.0)

    def test_changes(self) -> None:
        changes = {"mode": "prefetch", "on_failure": "not_scanned", "deadline_s": 0.5, "max_calls": 3, "retry_s": 7.0}
        matcher = OracleMatcher("oracle", oracle_table(URL, **changes))
        assert (matcher.prefetch, matcher.on_failure) == (True, Verdict.NOT_SCANNED)
        assert (matcher.deadline_s, matcher.max_calls, matcher.retry_s) == (0.5, 3, 7.0)

    @pytest.mark.parametrize(
        ("changes", "problem"),
        [
            ({"base_url": "http://host.example"}, r"\.base_url: must begin with https://, since [a-z ]+$"),
            ({"base_url": "https://u:p@host.example"}, r"\.base_url: must not hold credentials"),
            ({"base_url": "https://host.example/?x"}, r"\.base_url: must not have a query"),
            ({"base_url": "host"}, r"\.base_url: "),
            ({"username": ""}, r"\.username: "),
            ({"username": "a:b"}, r"\.username: "),
            ({"password_env": "NOT_SET_ANYWHERE"}, r"\.password_env: .*not set"),
            ({"password_env": None}, ": needs either password_env or password_file"),
            ({"password_file": __file__}, ": needs either password_env or password_file"),
            ({"password_env": None, "password_file": "/nowhere/at/all"}, r"\.password_file: "),
            ({"mode": "later"}, r"\.mode: .*inline.*prefetch"),
            ({"on_failure": "allow"}, r"\.on_failure: must not be allow: an upload that the service was not asked"),
            ({"on_failure": "pass"}, r"\.on_failure: .*queue.*block.*not_scanned"),
            ({"deadline_s": 0.0}, r"\.deadline_s: "),
            ({"deadline_s": float("inf")}, r"\.deadline_s: "),
            ({"retry_s": -1.0}, r"\.retry_s: "),
            ({"max_calls": 0}, r"\.max_calls: "),
            ({"breaker_failures": 0}, r"\.breaker_failures: "),
            ({"breaker_pause_s": 0.0}, r"\.breaker_pause_s: "),
            ({"cache_entries": -1}, r"\.cache_entries: "),
            ({"cache_others_s": -1.0}, r"\.cache_others_s: "),
            ({"pasword": "x"}, r"\.pasword: unknown key"),
        ],
    )  # fmt: skip
    def test_a_mistake_is_named_by_its_key(self, changes: dict[str, Any], problem: str) -> None:
        with pytest.raises(ConfigError, match=r"^matchers\.oracle" + problem):
            OracleMatcher("oracle", oracle_table(URL, **changes))

    def test_every_option_is_documented(self) -> None:
        text = (Path(__file__).parents[2] / "docs" / "match-services.md").read_text()
        assert {name for name in RemoteOptions.model_fields if f"`{name}`" not in text} == set()


class TestCredentials:
    def test_a_file_is_read_anew_and_its_loss_is_a_failure(self, oracle: Oracle, tmp_path: Path) -> None:
        file = tmp_path / "password"
        file.write_text(PASSWORD + "\n")
        options = {"password_env": None, "password_file": file, "breaker_pause_s": 0.001}
        matcher = OracleMatcher("oracle", oracle_table(oracle.url, **options))
        assert not ask(matcher)
        file.unlink()
        with pytest.raises(MatcherError, match="there is no secret"):
            ask(matcher)
        file.write_text("another")
        time.sleep(0.01)
        with pytest.raises(MatcherError, match=r"does not accept the user name and password \(401\)"):
            ask(matcher)
        file.write_text(PASSWORD)
        time.sleep(0.01)
        assert not ask(matcher)

    def test_nothing_of_an_answer_is_quoted(self, oracle: Oracle) -> None:
        oracle.misbehave(fakes.Status(500, {"X-Secret": "of-a-header"}, b"of-a-body"), fakes.Garbage(b"of-a-body"))
        matcher = OracleMatcher("oracle", oracle_table(oracle.url))
        with pytest.raises(ServiceFailure) as caught:
            ask(matcher)
        assert "of-a" not in repr(caught.value) + str(caught.value)
        assert "127.0.0.1" not in str(caught.value)


class TestBreaker:
    def test_waiting_in_our_own_queue_is_not_the_service_s_failure(self, oracle: Oracle) -> None:
        matcher = OracleMatcher("oracle", oracle_table(oracle.url, breaker_failures=1, deadline_s=20.0))
        oracle.misbehave(fakes.Slow(60))
        with pytest.raises(MatcherError, match="took longer"):
            ask(matcher, wait_s=0.1)
        assert not ask(matcher)

    def test_a_service_that_is_slow_is(self, oracle: Oracle) -> None:
        matcher = OracleMatcher("oracle", oracle_table(oracle.url, breaker_failures=1, deadline_s=0.2))
        oracle.misbehave(fakes.Slow(60))
        with pytest.raises(MatcherError, match="took longer"):
            ask(matcher, wait_s=0.2)
        with pytest.raises(MatcherError, match="not asked for a while, since it took longer"):
            ask(matcher)

    def test_nobody_there_is_even_when_time_is_short(self, oracle: Oracle) -> None:
        oracle.stop()
        matcher = OracleMatcher("oracle", oracle_table(oracle.url, breaker_failures=1, deadline_s=60.0))
        with pytest.raises(MatcherError, match="no connection"):
            ask(matcher, wait_s=1.0)
        with pytest.raises(MatcherError, match="not asked for a while"):
            ask(matcher)

    def test_places_are_given_back_whatever_happens(self, oracle: Oracle) -> None:
        for kind in (*fakes.CHAOS, fakes.Status(401)):
            matcher = OracleMatcher("oracle", oracle_table(oracle.url, max_calls=1))
            oracle.misbehave(kind, times=None)
            with pytest.raises(MatcherError):
                ask(matcher)
            assert matcher._places.acquire(blocking=False)
            oracle.behave()

    def test_a_child_of_a_busy_process_has_all_places(self, oracle: Oracle) -> None:
        matcher = OracleMatcher("oracle", oracle_table(oracle.url, max_calls=1))
        oracle.misbehave(fakes.Slow(60))

        def ask_in_vain() -> None:
            with suppress(MatcherError):
                ask(matcher, "a", 1.0)

        busy = threading.Thread(target=ask_in_vain)
        busy.start()
        while not oracle.requests:
            pass
        matcher.after_fork()
        assert not ask(matcher, "b")
        busy.join()
