"""Encryption at rest: nothing in clear, nothing altered goes through, and all that a plain hash set can do."""

from __future__ import annotations

import ctypes
import hashlib
import io
import itertools
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.hashset import soak_kills
from tests.hashset.made_up import TYPES, entries, entry, files_of, flip_bits, holds, value
from uploadguard.errors import HashSetError, ManifestError, SegmentError
from uploadguard.hashset import HashSet, Segment, build_segment
from uploadguard.serving import Serving
from uploadguard.storage.encryption import DecryptionError, Decryptor, Encryptor, decrypt, encrypt, private_memory
from uploadguard.storage.keys import Key, Keys, parse_keys, read_key_file, write_key_file

SECRET, OTHER_SECRET = bytes(range(32)), bytes(range(1, 33))
KEY, OTHER = Key(SECRET), Key(OTHER_SECRET)
KEYS = Keys([KEY])
CHUNK = 64


def sealed(data: bytes, key: Key = KEY, chunk_bytes: int = CHUNK) -> bytes:
    """``data`` encrypted as a segment is, in small chunks."""
    output = io.BytesIO()
    encryptor = Encryptor(output, key, "segment", chunk_bytes=chunk_bytes)
    encryptor.write(data)
    encryptor.finish()
    return output.getvalue()


def opened(data: bytes, keys: Keys | None = KEYS) -> bytes:
    """All that was encrypted."""
    decryptor = Decryptor(memoryview(data), keys, "segment")
    return bytes(decryptor.read(0, decryptor.size_bytes))


SMALL_PLAIN = build_segment(entries(40), TYPES, list_name="small", source="small.csv")
SMALL = sealed(SMALL_PLAIN, chunk_bytes=1024)


# The file


@given(
    data=st.binary(min_size=1, max_size=5 * CHUNK), cuts=st.lists(st.integers(0, 5 * CHUNK), max_size=6), part=st.data()
)
def test_what_goes_in_in_any_pieces_comes_out_in_any_parts(data: bytes, cuts: list[int], part: st.DataObject) -> None:
    output = io.BytesIO()
    encryptor = Encryptor(output, KEY, "segment", chunk_bytes=CHUNK)
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    for start, end in itertools.pairwise(places):
        encryptor.write(data[start:end])
    head = part.draw(st.binary(max_size=min(len(data), CHUNK)))
    encryptor.seek(0)
    encryptor.write(head)
    encryptor.finish()
    written = head + data[len(head) :]
    decryptor = Decryptor(memoryview(output.getvalue()), KEYS, "segment")
    assert decryptor.size_bytes == len(written)
    start = part.draw(st.integers(0, len(written)))
    end = part.draw(st.integers(start, len(written)))
    assert bytes(decryptor.read(start, end)) == written[start:end]
    decryptor.authenticate(start, end)
    with pytest.raises(ValueError, match="outside"):
        decryptor.read(start, len(written) + 1)


@given(data=st.binary(min_size=1, max_size=4 * CHUNK), place=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_flipped_bit_anywhere_is_refused(data: bytes, place: int, bit: int) -> None:
    stored = sealed(data)
    place %= len(stored)
    with pytest.raises(DecryptionError):
        opened(flip_bits(stored, place * 8 + bit))


@given(data=st.binary(min_size=1, max_size=4 * CHUNK), keep=st.integers(0, 10_000), tail=st.binary(max_size=3 * CHUNK))
def test_another_end_is_refused(data: bytes, keep: int, tail: bytes) -> None:
    stored = sealed(data)
    changed = stored[: keep % (len(stored) + 1)] + tail
    if changed == stored:
        return
    with pytest.raises(DecryptionError):
        opened(changed)


@given(order=st.permutations(range(4)), count=st.integers(1, 4))
def test_chunks_in_another_order_or_number_are_refused(order: list[int], count: int) -> None:
    stored = sealed(bytes(range(4)) * CHUNK)
    step, head = CHUNK + 16, stored[:96]
    chunks = [stored[96 + number * step :][:step] for number in range(4)]
    assert opened(head + b"".join(chunks)) == bytes(range(4)) * CHUNK
    if order[:count] != [0, 1, 2, 3]:
        with pytest.raises(DecryptionError, match="altered or cut short"):
            opened(head + b"".join(chunks[number] for number in order[:count]))


def test_chunks_of_another_file_of_the_same_key_are_refused() -> None:
    data = bytes(3 * CHUNK)
    first, second = sealed(data), sealed(data)
    assert first[96:] != second[96:]
    step = CHUNK + 16
    for number in range(3):
        place = 96 + number * step
        with pytest.raises(DecryptionError, match="altered or cut short"):
            opened(first[:place] + second[place : place + step] + first[place + step :])
    with pytest.raises(DecryptionError, match="altered or cut short"):
        opened(first[:96] + second[96:])


def test_a_file_for_another_purpose_is_refused() -> None:
    with pytest.raises(DecryptionError, match="altered or cut short"):
        decrypt(encrypt(b"segment", KEY, "segment"), KEYS, "manifest")


def test_the_key_of_a_file_must_be_at_hand() -> None:
    stored = sealed(b"data")
    with pytest.raises(DecryptionError, match=r"set hashset\.encryption\.key_file or hashset\.encryption\.key_env"):
        opened(stored, None)
    with pytest.raises(DecryptionError, match=f"the key of id {KEY.short_id}, which is not among those") as caught:
        opened(stored, Keys([OTHER]))
    assert not caught.value.altered
    assert opened(stored, Keys([OTHER, KEY], write=False)) == b"data"


def test_another_version_says_so() -> None:
    body = bytearray(sealed(b"data")[:64])
    body[8] = 9
    with pytest.raises(DecryptionError, match="version 9, and this release reads version 1; update"):
        opened(bytes(body) + hashlib.sha256(body).digest() + bytes(20))


def test_nothing_is_written_again_but_the_start() -> None:
    encryptor = Encryptor(io.BytesIO(), KEY, "segment", chunk_bytes=CHUNK)
    encryptor.write(bytes(2 * CHUNK))
    with pytest.raises(ValueError, match="at its start only"):
        encryptor.seek(1)
    encryptor.seek(0)
    with pytest.raises(ValueError, match="first chunk"):
        encryptor.write(bytes(CHUNK + 1))


def test_decrypted_memory_is_left_out_of_core_dumps_and_read_only() -> None:
    room = private_memory(1 << 21)
    room[:4] = b"abcd"
    found: list[set[str]] = []
    inside = False
    address = ctypes.addressof(ctypes.c_char.from_buffer(room))
    for line in Path("/proc/self/smaps").read_text().splitlines():
        head = line.split()[0]
        if "-" in head and not head.endswith(":"):
            start, end = (int(part, 16) for part in head.split("-"))
            inside = start <= address < end
        elif inside and head == "VmFlags:":
            found.append(set(line.split()[1:]))
    (flags,) = found
    assert "dd" in flags, "MADV_DONTDUMP"
    assert "sh" not in flags, "private"
    assert Decryptor(memoryview(SMALL), KEYS, "segment").read(0, 10).readonly


# Keys


@pytest.mark.parametrize(
    "text",
    [SECRET.hex(), SECRET.hex().upper() + "\n", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="],
)
def test_keys_are_hex_or_base64(text: str) -> None:
    (key,) = parse_keys(text)
    assert key.id == KEY.id
    both = parse_keys(f"{text}\n{OTHER_SECRET.hex()}\n")
    assert [item.id for item in both] == [KEY.id, OTHER.id]


@given(text=st.text(alphabet="0123456789abcdefXYZ=+/-_", min_size=1).filter(lambda text: len(text) not in (43, 44, 64)))
def test_what_is_not_a_key_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(ValueError, match=r"^holds what is not a key: 32 bytes as 64 hex digits or in base64$"):
        parse_keys(text)


def test_no_key_at_all_is_an_error() -> None:
    with pytest.raises(ValueError, match="hashset newkey"):
        Keys(parse_keys("\n"))


def test_a_new_key_file_is_private_and_never_put_over_another(tmp_path: Path) -> None:
    path = tmp_path / "key"
    key = write_key_file(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert [item.id for item in read_key_file(path)] == [key.id]
    before = path.read_bytes()
    with pytest.raises(FileExistsError):
        write_key_file(path)
    assert path.read_bytes() == before
    path.write_bytes(bytes(100_000))
    with pytest.raises(ValueError, match="not a key file"):
        read_key_file(path)


def test_keys_do_not_show_themselves() -> None:
    for shown in (repr(KEY), str(KEYS), repr(KEYS), f"{KEY}"):
        assert SECRET.hex()[:8] not in shown
        assert "redacted" in shown
    assert KEY.id not in SECRET
    for hidden in (KEY, KEYS):
        with pytest.raises(TypeError):
            pickle.dumps(hidden)


@pytest.mark.parametrize(
    ("purpose", "sealed_hex"),
    [
        ("segment", "50bde92dd615bcfb1fbf425e64e48d1cc931ec8f99"),
        ("manifest", "9f38388d8fc29a875113418e394f1c82c75908e898"),
    ],
)
def test_files_of_the_first_release_open(purpose: Literal["segment", "manifest"], sealed_hex: str) -> None:
    header = bytes.fromhex(
        "895547450d0a1a0a0100000000000100000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
        "49f92a74a464aeace7980e96e0a96389d9c1592d4b6b268e2253126c3e13b20e20d12ce423ca740f630b8289604d72e8"
    )
    assert decrypt(header + bytes.fromhex(sealed_hex), Keys([Key(bytes(32))]), purpose) == b"plain"


def test_a_file_does_not_open_in_another_context() -> None:
    output = io.BytesIO()
    encryptor = Encryptor(output, KEY, "evidence", context=b"a")
    encryptor.write(b"plain")
    encryptor.finish()
    written = memoryview(output.getvalue())
    assert Decryptor(written, KEYS, "evidence", context=b"a").read(0, 5) == b"plain"
    for context in (b"", b"b", b"aa"):
        with pytest.raises(DecryptionError, match="altered"):
            Decryptor(written, KEYS, "evidence", context=context).read(0, 5)
    with pytest.raises(DecryptionError, match="altered"):
        Decryptor(written, KEYS, "segment", context=b"a").read(0, 5)


def test_without_the_package_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'uploadguard\[encryption\]'"):
        Key(SECRET)


# Segments


def use(segment: Segment) -> None:
    """Every answer of the segment of 40 entries, before and after it is loaded."""
    for number in (0, 17, 39):
        assert segment.find_entries(f"id-{number}") == [number]
        assert segment.entry(number).category == f"category-{number}"
    for name, (_, limit) in TYPES.items():
        assert len(segment.index(name)) == 40
        assert segment.is_exact(name) == (limit == 0)
        assert segment.query(name, [value(name, 3)], limit) == [(0, 3, 0)]
        assert segment.query(name, [flip_bits(value(name, 3), 0)], limit) == ([(0, 3, 1)] if limit else [])
    assert bytes(segment.entries_json[0:5]) == bytes(Segment.from_buffer(SMALL_PLAIN).entries_json[0:5])
    assert len(segment.entry_offsets) == 41


@pytest.mark.parametrize("load", [False, True])
def test_an_encrypted_segment_answers_as_the_plain_one(load: bool) -> None:
    segment = Segment.from_buffer(SMALL, keys=KEYS)
    plain = Segment.from_buffer(SMALL_PLAIN)
    assert segment.is_encrypted
    assert not plain.is_encrypted
    assert segment.checksum == plain.checksum
    assert segment.metadata == plain.metadata
    assert segment.size_bytes == len(SMALL)
    if load:
        segment.load()
    use(segment)
    segment.verify()
    use(segment)


def test_opening_one_decrypts_neither_tables_nor_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    data = sealed(build_segment(entries(6000), TYPES, list_name="a"), chunk_bytes=4096)
    read: list[int] = []
    real = Decryptor.read
    monkeypatch.setattr(Decryptor, "read", lambda self, start, end: read.append(end - start) or real(self, start, end))
    segment = Segment.from_buffer(data, verify=False, keys=KEYS)
    assert sum(read) < 10_000
    read.clear()
    segment.index("pdq")
    assert sum(read) == 6000 * (32 + 4)
    read.clear()
    assert segment.entry(5000).entry_id == "id-5000"
    assert sum(read) < 500
    segment.load()
    read.clear()
    assert segment.query("pdq", [value("pdq", 77)], 31) == [(0, 77, 0)]
    assert read == []


@settings(max_examples=300)
@given(place=st.integers(0, len(SMALL) - 1), bit=st.integers(0, 7))
def test_a_flipped_bit_in_a_segment_is_a_segment_error(place: int, bit: int) -> None:
    with pytest.raises(SegmentError):
        Segment.from_buffer(flip_bits(SMALL, place * 8 + bit), verify=True, keys=KEYS)


@given(length=st.integers(0, len(SMALL) - 1))
def test_a_segment_cut_short_is_a_segment_error(length: int) -> None:
    with pytest.raises(SegmentError):
        Segment.from_buffer(SMALL[:length], verify=False, keys=KEYS)


def test_a_segment_altered_where_only_a_hit_reads_is_found_by_the_hit() -> None:
    segment = Segment.from_buffer(flip_bits(SMALL, (96 + 4 * 1040 + 300) * 8), verify=False, keys=KEYS)
    with pytest.raises(SegmentError, match="is altered or cut short; import the list again"):
        [segment.entry(number) for number in range(40)]


# The hash set


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "set"


@pytest.fixture
def hash_set(directory: Path) -> HashSet:
    """An encrypted hash set of the list "secret-list" with entries 0 to 29."""
    hash_set = HashSet.create(directory, keys=KEYS)
    hash_set.add_list("secret-list", entries(30), TYPES, source="secret-source.csv")
    return hash_set


def change(hash_set: HashSet, number: int) -> None:
    hash_set.update_list("secret-list", [entry(f"new{number}")], [f"id-{number}"], TYPES)


def assert_serves(hash_set: HashSet, *changes: int) -> None:
    generation = hash_set.load()
    assert [number for number in range(30) if not holds(generation, number)] == list(changes)
    assert all(holds(generation, f"new{number}") for number in changes)


def test_everything_a_plain_one_can_do(hash_set: HashSet, directory: Path) -> None:
    assert_serves(hash_set)
    for number in range(6):  # deltas, tombstones and a merge of the latest segments
        change(hash_set, number)
    assert_serves(HashSet.open(directory, keys=KEYS), *range(6))
    hash_set.add_list("other", entries(5, "x"), TYPES)
    hash_set.remove_list("other")
    hash_set.rollback()
    assert [info.name for info in hash_set.lists()] == ["secret-list", "other"]
    assert hash_set.verify().ok
    stats = hash_set.stats()
    assert [(item.info.name, item.info.entries) for item in stats.lists] == [("secret-list", 30), ("other", 5)]
    assert "pdq" in stats.lists[0].skew
    done = hash_set.compact()
    assert done.after_bytes < done.before_bytes
    assert_serves(hash_set, *range(6))
    assert hash_set.verify().ok
    assert files_of(hash_set) == {"manifest.json", "write.lock", *hash_set._files.read().files()}
    found = hash_set.encrypted_files()
    assert found.files == found.encrypted == found.as_configured == 3


def test_no_file_holds_anything_in_clear(hash_set: HashSet, directory: Path) -> None:
    change(hash_set, 3)
    everything = b"".join(path.read_bytes() for path in directory.iterdir())
    # None of three bytes: such a one turns up in noise, now and then.
    secrets = [b"secret", b"new3", b"category", b"sha256", value("pdq", 1), value("md5", 2)]
    for secret in secrets:
        assert secret not in everything
    assert SECRET not in everything
    assert SECRET.hex().encode() not in everything
    assert json.loads((directory / "manifest.json").read_bytes()).keys() == {"format", "format_version", "content"}


def test_no_plain_file_is_made_on_the_way(hash_set: HashSet, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert hash_set._files.spool_directory is None
    assert HashSet.create(directory.parent / "plain")._files.spool_directory is not None
    written: list[bytes] = []
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: written.append(bytes(data)) or real(fd, data))
    change(hash_set, 1)
    hash_set.compact()
    assert not any(b"id-" in data or value("pdq", 2) in data for data in written)


def test_a_wrong_or_missing_key_is_named_and_changes_nothing(hash_set: HashSet, directory: Path) -> None:
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    with pytest.raises(ManifestError, match=r"manifest\.json: is encrypted; set hashset\.encryption\.key_file"):
        HashSet.open(directory)
    with pytest.raises(ManifestError, match=f"the key of id {KEY.short_id}, which is not among those") as caught:
        HashSet.open(directory, keys=Keys([OTHER]))
    for secret in (SECRET, OTHER_SECRET):
        assert secret.hex()[:16] not in str(caught.value)
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before


def test_a_manifest_altered_or_of_another_set_is_refused(hash_set: HashSet, directory: Path) -> None:
    path = directory / "manifest.json"
    data = path.read_bytes()
    content = json.loads(data)["content"]
    altered = content[:200] + ("A" if content[200] != "A" else "B") + content[201:]
    for changed in (data.replace(content.encode(), altered.encode()), data + b" ", data.replace(b'"content"', b'"c"')):
        path.write_bytes(changed)
        with pytest.raises(ManifestError, match="altered"):
            HashSet.open(directory, keys=KEYS)
    other = HashSet.create(directory.parent / "other", keys=KEYS)
    other.add_list("a", entries(3), TYPES)
    path.write_bytes(data)
    (mine,) = directory.glob("segment-*")
    (theirs,) = other.directory.glob("segment-*")
    shutil.copy(theirs, mine)
    with pytest.raises(SegmentError, match="is not the file that the manifest names"):
        HashSet.open(directory, keys=KEYS).load()


def test_damage_is_found_by_loading_and_named_by_verify(hash_set: HashSet, directory: Path) -> None:
    (path,) = directory.glob("segment-*")
    data = path.read_bytes()
    path.write_bytes(flip_bits(data, 8 * (len(data) // 2)))
    with pytest.raises(SegmentError, match=f"{path}: is altered or cut short; import the list again"):
        hash_set.load()
    (problem,) = hash_set.verify().problems
    assert problem.path == path


def test_plain_and_encrypted_files_serve_together_until_compaction(directory: Path) -> None:
    plain = HashSet.create(directory)
    plain.add_list("secret-list", entries(30), TYPES)
    change(plain, 0)
    encrypted = HashSet.open(directory, keys=KEYS)
    assert encrypted.encrypted_files().encrypted == 0
    change(encrypted, 1)
    found = encrypted.encrypted_files()
    assert (found.files, found.encrypted, found.as_configured) == (4, 2, 2)
    assert_serves(encrypted, 0, 1)
    encrypted.compact()
    found = encrypted.encrypted_files()
    assert (found.files, found.encrypted, found.as_configured) == (2, 2, 2)
    assert_serves(encrypted, 0, 1)
    assert encrypted.compact().lists == 0, "there is nothing left to do"
    generation = encrypted.generation
    encrypted.compact()
    assert encrypted.generation == generation


def test_another_key_and_the_way_back_by_compaction(hash_set: HashSet, directory: Path) -> None:
    change(hash_set, 0)
    renewed = HashSet.open(directory, keys=Keys([OTHER, KEY]))
    change(renewed, 1)
    assert_serves(renewed, 0, 1)
    with pytest.raises(HashSetError):
        HashSet.open(directory, keys=KEYS).load()
    renewed.compact()
    assert_serves(HashSet.open(directory, keys=Keys([OTHER])), 0, 1)
    plain = HashSet.open(directory, keys=Keys([OTHER], write=False))
    plain.compact()
    assert_serves(HashSet.open(directory), 0, 1)
    assert plain.encrypted_files().encrypted == 0
    assert b"secret-list" in (directory / "manifest.json").read_bytes()


def test_a_compaction_that_keeps_generations_leaves_their_files(directory: Path) -> None:
    plain = HashSet.create(directory)
    plain.add_list("secret-list", entries(30), TYPES)
    encrypted = HashSet.open(directory, keys=KEYS)
    encrypted.compact(keep_previous=True)
    found = encrypted.encrypted_files()
    assert (found.files, found.encrypted) == (2, 2), "generation 0 has no files"


@pytest.mark.parametrize("spoil", [lambda path: path.write_bytes(path.read_bytes()[:-1]), lambda path: None])
def test_the_old_generation_serves_on_where_the_new_cannot_be_decrypted(
    hash_set: HashSet, directory: Path, spoil: Callable[[Path], object]
) -> None:
    serving = Serving(
        HashSet.open(directory, keys=KEYS), verify=False, refresh_s=0, signal_types=TYPES, changed=lambda number: None
    )
    # Written with another key, or cut short.
    writer = HashSet.open(directory, keys=Keys([OTHER, KEY]))
    change(writer, 0)
    spoil(max(directory.glob("segment-*"), key=lambda path: path.stat().st_mtime_ns))
    assert not serving.refresh()
    assert serving.last_error is not None
    assert holds(serving.current().generation, 0)
    HashSet.open(directory, keys=Keys([KEY, OTHER])).add_list("secret-list", entries(30), TYPES, replace=True)
    assert serving.refresh()
    assert serving.last_error is None
    serving.close()


def test_writers_killed_at_random_points_leave_a_whole_encrypted_set(directory: Path) -> None:
    write_key_file(directory.with_suffix(".key"))
    outcomes = soak_kills.run(8, directory)
    assert outcomes["generations"] > 20, "no child ever got through a change"
    keys = Keys(read_key_file(directory.with_suffix(".key")))
    found = HashSet.open(directory, keys=keys).encrypted_files()
    assert found.files == found.as_configured
