"""A key for one worker alone, for as long as it works on it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from uploadguard_s3.model import S3Retry
from uploadguard_s3.state import Begun, State

__all__ = ["LATER_S", "reserved"]

LATER_S = 2.0
"""When to try again what others are in the way of, in seconds."""

_TURN_S = 0.05
_TURNS = 40


@asynccontextmanager
async def reserved(state: State, key: bytes, version: bytes | None) -> AsyncIterator[Begun]:
    """Have a key alone. Whoever leaves the block without an error has let it go, by ``finish`` or ``release``."""
    for _ in range(_TURNS):
        begun = await state.begin(key, version)
        if begun is not None:
            break
        await asyncio.sleep(_TURN_S)
    else:
        raise S3Retry("another worker has this key", after_s=LATER_S)
    renewing = asyncio.create_task(_renew(state, begun))
    try:
        yield begun
    except BaseException:
        with suppress(S3Retry):  # it is another worker's, or will be when the lease ends
            await state.release(begun)
        raise
    finally:
        renewing.cancel()


async def _renew(state: State, begun: Begun) -> None:
    with suppress(S3Retry):  # what is kept next finds out
        while True:
            await asyncio.sleep(state.lease_s / 3)
            await state.renew(begun)
