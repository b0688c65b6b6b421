"""Clients of the S3 service, as the settings have them."""

from __future__ import annotations

import functools
import threading
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import aioboto3

from uploadguard_s3.options import S3Options

__all__ = ["open_client", "open_own_client"]

_MAKING = threading.Lock()
"""A session makes one client at a time."""


def open_client(session: Any, options: S3Options) -> AbstractAsyncContextManager[Any]:
    """A client of aioboto3's ``session``, to be entered."""
    from aiobotocore.config import AioConfig

    settings = options.client
    config = AioConfig(
        connect_timeout=settings.connect_s,
        read_timeout=settings.read_s,
        retries={"mode": "standard", "max_attempts": settings.attempts},
        s3={"addressing_style": settings.addressing},
        max_pool_connections=2 * options.limits.at_once + 4,
    )
    opened: AbstractAsyncContextManager[Any] = session.client(
        "s3", endpoint_url=settings.endpoint_url, region_name=settings.region, config=config
    )
    return opened


@asynccontextmanager
async def open_own_client(options: S3Options) -> AsyncIterator[Any]:
    """A client for the loop of a thread of its own, of one session for all: it reads the service's description once."""
    with _MAKING:
        opening = open_client(_session(), options)
        client = await opening.__aenter__()
    try:
        yield client
    finally:
        await opening.__aexit__(None, None, None)


@functools.cache
def _session() -> Any:
    return aioboto3.Session()
