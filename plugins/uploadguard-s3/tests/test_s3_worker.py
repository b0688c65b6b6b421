"""The worker of a queue, against an emulator of SQS: what it lets go of, what it keeps, what becomes of the rest."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from s3_queues import FakeChecks, Proxy, Records, body_of, client_options, on_a_loop, queue_place, until, working

from uploadguard.errors import ConfigError, NotReadyError
from uploadguard_s3 import worker as worker_module
from uploadguard_s3.dead_letters import DeadLetterFile, DeadLetterLog
from uploadguard_s3.events import EventKind
from uploadguard_s3.handling import Ending
from uploadguard_s3.model import ObjectRef, Outcome, S3Poison, S3Retry
from uploadguard_s3.queues import open_queue

TEST_EVENT = json.dumps({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "uploads"})


@pytest.fixture
def no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "_backoff_s", lambda _: 0.0)


@on_a_loop
async def test_what_is_final_leaves_the_queue_and_what_asks_for_nothing_too(emulator: str) -> None:
    async def does(ref: ObjectRef) -> Outcome:
        return Outcome.SKIPPED if ref.key.endswith(".txt") else Outcome.ALLOWED

    checks = FakeChecks(does)
    async with queue_place(emulator) as place:
        await place.send(body_of("a+b%2B.jpg"), TEST_EVENT, body_of("gone", name="ObjectRemoved:Delete"))
        await place.send(body_of("t", name="ObjectTagging:Put"), body_of("new", name="Whole:New"), body_of("c.txt"))
        async with working(place, checks) as worker:
            await place.empty()
            await until(lambda: not worker.held)
        assert await place.dead() == []
    assert sorted(checks.seen) == ["a b+.jpg", "c.txt"]
    assert worker.tally.objects == {Outcome.ALLOWED: 1, Outcome.SKIPPED: 1}
    assert worker.tally.messages == {Ending.DONE: 6}
    assert worker.tally.events == {
        EventKind.CREATED: 2, EventKind.TEST: 1, EventKind.REMOVED: 1, EventKind.TAGGED: 1, EventKind.OTHER: 1,
    }  # fmt: skip


@pytest.mark.usefixtures("no_backoff")
@on_a_loop
async def test_a_message_stays_until_all_of_its_records_are_final(emulator: str) -> None:
    tries: Counter[str] = Counter()

    async def does(ref: ObjectRef) -> Outcome:
        tries[ref.key] += 1
        if ref.key == "b" and tries["b"] < 3:
            raise S3Retry("not now") if tries["b"] < 2 else NotReadyError("no hash set")
        return Outcome.ALLOWED if tries[ref.key] == 1 else Outcome.DUPLICATE

    async with queue_place(emulator) as place:
        await place.send(body_of("a", "b", "c"))
        async with working(place, FakeChecks(does)) as worker:
            await place.empty()
            await until(lambda: not worker.held)
    assert tries == {"a": 3, "b": 3, "c": 3}
    assert worker.tally.messages == {Ending.RETRY: 2, Ending.DONE: 1}


@pytest.mark.usefixtures("no_backoff")
@on_a_loop
async def test_a_wait_that_was_asked_for_is_kept(emulator: str) -> None:
    async def does(_: ObjectRef) -> Outcome:
        raise S3Retry("later", after_s=600)

    async with queue_place(emulator) as place:
        await place.send(body_of("a"))
        async with working(place, FakeChecks(does)) as worker:
            await until(lambda: worker.tally.messages[Ending.RETRY] == 1 and not worker.held)
        answer = await place.client.receive_message(QueueUrl=place.url, WaitTimeSeconds=1)
        assert "Messages" not in answer
        assert await place.count() == 1


@on_a_loop
async def test_poison_goes_to_the_dead_letters_after_its_reason_is_on_disk(emulator: str, tmp_path: Path) -> None:
    async def does(_: ObjectRef) -> Outcome:
        raise S3Poison("it will never work")

    async with queue_place(emulator) as place:
        record = DeadLetterFile(tmp_path / "dead.jsonl", "events")
        await place.send("secret garbage", body_of("secret-key"))
        async with working(place, FakeChecks(does), record=record) as worker:
            await place.empty()
            await until(lambda: not worker.held)
        dead = await place.dead()
    text = (tmp_path / "dead.jsonl").read_text()
    assert "secret" not in text
    lines = {line["reason"]: line for line in map(json.loads, text.splitlines())}
    assert set(lines) == {"the message is no JSON text", "it will never work"}
    assert {body: facts["uploadguard-reason"] for body, facts in dead} == {
        "secret garbage": "the message is no JSON text",
        body_of("secret-key"): "it will never work",
    }
    for _, facts in dead:
        line = lines[facts["uploadguard-reason"]]
        assert (line["message_id"], line["queue"], line["receives"]) == (facts["uploadguard-message-id"], "events", 1)


@pytest.mark.usefixtures("no_backoff")
@on_a_loop
async def test_without_a_record_of_its_reason_no_message_becomes_a_dead_letter(emulator: str) -> None:
    records = Records(refuses=True)
    async with queue_place(emulator) as place:
        await place.send("garbage")
        async with working(place, FakeChecks(), record=records) as worker:
            await until(lambda: worker.tally.messages[Ending.RETRY] >= 2)
            assert await place.dead() == []
            records.refuses = False
            await place.empty()
        assert len(await place.dead()) == 1
    assert worker.tally.messages[Ending.DEAD] == len(records.kept) == 1


@on_a_loop
async def test_the_good_records_beside_a_bad_one_are_checked(emulator: str) -> None:
    body = json.dumps({"Records": [7, *json.loads(body_of("a", "b"))["Records"]]})
    checks, records = FakeChecks(), Records()
    async with queue_place(emulator) as place:
        await place.send(body)
        async with working(place, checks, record=records):
            await place.empty()
        assert [letter for letter, _ in await place.dead()] == [body]
    assert checks.seen == ["a", "b"]
    assert records.kept == [("record 0: a record is no JSON object", 1)]


@pytest.mark.usefixtures("no_backoff")
@on_a_loop
async def test_a_fault_that_does_not_pass_is_given_up_in_the_end(emulator: str) -> None:
    async def does(_: ObjectRef) -> Outcome:
        raise LookupError("secret")

    records = Records()
    async with queue_place(emulator) as place:
        await place.send(body_of("a"))
        async with working(place, FakeChecks(does), record=records, max_receives=3) as worker:
            await place.empty()
            await until(lambda: not worker.held)
    assert records.kept == [("given up after 3 tries: unexpected LookupError", 3)]
    assert worker.tally.messages == {Ending.RETRY: 2, Ending.DEAD: 1}


@pytest.mark.usefixtures("no_backoff")
@on_a_loop
async def test_what_will_pass_is_not_given_up_but_what_ends_workers_is(emulator: str) -> None:
    async def does(_: ObjectRef) -> Outcome:
        raise S3Retry("not now")

    records = Records()
    async with queue_place(emulator) as place:
        await place.send(body_of("a"))
        async with working(place, FakeChecks(does), record=records, max_receives=1) as worker:
            worker._pause_s = lambda: 0.0  # type: ignore[method-assign]
            await place.empty()
            await until(lambda: not worker.held)
    assert records.kept == [("received 11 times, and never was an end", 11)]


@on_a_loop
async def test_a_message_is_kept_from_others_as_long_as_its_check_runs(emulator: str) -> None:
    done = asyncio.Event()

    async def does(_: ObjectRef) -> Outcome:
        await done.wait()
        return Outcome.ALLOWED

    first, second = FakeChecks(does), FakeChecks()
    async with queue_place(emulator) as place:
        await place.send(body_of("a"))
        async with working(place, first, visibility_s=1) as worker:
            await until(lambda: first.seen)
            async with working(place, second, visibility_s=1):
                await asyncio.sleep(2.0)
                done.set()
                await place.empty()
        assert worker.lost == 0
    assert (first.seen, second.seen) == (["a"], [])


@on_a_loop
async def test_a_worker_says_of_what_it_lost(emulator: str, caplog: pytest.LogCaptureFixture) -> None:
    done = asyncio.Event()

    async def does(_: ObjectRef) -> Outcome:
        await done.wait()
        return Outcome.ALLOWED

    checks = FakeChecks(does)
    async with queue_place(emulator) as place:
        await place.send(body_of("a"))
        async with working(place, checks, visibility_s=1) as worker:
            await until(lambda: checks.seen)
            await place.client.purge_queue(QueueUrl=place.url)
            await until(lambda: worker.lost)
            done.set()
            await until(lambda: not worker.held)
    assert "not held any more" in caplog.text


@on_a_loop
async def test_a_worker_that_is_killed_leaves_its_messages_to_the_next(emulator: str) -> None:
    async with queue_place(emulator) as place:
        await place.send(*(body_of(f"k{number}") for number in range(5)))
        program = Path(__file__).with_name("s3_hanging_worker.py")
        process = await asyncio.create_subprocess_exec(
            sys.executable, program, emulator, place.url, stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        assert await process.stdout.readline() == b"begun\n"
        process.kill()
        await process.wait()
        checks = FakeChecks()
        async with working(place, checks):
            await place.empty()
    assert set(checks.seen) == {f"k{number}" for number in range(5)}


@on_a_loop
async def test_stopping_finishes_what_has_begun_and_gives_back_the_rest_at_once(emulator: str) -> None:
    done = asyncio.Event()

    async def does(_: ObjectRef) -> Outcome:
        await done.wait()
        return Outcome.ALLOWED

    first, second = FakeChecks(does), FakeChecks()
    async with queue_place(emulator) as place:
        await place.send(body_of("a"), body_of("b"), body_of("c"))
        async with working(place, first, at_once=1, visibility_s=600) as worker:
            await until(lambda: worker.held == 3 and first.seen)
            asyncio.get_running_loop().call_later(0.3, done.set)
        assert await place.count() == 2
        async with working(place, second):
            await place.empty()
    assert len(first.seen) == 1
    assert sorted(first.seen + second.seen) == ["a", "b", "c"]


@on_a_loop
async def test_stopping_waits_within_bounds(emulator: str) -> None:
    async def does(_: ObjectRef) -> Outcome:
        await asyncio.sleep(3600)
        return Outcome.ALLOWED

    first, second = FakeChecks(does), FakeChecks()
    async with queue_place(emulator) as place:
        await place.send(body_of("a"))
        async with working(place, first, stop_s=0.1, visibility_s=600):
            await until(lambda: first.seen)
        async with working(place, second):
            await place.empty()
    assert second.seen == ["a"]


@on_a_loop
async def test_a_worker_outlives_outages_of_the_queue(emulator: str, caplog: pytest.LogCaptureFixture) -> None:
    checks = FakeChecks()
    async with Proxy(emulator) as proxy, queue_place(emulator) as place:
        # An abandoned request may still get the message, which then comes again after its visibility time-out.
        async with working(place, checks, url=proxy.url, visibility_s=1):
            for mode in ("refuse", "throttle"):
                caplog.clear()
                proxy.become(mode)
                await place.send(body_of(mode))
                await until(lambda: "trying again until it does" in caplog.text)
                proxy.become("pass")
                await place.empty()
                assert caplog.text.count("trying again until it does") == 1
                assert "the queue answers again" in caplog.text
        assert checks.seen == ["refuse", "throttle"]


@pytest.mark.usefixtures("no_backoff")
@on_a_loop
async def test_while_no_check_succeeds_less_is_taken(emulator: str, caplog: pytest.LogCaptureFixture) -> None:
    down = True

    async def does(_: ObjectRef) -> Outcome:
        if down:
            raise S3Retry("the store is down")
        return Outcome.ALLOWED

    async with queue_place(emulator) as place:
        await place.send(*(body_of(f"k{number}") for number in range(12)))
        async with working(place, FakeChecks(does), at_once=4) as worker:
            await until(lambda: "fewer messages are taken" in caplog.text)
            assert worker._pause_s() > 0
            down = False
            await place.empty()
    assert caplog.text.count("fewer messages are taken: the store is down") == 1
    assert "checks go on" in caplog.text
    assert worker.tally.messages[Ending.DEAD] == 0


@on_a_loop
async def test_one_keys_events_go_one_after_the_other_and_others_beside_them(emulator: str) -> None:
    now: Counter[str] = Counter()
    most: Counter[str] = Counter()

    async def does(ref: ObjectRef) -> Outcome:
        for name in (ref.key, "all"):
            now[name] += 1
            most[name] = max(most[name], now[name])
        await asyncio.sleep(0.05)
        for name in (ref.key, "all"):
            now[name] -= 1
        return Outcome.ALLOWED

    async with queue_place(emulator) as place:
        await place.send(*(body_of("same") for _ in range(4)), *(body_of(f"k{number}") for number in range(4)))
        async with working(place, FakeChecks(does), at_once=6):
            await place.empty()
    assert most["same"] == 1
    assert 1 < most["all"] <= 6


@on_a_loop
async def test_no_more_is_held_than_the_limits_say(emulator: str) -> None:
    held: list[int] = []
    async with queue_place(emulator) as place:
        await place.send(*(body_of(f"k{number}") for number in range(40)))

        async def does(_: ObjectRef) -> Outcome:
            held.append(worker.held)
            await asyncio.sleep(0.005)
            return Outcome.ALLOWED

        async with working(place, FakeChecks(does), at_once=3) as worker:
            await place.empty()
    assert max(held) <= 13


@on_a_loop
async def test_the_emulators_own_s3_tells_of_uploads(emulator: str) -> None:
    import aioboto3

    checks = FakeChecks()
    async with queue_place(emulator) as place, aioboto3.Session().client("s3", **client_options(emulator)) as s3:
        await s3.create_bucket(Bucket="told")
        told = {"QueueArn": place.arn, "Events": ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]}
        await s3.put_bucket_notification_configuration(
            Bucket="told", NotificationConfiguration={"QueueConfigurations": [told]}
        )
        await s3.put_object(Bucket="told", Key="one/two.jpg", Body=b"x")
        await s3.delete_object(Bucket="told", Key="one/two.jpg")
        async with working(place, checks) as worker:
            await until(lambda: worker.tally.events.total() == 3)
            await place.empty()
    assert checks.seen == ["one/two.jpg"]
    assert worker.tally.events == {EventKind.TEST: 1, EventKind.CREATED: 1, EventKind.REMOVED: 1}


@on_a_loop
async def test_a_worker_does_not_start_without_its_queues(emulator: str) -> None:
    async with queue_place(emulator) as place:
        lone = (await place.client.create_queue(QueueName="lone"))["QueueUrl"]
        options: dict[str, Any] = dict(client_options(emulator))
        for url, dead, said in (
            (lone, None, "has no dead-letter queue: set dead_letter_url"),
            (lone + "-not", place.dead_url, "no such queue"),
            (lone, lone + "-not", "no such dead-letter queue"),
        ):
            async with open_queue(url, dead_letter_url=dead, **options) as queue:
                with pytest.raises(ConfigError, match=said):
                    await queue.find_dead_letters()


@on_a_loop
async def test_the_file_of_dead_letters_takes_a_line_torn_by_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "dead.jsonl"
    path.write_text('{"at": "2026')
    record = DeadLetterFile(path, "q")
    await asyncio.gather(*(record.keep(f"m{number}", "why", receives=number) for number in range(5)))
    lines = path.read_text().splitlines()
    assert sorted(json.loads(line)["receives"] for line in lines[1:]) == [0, 1, 2, 3, 4]


@on_a_loop
async def test_a_dead_letter_can_be_recorded_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "uploadguard"):
        await DeadLetterLog().keep("m-1", "no JSON", receives=2)
    assert "dead letter, message m-1, received 2 times: no JSON" in caplog.text
