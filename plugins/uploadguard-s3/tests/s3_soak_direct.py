"""The soak's shorter way: workers that take events from a socket and say what came of them."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from s3_soak_run import AT_ONCE, Soak

from uploadguard_s3 import ObjectChecker

__all__ = ["DirectSoak"]

_WORKER = Path(__file__).with_name("s3_soak_worker.py")


class DirectSoak(Soak):
    """One run without a queue."""

    async def _traffic(self, checker: ObjectChecker) -> None:
        setup = {
            "options": self._options,
            "hashset": str(self._directory / "hashset"),
            "client": self._server.client_options(),
        }
        (self._directory / "setup.json").write_text(json.dumps(setup))
        self._out: set[int] = set()
        keys = self._keys()
        async with await asyncio.start_unix_server(self._serve, self._directory / "events"):
            self._workers = [self._start() for _ in range(self.plan.workers)]
            watching = asyncio.create_task(self._watch(checker))
            killing = asyncio.create_task(self._kill())
            try:
                async with asyncio.timeout(3 * self.plan.seconds):
                    await self._put_all(keys)
                    while self._waiting or self._out or self._writing:  # noqa: ASYNC110 - three things, and no hurry
                        await asyncio.sleep(0.05)
                    if self.figures.objects == self.plan.objects:
                        await killing
            finally:
                watching.cancel()
                killing.cancel()
                self._end_all()

    def _start(self) -> subprocess.Popen[bytes]:
        files = self._directory / "events", self._directory / "setup.json"
        return subprocess.Popen([sys.executable, _WORKER, *files])  # noqa: S603 - ours

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A worker: events go out, answers come in, and what it had when it died is delivered again."""
        mine: set[int] = set()
        taking = asyncio.create_task(self._hand_out(writer, mine))
        try:
            while line := await reader.readline():
                answer = json.loads(line)
                number = answer["id"]
                mine.discard(number)
                self._out.discard(number)
                if "retry" in answer:
                    self.figures.retries += 1
                    self._waiting.append(number)
                    continue
                self.figures.outcomes[answer["outcome"]] += 1
                found = self._uploads.get((self._events[number].ref.key, answer["etag"]))
                (found or self._events[number]).answers.append(answer)
        except ConnectionError:
            pass
        finally:
            taking.cancel()
            self.figures.redelivered += len(mine)
            for number in mine:
                self._out.discard(number)
                self._waiting.append(number)
            writer.close()

    async def _hand_out(self, writer: asyncio.StreamWriter, mine: set[int]) -> None:
        while True:
            if not self._waiting or len(mine) >= AT_ONCE or writer.is_closing():
                await asyncio.sleep(0.01)
                continue
            number = self._draw()
            mine.add(number)
            self._out.add(number)
            ref = self._events[number].ref
            writer.write(json.dumps({"id": number, "ref": asdict(ref)}).encode() + b"\n")
            if ref.key in self._to_overwrite:
                self._overwrite_soon(ref.key, self._random.random() * 0.05)
