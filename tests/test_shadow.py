"""Shadow mode: what would be done is known and recorded, and nothing is done. And where each match comes from."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from prometheus_client import CollectorRegistry

from tests.matchers import Remote, RemotePlugin, clean, fails, hit
from tests.test_guard import KINDS
from uploadguard import Context, Decision, Guard, Verdict, hookimpl
from uploadguard.config import Settings
from uploadguard.hashset import HashSet
from uploadguard.late import answers_waiting
from uploadguard.ledger import schema
from uploadguard.ledger.codec import decision_of, from_record, to_record
from uploadguard.ledger.database import open_database
from uploadguard.ledger.ledger import Ledger
from uploadguard.lists.base import ListEntry
from uploadguard.models import Match, Media
from uploadguard.plugins import Plugins
from uploadguard.provenance import provenance
from uploadguard.storage.keys import write_key_file
from uploadguard.telemetry.metrics import Metrics
from uploadguard.testing import testlist
from uploadguard.testing.picture import picture_bytes, unrelated_picture, variant_bytes

SOMEBODY = Context(uploader="somebody", object_id="up-1")
CONFIG = """\
[hashset]
path = "hashset"
[ledger]
path = "ledger"
[evidence]
path = "evidence"
key_file = "key"
[actions.drop]
kind = "file"
path = "reports.jsonl"
occasions = ["report", "delete"]
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A configuration with a hash set, a ledger, a vault and a destination of reports; returns its file."""
    HashSet.create(tmp_path / "hashset").add_list("hotline", testlist.entries(), KINDS, source="hotline.csv")
    write_key_file(tmp_path / "key")
    config = tmp_path / "uploadguard.toml"
    config.write_text(CONFIG)
    settings = Settings.load(config)
    open_database(settings, create=True).close()
    return config


@pytest.fixture
def open_guard(place: Path) -> Iterator[Callable[..., Guard]]:
    opened: list[Guard] = []

    def make(**overrides: Any) -> Guard:
        opened.append(Guard.open(place, **overrides))
        return opened[-1]

    yield make
    for guard in opened:
        guard.close()


def rows(place: Path, table: sa.Table) -> list[Any]:
    database = open_database(Settings.load(place))
    try:
        with database.reading() as connection:
            return list(connection.execute(sa.select(table)))
    finally:
        database.close()


SHADOWS: list[dict[str, Any]] = [
    {"policy": {"shadow": True}},
    {"policy": {"lists": {"hotline": {"shadow": True}}}},
]


@pytest.mark.parametrize("overrides", SHADOWS, ids=["everything", "one list"])
def test_nothing_is_done_and_all_is_known(
    open_guard: Callable[..., Guard], place: Path, overrides: dict[str, Any]
) -> None:
    guard = open_guard(**overrides)
    blocked = guard.check(picture_bytes(), context=SOMEBODY)
    queued = guard.check(variant_bytes("mirrored"), context=SOMEBODY)
    clear = guard.check(unrelated_picture(), context=SOMEBODY)
    for decision, would_be in ((blocked, Verdict.BLOCK), (queued, Verdict.QUEUE)):
        assert (decision.verdict, decision.shadow, decision.report_due) == (Verdict.ALLOW, would_be, False)
        assert decision.matches
        assert f"{would_be.label} but for shadow mode" in guard.explain(decision)
    assert (clear.verdict, clear.shadow) == (Verdict.ALLOW, None)
    guard.close()
    kept = {row.reference: decision_of(row.record) for row in rows(place, schema.decisions)}
    assert {reference: one.shadow for reference, one in kept.items()} == {
        blocked.reference: Verdict.BLOCK,
        queued.reference: Verdict.QUEUE,
    }
    assert kept[blocked.reference].matches == blocked.matches
    for table in (schema.cases, schema.tasks, schema.evidence):
        assert rows(place, table) == []
    assert not []


def test_failures_of_everything_in_shadow_are_let_through(open_guard: Callable[..., Guard], place: Path) -> None:
    guard = open_guard(policy={"shadow": True})
    broken = guard.check(picture_bytes()[:30_000])
    text = guard.check(b"not a picture")
    assert (broken.verdict, broken.shadow) == (Verdict.ALLOW, Verdict.QUEUE)
    assert (text.verdict, text.shadow) == (Verdict.ALLOW, Verdict.NOT_SCANNED)
    assert "truncated" in broken.reasons
    assert guard.status().fail_open == ("policy.shadow",)
    guard.close()
    assert {row.reference for row in rows(place, schema.decisions)} == {broken.reference, text.reference}


def test_what_would_not_be_kept_is_not_kept_in_shadow(open_guard: Callable[..., Guard], place: Path) -> None:
    guard = open_guard(policy={"shadow": True}, ledger={"path": place.parent / "ledger", "record_not_scanned": False})
    guard.check(b"not a picture")
    guard.close()
    assert rows(place, schema.decisions) == []


def test_one_lists_shadow_leaves_all_else_alone(open_guard: Callable[..., Guard], place: Path) -> None:
    HashSet.open(place.parent / "hashset").add_list("other", testlist.entries(), KINDS)
    guard = open_guard(policy={"lists": {"hotline": {"shadow": True}}})
    decision = guard.check(picture_bytes())
    assert (decision.verdict, decision.shadow, decision.report_due) == (Verdict.BLOCK, None, True)
    broken = guard.check(variant_bytes("mirrored")[:20_000])
    assert broken.verdict is Verdict.QUEUE


class Says:
    def __init__(self, answer: Verdict) -> None:
        self.answer = answer
        self.seen: list[Decision] = []

    @hookimpl
    def uploadguard_decide(self, decision: Decision) -> Verdict:
        self.seen.append(decision)
        return self.answer


def test_a_plugins_answer_is_in_shadow_too(open_guard: Callable[..., Guard], place: Path) -> None:
    guard = open_guard(policy={"shadow": True}, plugins={"says": Says(Verdict.BLOCK)})
    decision = guard.check(unrelated_picture())
    assert (decision.verdict, decision.shadow) == (Verdict.ALLOW, Verdict.BLOCK)
    guard.close()
    assert [row.reference for row in rows(place, schema.decisions)] == [decision.reference]


def test_a_plugin_that_goes_above_the_shadow_makes_it_silent(open_guard: Callable[..., Guard]) -> None:
    says = Says(Verdict.BLOCK)
    guard = open_guard(policy={"lists": {"hotline": {"shadow": True}}}, plugins={"says": says})
    decision = guard.check(variant_bytes("mirrored"))
    assert (decision.verdict, decision.shadow) == (Verdict.BLOCK, None)
    assert says.seen[0].shadow is Verdict.QUEUE


def test_a_late_answer_in_shadow_is_recorded_and_told_to_nobody(open_guard: Callable[..., Guard], place: Path) -> None:
    told: list[Decision] = []

    class Told:
        @hookimpl
        def uploadguard_decision_revised(self, decision: Decision) -> None:
            told.append(decision)

    remote = Remote(lambda query: [hit("remote")], prefetch=True)
    guard = open_guard(policy={"shadow": True}, plugins={"remote": RemotePlugin(remote), "told": Told()})
    first = guard.check(clean())
    assert (first.verdict, first.pending) == (Verdict.ALLOW, ("remote",))
    assert guard._late is not None
    while answers_waiting(place.parent / "ledger" / "late.db"):
        guard._late.work()
    guard.close()
    (kept,) = (decision_of(row.record) for row in rows(place, schema.decisions))
    assert (kept.verdict, kept.shadow, kept.revises) == (Verdict.ALLOW, Verdict.BLOCK, first.reference)
    assert not kept.report_due
    assert told == []
    assert rows(place, schema.tasks) == []


def test_a_late_failure_in_shadow_changes_nothing_that_was_worse(open_guard: Callable[..., Guard], place: Path) -> None:
    remote = Remote(fails, prefetch=True, retry_s=0.0)
    guard = open_guard(policy={"shadow": True}, plugins={"remote": RemotePlugin(remote)})
    first = guard.check(picture_bytes()[:30_000])
    assert first.shadow is Verdict.QUEUE
    assert guard._late is not None
    while answers_waiting(place.parent / "ledger" / "late.db"):
        guard._late.work()
    guard.close()
    assert len(rows(place, schema.decisions)) == 1


def test_would_be_verdicts_are_counted(open_guard: Callable[..., Guard]) -> None:
    registry = CollectorRegistry()
    guard = open_guard(policy={"shadow": True}, plugins={"mine": Metrics(registry)})
    for _ in range(2):
        guard.check(picture_bytes())
    guard.check(unrelated_picture())
    assert registry.get_sample_value("uploadguard_shadow_total", {"verdict": "block"}) == 2
    assert registry.get_sample_value("uploadguard_checks_total", {"verdict": "allow", "media_type": "unknown"}) == 2
    assert registry.get_sample_value("uploadguard_lists_tripped") == 0


# Where a match comes from


def test_a_match_brings_its_origin_into_the_ledger(open_guard: Callable[..., Guard], place: Path) -> None:
    hash_set = HashSet.open(place.parent / "hashset")
    guard = open_guard()
    decision = guard.check(picture_bytes(), context=SOMEBODY)
    (info,) = hash_set.lists()
    match = decision.matches[0]
    assert (match.source, match.listed_at, match.updated_at) == ("hotline.csv", info.added_at, info.updated_at)
    said = guard.explain(decision)
    assert f"source hotline.csv; listed {info.added_at:%Y-%m-%d %H:%M} UTC; list updated " in said
    hash_set.remove_list("hotline", purge=True)  # what was so stays with the decision
    guard.close()
    (row,) = rows(place, schema.decisions)
    assert decision_of(row.record).matches == decision.matches
    assert json.loads(decision.to_json())["matches"][0]["listed_at"] == info.added_at.isoformat()


def test_the_built_in_list_says_so(open_guard: Callable[..., Guard], place: Path) -> None:
    guard = open_guard(hashset={"path": place.parent / "hashset", "test_list": True})
    sources = {(m.list_name, m.source) for m in guard.check(picture_bytes()).matches}
    assert sources == {("hotline", "hotline.csv"), (testlist.TEST_LIST_NAME, "built-in")}


def test_a_list_found_up_to_date_is_said_to_be_so(open_guard: Callable[..., Guard], place: Path) -> None:
    hash_set = HashSet.open(place.parent / "hashset")
    hash_set.update_list("hotline", [ListEntry("none", (), line=1)], ["nobody"], KINDS)
    guard = open_guard(hashset={"path": place.parent / "hashset", "test_list": True})
    (info,) = hash_set.lists()
    match = next(m for m in guard.check(picture_bytes()).matches if m.list_name == "hotline")
    assert match.updated_at == info.updated_at


def test_records_from_before_have_no_origin() -> None:
    match = Match("a", "1", None, "md5", 0, exact=True, source="x", listed_at=datetime.now(UTC))
    decision = Decision(Verdict.QUEUE, (), (match,), (), (), Media(1), 1)
    record = to_record(decision, Context(), datetime.now(UTC))
    assert from_record(json.loads(json.dumps(record))).decision.matches == (match,)
    for key in ("source", "listed_at", "updated_at"):
        del record["matches"][0][key]
    (old,) = from_record(record).decision.matches
    assert (old.source, old.listed_at, old.updated_at) == ("", None, None)


def test_provenance_is_short_and_says_what_there_is() -> None:
    at = datetime(2026, 5, 4, 8, 15, tzinfo=UTC)
    match = Match("a", "1", None, "md5", 0, source="a.csv", listed_at=at, fields={"tags": ["x", 1], "note": "y" * 5000})
    found = dict(provenance(match))
    assert found["source"] == "a.csv"
    assert found["listed"] == "2026-05-04 08:15 UTC"
    assert found["tags"] == '["x", 1]'
    assert len(found["note"]) == 301
    assert "list updated" not in found
    assert provenance(Match("remote", "1", None, "md5", 0)) == []


def test_people_see_it_in_the_case_and_uploaders_do_not(open_guard: Callable[..., Guard], place: Path) -> None:
    guard = open_guard()
    guard.check(variant_bytes("mirrored"), context=SOMEBODY)
    guard.close()
    settings = Settings.load(place)
    ledger = Ledger.open(settings, Plugins(settings))
    try:
        (case,) = ledger.cases.list().cases
        (upload,) = ledger.cases.show(case.id).uploads
        assert upload.recorded.decision.matches[0].source == "hotline.csv"
    finally:
        ledger.close()
