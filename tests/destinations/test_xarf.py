"""XARF reports: true to the facts, valid by the format's rules, and delivered whatever the other side does."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.destinations.certificates import make_certificate
from tests.destinations.tasks import CONTEXT, HASHES, MATCH, SHA256, made_up_decision, made_up_task
from uploadguard.actions import Receipt, Task
from uploadguard.destinations.xarf import XarfReporter
from uploadguard.destinations.xarf_report import Party, ReportOptions, build_report
from uploadguard.errors import ActionError, ConfigError, PostponedError, RefusedError
from uploadguard.models import Context, Match, Media
from uploadguard.testing.fakes import CHAOS, Garbage, LostResponse, Status, throttled
from uploadguard.testing.fakes.smtp import FakeSmtpServer, Hang, HangUp, Raw, Reply
from uploadguard.testing.fakes.xarf import FakeXarfReceiver, xarf_problems
from uploadguard.testing.journal import ScriptedJournal

PARTY = {"org": "Example Images", "contact": "abuse@images.example", "domain": "images.example"}
OPTIONS = ReportOptions(reporter=Party(**PARTY))
TO = ["hotline@authority.example", "copy@authority.example", "third@authority.example"]


class TestReport:
    def test_a_whole_one(self) -> None:
        task = made_up_task()
        report = build_report(task, dataclasses_replace(OPTIONS, tags=("lifecycle:test",)))
        assert report == {
            "xarf_version": "4.0.0",
            "report_id": task.key,
            "timestamp": "2026-03-01T12:00:00.000Z",
            "reporter": PARTY,
            "sender": PARTY,
            "source_identifier": "192.0.2.7",
            "source_port": 4711,
            "category": "content",
            "type": "csam",
            "url": "https://images.example/obj-1",
            "evidence_source": "automated_scan",
            "classification": "A1",
            "detection_method": "hash_match",
            "media_type": "image",
            "hash_values": {"md5": SHA256[:16].hex(), "sha1": SHA256[:20].hex(), "sha256": SHA256.hex()},
            "tags": ["lifecycle:test"],
        }
        assert xarf_problems(report) == []

    @pytest.mark.parametrize(
        ("confirmed", "viewed", "matches", "method"),
        [
            (False, False, True, "hash_match"),
            (True, False, True, "hash_match"),
            (True, True, True, "manual_review"),
            (True, True, False, "manual_review"),
            (True, False, False, "manual_review"),
            (False, False, False, "automated_scan"),
        ],
    )
    def test_how_it_was_found(self, confirmed: bool, viewed: bool, matches: bool, method: str) -> None:
        task = made_up_task(
            confirmed_at=datetime(2026, 3, 2, tzinfo=UTC) if confirmed else None,
            viewed=viewed,
            decision=made_up_decision(matches=(MATCH,) if matches else ()),
        )
        report = build_report(task, dataclasses_replace(OPTIONS, classification="A2"))
        assert report["detection_method"] == method

    @pytest.mark.parametrize(
        ("categories", "expected"),
        [
            (["B2"], "B2"), ([" a1 "], "A1"), (["Baseline"], "baseline"), (["7"], "B1"), ([None, "A2"], "A2"),
            (["odd", "A2"], "A2"), (["A1", "B2"], "A1"), (["odd"], "baseline"), ([], "baseline"),
        ],
    )  # fmt: skip
    def test_classification(self, categories: list[str | None], expected: str) -> None:
        matches = tuple(dataclasses.replace(MATCH, category=one) for one in categories)
        options = dataclasses_replace(OPTIONS, classifications={"7": "B1"}, classification="baseline")
        assert (
            build_report(made_up_task(decision=made_up_decision(matches=matches)), options)["classification"]
            == expected
        )

    def test_an_allow_list_says_nothing(self) -> None:
        matches = (dataclasses.replace(MATCH, allow=True),)
        with pytest.raises(RefusedError, match="classification"):
            build_report(made_up_task(decision=made_up_decision(matches=matches)), OPTIONS)

    def test_what_is_missing_is_named(self) -> None:
        task = made_up_task(context=Context(ip="192.0.2.7"), decision=made_up_decision(matches=()))
        with pytest.raises(RefusedError, match=r"needs an absolute URL .*Context\.url.* and a classification"):
            build_report(task, OPTIONS)

    @pytest.mark.parametrize("url", ["", "/a.jpg", "images.example/a", "https://", "https://[::1/"])
    def test_what_is_no_url(self, url: str) -> None:
        with pytest.raises(RefusedError, match="absolute URL"):
            build_report(made_up_task(context=Context(url=url)), OPTIONS)

    def test_a_url_made_of_the_object(self) -> None:
        options = dataclasses_replace(OPTIONS, content_url="https://images.example/{object_id}?r={reference}")
        made = build_report(made_up_task(context=Context(object_id="a/b c\u00e4")), options)
        assert made["url"] == "https://images.example/a%2Fb%20c%C3%A4?r=a-reference"
        assert made["source_identifier"] == made["url"]
        with pytest.raises(RefusedError, match="absolute URL"):
            build_report(made_up_task(context=Context()), options)

    @pytest.mark.parametrize(
        ("ip", "shown"),
        [
            ("2001:DB8::1", "2001:db8::1"), ("::ffff:192.0.2.1", "192.0.2.1"), ("fe80::1%eth0", "fe80::1"),
            ("unknown", None), ("", None), (None, None), ("192.0.2.300", None),
        ],
    )  # fmt: skip
    def test_the_source(self, ip: str | None, shown: str | None) -> None:
        report = build_report(made_up_task(context=dataclasses.replace(CONTEXT, ip=ip)), OPTIONS)
        assert report["source_identifier"] == (shown or CONTEXT.url)
        assert ("source_port" in report) == (shown is not None)
        assert xarf_problems(report) == []

    def test_only_hashes_of_the_file_and_its_first_frame(self) -> None:
        other = dataclasses.replace(HASHES[2], frame=1, value=bytes(32))
        report = build_report(made_up_task(decision=made_up_decision(hashes=(other, HASHES[2]))), OPTIONS)
        assert report["hash_values"] == {"sha256": SHA256.hex()}

    @pytest.mark.parametrize(("media_type", "kind"), [("video/mp4", "video"), ("application/pdf", None), (None, None)])
    def test_media_type(self, media_type: str | None, kind: str | None) -> None:
        task = made_up_task(decision=made_up_decision(media=Media(1, media_type)))
        assert build_report(task, OPTIONS).get("media_type") == kind

    @given(
        url=st.none() | st.text() | st.text().map(lambda text: "https://images.example/" + text),
        ip=st.none() | st.text() | st.ip_addresses().map(str),
        port=st.none() | st.integers(),
        category=st.none() | st.text() | st.sampled_from(["A1", "baseline"]),
        object_id=st.none() | st.text(),
    )
    def test_whatever_the_host_says_it_is_valid_or_refused(
        self, url: str | None, ip: str | None, port: int | None, category: str | None, object_id: str | None
    ) -> None:
        context = Context(url=url, ip=ip, port=port, object_id=object_id)
        decision = made_up_decision(matches=(Match("l", "e", category, "pdq", 1),))
        options = dataclasses_replace(OPTIONS, content_url="https://images.example/{object_id}")
        try:
            report = build_report(made_up_task(context=context, decision=decision), options)
        except RefusedError:
            return
        assert xarf_problems(json.loads(json.dumps(report))) == []


def dataclasses_replace(options: ReportOptions, **changes: Any) -> ReportOptions:
    return ReportOptions.model_validate({**options.model_dump(), **changes})


@pytest.fixture
def receiver() -> Iterator[FakeXarfReceiver]:
    with FakeXarfReceiver(token="a-secret-token") as running:
        yield running


@pytest.fixture
def poster(receiver: FakeXarfReceiver, monkeypatch: pytest.MonkeyPatch) -> XarfReporter:
    monkeypatch.setenv("XARF_TOKEN", "a-secret-token")
    table = {"kind": "xarf", "url": receiver.url + "/reports", "token_env": "XARF_TOKEN", "reporter": PARTY}
    return XarfReporter("hotline", {**table, "timeout_s": 1.0})


def deliver(action: XarfReporter, task: Task, journal: ScriptedJournal | None = None) -> Receipt:
    journal = journal or ScriptedJournal(task)
    return action.deliver(journal.next_attempt(), journal)


class TestPost:
    def test_a_report_arrives(self, receiver: FakeXarfReceiver, poster: XarfReporter) -> None:
        task = made_up_task()
        assert deliver(poster, task).facts == {"sent": True, "status": 201}
        assert list(receiver.reports) == [task.key]
        assert receiver.requests[0].headers["idempotency-key"] == f'"{task.key}"'
        assert "a-secret-token" not in repr(vars(poster))

    def test_a_repetition_is_the_same_report(self, receiver: FakeXarfReceiver, poster: XarfReporter) -> None:
        task = made_up_task()
        receiver.misbehave(LostResponse())
        with pytest.raises(PostponedError):
            deliver(poster, task)
        deliver(poster, task)
        assert receiver.repeats == {task.key: 1}
        assert not receiver.changed

    def test_what_it_will_not_take(
        self, receiver: FakeXarfReceiver, poster: XarfReporter, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        receiver.misbehave(Status(422))
        with pytest.raises(RefusedError, match="422"):
            deliver(poster, made_up_task())
        monkeypatch.setenv("XARF_TOKEN", "another")
        with pytest.raises(PostponedError, match="401") as caught:
            deliver(poster, made_up_task())
        assert "another" not in str(caught.value)
        assert receiver.problems == []

    def test_when_it_asks_for_peace(self, receiver: FakeXarfReceiver, poster: XarfReporter) -> None:
        receiver.misbehave(throttled(30))
        with pytest.raises(PostponedError) as caught:
            deliver(poster, made_up_task())
        assert (caught.value.after_s, caught.value.outage) == (30, True)

    @pytest.mark.parametrize("kind", CHAOS, ids=repr)
    def test_whatever_goes_wrong_it_arrives_in_the_end(
        self, receiver: FakeXarfReceiver, poster: XarfReporter, kind: Any
    ) -> None:
        task = made_up_task()
        receiver.misbehave(kind)
        if isinstance(kind, Garbage):
            deliver(poster, task)
        else:
            with pytest.raises(PostponedError):
                deliver(poster, task)
        deliver(poster, task)
        assert list(receiver.reports) == [task.key]
        assert not receiver.changed

    def test_one_that_was_taken_back_is_not_sent(self, receiver: FakeXarfReceiver, poster: XarfReporter) -> None:
        assert deliver(poster, made_up_task(cancelled=True)).facts == {"sent": False}
        assert receiver.requests == []


@pytest.fixture
def server() -> Iterator[FakeSmtpServer]:
    with FakeSmtpServer() as running:
        yield running


def mailer(server: FakeSmtpServer, *, smtp: dict[str, Any] | None = None, **options: Any) -> XarfReporter:
    table = {
        "kind": "xarf",
        "to": TO[:1],
        "reporter": PARTY,
        "timeout_s": 2.0,
        "smtp": {"host": "127.0.0.1", "port": server.port, "security": "none", **(smtp or {})},
        **options,
    }
    return XarfReporter("hotline", table)


class TestMail:
    def test_a_mail_of_three_parts(self, server: FakeSmtpServer) -> None:
        task = made_up_task()
        receipt = deliver(mailer(server), task)
        (mail,) = server.mails
        assert (mail.envelope_from, mail.recipients) == ("abuse@images.example", (TO[0],))
        parsed = mail.parsed()
        assert parsed.get_content_type() == "multipart/report"
        assert parsed.get_param("report-type") == "feedback-report"
        assert parsed["Message-ID"] == f"<{task.key}@images.example>" == receipt.facts["message_id"]
        assert parsed["From"].addresses[0].addr_spec == "abuse@images.example"
        assert parsed["From"].addresses[0].display_name == "Example Images"
        assert (parsed["To"], parsed["Auto-Submitted"]) == (TO[0], "auto-generated")
        assert parsed["Date"].datetime.tzinfo is not None
        human, sorting, attached = parsed.iter_parts()
        assert human.get_content_type() == "text/plain"
        assert task.key in human.get_content()
        assert sorting.get_content_type() == "message/feedback-report"
        assert b"Feedback-Type: xarf\r\n" in mail.data
        assert (attached.get_content_type(), attached.get_filename()) == ("application/json", "xarf.json")
        report = json.loads(attached.get_content())
        assert xarf_problems(report) == []
        assert report == build_report(task, OPTIONS)
        assert mail.data.isascii()
        assert max(map(len, re.split(rb"\r\n", mail.data))) <= 998

    def test_names_in_other_scripts(self, server: FakeSmtpServer) -> None:
        party = {**PARTY, "org": 'B\u00fcro "Kind", \u4e2d'}
        deliver(mailer(server, reporter=party, sender={**PARTY, "domain": "sender.example"}), made_up_task())
        deliver(mailer(server, sender=party, mail_from="bounces@images.example"), made_up_task())
        first, second = (mail.parsed() for mail in server.mails)
        assert first["Message-ID"].endswith("@sender.example>")
        assert second["From"].addresses[0].display_name == party["org"]
        assert server.mails[1].envelope_from == "bounces@images.example"

    def test_a_repetition_has_the_same_message_id(self, server: FakeSmtpServer) -> None:
        task = made_up_task()
        server.misbehave(HangUp(), at="message")
        with pytest.raises(PostponedError, match="closed the connection"):
            deliver(mailer(server), task)
        deliver(mailer(server), task)
        first, second = (mail.parsed() for mail in server.mails)
        assert first["Message-ID"] == second["Message-ID"]

    def test_nothing_listens(self, server: FakeSmtpServer) -> None:
        action = mailer(server)
        server.stop()
        with pytest.raises(PostponedError, match="no connection") as caught:
            deliver(action, made_up_task())
        assert caught.value.outage
        server.start()
        deliver(action, made_up_task())


class TestMailRefusals:
    @pytest.mark.parametrize("stage", ["banner", "mail", "rcpt", "data", "message"])
    def test_4xx_is_later_and_5xx_is_refused(self, server: FakeSmtpServer, stage: Any) -> None:
        action, task = mailer(server), made_up_task()
        for code in (421, 451):
            server.misbehave(Reply(code), at=stage)
            with pytest.raises(PostponedError, match=str(code)) as postponed:
                deliver(action, task)
            assert "nobody" not in str(postponed.value)
            assert "authority" not in str(postponed.value)
        for code in (550, 554):
            server.misbehave(Reply(code), at=stage)
            with pytest.raises(RefusedError, match=str(code)) as refused:
                deliver(action, task)
            assert "nobody" not in str(refused.value)
            assert "authority" not in str(refused.value)
        assert server.mails == []
        deliver(action, task)
        assert len(server.mails) == 1

    def test_each_recipient_gets_it_once(self, server: FakeSmtpServer) -> None:
        action, task = mailer(server, to=TO), made_up_task()
        journal = ScriptedJournal(task)
        server.refused = {TO[1]: 450, TO[2]: 550}
        with pytest.raises(PostponedError, match=r"to\[1\] \(450\), to\[2\] \(550\)"):
            deliver(action, task, journal)
        server.refused = {TO[2]: 550}
        with pytest.raises(RefusedError, match=r"refused: to\[2\] \(550\)"):
            deliver(action, task, journal)
        server.refused = {}
        deliver(action, task, journal)
        assert [mail.recipients for mail in server.mails] == [(TO[0],), (TO[1],), (TO[2],)]

    def test_all_are_refused(self, server: FakeSmtpServer) -> None:
        server.refused = dict.fromkeys(TO, 550)
        with pytest.raises(RefusedError, match=r"to\[0\] \(550\), to\[1\] \(550\), to\[2\]"):
            deliver(mailer(server, to=TO), made_up_task())


class TestMailFaults:
    @pytest.mark.parametrize("stage", ["banner", "ehlo", "mail", "rcpt", "data", "message"])
    @pytest.mark.parametrize("kind", [HangUp(), HangUp(reset=True), Hang(60), Raw(b"\x00\xff?\r\n")], ids=repr)
    def test_whatever_goes_wrong_it_arrives_in_the_end(self, server: FakeSmtpServer, stage: Any, kind: Any) -> None:
        if stage == "message" and isinstance(kind, Raw):
            kind = Raw(b"what?")
        action, task = mailer(server, timeout_s=0.6), made_up_task()
        server.misbehave(kind, at=stage)
        try:
            deliver(action, task)
        except ActionError as error:
            assert isinstance(error, PostponedError)  # noqa: PT017 - some servers are understood all the same
        deliver(action, task)
        assert {mail.parsed()["Message-ID"] for mail in server.mails} == {f"<{task.key}@images.example>"}

    @pytest.mark.parametrize(
        "raw",
        [Raw(b"2" * 100_000 + b"\r\n"), Raw(b"220-more\r\n" * 200_000), Raw(b"220-a\r\n" * 100, every_s=0.1)],
        ids=["long-line", "many-lines", "drip"],
    )
    def test_a_banner_without_an_end(self, server: FakeSmtpServer, raw: Raw) -> None:
        server.misbehave(raw, at="banner")
        with pytest.raises(PostponedError):
            deliver(mailer(server, timeout_s=1.0), made_up_task())

    def test_what_it_says_after_it_took_the_mail_does_not_matter(self, server: FakeSmtpServer) -> None:
        server.misbehave(Reply(500), HangUp(reset=True), at="quit", times=None)
        deliver(mailer(server), made_up_task())
        assert len(server.mails) == 1


class TestMailSecurity:
    @pytest.mark.parametrize("security", ["starttls", "tls"])
    def test_encrypted_and_with_a_password(
        self, tmp_path: Path, security: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MAIL_PASSWORD", "pass word")
        path, context = make_certificate(tmp_path)
        with FakeSmtpServer(tls=context, implicit_tls=security == "tls", login=("me", "pass word")) as server:
            smtp = {"security": security, "ca_file": str(path), "username": "me", "password_env": "MAIL_PASSWORD"}
            action = mailer(server, smtp=smtp)
            deliver(action, made_up_task())
            (mail,) = server.mails
            assert (mail.encrypted, mail.username) == (True, "me")
            monkeypatch.setenv("MAIL_PASSWORD", "wrong-password")
            with pytest.raises(RefusedError, match=r"username and password \(535\)") as caught:
                deliver(action, made_up_task())
            assert "wrong-password" not in repr(caught.value)
            server.misbehave(Reply(454), at="auth", times=None)
            with pytest.raises(PostponedError, match="454"):
                deliver(action, made_up_task())

    @pytest.mark.parametrize("security", ["starttls", "tls"])
    def test_a_certificate_that_nobody_vouches_for(self, tmp_path: Path, security: str) -> None:
        _, context = make_certificate(tmp_path)
        with FakeSmtpServer(tls=context, implicit_tls=security == "tls") as server:
            with pytest.raises(PostponedError, match="TLS") as caught:
                deliver(mailer(server, smtp={"security": security}), made_up_task())
            assert caught.value.outage
            assert server.mails == []

    def test_it_never_does_without_encryption(self, server: FakeSmtpServer) -> None:
        with pytest.raises(RefusedError, match="lacks what security"):
            deliver(mailer(server, smtp={"security": "starttls"}), made_up_task())
        assert server.mails == []

    @pytest.mark.parametrize("code", [454, 554])
    def test_starttls_may_be_refused(self, tmp_path: Path, code: int) -> None:
        path, context = make_certificate(tmp_path)
        with FakeSmtpServer(tls=context) as server:
            server.misbehave(Reply(code), at="starttls")
            kind = PostponedError if code == 454 else RefusedError
            with pytest.raises(kind, match=str(code)):
                deliver(mailer(server, smtp={"security": "starttls", "ca_file": str(path)}), made_up_task())
            assert server.mails == []


class TestOptions:
    GOOD: ClassVar = {"kind": "xarf", "reporter": PARTY, "url": "https://a.example"}
    SMTP: ClassVar = {"kind": "xarf", "reporter": PARTY, "to": ["a@b.example"], "smtp": {"host": "mail.example"}}

    @pytest.mark.parametrize(
        ("table", "problem"),
        [
            ({"kind": "xarf"}, "actions.x.reporter: is missing"),
            ({**GOOD, "url": "ftp://a"}, "actions.x.url: must be an absolute URL"),
            ({**GOOD, "to": ["a@b.example"]}, "actions.x: needs url, or to and smtp"),
            ({**GOOD, "smtp": {"host": "a"}}, "actions.x: needs to and smtp together"),
            ({**SMTP, "to": []}, "actions.x: needs url, or to and smtp"),
            ({**SMTP, "to": ["a@b.example", "a@b.example"]}, "actions.x: has the same recipient twice"),
            ({**SMTP, "to": ["A <a@b.example>"]}, "actions.x.to[0]: must be an e-mail address"),
            ({**SMTP, "to": ["a@b.example\r\nBcc: c@d.example"]}, "actions.x.to[0]: must be an e-mail address"),
            ({**GOOD, "reporter": {**PARTY, "org": "a\nb"}}, "actions.x.reporter.org: must be a name"),
            ({**GOOD, "reporter": {**PARTY, "domain": "a b"}}, "actions.x.reporter.domain: must be a domain"),
            ({**GOOD, "classification": "C3"}, 'actions.x.classification: must be "baseline", "A1"'),
            ({**GOOD, "classifications": {"7": "x"}}, 'actions.x.classifications.7: must be "baseline", "A1"'),
            ({**GOOD, "tags": ["test"]}, "actions.x.tags: must be 20 tags at most"),
            ({**GOOD, "occasions": ["ban"]}, 'actions.x.occasions[0]: must be "report"'),
            ({**GOOD, "token": "abc"}, "actions.x.token: unknown key"),
            ({**GOOD, "timeout_s": 61.0}, "actions.x.timeout_s: must be a number, 0.1 to 60"),
            ({**SMTP, "smtp": {"host": "a", "username": "b"}}, "actions.x: needs, in smtp, username with password_env"),
            (
                {**SMTP, "smtp": {"host": "a", "ca_file": "/nonexistent"}},
                "actions.x.smtp: has a ca_file that holds no certificates",
            ),
            ({**SMTP, "smtp": {"host": "a", "security": "ssl"}}, 'actions.x.smtp.security: must be "starttls", "tls"'),
            ({**SMTP, "smtp": {"host": "a", "password_env": "NOPE_NOT_SET"}}, "actions.x.smtp.password_env: names an"),
        ],
    )
    def test_what_is_wrong(self, table: dict[str, Any], problem: str) -> None:
        with pytest.raises(ConfigError) as caught:
            XarfReporter("x", table)
        assert caught.value.problems[0].startswith(problem)
        assert len(caught.value.problems) == 1

    def test_a_password_in_clear(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MAIL_PASSWORD", "pass word")
        smtp = {"host": "a", "security": "none", "username": "b", "password_env": "MAIL_PASSWORD"}
        with pytest.raises(ConfigError, match="would show the password"):
            XarfReporter("x", {**self.SMTP, "smtp": smtp})
