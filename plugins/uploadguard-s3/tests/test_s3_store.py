"""The S3 service's answers, and how much of its objects is in memory."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, ParamValidationError
from s3_objects import BLOCKED, Meddling, Place, Run, allowed

from uploadguard_s3 import Outcome, S3Poison, S3Retry
from uploadguard_s3.budget import ByteBudget


class BrokenBody:
    """Breaks off after some bytes."""

    def __init__(self, body: Any, after_bytes: int) -> None:
        self._body = body
        self._left = after_bytes

    async def read(self, amount: int) -> bytes:
        if not self._left:
            raise ConnectionResetError
        data: bytes = await self._body.read(min(amount, self._left))
        self._left -= len(data)
        return data

    def close(self) -> None:
        self._body.close()


class Breaking:
    """A client whose answers to ``get_object`` break off, so many times."""

    def __init__(self, client: Any, times: int) -> None:
        self._client = client
        self._times = times
        self.ranges: list[str | None] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def get_object(self, **arguments: Any) -> Any:
        self.ranges.append(arguments.get("Range"))
        answer = await self._client.get_object(**arguments)
        if len(self.ranges) <= self._times:
            answer["Body"] = BrokenBody(answer["Body"], 1000)
        return answer


@pytest.mark.parametrize("times", [2, 9])
def test_a_connection_that_breaks_is_taken_up_where_it_broke(run: Run, times: int) -> None:
    async def body(place: Place) -> None:
        ref = await place.put("in/a.jpg", BLOCKED)
        if times > 3:
            with pytest.raises(S3Retry, match="to its end"):
                await place.checker.check(ref)
            assert len(place.used.ranges) == 4
            return
        assert (await place.checker.check(ref)).outcome is Outcome.BLOCKED
        assert place.used.ranges == [None, "bytes=1000-", "bytes=2000-", None]  # the last one of the copy made

    run(body, wrapped=lambda client: Breaking(client, times), versions=False)


def test_what_overwrites_an_object_while_it_is_resumed_is_not_mixed_with_it(run: Run) -> None:
    async def body(place: Place) -> None:
        ref = await place.put("in/a.jpg", allowed())
        get, gets = place.used.get_object, 0

        async def overwritten(**arguments: Any) -> Any:
            nonlocal gets
            gets += 1
            if gets == 2:
                await place.put("in/a.jpg", BLOCKED)
            return await get(**arguments)

        place.used.get_object = overwritten
        checked = await place.checker.check(ref)
        assert checked.outcome is Outcome.BLOCKED
        assert await place.keys("public") == []

    run(body, wrapped=lambda client: Breaking(client, 1), versions=False)


def _error(status: int, code: str) -> ClientError:
    return ClientError(
        {"Error": {"Code": code, "Message": "secret-key"}, "ResponseMetadata": {"HTTPStatusCode": status}}, "GetObject"
    )


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (_error(503, "SlowDown"), S3Retry, "503 SlowDown"),
        (_error(500, "InternalError"), S3Retry, "500 InternalError"),
        (_error(403, "AccessDenied"), S3Retry, "403 AccessDenied"),
        (_error(404, "NoSuchBucket"), S3Retry, "404 NoSuchBucket"),
        (_error(403, "InvalidObjectState"), S3Poison, "InvalidObjectState"),
        (_error(400, "InvalidRequest"), S3Poison, "400 InvalidRequest"),
        (_error(400, "secret-key?"), S3Poison, "400 \\?"),
        (EndpointConnectionError(endpoint_url="http://secret-key"), S3Retry, "cannot be reached"),
        (TimeoutError("secret-key"), S3Retry, "cannot be reached"),
        (ParamValidationError(report="secret-key"), S3Poison, "cannot be one"),
    ],
)
def test_what_may_pass_is_tried_again_and_what_never_will_is_not(
    run: Run, error: Exception, kind: type[Exception], text: str
) -> None:
    async def fail() -> None:
        raise error

    async def body(place: Place) -> None:
        ref = await place.put("in/a.jpg", allowed())
        place.meddling.before["get_object"] = fail
        with pytest.raises(kind, match=text) as caught:
            await place.checker.check(ref)
        assert "secret" not in str(caught.value)
        assert (await place.checker.check(ref)).outcome is Outcome.ALLOWED

    run(body, wrapped=Meddling)


def test_no_more_is_in_memory_than_the_budget() -> None:
    async def body() -> None:
        budget = ByteBudget(100)
        most = 0
        order: list[int] = []

        async def one(number: int, size: int) -> None:
            nonlocal most
            async with budget.take(size):
                order.append(number)
                most = max(most, budget.used_bytes)
                await asyncio.sleep(0)

        sizes = [60, 60, 10, 500, 40, 100, 0, 30]
        await asyncio.gather(*(one(number, size) for number, size in enumerate(sizes)))
        assert (most, budget.used_bytes) == (100, 0)
        assert order == sorted(order)  # a large one is not passed by small ones for ever

    asyncio.run(body())


def test_who_stops_waiting_for_room_takes_none() -> None:
    async def body() -> None:
        budget = ByteBudget(10)

        async def hold(size: int) -> None:
            async with budget.take(size):
                await asyncio.sleep(60)

        first, large, small = (asyncio.create_task(hold(size)) for size in (5, 8, 5))
        await asyncio.sleep(0)
        large.cancel()
        await asyncio.sleep(0.01)
        assert budget.used_bytes == 10
        for task in (first, small):
            task.cancel()
        await asyncio.gather(first, large, small, return_exceptions=True)
        assert budget.used_bytes == 0

    asyncio.run(body())
