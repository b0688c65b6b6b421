"""The Lambda handler: partial failures of a batch, invocations by others than a queue, and the time that is left."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from s3_objects import BLOCKED, allowed
from s3_queues import FakeChecks, body_of
from s3_server import ACCESS_KEY, REGION, SECRET_KEY, S3Server

from uploadguard.errors import ConfigError, NotReadyError
from uploadguard_s3 import awslambda
from uploadguard_s3.awslambda import LambdaHandler
from uploadguard_s3.model import Checks, ObjectRef, Outcome, S3Poison, S3Retry


class Context:
    """An invocation with so much time left."""

    def __init__(self, left_s: float = 60.0) -> None:
        self._left_s = left_s

    def get_remaining_time_in_millis(self) -> int:
        return int(self._left_s * 1e3)


def batch(*bodies: str, **attributes: str) -> dict[str, Any]:
    return {
        "Records": [
            {"messageId": f"m{number}", "eventSource": "aws:sqs", "body": body, "attributes": attributes}
            for number, body in enumerate(bodies)
        ]
    }


def failed(answer: dict[str, Any] | None) -> list[str]:
    assert answer is not None
    return [one["itemIdentifier"] for one in answer["batchItemFailures"]]


@pytest.fixture
def opened() -> Iterator[Callable[..., LambdaHandler]]:
    """Makes handlers whose checks are made up, and closes them."""
    made: list[LambdaHandler] = []

    def make(checks: Checks, **more: Any) -> LambdaHandler:
        @asynccontextmanager
        async def opens() -> AsyncIterator[Checks]:
            yield checks

        made.append(LambdaHandler(opens, **more))
        return made[-1]

    yield make
    for one in made:
        one.close()


Opened = Callable[..., LambdaHandler]


async def does(ref: ObjectRef) -> Outcome:
    if ref.key == "later":
        raise S3Retry("not now")
    if ref.key == "never":
        raise S3Poison("it will never work")
    if ref.key == "hangs":
        await asyncio.sleep(3600)
    return Outcome.ALLOWED


def test_only_what_failed_comes_again(opened: Opened, caplog: pytest.LogCaptureFixture) -> None:
    checks = FakeChecks(does)
    bodies = [body_of("a"), body_of("b", "later"), "garbage", body_of("c"), body_of("never"), '{"Records": []}']
    with caplog.at_level(logging.WARNING, "uploadguard"):
        assert failed(opened(checks)(batch(*bodies, ApproximateReceiveCount="3"), Context())) == ["m1", "m2", "m4"]
    assert sorted(checks.seen) == ["a", "b", "c", "later", "never"]
    assert "dead letter, message m2, received 3 times: the message is no JSON text" in caplog.text
    assert "dead letter, message m4, received 3 times: it will never work" in caplog.text
    assert "message m1 must be tried again: not now" in caplog.text


def test_a_batch_without_failures(opened: Opened) -> None:
    handler = opened(FakeChecks(does))
    for _ in range(2):
        assert handler(batch(body_of("a"), body_of("b")), Context()) == {"batchItemFailures": []}


def test_a_group_of_a_fifo_queue_keeps_its_order(opened: Opened) -> None:
    checks = FakeChecks(does)
    event = batch(body_of("a"), body_of("later"), body_of("c"), MessageGroupId="g")
    assert failed(opened(checks)(event, Context())) == ["m1", "m2"]
    assert checks.seen == ["a", "later"]


def test_what_hangs_is_stopped_before_the_time_is_over(opened: Opened) -> None:
    checks = FakeChecks(does)
    handler = opened(checks, margin_s=0.1)
    assert failed(handler(batch(body_of("a"), body_of("hangs"), body_of("c")), Context(0.4))) == ["m1"]
    with pytest.raises(S3Retry, match="time of the invocation"):
        handler(json.loads(body_of("hangs")), Context(0.3))
    assert handler(batch(body_of("b")), Context()) == {"batchItemFailures": []}


def test_no_more_at_once_than_the_limit(opened: Opened) -> None:
    now = most = 0

    async def count(_: ObjectRef) -> Outcome:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.01)
        now -= 1
        return Outcome.ALLOWED

    opened(FakeChecks(count), at_once=2)(batch(*(body_of(f"k{number}") for number in range(8))), Context())
    assert most == 2


def test_invoked_by_s3_itself(opened: Opened) -> None:
    checks = FakeChecks(does)
    handler = opened(checks)
    assert handler(json.loads(body_of("a+b", "c")), Context()) is None
    assert checks.seen == ["a b", "c"]
    with pytest.raises(S3Retry, match="not now"):
        handler(json.loads(body_of("later")), Context())
    with pytest.raises(S3Poison, match="it will never work"):
        handler(json.loads(body_of("never")), Context())
    with pytest.raises(S3Poison, match="no event notification"):
        handler({"hello": "world"}, Context())


def test_the_checks_are_opened_once_and_again_after_a_failure() -> None:
    opens = 0

    @asynccontextmanager
    async def failing_first() -> AsyncIterator[Checks]:
        nonlocal opens
        opens += 1
        if opens == 1:
            raise NotReadyError("no hash set yet")
        yield FakeChecks(does)

    handler = LambdaHandler(failing_first)
    with pytest.raises(NotReadyError):
        handler(batch(body_of("a")), Context())
    for _ in range(3):
        assert failed(handler(batch(body_of("a")), Context())) == []
    handler.close()
    assert opens == 2


def test_the_function_itself_on_a_real_server(
    s3_server: S3Server, bucket_name: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import botocore.session

    bucket = bucket_name("lambda")
    client = botocore.session.get_session().create_client("s3", **s3_server.client_options())
    client.create_bucket(Bucket=bucket)
    for key, body in (("good one", allowed()), ("bad", BLOCKED)):
        client.put_object(Bucket=bucket, Key=key, Body=body)
    (tmp_path / "guard.toml").write_text('[hashset]\npath = "hashset"\ntest_list = true\nallow_empty = true\n')
    (tmp_path / "s3.toml").write_text(
        f'[client]\nendpoint_url = "{s3_server.url}"\nregion = "{REGION}"\n'
        f'[state]\npath = "{tmp_path / "state.db"}"\n[routes.all]\nbucket = "{bucket}"\n'
    )
    from uploadguard.hashset import HashSet

    HashSet.create(tmp_path / "hashset")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.setenv("UPLOADGUARD_CONFIG", str(tmp_path / "guard.toml"))
    monkeypatch.setattr(awslambda, "_OPENED", [])
    with pytest.raises(ConfigError, match="S3_UPLOADGUARD_CONFIG"):
        awslambda.handler(batch(body_of("bad")), Context())
    monkeypatch.setenv("S3_UPLOADGUARD_CONFIG", str(tmp_path / "s3.toml"))

    event = batch(body_of("good+one", bucket=bucket), body_of("bad", bucket=bucket), body_of("gone", bucket=bucket))
    assert awslambda.handler(event, Context()) == {"batchItemFailures": []}
    awslambda._OPENED[0].close()
    for key, verdict in (("good one", "allow"), ("bad", "block")):
        tags = {tag["Key"]: tag["Value"] for tag in client.get_object_tagging(Bucket=bucket, Key=key)["TagSet"]}
        assert tags["uploadguard-verdict"] == verdict
    client.close()
