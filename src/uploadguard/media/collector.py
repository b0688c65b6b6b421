"""Gathers the hashes of a file's frames and of their faces, each picture once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from uploadguard.media.base import Pixels
from uploadguard.models import Failure, FailureCode, Hash
from uploadguard.signals.base import PixelSignal

__all__ = ["HashCollector"]

_SAME_FRAME_SHARE = 64
"""A frame within 1/64 of a hash's bits of an earlier one is the same to any look-up: 4 bits of PDQ's 256."""

_SAME_FACE_SHARE = 16
"""A face within 1/16 of a hash's bits of its frame shows the same picture: 16 bits of PDQ's 256, of a limit of 31."""


@dataclass(slots=True)
class _Hashed:
    """The hashes of one frame, and by face and signal type those that are compared."""

    scale: int
    hashes: list[Hash] = field(default_factory=list)
    values: dict[tuple[str, str], bytes] = field(default_factory=dict)


class HashCollector:
    """Hashes pixels with every signal type and keeps what is new.

    Keeps at most ``max_frames`` frames: the first, the last, and of those between the first that differ.
    ``stage`` gives a context that times a signal type; ``check`` raises when the answer is no longer needed.
    """

    def __init__(
        self,
        signals: Sequence[PixelSignal],
        max_frames: int,
        stage: Callable[[str], AbstractContextManager[None]],
        check: Callable[[], None],
    ) -> None:
        self._signals = signals
        self._max_frames = max_frames
        self._stage = stage
        self._check = check
        self._frames: list[_Hashed] = []
        self._last: _Hashed | None = None
        self._failed: dict[str, Failure] = {}
        self.left_out = 0

    @property
    def hashes(self) -> tuple[Hash, ...]:
        """The hashes of all frames kept."""
        return tuple(item for frame in self._kept() for item in frame.hashes)

    @property
    def frames_hashed(self) -> int:
        """How many different frames they are of."""
        return len(self._kept())

    @property
    def scale(self) -> int:
        """The fraction that the last of them was decoded at."""
        return self._kept()[-1].scale if self._frames else 1

    @property
    def failures(self) -> list[Failure]:
        """One for each signal type that raised."""
        return list(self._failed.values())

    def _kept(self) -> list[_Hashed]:
        if self._last is None:
            return self._frames
        return [*self._frames[: self._max_frames - 1], self._last] if self._max_frames > 1 else self._frames

    def clear(self) -> None:
        """Forget all frames."""
        self._frames.clear()
        self._last, self.left_out = None, 0

    def add_frame(self, pixels: Pixels) -> bool:
        """Hash a frame and its faces. Returns whether a signal type is unsure of its hash."""
        hashed = _Hashed(pixels.scale)
        unsure = self._hash(pixels, hashed, "", pixels.frame)
        for name, face in pixels.faces.items():
            self._hash(face, hashed, name, pixels.frame)
        if not any(_are_close(hashed, earlier) for earlier in self._frames):
            if len(self._frames) < self._max_frames:
                self._frames.append(hashed)
            else:
                self._last = hashed
                self.left_out += 1
        return unsure

    def add_face(self, name: str, pixels: Pixels) -> None:
        """Hash another face of the first frame kept; names must differ."""
        if self._frames:
            self._hash(pixels, self._frames[0], name, self._frames[0].hashes[0].frame if self._frames[0].hashes else 0)

    def low_quality(self) -> list[Failure]:
        """One failure for each signal type whose hashes are all below its bar; one usable frame is enough."""
        found = []
        for signal in self._signals:
            qualities = [
                item.quality
                for item in self.hashes
                if item.signal_type == signal.name and item.quality is not None and "." not in item.variant
            ]
            if qualities and max(qualities) < signal.min_quality:
                detail = f"{signal.name} quality is {max(qualities)}, below {signal.min_quality}"
                found.append(Failure(FailureCode.LOW_QUALITY, detail))
        return found

    def _hash(self, pixels: Pixels, hashed: _Hashed, face: str, frame: int) -> bool:
        unsure = False
        for signal in self._signals:
            self._check()
            with self._stage(signal.name):
                unsure |= self._hash_with(signal, pixels, hashed, face, frame)
        return unsure

    def _hash_with(self, signal: PixelSignal, pixels: Pixels, hashed: _Hashed, face: str, frame: int) -> bool:
        try:
            result = signal.hash_pixels(pixels)
            values = {"original": result.value, **result.variants}
            if any(len(value) != signal.length_bytes for value in values.values()):
                raise ValueError("a hash of the wrong length")
        except Exception as error:  # noqa: BLE001 - a signal type may raise anything; the failure names it
            detail = f"{signal.name} raised {type(error).__name__}"
            self._failed.setdefault(signal.name, Failure(FailureCode.SIGNAL_FAILED, detail, frame))
            return False
        own = hashed.values.get(("", signal.name))
        if face and own is not None and _distance_bits(own, result.value) * _SAME_FACE_SHARE <= 8 * len(own):
            return False
        hashed.values[face, signal.name] = result.value
        prefix = f"{face}." if face else ""
        hashed.hashes.extend(
            Hash(signal.name, value, result.quality, prefix + variant, frame) for variant, value in values.items()
        )
        return result.unsure


def _are_close(new: _Hashed, earlier: _Hashed) -> bool:
    for key, value in new.values.items():
        other = earlier.values.get(key)
        if other is None or _distance_bits(value, other) * _SAME_FRAME_SHARE > 8 * len(value):
            return False
    return True


def _distance_bits(one: bytes, other: bytes) -> int:
    return (int.from_bytes(one) ^ int.from_bytes(other)).bit_count()
