from __future__ import annotations

import base64
import codecs
import io
import itertools
import json
from collections import deque
from typing import Any

import ijson
import pytest

from uploadguard.errors import ListFormatError
from uploadguard.lists import BadLine, VicsReader
from uploadguard.lists.vics import MAX_ITEM_BYTES

from .helpers import MD5, PDQ, PHOTODNA, SHA1, USUAL, bad, entries, made_up, options, read, reader, text_of

CONTEXT = "http://github.com/VICSDATAMODEL/ProjectVic/DataModels/2.0.xml/NL/$metadata#Media"
PDNA = base64.b64encode(made_up(PHOTODNA)).decode()


def media(number: int = 1, **more: Any) -> dict[str, Any]:
    return {"MediaID": number, "Category": 2, "MD5": text_of(MD5, number).upper(), **more}


def document(*items: object, **more: Any) -> str:
    return json.dumps({"@odata.context": CONTEXT, **more, "value": items})


def test_version_2() -> None:
    item = media(
        5, SHA1=text_of(SHA1), PhotoDNA=PDNA, MediaSize=2835, DateUpdated="2023-06-07T02:31:49.8300Z",
        VictimIdentified="true", OffenderIdentified="False", IsDistributed=True, IsPrecategorized="false",
        Series=None, Tags="true", Ratio=0.5, Names=["a", "b"], Miniature="AAAA",
        MediaFiles=[{"MD5": text_of(MD5, 5), "ParentMD5": text_of(MD5, 5), "FileName": "x.jpg"}],
    )  # fmt: skip
    items = read("vics", document(item))
    [entry] = entries(items)
    assert (entry.entry_id, entry.category, entry.line) == ("5", "2", 1)
    assert entry.hashes == (("md5", made_up(MD5, 5)), ("sha1", made_up(SHA1)))
    assert entry.fields == {
        "MediaSize": 2835, "DateUpdated": "2023-06-07T02:31:49.8300Z", "VictimIdentified": True,
        "OffenderIdentified": False, "IsDistributed": True, "IsPrecategorized": False, "Tags": "true", "Ratio": 0.5,
        "Names": ["a", "b"], "MediaFiles": [{"FileName": "x.jpg"}], "vics_version": "2.0", "vics_country": "NL",
    }  # fmt: skip
    assert text_of(MD5, 5) not in json.dumps(dict(entry.fields)).lower()
    assert bad(items) == [(1, "no signal type 'photodna' is registered here")]


def test_version_1_with_cases() -> None:
    case = {
        "odata.id": "x",
        "CaseMetadata": [{"PropertyName": "MediaID", "PropertyValue": "7"}],
        "Media@odata.navigationLinkUrl": "x",
        "Media": [{**media(1), "odata.id": "x", "AlternativeHashes@odata.navigationLinkUrl": "y"}, 3, media(2)],
        "CaseID": "c",
    }
    context = "http://github.com/ICMEC/ProjectVic/DataModels/1.3.xml#Cases"
    items = read("vics", json.dumps({"odata.metadata": context, "value": [case, {"Media": [media(3)]}, {"Media": []}]}))
    assert [(entry.entry_id, entry.line) for entry in entries(items)] == [("1", 1), ("2", 3), ("3", 4)]
    assert entries(items)[0].fields == {"vics_version": "1.3"}
    assert bad(items) == [(2, "not a JSON object")]


def test_alternative_hashes() -> None:
    named = [
        {"HashName": "PhotoDNA", "HashValue": PDNA},
        {"HashName": "PDQ", "HashValue": text_of(PDQ)},
        {"HashName": "MD5", "HashValue": text_of(MD5, 1)},
        {"HashName": "SHA1", "HashValue": ""},
    ]
    items = read("vics", document(media(AlternativeHashes=named)), options(*USUAL, PHOTODNA))
    assert not bad(items)
    assert dict(entries(items)[0].hashes) == {
        "md5": made_up(MD5, 1),
        "photodna": made_up(PHOTODNA),
        "pdq": made_up(PDQ),
    }
    assert len(entries(items)[0].hashes) == 3


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (3, "not a JSON object"),
        (None, "not a JSON object"),
        ([[{}]], "not a JSON object"),
        ({}, "no hash"),
        ({"MediaID": 2, "MD5": None, "SHA1": ""}, "no hash"),
        ({"MD5": 12}, "md5: not a text"),
        ({"MD5": "oops"}, "md5: expected 32 hex digits, found 4 characters"),
        ({"MD5": {"Media": []}}, "md5: not a text"),
    ],
)
def test_bad_items_cost_themselves_only(item: object, reason: str) -> None:
    items = read("vics", document(media(1), item, media(3)))
    assert [entry.line for entry in entries(items)] == [1, 3]
    assert bad(items) == [(2, reason)]
    assert [item.unit for item in items if isinstance(item, BadLine)] == ["item"]


def test_a_mapping_of_keys() -> None:
    items = read("vics", document(media(1, Series="s")), options(columns={"category": "series"}))
    assert entries(items)[0].category == "s"


def test_deep_nesting_is_left_out() -> None:
    deep = '{"a":' * 100_000 + "1" + "}" * 100_000
    text = document(media(1), media(2)).replace('"Category": 2', f'"Category": 2, "Deep": {deep}', 1)
    items = read("vics", text)
    assert [entry.entry_id for entry in entries(items)] == ["1", "2"]
    assert entries(items)[1].fields.keys() == {"vics_version", "vics_country"}


def taken(data: str | bytes) -> tuple[int, ListFormatError]:
    """How many entries came before the error."""
    items = VicsReader().read(io.BytesIO(data.encode() if isinstance(data, str) else data), options())
    seen = itertools.count()
    with pytest.raises(ListFormatError) as caught:
        deque(zip(items, seen, strict=False), maxlen=0)
    return next(seen), caught.value


def test_a_file_that_breaks_off() -> None:
    text = document(*(media(number) for number in range(1, 4)))
    starts = [text.index(f'{{"MediaID": {number}') for number in range(1, 4)]
    ends = [*(start - 2 for start in starts[1:]), len(text) - 2]
    for cut in range(len(text)):
        whole = sum(end <= cut for end in ends)
        count, error = taken(text[:cut])
        assert (count, error.line) == (whole, None), cut
        assert error.reason == f"not JSON, or broken off, in item {whole + 1}"
        assert text_of(MD5, 2)[:8] not in str(error).lower()


@pytest.mark.parametrize(
    ("data", "count", "reason"),
    [
        ("", 0, "not JSON, or broken off, in item 1"),
        ("hello", 0, "not JSON, or broken off, in item 1"),
        ("[]", 0, "not a JSON object"),
        ("3", 0, "not a JSON object"),
        ("{}", 0, "no 'value' array"),
        ('{"value": 3}', 0, "no 'value' array"),
        ('{"value": {"a": [1, {"b": 2}]}}', 0, "no 'value' array"),
        (document(media()) + "x", 1, "in item 2"),
        (document(media()) + "{}", 1, "in item 2"),
        (document(media(), "HERE").replace('"HERE"', '{"a" 1}'), 1, "in item 2"),
        (document("HERE").replace('"HERE"', "1" * 5000), 0, "in item 1"),
        (document(media(), "x" * (MAX_ITEM_BYTES + 200_000)), 1, "item 2 is larger than 4194304 bytes"),
        (document(media(), media(2, Tags=["x"] * MAX_ITEM_BYTES)), 1, "item 2 is larger"),
        (document(media(), [[]] * MAX_ITEM_BYTES), 1, "item 2 is larger"),
        ('{"value": [' + "[" * 3 * MAX_ITEM_BYTES, 0, "item 1 is larger"),
        ('{"' + "x" * 3 * MAX_ITEM_BYTES, 0, "item 1 is larger"),
    ],
)
def test_refused_files(data: str, count: int, reason: str) -> None:
    got, error = taken(data)
    assert got == count
    assert reason in str(error)
    assert error.__cause__ is None


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings(encoding: str) -> None:
    text = document(media(Series='é ] } " 日本')).encode().decode("unicode_escape") if False else document(media())
    data = text.replace('"Category"', '"Series": "é ] } 日本", "Category"').encode(encoding)
    [entry] = entries(read("vics", data))
    assert entry.fields["Series"] == "é ] } 日本"
    assert reader("vics").probe(data, "x") > 80


def test_a_text_in_another_encoding_does_not_cost_the_hash() -> None:
    data = document(media()).replace('"Category"', '"Series": "é", "Category"').encode("latin-1")
    [entry] = entries(read("vics", data))
    assert entry.fields["Series"] == "\ufffd"


def test_half_a_utf16_unit_at_the_end() -> None:
    count, error = taken(codecs.BOM_UTF16_LE + document(media()).encode("utf-16-le") + b"x")
    assert (count, error.line) == (1, None)
    assert "in item 2" in error.reason


def test_without_the_c_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ijson, "basic_parse", ijson.get_backend("python").basic_parse)
    text = document(media(1, Ratio=0.5), 3, media(2))
    assert [entry.entry_id for entry in entries(read("vics", text))] == ["1", "2"]
    for data in (text[:-20], text + "x", document("1" * 5000).replace('"', ""), ""):
        taken(data)


class Generated(io.RawIOBase):
    """A VICS file of many items, made while it is read."""

    def __init__(self, count: int) -> None:
        parts = (document(*(media(number) for number in range(1000)))[:-2].encode() for _ in range(count // 1000))
        self.parts = (part if index == 0 else b"," + part[part.index(b"[") + 1 :] for index, part in enumerate(parts))
        self.size_bytes = 0

    def read(self, size: int | None = -1, /) -> bytes:
        part = next(self.parts, b"") if size else b""
        self.size_bytes += len(part)
        return part


def test_the_first_entry_comes_before_the_file_is_read() -> None:
    stream = Generated(50_000)
    first = next(iter(VicsReader().read(stream, options())))  # type: ignore[arg-type]
    assert not isinstance(first, BadLine)
    assert stream.size_bytes < 1_000_000


@pytest.mark.parametrize(
    ("text", "sure"),
    [
        (document(media()), True),
        (json.dumps({"odata.metadata": "x", "value": []}), True),
        (json.dumps({"value": [{"Category": 1, "MediaID": 2}]}, indent=2), True),
        (json.dumps({"value": [{"CaseID": 1, "Media": []}]}), True),
        (json.dumps({"md5": "x"}), False),
        (json.dumps([media()]), False),
        ("", False),
    ],
)
def test_probe(text: str, sure: bool) -> None:
    assert (reader("vics").probe(text.encode(), "list.json") >= 85) == sure
