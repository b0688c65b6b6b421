"""Filing with a fake CyberTipline: in order, exactly once, and sensibly with whatever it answers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from ncmec_stubs import DATA, PASSWORD, Row, case_id, made_up_decision, made_up_task, make_action

from uploadguard.actions import Evidence, State
from uploadguard.errors import PostponedError, RefusedError
from uploadguard.models import Context
from uploadguard.testing import fakes
from uploadguard.testing.fakes.ncmec import FakeNcmec, answering
from uploadguard_ncmec import NcmecAction
from uploadguard_ncmec import action as action_module

FILE = Evidence(DATA, "image/png")
STEPS = ("/submit", "/upload", "/fileinfo", "/finish")


def paths(fake: FakeNcmec) -> list[str]:
    return [request.path for request in fake.requests]


def filed_once(fake: FakeNcmec, row: Row, *, files: int = 1) -> None:
    """The report was finished exactly once, with its file exactly once."""
    assert row.state is State.FILED, row.error
    assert fake.finished_by_reference == {row.task.key: 1}
    [report] = fake.finished
    assert str(report.id) == row.task.remote_id
    assert [file.data for file in report.files.values()] == [DATA] * files
    assert all(file.details is not None for file in report.files.values())


def test_a_report_with_its_file(fake: FakeNcmec, action: NcmecAction) -> None:
    row = Row(evidence=FILE)
    row.attempt(action)
    filed_once(fake, row)
    assert paths(fake) == list(STEPS)
    assert row.receipt is not None
    assert row.receipt.facts == {"files": 1}
    assert fake.requests[0].headers["content-type"] == "text/xml; charset=utf-8"
    [file] = fake.finished[0].files.values()
    assert file.name == f"{row.task.key}.png"


def test_a_report_without_a_file_tells_its_hashes(fake: FakeNcmec, action: NcmecAction) -> None:
    row = Row()
    row.attempt(action)
    filed_once(fake, row, files=0)
    assert paths(fake) == ["/submit", "/finish"]
    md5 = row.task.decision.hashes[0].value.hex()
    assert f"MD5: {md5}" in (fake.finished[0].document.findtext("additionalInfo") or "")


def test_a_file_that_is_not_the_one_checked_is_not_sent(fake: FakeNcmec, action: NcmecAction) -> None:
    row = Row(evidence=Evidence(b"another picture", "image/png"))
    assert row.attempt(action) is State.REFUSED
    assert "not the one that was checked" in str(row.error)
    assert fake.requests == []


def test_without_an_md5_of_the_check_the_file_is_trusted(fake: FakeNcmec, action: NcmecAction) -> None:
    row = Row(made_up_task(decision=made_up_decision(hashes=())), evidence=FILE)
    row.attempt(action)
    filed_once(fake, row)


def test_strange_media_types_make_no_header(fake: FakeNcmec, action: NcmecAction) -> None:
    row = Row(evidence=Evidence(DATA, "image/png\r\nX-Evil: 1"))
    row.attempt(action)
    filed_once(fake, row)
    [part] = [part for part in fake.requests[1].parts() if part.name == "file"]
    assert part.content_type == "application/octet-stream"


# What is lost, and what is not known


@pytest.mark.parametrize("path", STEPS)
@pytest.mark.parametrize(
    "kind",
    [
        fakes.LostResponse(),
        fakes.LostResponse(after_bytes=40),
        fakes.Truncated(),
        fakes.Truncated(effect=False),
        fakes.HalfClosed(),
        fakes.Reset(),
        fakes.Garbage(),
        fakes.Garbage(effect=True),
        fakes.Garbage(b"<html/>", effect=True),
        fakes.Garbage(b"", effect=True),
        fakes.Huge(),
        fakes.Huge(500),
        fakes.Status(500),
        fakes.Status(503, body=b"<html>down</html>"),
        fakes.Status(401),
        fakes.Status(403),
        fakes.Status(404),
        fakes.Status(429),
        answering(1000),
        answering(1100),
        answering(1111, http=500),
        answering(2000, http=401),
        answering(3100),
        answering(9999),
        answering(0, http=500),
        answering(5001),
    ],
    ids=case_id,
)
def test_every_trouble_at_every_step_ends_with_one_report(
    fake: FakeNcmec, action: NcmecAction, kind: fakes.Misbehaviour, path: str
) -> None:
    fake.misbehave(kind, path=path)
    row = Row(evidence=FILE)
    row.attempt(action)
    assert isinstance(row.error, PostponedError)
    for _ in range(3):
        if row.state is not State.FILED:
            row.attempt(action)
    filed_once(fake, row)
    assert PASSWORD not in str(row.error)


@pytest.mark.parametrize("path", STEPS)
@pytest.mark.parametrize("code", [4000, 4100, 4110, 4200, 4999])
def test_what_is_wrong_with_the_report_is_for_a_person(
    fake: FakeNcmec, action: NcmecAction, path: str, code: int
) -> None:
    fake.misbehave(answering(code), path=path)
    row = Row(evidence=FILE)
    assert row.attempt(action) is State.REFUSED
    assert f"code {code}" in str(row.error)
    assert "Request-ID" in str(row.error)
    # The person has it tried again, and the outbox goes on where it stopped.
    row.keep(state={"/submit": State.PENDING, "/finish": State.FINISHING}.get(path, State.OPENED))
    row.attempt(action)
    filed_once(fake, row)


def test_a_refusal_names_elements_but_quotes_nothing(fake: FakeNcmec, action: NcmecAction) -> None:
    body = answering(4100).body.replace(b"Validation failed", b"cvc: 'secret@mail.example' of ipAddress, dateTime")
    fake.misbehave(fakes.Status(200, {"Request-ID": "bad id\x7f"}, body))
    row = Row()
    row.attempt(action)
    assert str(row.error) == "it refuses the report (code 4100); it names dateTime, ipAddress"


@pytest.mark.parametrize("status", [400, 413, 415, 422])
def test_other_client_errors_are_for_a_person(fake: FakeNcmec, action: NcmecAction, status: int) -> None:
    fake.misbehave(fakes.Status(status))
    row = Row()
    assert row.attempt(action) is State.REFUSED
    assert isinstance(row.error, RefusedError)


# Outages


@pytest.mark.parametrize(
    ("kind", "outage"),
    [
        (fakes.Status(500), True),
        (fakes.Status(502), True),
        (fakes.Status(401), True),
        (fakes.Status(404), True),
        (answering(1000), True),
        (answering(2000), True),
        (answering(3300), True),
        (answering(1100), False),
        (fakes.LostResponse(), False),
        (fakes.Garbage(), False),
    ],
    ids=case_id,
)
def test_what_affects_all_reports_is_an_outage(
    fake: FakeNcmec, action: NcmecAction, kind: fakes.Misbehaviour, outage: bool
) -> None:
    fake.misbehave(kind)
    row = Row()
    row.attempt(action)
    assert isinstance(row.error, PostponedError)
    assert row.error.outage is outage


def test_a_server_that_is_down_is_an_outage(fake: FakeNcmec, action: NcmecAction) -> None:
    fake.stop()
    row = Row()
    row.attempt(action)
    assert isinstance(row.error, PostponedError)
    assert row.error.outage
    fake.start()
    row.attempt(action)
    filed_once(fake, row, files=0)


def test_retry_after_is_honoured_and_bounded(fake: FakeNcmec, action: NcmecAction) -> None:
    soon = datetime.now(UTC) + timedelta(minutes=10)
    for kind, least, most in (
        (fakes.throttled(7), 7, 7),
        (fakes.throttled(soon, 503), 500, 600),
        (fakes.throttled(10**9), 3600, 3600),
        (fakes.throttled(datetime(2020, 1, 1, tzinfo=UTC)), 0, 0),
    ):
        fake.misbehave(kind)
        row = Row()
        row.attempt(action)
        assert isinstance(row.error, PostponedError)
        assert row.error.outage
        assert row.error.after_s is not None
        assert least <= row.error.after_s <= most
    fake.misbehave(fakes.Status(429, {"Retry-After": "soon"}))
    row = Row()
    row.attempt(action)
    assert isinstance(row.error, PostponedError)
    assert row.error.after_s is None


def test_a_redirect_is_not_followed_and_gets_no_credentials(fake: FakeNcmec, action: NcmecAction) -> None:
    with FakeNcmec(password=PASSWORD) as elsewhere:
        fake.misbehave(fakes.Redirect(elsewhere.url + "/submit"))
        row = Row()
        row.attempt(action)
        assert elsewhere.requests == []
    assert isinstance(row.error, PostponedError)
    assert row.error.outage


def test_a_mended_password_file_is_read_anew(fake: FakeNcmec, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("wrong\n")
    action = make_action(fake.url, password_env=None, password_file=file)
    row = Row()
    row.attempt(action)
    assert "does not accept the user name and password" in str(row.error)
    assert fake.reports == {}
    file.write_text(PASSWORD + "\n")
    row.attempt(action)
    filed_once(fake, row, files=0)


# Reports in other states


def test_an_expired_report_is_opened_anew(fake: FakeNcmec, action: NcmecAction) -> None:
    fake.misbehave(fakes.Status(500), path="/finish")
    row = Row(evidence=FILE)
    assert row.attempt(action) is State.FINISHING
    first = row.task.remote_id
    fake.clock.advance(25 * 3600)
    assert row.attempt(action) is State.PENDING
    assert (row.task.remote_id, row.task.notes) == (None, {})
    row.attempt(action)
    filed_once(fake, row)
    assert row.task.remote_id != first


def test_a_finished_report_is_not_finished_or_opened_again(fake: FakeNcmec, action: NcmecAction) -> None:
    fake.misbehave(fakes.LostResponse(), path="/finish")
    row = Row(evidence=FILE)
    assert row.attempt(action) is State.FINISHING
    fake.clock.advance(1000 * 3600)
    row.attempt(action)
    filed_once(fake, row)
    assert paths(fake) == [*STEPS, "/finish"]


def test_a_report_that_another_worker_finished_counts_as_filed(fake: FakeNcmec, action: NcmecAction) -> None:
    fake.misbehave(fakes.Status(500), path="/fileinfo")
    row = Row(evidence=FILE)
    assert row.attempt(action) is State.OPENED
    [report] = fake.reports.values()
    report.finished_at = fake.clock.now()
    assert row.attempt(action) is State.FILED
    assert fake.finished_by_reference == {row.task.key: 1}


def test_a_report_that_was_retracted_elsewhere_is_opened_anew(fake: FakeNcmec, action: NcmecAction) -> None:
    fake.misbehave(fakes.Status(500), path="/fileinfo")
    row = Row(evidence=FILE)
    row.attempt(action)
    [report] = fake.reports.values()
    report.retracted_at = fake.clock.now()
    row.attempt(action)
    row.attempt(action)
    filed_once(fake, row)


def test_a_file_that_arrived_is_not_sent_again(fake: FakeNcmec, action: NcmecAction) -> None:
    fake.misbehave(fakes.Status(500), path="/fileinfo")
    row = Row(evidence=FILE)
    row.attempt(action)
    row.attempt(action)
    filed_once(fake, row)
    assert paths(fake).count("/upload") == paths(fake).count("/submit") == 1


def test_a_file_that_may_have_arrived_is_not_sent_twice(fake: FakeNcmec, action: NcmecAction) -> None:
    fake.misbehave(fakes.LostResponse(), path="/upload")
    row = Row(evidence=FILE)
    assert row.attempt(action) is State.OPENED
    assert row.attempt(action) is State.PENDING
    row.attempt(action)
    filed_once(fake, row)
    assert len(fake.reports) == 2
    assert fake.reports[min(fake.reports)].retracted_at is not None


def test_a_file_that_certainly_did_not_arrive_is_sent_again(fake: FakeNcmec, action: NcmecAction) -> None:
    fake.misbehave(fakes.Status(429), path="/upload")
    row = Row(evidence=FILE)
    row.attempt(action)
    row.attempt(action)
    filed_once(fake, row)
    assert len(fake.reports) == 1


@pytest.mark.parametrize("wrong", [b"0" * 32, b""])
def test_a_file_that_arrived_otherwise_gives_its_report_up(fake: FakeNcmec, action: NcmecAction, wrong: bytes) -> None:
    row = Row(evidence=FILE)
    md5 = row.task.decision.hashes[0].value.hex().encode()
    body = answering(0).body.replace(
        b"</reportResponse>", b"<fileId>f</fileId><hash>" + md5 + b"</hash></reportResponse>"
    )
    fake.misbehave(fakes.Garbage(body.replace(md5, wrong), effect=True), path="/upload")
    assert row.attempt(action) is State.PENDING
    assert "did not arrive as it was sent" in str(row.error)
    row.attempt(action)
    filed_once(fake, row)


def test_a_file_that_got_lost_there_gives_its_report_up(fake: FakeNcmec, action: NcmecAction) -> None:
    fake.misbehave(answering(5002), path="/fileinfo")
    row = Row(evidence=FILE)
    assert row.attempt(action) is State.PENDING
    row.attempt(action)
    filed_once(fake, row)


def test_an_answer_about_another_report_is_none(fake: FakeNcmec, action: NcmecAction) -> None:
    body = answering(0).body.replace(b"</reportResponse>", b"<reportId>1</reportId></reportResponse>")
    fake.misbehave(fakes.Garbage(body), path="/finish")
    row = Row()
    row.attempt(action)
    assert "about another report" in str(row.error)
    row.attempt(action)
    filed_once(fake, row, files=0)


@pytest.mark.parametrize("code", [0, 5001, 5102])
def test_a_new_report_without_an_id_is_none(fake: FakeNcmec, action: NcmecAction, code: int) -> None:
    fake.misbehave(answering(code), path="/submit")
    row = Row()
    assert row.attempt(action) is State.PENDING
    row.attempt(action)
    filed_once(fake, row, files=0)


def test_an_upload_of_which_no_report_can_be_made_is_for_a_person(
    fake: FakeNcmec, action: NcmecAction, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(action._options, "__dict__", {**vars(action._options), "incident_type": "no such type"})
    row = Row()
    assert row.attempt(action) is State.REFUSED
    assert "incidentType: its value is not allowed" in str(row.error)
    assert fake.requests == []


def test_a_slow_server_leaves_the_rest_to_the_next_attempt(
    fake: FakeNcmec, action: NcmecAction, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(action_module, "_TOTAL_S", -1.0)
    row = Row(evidence=FILE)
    assert row.attempt(action) is State.OPENED
    assert "it is slow" in str(row.error)
    assert paths(fake) == ["/submit"]
    monkeypatch.undo()
    monkeypatch.setenv("NCMEC_PASSWORD", PASSWORD)
    row.attempt(action)
    filed_once(fake, row)
    assert len(fake.reports) == 1


# Taking back


def opened(fake: FakeNcmec, action: NcmecAction) -> Row:
    """A task whose report is open, taken back."""
    fake.misbehave(fakes.Status(500), path="/fileinfo")
    row = Row(evidence=FILE)
    assert row.attempt(action) is State.OPENED
    row.cancel()
    return row


def test_a_report_that_is_taken_back_is_retracted(fake: FakeNcmec, action: NcmecAction) -> None:
    row = opened(fake, action)
    assert row.attempt(action) is State.CANCELLED
    [report] = fake.reports.values()
    assert report.retracted_at is not None
    assert fake.finished == []


@pytest.mark.parametrize(
    "kind", [fakes.LostResponse(), fakes.Status(500), fakes.HalfClosed(), answering(1000)], ids=case_id
)
def test_retracting_is_tried_until_it_is_certain(
    fake: FakeNcmec, action: NcmecAction, kind: fakes.Misbehaviour
) -> None:
    row = opened(fake, action)
    fake.misbehave(kind, path="/retract")
    assert row.attempt(action) is State.OPENED
    assert isinstance(row.error, PostponedError)
    assert row.attempt(action) is State.CANCELLED
    assert fake.finished == []


def test_an_expired_report_needs_no_retracting(fake: FakeNcmec, action: NcmecAction) -> None:
    row = opened(fake, action)
    fake.clock.advance(25 * 3600)
    assert row.attempt(action) is State.CANCELLED


def test_a_finished_report_cannot_be_taken_back_and_a_person_is_told(fake: FakeNcmec, action: NcmecAction) -> None:
    row = opened(fake, action)
    [report] = fake.reports.values()
    report.finished_at = fake.clock.now()
    assert row.attempt(action) is State.REFUSED
    assert "tell NCMEC" in str(row.error)


def test_a_task_taken_back_and_wanted_again_is_filed_once(fake: FakeNcmec, action: NcmecAction) -> None:
    row = opened(fake, action)
    fake.misbehave(fakes.LostResponse(), path="/retract")
    row.attempt(action)
    row.keep(cancelled=False)
    row.attempt(action)
    row.attempt(action)
    filed_once(fake, row)


def test_nothing_that_was_opened_needs_nothing(fake: FakeNcmec, action: NcmecAction) -> None:
    row = Row(made_up_task(cancelled=True, state=State.OPENED))
    assert row.attempt(action) is State.CANCELLED
    assert fake.requests == []


def test_many_threads_share_one_action(fake: FakeNcmec, action: NcmecAction) -> None:
    from concurrent.futures import ThreadPoolExecutor

    rows = [Row(made_up_task(context=Context(uploader=f"user-{n}")), evidence=FILE) for n in range(24)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda row: row.attempt(action), rows))
    assert fake.finished_by_reference == {row.task.key: 1 for row in rows}
