"""Webhooks: what is sent, how it is signed, and what each answer means."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.destinations.tasks import SHA256, made_up_task
from uploadguard.actions import Occasion, Task
from uploadguard.destinations.webhook import Webhook, sign, verify
from uploadguard.errors import ConfigError, PostponedError, RefusedError, WebhookError
from uploadguard.testing.fakes import (
    CHAOS,
    Garbage,
    HalfClosed,
    Huge,
    LostResponse,
    Redirect,
    Slow,
    Status,
    throttled,
)
from uploadguard.testing.fakes.webhook import FakeWebhookReceiver
from uploadguard.testing.journal import ScriptedJournal

OLD, NEW = ("whsec_" + base64.b64encode(bytes([number]) * 24).decode() for number in (1, 2))


@pytest.fixture
def receiver() -> Iterator[FakeWebhookReceiver]:
    with FakeWebhookReceiver(secrets=[NEW]) as running:
        yield running


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text(NEW + "\n")
    return path


@pytest.fixture
def action(receiver: FakeWebhookReceiver, secret: Path) -> Webhook:
    return webhook(receiver, secret)


def webhook(receiver: FakeWebhookReceiver, secret: Path, **options: Any) -> Webhook:
    table = {"kind": "webhook", "url": receiver.url + "/hook", "secret_file": str(secret), "timeout_s": 2.0, **options}
    return Webhook("hook", table)


def deliver(action: Webhook, task: Task) -> None:
    action.deliver(task, ScriptedJournal(task))


class TestRequest:
    def test_a_task_arrives_signed(self, receiver: FakeWebhookReceiver, action: Webhook) -> None:
        task = made_up_task(occasion=Occasion.DELETE, case_id=3)
        receipt = action.deliver(task, ScriptedJournal(task))
        assert receipt.facts == {"sent": True, "status": 204}
        body = receiver.received[task.key]
        assert body["type"] == "uploadguard.delete"
        assert body["data"]["context"]["object_id"] == "obj-1"
        (request,) = receiver.requests
        assert request.path == "/hook"
        assert request.headers["content-type"] == "application/json"
        assert request.headers["user-agent"] == "uploadguard"

    def test_without_hashes_unless_asked_for(self, receiver: FakeWebhookReceiver, secret: Path) -> None:
        for hashes in (False, True):
            task = made_up_task()
            deliver(webhook(receiver, secret, hashes=hashes), task)
            assert (SHA256.hex() in json.dumps(receiver.received[task.key])) == hashes
            assert (SHA256[:16].hex() in json.dumps(receiver.received[task.key])) == hashes

    def test_a_repetition_is_the_same_body(self, receiver: FakeWebhookReceiver, action: Webhook) -> None:
        task = made_up_task()
        for _ in range(3):
            deliver(action, task)
        assert receiver.repeats[task.key] == 2
        assert not receiver.changed

    def test_a_lost_answer_is_sent_again(self, receiver: FakeWebhookReceiver, action: Webhook) -> None:
        task = made_up_task()
        receiver.misbehave(LostResponse())
        with pytest.raises(PostponedError):
            deliver(action, task)
        deliver(action, task)
        assert receiver.repeats == {task.key: 1}
        assert not receiver.changed

    def test_a_task_that_was_taken_back_is_not_sent(self, receiver: FakeWebhookReceiver, action: Webhook) -> None:
        deliver(action, made_up_task(cancelled=True))
        assert receiver.requests == []


class TestSecrets:
    def test_while_it_changes_both_sign(self, receiver: FakeWebhookReceiver, secret: Path) -> None:
        action = webhook(receiver, secret)
        secret.write_text(f"{OLD}\n{NEW}\n")
        for secrets in ([OLD], [NEW]):
            receiver.secrets = tuple(secrets)
            task = made_up_task()
            deliver(action, task)
            assert task.key in receiver.received

    def test_another_secret_waits_for_the_right_one(self, receiver: FakeWebhookReceiver, action: Webhook) -> None:
        receiver.secrets = (OLD,)
        with pytest.raises(PostponedError, match="401") as caught:
            deliver(action, made_up_task())
        assert caught.value.outage
        assert receiver.refused == 1

    def test_a_secret_that_vanished_is_postponed(self, action: Webhook, secret: Path) -> None:
        secret.unlink()
        with pytest.raises(PostponedError, match="no secret"):
            deliver(action, made_up_task())
        secret.write_text("\u00fc" * 40)
        with pytest.raises(PostponedError, match="cannot be used"):
            deliver(action, made_up_task())

    def test_it_may_be_in_the_environment(self, receiver: FakeWebhookReceiver, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOOK_SECRET", NEW)
        action = Webhook("hook", {"kind": "webhook", "url": receiver.url, "secret_env": "HOOK_SECRET"})
        task = made_up_task()
        deliver(action, task)
        assert task.key in receiver.received
        assert NEW not in repr(action)
        assert NEW not in repr(vars(action))


class TestAnswers:
    @pytest.mark.parametrize("status", [400, 404, 410, 413, 422])
    def test_refusals(self, receiver: FakeWebhookReceiver, action: Webhook, status: int) -> None:
        receiver.misbehave(Status(status, body=b"because"))
        with pytest.raises(RefusedError, match=str(status)) as caught:
            deliver(action, made_up_task())
        assert "because" not in str(caught.value)

    @pytest.mark.parametrize("status", [401, 403, 408, 409, 425, 429, 500, 502, 503])
    def test_later(self, receiver: FakeWebhookReceiver, action: Webhook, status: int) -> None:
        receiver.misbehave(throttled(17, status))
        with pytest.raises(PostponedError, match=str(status)) as caught:
            deliver(action, made_up_task())
        assert caught.value.after_s == 17

    @pytest.mark.parametrize("kind", [HalfClosed(), Slow(60), *CHAOS], ids=repr)
    def test_whatever_goes_wrong_it_arrives_in_the_end(
        self, receiver: FakeWebhookReceiver, secret: Path, kind: Any
    ) -> None:
        action, task = webhook(receiver, secret, timeout_s=0.5), made_up_task()
        receiver.misbehave(kind)
        if isinstance(kind, Garbage):  # the receiver said that it has it
            deliver(action, task)
        else:
            with pytest.raises(PostponedError):
                deliver(action, task)
        deliver(action, task)
        assert task.key in receiver.received
        assert not receiver.changed

    def test_a_redirect_is_a_refusal(self, receiver: FakeWebhookReceiver, action: Webhook) -> None:
        receiver.misbehave(Redirect(receiver.url + "/elsewhere"))
        with pytest.raises(RefusedError, match="redirects"):
            deliver(action, made_up_task())
        assert len(receiver.requests) == 1

    def test_an_endless_answer_to_a_success(self, receiver: FakeWebhookReceiver, action: Webhook) -> None:
        receiver.misbehave(Huge())
        deliver(action, made_up_task())


class TestOptions:
    def problems(self, **table: Any) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            Webhook("hook", {"kind": "webhook", **table})
        return caught.value.problems

    def test_what_is_missing(self, secret: Path) -> None:
        assert self.problems() == ["actions.hook.url: is missing"]
        assert self.problems(url="https://a.example") == ["actions.hook: needs secret_env or secret_file, and not both"]
        both = self.problems(url="https://a.example", secret_file=str(secret), secret_env="PATH")
        assert both == ["actions.hook: needs secret_env or secret_file, and not both"]

    def test_what_is_wrong(self, secret: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        good = {"url": "https://a.example", "secret_file": str(secret)}
        (one,) = self.problems(**good, urll="x")
        assert one.startswith("actions.hook.urll: unknown key; did you mean url?")
        (one,) = self.problems(**good, occasions=["reprt"])
        assert one.startswith('actions.hook.occasions[0]: must be "report", "release", "delete" or "ban"')
        assert self.problems(**good, occasions=[]) == ["actions.hook.occasions: must not be empty"]
        (one,) = self.problems(**good, occasions=["ban", "ban"])
        assert "twice" in one
        (one,) = self.problems(**{**good, "url": "http://a.example"})
        assert one.startswith("actions.hook.url: must begin with https://")
        (one,) = self.problems(url="https://a.example", secret_file=str(tmp_path / "none"))
        assert one.startswith("actions.hook.secret_file: cannot be read")
        monkeypatch.setenv("HOOK_SECRET", "not base64!")
        (one,) = self.problems(url="https://a.example", secret_env="HOOK_SECRET")
        assert one.startswith("actions.hook.secret_env: must hold base64")
        monkeypatch.setenv("HOOK_SECRET", "c2hvcnQ=")
        (one,) = self.problems(url="https://a.example", secret_env="HOOK_SECRET")
        assert one.startswith("actions.hook.secret_env: must hold secrets of 16 bytes")
        monkeypatch.delenv("HOOK_SECRET")
        (one,) = self.problems(url="https://a.example", secret_env="HOOK_SECRET")
        assert one.startswith("actions.hook.secret_env: names an environment variable that is not set")


class TestVerify:
    BODY = b'{"a":1}'

    def headers(self, **changes: str) -> dict[str, str]:
        headers = {
            "webhook-id": "id-1",
            "webhook-timestamp": "1000",
            "webhook-signature": sign(NEW, "id-1", 1000, self.BODY),
        }
        return {**headers, **changes}

    def test_the_signature_is_that_of_the_convention(self) -> None:
        key = base64.b64decode(NEW.removeprefix("whsec_"))
        expected = hmac.new(key, b"id-1.1000." + self.BODY, hashlib.sha256).digest()
        assert sign(NEW, "id-1", 1000, self.BODY) == "v1," + base64.b64encode(expected).decode()

    def test_a_published_example(self) -> None:
        """From the convention's own libraries."""
        secret, webhook_id = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek"
        found = sign(secret, webhook_id, 1614265330, b'{"test": 2432232314}')
        assert found == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="

    def test_what_is_right_passes(self) -> None:
        assert verify(self.BODY, self.headers(), NEW, now_s=1000) == "id-1"
        assert verify(self.BODY, {k.title(): v for k, v in self.headers().items()}, [OLD, NEW], now_s=1300) == "id-1"
        several = self.headers(**{"webhook-signature": f"v1a,x v1,AAAA {sign(NEW, 'id-1', 1000, self.BODY)}"})
        assert verify(self.BODY, several, NEW, now_s=700) == "id-1"

    @pytest.mark.parametrize(
        ("changes", "body", "now_s"),
        [
            ({}, b'{"a":2}', 1000),
            ({}, BODY, 1301),
            ({}, BODY, 699),
            ({"webhook-id": "id-2"}, BODY, 1000),
            ({"webhook-id": ""}, BODY, 1000),
            ({"webhook-timestamp": "1001"}, BODY, 1000),
            ({"webhook-timestamp": "\u0661"}, BODY, 1000),
            ({"webhook-timestamp": "1e3"}, BODY, 1000),
            ({"webhook-timestamp": ""}, BODY, 1000),
            ({"webhook-signature": ""}, BODY, 1000),
            ({"webhook-signature": "v1,"}, BODY, 1000),
            ({"webhook-signature": "\ud800"}, BODY, 1000),
        ],
    )
    def test_what_is_wrong_does_not(self, changes: dict[str, str], body: bytes, now_s: float) -> None:
        with pytest.raises(WebhookError):
            verify(body, self.headers(**changes), NEW, now_s=now_s)

    def test_another_secret_does_not(self) -> None:
        with pytest.raises(WebhookError):
            verify(self.BODY, self.headers(), OLD, now_s=1000)
        with pytest.raises(ValueError, match="base64"):
            verify(self.BODY, self.headers(), "?", now_s=1000)

    @given(
        st.dictionaries(st.sampled_from(["webhook-id", "webhook-timestamp", "webhook-signature"]), st.text()),
        st.binary(),
    )
    def test_no_headers_make_it_fail_otherwise(self, headers: dict[str, str], body: bytes) -> None:
        with pytest.raises(WebhookError):
            verify(body, headers, NEW)
