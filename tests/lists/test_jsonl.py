from __future__ import annotations

import json

import pytest

from uploadguard.errors import ListFormatError

from .helpers import MD5, PDQ, PHASH, SHA1, bad, entries, made_up, options, read, reader, text_of

M, S, P = text_of(MD5), text_of(SHA1), text_of(PDQ)
PAIRS = (("md5", made_up(MD5)), ("sha1", made_up(SHA1)))


@pytest.mark.parametrize(
    "item",
    [
        {"md5": M, "sha1": S},
        {"MD5": M.upper(), "SHA-1": [S, S]},
        {"hashes": {"md5": M, "sha_1": S}},
        {"hashes": [{"signal_type": "md5", "hash": M}, {"type": "SHA1", "value": S}]},
        {"hashes": [{"md5": M}, {"sha1": [S]}]},
        {"hashes": [M, S]},
        {"md5": M, "alternative_hashes": [{"HashName": "SHA1", "HashValue": S}]},
    ],
)
def test_forms(item: dict[str, object]) -> None:
    [entry] = entries(read("jsonl", json.dumps({**item, "id": 7, "category": "A", "series": "s", "n": None})))
    assert (entry.entry_id, entry.category, entry.fields, entry.hashes) == ("7", "A", {"series": "s"}, PAIRS)


def test_long_form() -> None:
    data = f'{{"signal_type": "pdq", "hash": "{P}"}}\n\n{{"hash": "{M}"}}\n{{"hash": "{P}"}}'
    items = read("jsonl", data)
    assert [(entry.entry_id, entry.hashes[0][0]) for entry in entries(items)] == [("1", "pdq"), ("3", "md5")]
    assert bad(items)[0][0] == 4
    assert len(entries(read("jsonl", data, options(signal_type="pdq")))) == 2


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "not JSON"),
        ('{"md5": NaN}', "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('{"md5": ' + "1" * 5000 + "}", "not JSON"),
        ("[1]", "not a JSON object"),
        ('"text"', "not a JSON object"),
        ("{}", "no hash"),
        ('{"md5": ""}', "no hash"),
        ('{"md5": null, "id": 3}', "no hash"),
        ('{"md5": 12}', "md5: not a text"),
        ('{"md5": {"a": 1}}', "md5: not a text"),
        ('{"hashes": 3}', "hash: not a text"),
        ('{"md5": "oops"}', "md5: expected 32 hex digits, found 4 characters"),
        ('{"pdq": "' + "0" * 64 + '"}', "pdq: all bits are the same, which would match every blank picture"),
        ('{"photodna": "AAAA"}', "no signal type 'photodna' is registered here"),
        ('{"signal_type": "video_x", "hash": "AAAA"}', "no signal type 'video_x' is registered here"),
        ('{"signal_type": "' + text_of(PHASH) + '", "hash": "x"}', "no signal type of that name is registered here"),
        ('{"md5": "' + "x" * 1_100_000 + '"}', "longer than 1048576 bytes"),
        ('{"md5": "\0"}', "holds a NUL byte (UTF-16 without a byte order mark?)"),
    ],
)
def test_bad_lines(line: str, reason: str) -> None:
    items = read("jsonl", f'{{"md5": "{M}"}}\n{line}\n{{"md5": "{text_of(MD5, 2)}"}}')
    assert [entry.line for entry in entries(items)] == [1, 3]
    assert bad(items) == [(2, reason)]


def test_fields() -> None:
    item = {
        "md5": M, "flag": True, "n": 1.5, "huge": 10**400, "small": 1e308,
        "list": [1, None, {"a": {"b": {"c": {"d": 1}}}}],
        "nested": {"ParentMD5": M, "name": "x", "Thumbnail": "AAAA", "long": "x" * 5000}, "odd": "\ud800",
        "long": "x" * 5000, "a@odata.link": "x", "miniature": "AAAA", "sha512": "AAAA",
    }  # fmt: skip
    items = read("jsonl", json.dumps(item))
    [entry] = entries(items)
    assert bad(items) == [(1, "no signal type 'sha512' is registered here")]
    assert entry.fields == {
        "flag": True, "n": 1.5, "huge": 10**400, "small": 1e308, "list": [1, {"a": {"b": {}}}], "nested": {"name": "x"},
        "odd": "\ufffd\ufffd\ufffd",
    }  # fmt: skip
    json.dumps(dict(entry.fields), ensure_ascii=False).encode()


def test_a_number_too_large_for_a_float_is_kept_as_text() -> None:
    [entry] = entries(read("jsonl", f'{{"md5": "{M}", "n": 1e999}}'))
    assert entry.fields == {"n": "inf"}


def test_id_and_category_are_scalars() -> None:
    [entry] = entries(read("jsonl", json.dumps({"md5": M, "id": {"a": 1}, "category": ["A"]})))
    assert (entry.entry_id, entry.category) == ("1", None)


def test_probe() -> None:
    probe = reader("jsonl").probe
    assert probe(f'{{"md5": "{M}"}}\n'.encode(), "x") >= 80
    assert probe(f'{{"md5": "{M}"}}\n'.encode(), "x.jsonl") >= 90
    assert 0 < probe(b'{"a": 1}\n', "x") < 50
    assert probe(b"[1]", "x") == 0
    assert probe(b"", "x.ndjson") > 0


def test_keys_that_are_mapped() -> None:
    columns = {"md5": "Checksum", "id": "case", "category": "class"}
    rows = [
        {"Checksum": M, "Case": "c1", "class": "A", "category": "other", "id": 9, "md5": "not this", "sha1": S},
        {"checksum": ["oops"], "case": "c2"},
        {"case": "c3", "md5": M},
    ]
    items = read("jsonl", "\n".join(map(json.dumps, rows)), options(columns=columns))
    [entry] = entries(items)
    assert (entry.entry_id, entry.category, entry.hashes) == ("c1", "A", PAIRS)
    assert entry.fields == {"category": "other", "id": 9}
    assert bad(items) == [(2, "md5: expected 32 hex digits, found 4 characters"), (3, "no hash")]


def test_the_long_form_under_keys_that_are_mapped() -> None:
    columns = {"signal_type": "kind", "hash": "sum"}
    data = json.dumps({"kind": "SHA-1", "sum": S, "type": "image/jpeg", "value": 3})
    [entry] = entries(read("jsonl", data, options(columns=columns)))
    assert entry.hashes == PAIRS[1:]
    assert entry.fields == {"type": "image/jpeg", "value": 3}


@pytest.mark.parametrize(
    ("columns", "reason"),
    [({"md5": "sum"}, "no object has a key 'sum'"), ({"crc": "sum"}, "cannot map 'crc' to a column")],
)
def test_a_mapping_that_does_not_fit(columns: dict[str, str], reason: str) -> None:
    with pytest.raises(ListFormatError, match=reason):
        read("jsonl", json.dumps({"md5": M}), options(columns=columns))
