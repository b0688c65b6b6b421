"""The soak's other way: notifications as S3 sends them, through an emulator of SQS, to ``uploadguard s3 worker``.

Workers are killed with SIGKILL and started again. What became of each version is read from the state, all along.
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import quote_plus

from s3_queues import QueuePlace, queue_place
from s3_server import ACCESS_KEY, REGION, SECRET_KEY, S3Server
from s3_soak_run import Plan, Soak, Upload

from uploadguard_s3 import ObjectChecker, ObjectRef
from uploadguard_s3.effects import REFERENCE_TAG
from uploadguard_s3.state import key_id

_RECORDS = 10
"""Of one message; S3 itself sends one or a few."""
_SHUFFLED = 400
"""So many events wait at least, while uploads go on, before one is drawn from them."""
_VISIBILITY_S = 3
_LOOK_S = 0.004
_TAGS = 300


class QueueSoak(Soak):
    """One run through the queue of the emulator at ``emulator``."""

    def __init__(self, plan: Plan, server: S3Server, directory: Path, emulator: str) -> None:
        super().__init__(plan, server, directory)
        self._emulator = emulator
        self._uploading = True
        self._by_key_id: dict[bytes, str] = {}

    async def _traffic(self, checker: ObjectChecker) -> None:
        async with queue_place(self._emulator) as place:
            self._configure(place)
            keys = self._keys()
            self._by_key_id = {key_id(self._buckets.uploads, key): key for key in self._to_overwrite}
            self._workers = [self._start() for _ in range(self.plan.workers)]
            tasks = [asyncio.create_task(one) for one in (self._send(place), self._watch(checker), self._kill())]
            tasks.append(asyncio.create_task(self._overwrite_what_is_checked()))
            sending, _, killing, _ = tasks
            try:
                await self._put_all(keys)
                self._uploading = False
                async with asyncio.timeout(3 * self.plan.seconds):
                    while not sending.done() or self._writing or await place.count():
                        self._fail_early(tasks)
                        if sending.done() and (self._writing or self._waiting):
                            sending = tasks[0] = asyncio.create_task(self._send(place))
                        await asyncio.sleep(0.1)
                    if self.figures.objects == self.plan.objects:
                        await killing
                await self._read_answers(checker)
                if dead := await place.dead():
                    self._problems.append(f"{len(dead)} dead letters: {dead[0][1]}")
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                self._end_all()

    async def _read_answers(self, checker: ObjectChecker) -> None:
        """Read the state until it has all that was sent: a queue may look empty while a message is on its way back."""
        ends = time.monotonic() + 10 * _VISIBILITY_S
        await self._read_state(checker)
        while self.plan.versions and time.monotonic() < ends:
            if all(upload.dropped or upload.answers for upload in self._uploads.values()):
                return
            await asyncio.sleep(0.2)
            await self._read_state(checker)

    @staticmethod
    def _fail_early(tasks: list[asyncio.Task[None]]) -> None:
        for task in tasks:
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                raise error

    def _configure(self, place: QueuePlace) -> None:
        """The files that the workers read."""
        (self._directory / "uploadguard.toml").write_text(
            '[hashset]\npath = "hashset"\n[safety]\nbreaker_percent = 0.0\n[sandbox]\nisolation = "none"\n'
        )
        route = self._options["routes"]["soak"]
        (self._directory / "uploadguard-s3.toml").write_text(
            f'[client]\nendpoint_url = "{self._server.url}"\nregion = "{REGION}"\n'
            f'[state]\npath = "state.db"\nlease_s = {self._options["state"]["lease_s"]}\n'
            f"[limits]\nat_once = {self._options['limits']['at_once']}\n"
            f'[queue]\nurl = "{place.url}"\nendpoint_url = "{place.endpoint_url}"\nregion = "{REGION}"\n'
            f"visibility_s = {_VISIBILITY_S}\nwait_s = 1\n[routes.soak]\n"
            + "".join(f'{name} = "{value}"\n' for name, value in route.items())
        )

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "uploadguard", "--config", "uploadguard.toml", "s3", "worker"]
        credentials = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
        with (self._directory / "workers.log").open("ab") as log:
            return subprocess.Popen(  # noqa: S603 - ours
                command, cwd=self._directory, env={**os.environ, **credentials}, stdout=log, stderr=log
            )

    async def _send(self, place: QueuePlace) -> None:
        """Events into the queue, drawn at random, several in one message, several messages in one request."""
        while self._uploading or self._waiting:
            if not self._waiting or (self._uploading and len(self._waiting) < _SHUFFLED):
                await asyncio.sleep(0.02)
                continue
            entries = []
            for number in range(10):
                drawn = [
                    self._events[self._draw()]
                    for _ in range(min(len(self._waiting), self._random.randint(1, 2 * _RECORDS - 1)))
                ]
                if drawn:
                    entries.append({"Id": str(number), "MessageBody": notification(drawn)})
            answer = await place.client.send_message_batch(QueueUrl=place.url, Entries=entries)
            assert not answer.get("Failed")
            self.figures.messages += len(entries)

    async def _overwrite_what_is_checked(self) -> None:
        """Whenever a worker has reserved a key that is to be overwritten, do it."""
        with sqlite3.connect(f"file:{self._directory / 'state.db'}?mode=ro", uri=True) as state:
            reserved = "SELECT key_id, leased_until > ? FROM uploadguard_s3_keys WHERE leased_until > ? OR touched > ?"
            while self._by_key_id:
                now = time.time()
                for found, is_reserved in state.execute(reserved, (now, now, now - 5 * _LOOK_S)).fetchall():
                    if (key := self._by_key_id.pop(bytes(found), None)) is not None:
                        self._overwrite_soon(key)
                        self.figures.while_checked += is_reserved
                await asyncio.sleep(_LOOK_S)

    async def _look(self, checker: ObjectChecker, seen: set[tuple[str, str]]) -> None:
        await self._read_state(checker)
        await super()._look(checker, seen)
        await self._compare_references(checker)

    async def _read_state(self, checker: ObjectChecker) -> None:
        """Note the verdict of every version as the state has it: it must never be another one later."""
        uploads = {checker.version_of(upload.ref) or b"": upload for upload in self._uploads.values()}
        known = await checker.state.known(list(uploads))
        for version, was in known.items():
            upload, answer = uploads[version], {"verdict": was.verdict.label, "reference": was.reference}
            if was.done and answer not in upload.answers:
                upload.answers.append(answer)
                self.figures.outcomes[answer["verdict"]] += 1

    async def _compare_references(self, checker: ObjectChecker) -> None:
        """A part of the public copies must have been made by the very decision that the state has."""
        newest = [u for u in self._newest.values() if u.answers and u.verdict == "allow"]
        for upload in self._random.sample(newest, min(len(newest), _TAGS // 20)):
            there = await checker.store.head(ObjectRef(self._buckets.public, upload.ref.key.removeprefix("in/")))
            if there is None or there.ref.etag != upload.ref.etag:
                continue
            tags: dict[str, str] = await checker.store.tags(there)
            if tags.get(REFERENCE_TAG) != upload.answers[0]["reference"]:
                self._problems.append(f"{upload.ref.key}: published by another decision than is kept")


def notification(uploads: list[Upload]) -> str:
    """A message as S3 sends it."""
    at = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())
    records = []
    for upload in uploads:
        ref = upload.ref
        about = {"key": quote_plus(ref.key, safe="/"), "size": ref.size_bytes, "eTag": ref.etag}
        about |= {"sequencer": ref.sequencer} | ({"versionId": ref.version_id} if ref.version_id else {})
        bucket = {"name": ref.bucket, "ownerIdentity": {"principalId": "A"}, "arn": f"arn:aws:s3:::{ref.bucket}"}
        records.append(
            {
                "eventVersion": "2.1",
                "eventSource": "aws:s3",
                "awsRegion": REGION,
                "eventTime": at,
                "eventName": "ObjectCreated:Put",
                "userIdentity": {"principalId": "A"},
                "requestParameters": {"sourceIPAddress": "192.0.2.1"},
                "responseElements": {"x-amz-request-id": "0" * 16, "x-amz-id-2": "0"},
                "s3": {"s3SchemaVersion": "1.0", "configurationId": "uploads", "bucket": bucket, "object": about},
            }
        )
    return json.dumps({"Records": records})
