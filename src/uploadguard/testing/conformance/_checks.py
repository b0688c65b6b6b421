"""What the suites share."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import pytest

__all__ = ["distance_bits", "in_threads", "leaks", "require"]

T = TypeVar("T")
R = TypeVar("R")

_THREADS = 8
_LEAK_CHARS = 8
_TOKEN = re.compile(rf"[0-9A-Za-z+/=]{{{_LEAK_CHARS},}}")


def require(condition: bool, message: str) -> None:
    """Fail the running test with ``message`` unless the condition holds: an ``assert`` that ``python -O`` keeps."""
    if not condition:
        pytest.fail(message)


def distance_bits(a: bytes, b: bytes) -> int:
    """The Hamming distance of two values of the same length."""
    return (int.from_bytes(a) ^ int.from_bytes(b)).bit_count()


def leaks(message: str, secret: str) -> bool:
    """Whether ``message`` repeats 8 characters in a row of a word of ``secret``, in any case."""
    message = message.lower()
    for token in _TOKEN.findall(secret.lower()):
        windows = range(min(len(token), 256) - _LEAK_CHARS + 1)
        if any(token[start : start + _LEAK_CHARS] in message for start in windows):
            return True
    return False


def in_threads(function: Callable[[T], R], items: Sequence[T], *, repeats: int = 4) -> list[R]:
    """The function of each item, ``repeats`` times over, in eight threads that take turns as often as they can."""
    with _eager_switching(), ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(function, [*items] * repeats))


@contextmanager
def _eager_switching() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
