"""The built-in actions pass the suite that a plugin's must pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.destinations.tasks import SHA256
from uploadguard.destinations.file import FileDrop, read_records, rotated
from uploadguard.destinations.webhook import Webhook
from uploadguard.destinations.xarf import XarfReporter
from uploadguard.testing.conformance import ActionConformance
from uploadguard.testing.fakes import CHAOS, FakeServer, HalfClosed, Redirect, Slow, Status
from uploadguard.testing.fakes.smtp import FakeSmtpServer, Hang, HangUp, Raw, Reply
from uploadguard.testing.fakes.webhook import FakeWebhookReceiver
from uploadguard.testing.fakes.xarf import FakeXarfReceiver

PARTY = {"org": "Example Images", "contact": "abuse@images.example", "domain": "images.example"}
HTTP_FAULTS = (*CHAOS, HalfClosed(), Slow(60), Status(401), Status(422), Redirect("https://elsewhere.example/"))


class Patience:
    """How long an attempt may take: long, but where the other side hangs."""

    timeout_s = 20.0

    @contextmanager
    def misbehaving(self, server: FakeServer | FakeSmtpServer, kind: Any, **where: Any) -> Iterator[None]:
        self.timeout_s = 0.3 if isinstance(kind, Slow | Hang | Raw) else 20.0
        server.misbehave(kind, times=None, **where)
        yield
        server.rules.clear()
        self.timeout_s = 20.0


class TestFileDrop(ActionConformance):
    exactly_once = True

    @pytest.fixture(autouse=True)
    def _file(self, tmp_path: Path) -> None:
        self.path = tmp_path / "reports.jsonl"

    def make(self) -> FileDrop:
        options = {"occasions": ["report", "release"], "max_bytes": 5000, "lists": ["some-list"]}
        return FileDrop("drop", {"kind": "file", "path": str(self.path), **options})

    def taken(self) -> Mapping[str, int]:
        files = [*rotated(self.path), self.path] if self.path.exists() else []
        return Counter(record["data"]["key"] for file in files for record in read_records(file))

    def faults(self) -> Iterator[tuple[str, Any]]:
        yield "the directory is gone", self._moved()

    @contextmanager
    def _moved(self) -> Iterator[None]:
        away = self.path.parent.with_name(self.path.parent.name + "-away")
        self.path.parent.rename(away)
        yield
        away.rename(self.path.parent)


class TestWebhook(Patience, ActionConformance):
    secrets = (FakeWebhookReceiver.SECRET, "path-with-a-token")

    @pytest.fixture(autouse=True)
    def _receiver(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        monkeypatch.setenv("HOOK_SECRET", FakeWebhookReceiver.SECRET)
        with FakeWebhookReceiver() as self.receiver:
            yield

    def make(self) -> Webhook:
        url = self.receiver.url + "/path-with-a-token"
        options = {"occasions": ["report", "release", "delete", "ban"], "hashes": True, "timeout_s": self.timeout_s}
        return Webhook("hook", {"kind": "webhook", "url": url, "secret_env": "HOOK_SECRET", **options})

    def taken(self) -> Mapping[str, int]:
        return {key: 1 + self.receiver.repeats[key] for key in self.receiver.received}

    def traffic(self) -> int:
        return len(self.receiver.requests)

    def faults(self) -> Iterator[tuple[str, Any]]:
        for kind in HTTP_FAULTS:
            yield repr(kind), self.misbehaving(self.receiver, kind)
        yield "a body that is quoted", self.misbehaving(self.receiver, Status(400, body=SHA256.hex().encode()))


class TestXarfPost(Patience, ActionConformance):
    secrets = ("a-token-for-tests",)

    @pytest.fixture(autouse=True)
    def _receiver(self, tmp_path: Path) -> Iterator[None]:
        self.token = tmp_path / "token"
        self.token.write_text("a-token-for-tests\n")
        with FakeXarfReceiver(token="a-token-for-tests") as self.receiver:
            yield
        assert self.receiver.problems == []
        assert not self.receiver.changed

    def make(self) -> XarfReporter:
        table = {"kind": "xarf", "url": self.receiver.url, "token_file": str(self.token), "timeout_s": self.timeout_s}
        return XarfReporter("hotline", {**table, "reporter": PARTY})

    def taken(self) -> Mapping[str, int]:
        return {key: 1 + self.receiver.repeats[key] for key in self.receiver.reports}

    def traffic(self) -> int:
        return len(self.receiver.requests)

    def faults(self) -> Iterator[tuple[str, Any]]:
        for kind in HTTP_FAULTS:
            yield repr(kind), self.misbehaving(self.receiver, kind)


class TestXarfMail(Patience, ActionConformance):
    @pytest.fixture(autouse=True)
    def _server(self) -> Iterator[None]:
        with FakeSmtpServer() as self.server:
            yield

    def make(self) -> XarfReporter:
        smtp = {"host": "127.0.0.1", "port": self.server.port, "security": "none"}
        to = ["hotline@authority.example", "copy@authority.example"]
        return XarfReporter(
            "hotline", {"kind": "xarf", "to": to, "smtp": smtp, "timeout_s": self.timeout_s, "reporter": PARTY}
        )

    def taken(self) -> Mapping[str, int]:
        return Counter(mail.parsed()["Message-ID"].strip("<>").partition("@")[0] for mail in self.server.mails)

    def traffic(self) -> int:
        return len(self.server.commands)

    def faults(self) -> Iterator[tuple[str, Any]]:
        for stage in ("banner", "ehlo", "mail", "rcpt", "data", "message"):
            for kind in (Reply(451), Reply(550), HangUp(), HangUp(reset=True), Raw(b"?\r\n")):
                if stage != "message" or not isinstance(kind, Raw):
                    yield f"{kind!r} at {stage}", self.misbehaving(self.server, kind, at=stage)
        yield "a mail server that hangs", self.misbehaving(self.server, Hang(60), at="rcpt")
