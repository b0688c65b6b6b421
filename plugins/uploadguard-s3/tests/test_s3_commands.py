"""``uploadguard s3``: the commands on a real server, and the worker as a process that is told to stop."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from click.testing import CliRunner, Result
from s3_objects import BLOCKED, QUEUED, UNSCANNED, allowed
from s3_queues import QueuePlace, body_of, on_a_loop, queue_place
from s3_server import ACCESS_KEY, REGION, SECRET_KEY, S3Server

from uploadguard.cli import program
from uploadguard.cli.exits import Exit
from uploadguard.hashset import HashSet


@dataclass
class Deployment:
    """Settings in the working directory, for a bucket with ``in/``, ``out/`` and nothing in it yet."""

    path: Path
    bucket: str
    client: Any

    def put(self, key: str, body: bytes) -> None:
        self.client.put_object(Bucket=self.bucket, Key=key, Body=body)

    def tags(self, key: str) -> dict[str, str]:
        answer = self.client.get_object_tagging(Bucket=self.bucket, Key=key)
        return {tag["Key"]: tag["Value"] for tag in answer["TagSet"]}

    def keys(self) -> list[str]:
        return [one["Key"] for one in self.client.list_objects_v2(Bucket=self.bucket).get("Contents", ())]

    def read_queue(self, place: QueuePlace) -> None:
        with (self.path / "uploadguard-s3.toml").open("a") as file:
            file.write(
                f'[queue]\nurl = "{place.url}"\nendpoint_url = "{place.endpoint_url}"\nregion = "{REGION}"\n'
                "visibility_s = 3\nwait_s = 1\n"
            )


@pytest.fixture
def deployment(
    s3_server: S3Server, bucket_name: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Deployment]:
    bucket = bucket_name("commands")
    client = botocore.session.get_session().create_client("s3", **s3_server.client_options())
    client.create_bucket(Bucket=bucket)
    HashSet.create(tmp_path / "hashset")
    (tmp_path / "uploadguard.toml").write_text(
        '[hashset]\npath = "hashset"\ntest_list = true\nallow_empty = true\n[telemetry]\nmetrics = true\n'
    )
    (tmp_path / "uploadguard-s3.toml").write_text(
        f'[client]\nendpoint_url = "{s3_server.url}"\nregion = "{REGION}"\n[state]\nlease_s = 1.0\n'
        f'[routes.photos]\nbucket = "{bucket}"\nprefix = "in/"\npublic_prefix = "out/"\nskip_suffixes = [".txt"]\n'
    )
    for name in [name for name in os.environ if name.startswith("UPLOADGUARD_CONFIG")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.chdir(tmp_path)
    yield Deployment(tmp_path, bucket, client)
    client.close()


def run(*args: str) -> Result:
    return CliRunner().invoke(program, ["s3", *args])


def test_single_objects_and_those_that_were_missed(deployment: Deployment) -> None:
    for key, body in (("in/good", allowed()), ("in/bad", BLOCKED), ("in/near", QUEUED), ("in/also", allowed(2))):
        deployment.put(key, body)

    result = run("check", deployment.bucket, "in/bad", "--json")
    assert result.exit_code == Exit.BLOCK, result.output
    record = json.loads(result.stdout)
    assert (record["outcome"], record["verdict"], record["published"]) == ("blocked", "block", None)
    assert deployment.tags("in/bad")["uploadguard-verdict"] == "block"

    result = run("confirm", deployment.bucket, "in/good")
    assert result.exit_code == Exit.OK, result.output
    assert f"published as {deployment.bucket}/out/good" in result.stdout

    result = run("reconcile", "--dry-run", "--min-age", "0", "--json")
    assert result.exit_code == Exit.OK, result.output
    assert {name: json.loads(result.stdout)[name] for name in ("listed", "settled", "missed")} == {
        "listed": 3, "settled": 1, "missed": 2,
    }  # fmt: skip
    result = run("reconcile", "--min-age", "0")
    assert "3 listed, 1 settled, 0 too young, 2 missed" in result.stdout
    assert "1 queued" in result.stdout
    assert sorted(deployment.keys()) == ["in/bad", "in/near", "out/also", "out/good"]
    result = run("check", deployment.bucket, "elsewhere")
    assert "elsewhere: skipped (on no route" in result.stdout
    assert result.exit_code == Exit.NOT_SCANNED
    result = run("check", deployment.bucket, "in/nothing")
    assert "in/nothing: gone (no such" in result.stdout
    assert result.exit_code == Exit.NOT_SCANNED


def test_the_policy_is_printed() -> None:
    result = run("policy", "uploads", "--checker", "arn:aws:iam::1:role/guard", "--prefix", "in/")
    assert result.exit_code == 0
    assert {one["Resource"] for one in json.loads(result.stdout)["Statement"]} == {"arn:aws:s3:::uploads/in/*"}
    for wrong in (
        ["policy", "uploads"],
        ["policy", "uploads", "--checker", "*"],
        ["policy", "uploads", "--checker", "me"],
    ):
        assert run(*wrong).exit_code == Exit.USAGE


def test_without_settings_it_says_where_they_are_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("check", "bucket", "key")
    assert result.exit_code == Exit.ERROR
    assert "there is no ./uploadguard-s3.toml; use --settings or S3_UPLOADGUARD_CONFIG" in result.stderr


@pytest.mark.usefixtures("deployment")
def test_a_worker_needs_a_queue() -> None:
    result = run("worker")
    assert result.exit_code == Exit.ERROR
    assert "queue.url is missing" in result.stderr


def start_worker(*args: str) -> subprocess.Popen[str]:
    """A worker that has said that it reads its queue."""
    process = subprocess.Popen(  # noqa: S603 - this interpreter
        [sys.executable, "-m", "uploadguard", "s3", "worker", *args],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    assert "the queue is read" in process.stderr.readline()
    return process


@on_a_loop
async def test_a_worker_that_is_told_to_stop_finishes(deployment: Deployment, emulator: str) -> None:
    shuffle = random.Random(6).shuffle  # noqa: S311 - no secret
    bodies = {"good": allowed(), "bad": BLOCKED, "near": QUEUED, "text": UNSCANNED}
    uploads = {f"in/{name} {number}": body for number in range(3) for name, body in bodies.items()}
    for key, body in uploads.items():
        await asyncio.to_thread(deployment.put, key, body)
    events = [body_of(key.replace(" ", "+"), bucket=deployment.bucket) for key in uploads]
    noise = [
        json.dumps({"Event": "s3:TestEvent"}), body_of("in/note.txt", bucket=deployment.bucket), "garbage",
        body_of("in/good+0", name="ObjectTagging:Put", bucket=deployment.bucket),
    ]  # fmt: skip
    async with queue_place(emulator) as place:
        deployment.read_queue(place)
        everything = [*events, *events[:8], *noise]
        shuffle(everything)
        await place.send(*everything)

        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        worker = await asyncio.to_thread(start_worker, "--metrics-port", str(port))
        await place.empty()
        figures = await asyncio.to_thread(_metrics, port)
        worker.send_signal(signal.SIGTERM)
        out, err = await asyncio.to_thread(worker.communicate)
        assert worker.returncode == 0, err
        assert "messages done" in out
        assert "SIGTERM: finishing what is under way" in err
        assert [body for body, _ in await place.dead()] == ["garbage"]
    assert deployment.keys() == sorted(
        [f"in/{name} {number}" for name, number in itertools.product(("bad", "near"), range(3))]
        + [f"in/text {number}" for number in range(3)]
        + [f"out/good {number}" for number in range(3)]
    )
    verdicts = {"bad": "block", "near": "queue", "text": "not_scanned", "good": "allow"}
    for key in deployment.keys():  # noqa: SIM118 - of a bucket
        name = key.partition("/")[2].partition(" ")[0]
        assert deployment.tags(key)["uploadguard-verdict"] == verdicts[name]
    assert "uploadguard_s3_messages_total" in figures
    assert deployment.bucket not in figures
    lines = (deployment.path / "uploadguard-s3-dead-letters.jsonl").read_text().splitlines()
    assert {json.loads(line)["reason"] for line in lines} == {"the message is no JSON text"}


def _metrics(port: int) -> str:
    end = time.monotonic() + 10
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                return str(answer.read().decode())
        except OSError:
            if time.monotonic() > end:
                raise
