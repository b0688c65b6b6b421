"""Reading uploads: bytes, paths and file objects, whole or over the limit."""

from __future__ import annotations

import hashlib
import io
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uploadguard.errors import MediaReadError
from uploadguard.signals.digests import DIGESTS, MultiDigest
from uploadguard.uploads import Upload, UploadBuffer, read_upload


def digests(upload: Upload) -> dict[str, bytes]:
    if not upload.digested:
        assert upload.content is not None
        upload.digest.update(upload.content)
    return dict(upload.digest.digests())


def read(data: Any, limit_bytes: int = 1000) -> Upload:
    return read_upload(data, MultiDigest(DIGESTS), limit_bytes)


@given(st.binary(max_size=3000), st.integers(0, 3000))
def test_every_way_in_gives_the_same(data: bytes, limit_bytes: int) -> None:
    ways: list[Any] = [data, bytearray(data), memoryview(data), io.BytesIO(data)]
    uploads = [read(way, limit_bytes) for way in ways]
    buffer = UploadBuffer(MultiDigest(DIGESTS), limit_bytes)
    for start in range(0, len(data), 700):
        buffer.write(data[start : start + 700])
    uploads.append(buffer.finish())
    for upload in uploads:
        assert upload.size_bytes == len(data)
        assert (upload.content is None) == (len(data) > limit_bytes)
        if upload.content is not None:
            assert bytes(upload.content) == data
        assert digests(upload)["sha256"] == hashlib.sha256(data).digest()


def test_a_path_of_more_than_the_limit_is_digested_and_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(b"x" * 5_000_000)
    upload = read(path, 4_999_999)
    assert upload.content is None
    assert digests(upload)["md5"] == hashlib.md5(b"x" * 5_000_000).digest()
    assert read(str(path), 5_000_000).content is not None


def test_a_file_object_is_read_from_where_it_stands_and_put_back() -> None:
    file = io.BytesIO(b"headerbody")
    file.seek(6)
    assert bytes(read(file).content or b"") == b"body"
    assert file.tell() == 6


def test_a_stream_that_cannot_seek_is_read_to_its_end() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"streamed")
        theirs.shutdown(socket.SHUT_WR)
        assert bytes(read(ours.makefile("rb", buffering=0)).content or b"") == b"streamed"


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda d: d / "missing.jpg", "no such file"),
        (lambda d: d, "directory"),
        (lambda d: "nul\0byte", "cannot be read"),
        (lambda d: "", "the path is empty"),
        (lambda d: d / ("n" * 300), "cannot be read"),
    ],
    ids=["missing", "directory", "nul", "empty", "long"],
)
def test_unreadable_paths_are_named_with_the_reason(tmp_path: Path, make: Any, reason: str) -> None:
    with pytest.raises(MediaReadError, match=reason):
        read(make(tmp_path))


def test_a_named_pipe_does_not_hang_the_check(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with pytest.raises(MediaReadError, match="not a regular file"):
        read(fifo)


def test_a_closed_file_and_a_failing_one_are_read_errors() -> None:
    closed = io.BytesIO(b"x")
    closed.close()
    with pytest.raises(MediaReadError):
        read(closed)

    class Failing(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            raise OSError(5, "Input/output error")

    with pytest.raises(MediaReadError, match="Input/output error"):
        read(Failing())


@pytest.mark.parametrize("data", [io.StringIO("text"), 5, None, ["list"]])
def test_what_is_not_bytes_a_path_or_a_binary_file_is_a_type_error(data: Any) -> None:
    with pytest.raises(TypeError, match="data must be"):
        read(data)


def test_a_file_in_text_mode_is_a_type_error(tmp_path: Path) -> None:
    path = tmp_path / "upload.jpg"
    path.write_bytes(b"\xff\xd8")
    with path.open(encoding="utf-8") as file, pytest.raises(TypeError, match="binary mode"):
        read(file)


@pytest.mark.parametrize("chunks", [[None], [b"half", None]])
def test_a_file_that_does_not_wait_for_its_data_is_never_taken_for_a_short_one(chunks: list[Any]) -> None:
    class NonBlocking:
        def __init__(self) -> None:
            self.chunks = list(chunks)

        def read(self, size: int) -> Any:
            return self.chunks.pop(0)

    for limit_bytes in (1000, 2):
        with pytest.raises(MediaReadError, match="non-blocking"):
            read(NonBlocking(), limit_bytes)


def test_a_file_object_needs_read_and_nothing_else() -> None:
    class Minimal:
        def __init__(self) -> None:
            self.data = [b"a", b"b", b""]

        def read(self, size: int) -> bytes:
            return self.data.pop(0)

    assert bytes(read(Minimal()).content or b"") == b"ab"
