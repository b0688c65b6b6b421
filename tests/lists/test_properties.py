"""What holds for every list: nothing is lost on the way, and no damage reaches further than its own line."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uploadguard.errors import ListFormatError
from uploadguard.lists import BUILTIN_READERS, BadLine, ListEntry, choose_reader

from .helpers import MD5, PDQ, PHASH, PHOTODNA, SHA1, USUAL, Hex, entries, made_up, options, read, reader, text_of

SIGNALS = {signal.name: signal for signal in USUAL}
NOTES = st.text(st.characters(exclude_categories=("Cs", "Cc")) | st.sampled_from('",;\t|#\n\\'), max_size=12)
PLAIN_NOTES = st.text(st.sampled_from("ab \",;|#\\é'"), max_size=6)


@st.composite
def media(draw: st.DrawFn) -> dict[str, Any]:
    """What a list may say of one medium."""
    names = draw(st.lists(st.sampled_from(sorted(SIGNALS)), min_size=1, unique=True))
    return {
        "hashes": {name: made_up(SIGNALS[name], draw(st.integers(0, 99))) for name in sorted(names)},
        "id": str(draw(st.integers(0, 10**9))),
        "category": draw(st.sampled_from(["A", "B", "1", None])),
        "note": draw(NOTES.map(str.strip)),
    }


def said(entry: ListEntry, note: str = "note") -> dict[str, Any]:
    hashes = dict(sorted(entry.hashes))
    return {"hashes": hashes, "id": entry.entry_id, "category": entry.category, "note": entry.fields.get(note, "")}


def as_csv(items: list[dict[str, Any]], delimiter: str, quoting: Any, end: str) -> str:
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter, quoting=quoting, lineterminator=end)
    writer.writerow([*SIGNALS, "id", "category", "note"])
    for item in items:
        hashes = [item["hashes"].get(name, b"").hex() for name in SIGNALS]
        writer.writerow([*hashes, item["id"], item["category"] or "", item["note"]])
    return out.getvalue()


@given(
    st.lists(media()),
    st.sampled_from(",;\t|"),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
def test_csv_round_trip(items: list[dict[str, Any]], delimiter: str, quoting: Any, end: str, encoding: str) -> None:
    found = read("csv", as_csv(items, delimiter, quoting, end).encode(encoding))
    assert [said(entry) for entry in entries(found)] == items
    assert len(found) == len(items)


@given(st.lists(media()), st.booleans())
def test_jsonl_round_trip(items: list[dict[str, Any]], ascii_only: bool) -> None:
    rows = [{**item, "hashes": {k: v.hex().upper() for k, v in item["hashes"].items()}} for item in items]
    found = read("jsonl", "\n".join(json.dumps(row, ensure_ascii=ascii_only) for row in rows))
    assert [said(entry) for entry in entries(found)] == items
    assert len(found) == len(items)


@given(st.lists(media()), st.booleans(), st.sampled_from([None, 2]))
def test_vics_round_trip(items: list[dict[str, Any]], cases: bool, indent: int | None) -> None:
    rows = [
        {
            "MediaID": item["id"],
            "Category": item["category"],
            "Series": item["note"],
            "AlternativeHashes": [{"HashName": k.upper(), "HashValue": v.hex()} for k, v in item["hashes"].items()],
        }
        for item in items
    ]
    value = [{"Media": rows[:1]}, {"Media": rows[1:]}] if cases else rows
    found = read("vics", json.dumps({"value": value}, indent=indent))
    assert [said(entry, "Series") for entry in entries(found)] == items
    assert len(found) == len(items)


@given(
    st.lists(st.tuples(st.sampled_from(sorted(SIGNALS)), st.integers(0, 99))), st.sampled_from([" ", "\t", ",", ": "])
)
def test_txt_round_trip(pairs: list[tuple[str, int]], separator: str) -> None:
    expected = [(name, made_up(SIGNALS[name], seed)) for name, seed in pairs]
    found = read("txt", "".join(f"{name}{separator}{value.hex()}\n" for name, value in expected))
    assert [entry.hashes for entry in entries(found)] == [(pair,) for pair in expected]


def txt_lines(notes: list[str]) -> list[str]:
    return [f"md5 {text_of(MD5, index)} {index}" for index, _ in enumerate(notes)]


def csv_lines(notes: list[str]) -> list[str]:
    quoted = ['"' + note.replace('"', '""') + '"' if set(note) & set('",') else note for note in notes]
    return ["id,note,md5", *(f"{index},{note},{text_of(MD5, index)}" for index, note in enumerate(quoted))]


def jsonl_lines(notes: list[str]) -> list[str]:
    return [json.dumps({"id": index, "note": note, "md5": text_of(MD5, index)}) for index, note in enumerate(notes)]


@pytest.mark.parametrize(("name", "lines_of"), [("txt", txt_lines), ("csv", csv_lines), ("jsonl", jsonl_lines)])
@given(
    notes=st.lists(PLAIN_NOTES, min_size=3, max_size=8),
    at=st.integers(0, 7),
    damage=st.binary(max_size=40).map(lambda data: data.replace(b"\n", b"").replace(b"\r", b""))
    | st.text(st.sampled_from('0,"a;#{}[]: \t'), max_size=12).map(str.encode),
    start=st.integers(0, 60),
    length=st.integers(0, 60),
)
def test_damage_stays_in_its_line(
    name: str, lines_of: Any, notes: list[str], at: int, damage: bytes, start: int, length: int
) -> None:
    lines = [line.encode() for line in lines_of(notes)]
    header = name == "csv"
    at = header + at % len(notes)
    lines[at] = lines[at][:start] + damage + lines[at][start + length :]
    found = read(name, b"\n".join(lines), options(MD5))
    kept = {entry.line: entry.hashes for entry in entries(found)}
    kept.pop(at + 1, None)
    others = [index for index in range(len(notes)) if index + header != at]
    assert kept == {index + header + 1: (("md5", made_up(MD5, index)),) for index in others}
    assert all(item.line == at + 1 for item in found if isinstance(item, BadLine))


SNIPPETS = st.sampled_from(
    [b"md5", b"pdq", b",", b";", b"\t", b'"', b"\n", b"\r", b"#", b"{", b"}", b"[", b"]", b":", b"id", b"\xef\xbb\xbf",
     b"\xff\xfe", b"\xfe\xff", b"\0", b"\xff", b'"value":[', b'"Media":[', b'"MD5":', b'{"value":[{"MD5":"', b"sep=;",
     b"MD5;Image ID;Baseline\n", text_of(MD5).encode(), text_of(PDQ).encode(), b"true", b"1e999", b"\\ud800"]
)  # fmt: skip


@pytest.mark.parametrize("name", [reader.name for reader in BUILTIN_READERS])
@given(data=st.binary(max_size=200) | st.lists(SNIPPETS | st.binary(max_size=3), max_size=40).map(b"".join))
def test_any_bytes_give_entries_bad_lines_or_a_format_error(name: str, data: bytes) -> None:
    for settings_ in (options(), options(signal_type="pdq"), options(columns={"md5": "1", "id": "2"})):
        try:
            items = read(name, data, settings_)
        except ListFormatError:
            continue
        for item in items:
            assert item.line >= 1
            if isinstance(item, ListEntry):
                assert item.entry_id
                assert item.hashes
                assert all(len(value) == SIGNALS[signal].length_bytes for signal, value in item.hashes)
                json.dumps([item.entry_id, item.category, dict(item.fields)], ensure_ascii=False).encode()


@given(st.binary(max_size=200) | st.lists(SNIPPETS | st.binary(max_size=3), max_size=40).map(b"".join), st.text())
def test_any_head_can_be_probed(head: bytes, filename: str) -> None:
    assert all(0 <= reader.probe(head, filename) <= 100 for reader in BUILTIN_READERS)
    if any(reader.probe(head, filename.removesuffix(".gz")) for reader in BUILTIN_READERS):
        assert choose_reader(BUILTIN_READERS, head, filename) in BUILTIN_READERS
    else:
        with pytest.raises(ListFormatError, match="none of the list formats" if head else "the file is empty"):
            choose_reader(BUILTIN_READERS, head, filename)


@pytest.mark.parametrize("signal", [MD5, SHA1, PDQ, PHASH, PHOTODNA])
@pytest.mark.parametrize("name", ["txt", "csv", "jsonl", "vics"])
def test_no_message_repeats_a_hash(name: str, signal: Hex) -> None:
    text = text_of(signal)
    wrong = text[:-1] + "x"
    data = {
        "txt": f"{signal.name} {wrong}\n{wrong}\n{text} {text}\n",
        "csv": f"signal_type,hash,md5\n{signal.name},{wrong},{wrong}\n{wrong},{signal.name},\n",
        "jsonl": json.dumps({signal.name: wrong})
        + "\n"
        + json.dumps({"hash": wrong, "type": wrong})
        + f'\n{{"{wrong}": 1',
        "vics": json.dumps({"value": [{signal.name: wrong}, {"AlternativeHashes": [{wrong: wrong}]}]}) + f'"{wrong}',
    }[name]
    items: list[Any] = []
    try:
        items.extend(reader(name).read(io.BytesIO(data.encode()), options()))
    except ListFormatError as error:
        items.append(error)
    assert items
    assert wrong[:12] not in repr(items) + "".join(str(item) for item in items)
