from __future__ import annotations

import gzip
import io
import os
from pathlib import Path

import pytest

from uploadguard.errors import ListFormatError
from uploadguard.lists import BUILTIN_READERS, HEAD_BYTES, ListReader, choose_reader, open_list

from .helpers import MD5, PDQ, SHA1, bad, entries, options, text_of
from .test_icse import HEADER
from .test_vics import document, media


def test_a_plain_file(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes(b"a" * 100_000)
    with open_list(path) as stream:
        assert stream.peek(HEAD_BYTES)[:HEAD_BYTES] == b"a" * HEAD_BYTES
        assert stream.read() == b"a" * 100_000
    assert stream.closed


def test_a_gzip_file_is_told_by_its_content(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    data = "".join(f"{text_of(MD5, seed)}\n" for seed in range(5000)).encode()
    path.write_bytes(gzip.compress(data[:1000]) + gzip.compress(data[1000:]))
    with open_list(str(path)) as stream:
        head = stream.peek(HEAD_BYTES)[:HEAD_BYTES]
        assert head == data[:HEAD_BYTES]
        chosen = choose_reader(BUILTIN_READERS, head, path.name)
        items = list(chosen.read(stream, options()))
    assert len(entries(items)) == 5000
    assert not bad(items)


def test_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.touch()
    with open_list(path) as stream:
        assert stream.peek(HEAD_BYTES) == b""


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-9], lambda data: data[:40] + b"oops" + data[44:], lambda _: b"\x1f\x8b"]
)
def test_damaged_gzip(tmp_path: Path, damage: object) -> None:
    path = tmp_path / "list.gz"
    path.write_bytes(damage(gzip.compress(os.urandom(1000))))  # type: ignore[operator]
    with open_list(path) as stream, pytest.raises(ListFormatError, match="damaged or broken off") as caught:
        stream.read()
    assert caught.value.path == path


def test_a_decompression_bomb(tmp_path: Path) -> None:
    path = tmp_path / "list.gz"
    path.write_bytes(gzip.compress(b"\n" * 40_000_000))
    with open_list(path) as stream, pytest.raises(ListFormatError, match="more than 200 times its size"):
        stream.read()
    with open_list(path, max_unpack_ratio=5000) as stream:
        assert len(stream.read()) == 40_000_000


def test_what_is_no_file(tmp_path: Path) -> None:
    for path, reason in [
        (tmp_path, "is a directory"),
        (tmp_path / "none", "no such file"),
        (Path("a\0b"), "not a path"),
    ]:
        with pytest.raises(ListFormatError, match=reason) as caught:
            open_list(path)
        assert caught.value.path == path


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(5, "Input/output error")])
def test_a_file_that_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError) -> None:
    def refuse(*_args: object, **_kwargs: object) -> None:
        raise error

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ListFormatError, match=f"cannot be opened: {error.strerror}") as caught:
        open_list(tmp_path / "list")
    assert caught.value.path == tmp_path / "list"


def test_a_file_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, buffer: object) -> int:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "open", lambda *_args, **_kwargs: Broken())
    with pytest.raises(ListFormatError, match="cannot be read: Input/output error"):
        open_list(tmp_path / "list")


@pytest.mark.parametrize(
    ("head", "filename", "expected"),
    [
        (document(media()), "hashes.json", "vics"),
        (document(media()), "hashes.jsonl", "vics"),
        (f"{HEADER}\n", "list.csv.gz", "icse"),
        (f'{{"md5": "{text_of(MD5)}"}}\n', "list.txt", "jsonl"),
        (f"md5,note\n{text_of(MD5)},x\n", "list", "csv"),
        (f"md5\n{text_of(MD5)}\n", "list", "csv"),
        (f"PDQ\tid\n{text_of(PDQ)}\tx\n", "list.txt", "csv"),
        (f"1,{text_of(MD5)}\n", "list.csv.gz", "csv"),
        (f"{text_of(MD5)},x\n", "list.csv", "csv"),
        (f"{text_of(MD5)}\n{text_of(SHA1)}\n", "list.csv", "txt"),
        (f"md5,{text_of(MD5)}\nsha1,{text_of(SHA1)}\n", "list.csv", "txt"),
        (f"pdq:{text_of(PDQ)}\n", "list", "txt"),
        (f"{text_of(MD5)}  picture.jpg\n", "MD5SUMS", "txt"),
        ("", "list.csv", "csv"),
    ],
)
def test_the_format_is_found(head: str, filename: str, expected: str) -> None:
    for mark in ("", "\ufeff"):
        assert choose_reader(BUILTIN_READERS, (mark + head).encode(), filename).name == expected
    assert choose_reader(BUILTIN_READERS, b"anything", "x", name=expected).name == expected


def test_no_format_fits() -> None:
    with pytest.raises(ListFormatError, match="the file is empty"):
        choose_reader(BUILTIN_READERS, b"", "list")
    with pytest.raises(ListFormatError, match="none of the list formats: vics, icse, jsonl, csv, txt"):
        choose_reader(BUILTIN_READERS, b"\x89PNG\r\n\x1a\n", "picture.png")
    with pytest.raises(ListFormatError, match="no list format 'xml'; there are: vics, icse, jsonl, csv, txt"):
        choose_reader(BUILTIN_READERS, b"", "x", name="xml")
    with pytest.raises(ListFormatError, match="formats: none"):
        choose_reader([], b"x", "x")


def test_the_built_in_readers_keep_the_protocol() -> None:
    assert all(isinstance(reader, ListReader) for reader in BUILTIN_READERS)
    assert len({reader.name for reader in BUILTIN_READERS}) == len(BUILTIN_READERS)
