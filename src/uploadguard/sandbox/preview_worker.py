"""The life of a worker that makes one preview: locked down as those of checks are, but it hands back pixels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from uploadguard.media.base import DecodeError, Source
from uploadguard.media.preview import small_picture
from uploadguard.media.source import BytesSource
from uploadguard.sandbox import preview_wire
from uploadguard.sandbox.parts import Job
from uploadguard.sandbox.preview_wire import PreviewFailure, PreviewRequest, RawPicture
from uploadguard.sandbox.worker import ArenaSource, run

__all__ = ["main", "preview_of"]


def main(connection_fd: int, arena_fd: int, payload_at: int, payload_bytes: int, parent_pid: int) -> NoReturn:
    """The process, to its end."""
    run(connection_fd, arena_fd, payload_at, payload_bytes, parent_pid, _Previews)


def preview_of(source: Source, job: Job, request: PreviewRequest) -> RawPicture | PreviewFailure:
    """The small picture, or why there is none."""
    try:
        array = small_picture(
            source,
            job.decoders,
            job.options,
            job.limits,
            frame=request.frame,
            max_side_pixels=request.max_side_pixels,
            grey=request.grey,
        )
    except DecodeError as error:
        return PreviewFailure(str(error))
    except MemoryError:
        return PreviewFailure("the decoder ran out of memory")
    except Exception as error:  # noqa: BLE001 - a decoder may raise anything; the failure names it
        return PreviewFailure(f"a decoder raised {type(error).__name__}")
    return RawPicture(array.shape[1], array.shape[0], request.bands, array.tobytes())


class _Previews:
    def __init__(self, job: Job, values: Mapping[str, Any]) -> None:
        self._job = job
        self._request: PreviewRequest = values["preview"]

    def warm_up(self, data: bytes) -> None:
        preview_of(BytesSource(data), self._job, self._request)

    def answer(self, source: ArenaSource, number: int) -> bytes:
        made = preview_of(source, self._job, self._request)
        if isinstance(made, RawPicture):
            return preview_wire.picture_answer(number, made)
        return preview_wire.failure_answer(number, made.detail)
