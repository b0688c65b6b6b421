from __future__ import annotations

import codecs

import pytest

from uploadguard.errors import ListFormatError

from .helpers import MD5, PDQ, PHASH, SHA1, SHA256, bad, entries, made_up, options, read, reader, text_of


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_columns_called_after_signal_types(delimiter: str) -> None:
    rows = [
        ["Image ID", "MD5", "SHA-1", "sha_256", "PDQ hash", "Category", "Series", "Note", "note"],
        ["x1", text_of(MD5).upper(), *map(text_of, (SHA1, SHA256, PDQ)), "A", "s, 1; |\t".replace(delimiter, ""), "",
         "n"],
        ["x2", "", text_of(SHA1, 1), "", "", "", "", "", ""],
    ]  # fmt: skip
    data = "\r\n".join(delimiter.join(row) for row in rows)
    for settings in (options(), options(delimiter=delimiter)):
        items = read("csv", data, settings)
        assert not bad(items)
        first, second = entries(items)
        assert (first.entry_id, first.category, first.line) == ("x1", "A", 2)
        assert first.hashes == tuple((signal.name, made_up(signal)) for signal in (MD5, SHA1, SHA256, PDQ))
        assert first.fields == {"Series": rows[1][6].strip(), "note": "n"}
        assert (second.entry_id, second.category, second.fields) == ("x2", None, {})
        assert second.hashes == (("sha1", made_up(SHA1, 1)),)


@pytest.mark.parametrize(
    ("header", "columns"),
    [
        ("signal_type,hash,entry id", {}),
        ("Hash Type,Value,ID", {}),
        ("a,b,c", {"signal_type": "A", "hash": "b", "id": "3"}),
        ("a,b,c", {"signal_type": "1", "hash": "2", "id": "3"}),
    ],
)
def test_long_form(header: str, columns: dict[str, str]) -> None:
    data = f"{header}\nmd5,{text_of(MD5)},e1\nPDQ,{text_of(PDQ)},e2\n,{text_of(MD5, 2)},e3\ntmk,x,e4\n"
    items = read("csv", data, options(columns=columns))
    assert [(entry.entry_id, entry.hashes[0][0]) for entry in entries(items)] == [
        ("e1", "md5"),
        ("e2", "pdq"),
        ("e3", "md5"),
    ]
    wrong = bad(items)
    assert wrong[-1] == (5, "no signal type 'tmk' is registered here")
    assert len(wrong) == (2 if columns.get("hash") == "2" else 1)  # by number the first row is data too


def test_a_signal_type_is_not_named_where_a_hash_stands_in_its_place() -> None:
    [(_, reason)] = bad(read("csv", f"signal_type,hash\n{text_of(PHASH)},md5\n"))
    assert reason == "no signal type of that name is registered here"


def test_a_hash_column_alone_takes_the_given_signal_type() -> None:
    data = f"id,hash\n1,{text_of(PDQ)}\n"
    assert bad(read("csv", data))[0][1].endswith("pass --signal-type")
    assert entries(read("csv", data, options(signal_type="pdq")))[0].hashes[0][0] == "pdq"


def test_mapping_by_name_goes_before_the_header() -> None:
    data = f"md5,Fingerprint,class,id\nnot one,{text_of(MD5)},B,7\n"
    settings = options(columns={"md5": "fingerprint", "category": "CLASS"})
    [entry] = entries(read("csv", data, settings))
    assert (entry.entry_id, entry.category, entry.hashes) == ("7", "B", (("md5", made_up(MD5)),))
    assert not entry.fields  # a column called md5 is no provenance


def test_mapping_by_number_needs_no_header() -> None:
    rows = "".join(f"{seed};n, o, t, e;{text_of(MD5, seed)}\n" for seed in range(3))
    for data in (rows, "sep=;\n" + rows, "No;Note;MD5\n" + rows):
        settings = options(columns={"md5": "3", "id": "1"})
        items = read("csv", data, settings)
        assert not bad(items)
        assert [entry.entry_id for entry in entries(items)] == ["0", "1", "2"]
        assert set(entries(items)[0].fields) == ({"Note"} if "Note" in data else {"column_2"})
    assert bad(read("csv", "1;2\n" + rows, settings))[0] == (1, "2 columns, fewer than the 3 needed")


@pytest.mark.parametrize("heading", ["No;Note;Checksum", "Nr.;Was;Prüfsumme (hex)", "no;;sum"])
def test_a_heading_is_skipped_where_columns_are_mapped_by_number(heading: str) -> None:
    rows = "".join(f"{seed};n, o, t, e;{text_of(MD5, seed)}\n" for seed in range(3))
    items = read("csv", f"{heading}\n{rows}", options(columns={"md5": "3", "id": "1"}))
    assert not bad(items)
    assert [(entry.entry_id, entry.line) for entry in entries(items)] == [("0", 2), ("1", 3), ("2", 4)]


@pytest.mark.parametrize("first", ["1;note;oops", "x;note;deadbeef", "x;note;-", "x;note;" + "0" * 31, "x;note;3 oops"])
def test_a_damaged_first_row_is_no_heading(first: str) -> None:
    items = read("csv", f"{first}\n2;n;{text_of(MD5)}\n", options(columns={"md5": "3"}))
    assert [line for line, _ in bad(items)] == [1]
    assert len(entries(items)) == 1


@pytest.mark.parametrize(
    ("data", "more", "reason", "line"),
    [
        ("", {}, "no header", 1),
        ("\n\n# only this\n", {}, "no header", 1),
        ("a,b\n1,2\n", {}, "no column holds hashes", 1),
        ("Sum,The file\n1,2\n", {}, "--column md5=Sum; the headings are: Sum, The file$", 1),
        ("The file,b\n1,2\n", {"columns": {"md5": "c"}}, "no column 'c' .*; the headings are: The file, b$", 1),
        ("0123456x,01234567,,b\x1b\n", {}, "--column md5=0123456x; the headings are: 0123456x$", 1),
        ("a;b;c\n1;2,3;3\n", {"columns": {"md5": "4"}}, "there is no column 4: the table has 3", None),
        ("# c\n\na,b\n1,2\n", {"columns": {"md5": "c"}}, "no column 'c' among the 2 columns", 3),
        ("a,md5\n", {"columns": {"md5": "3"}}, "no column '3'", 1),
        ("a,md5\n", {"columns": {"crc": "a"}}, "cannot map 'crc'.*md5", None),
        ("a,md5\n", {"columns": {"photodna": "a"}}, "cannot map 'photodna'", None),
        ("a,md5\n", {"columns": {"id": "1"}}, "no column holds hashes", None),
        ("a,md5\n", {"columns": {"md5": "99999"}}, "over 1000", None),
        ("a,md5\n", {"delimiter": "ab"}, "one character", None),
        ("a,md5\n", {"delimiter": '"'}, "one character", None),
        ('a,"md5\n1,2\n', {}, "header cannot be read: a quote is never closed", 1),
        ("a,md5\0\n1,2\n", {}, "header cannot be read: holds a NUL", 1),
        (f"1,{text_of(MD5)}\n2,{text_of(MD5, 2)}\n", {}, "a hash where the header should be", 1),
        (f"md5,{text_of(MD5)}\nmd5,{text_of(MD5, 2)}\n", {}, "a hash where the header should be", 1),
    ],
)
def test_refused_files(data: str, more: dict[str, object], reason: str, line: int | None) -> None:
    with pytest.raises(ListFormatError, match=reason) as caught:
        read("csv", data, options(**more))
    assert caught.value.line == line
    assert text_of(MD5)[:8] not in str(caught.value)


def row(seed: object, note: str = "") -> str:
    return f"{seed},{text_of(MD5, seed)},{note}"


@pytest.mark.parametrize(
    ("damaged", "reason"),
    [
        ('2,"oops,x', "a quote is never closed"),
        ('"2,oops,x', "a quote is never closed"),
        ('2,oops,"', "a quote is never closed"),
        ('2,"oops"y,x', "a closed quote is followed by more text"),
        ("2,oops", "2 columns instead of 3"),
        ("2,oops,x,y", "4 columns instead of 3"),
        ("2,oo\0ps,x", "holds a NUL byte"),
        ("2,oops,x", "md5: expected 32 hex digits, found 4 characters"),
        ("2,,x", "no hash"),
        ("2," + "00" * 15 + "0g,x", "md5: not hexadecimal"),
        ('2,"' + "x" * 140_000 + '",x', "a record with quotes is longer"),
        ("2," + "x" * 1_100_000 + ",x", "longer than"),
    ],
)
@pytest.mark.parametrize("note", ["plain", '"q"', '"a ""quoted"" one"', '"c, d"', '","', '""'])
def test_a_damaged_row_costs_itself_only(damaged: str, reason: str, note: str) -> None:
    lines = ["id,md5,note", row(1, note), "", damaged, row(4, note), row(5, note), row(6, note)]
    items = read("csv", "\r\n".join(lines))
    assert [entry.entry_id for entry in entries(items)] == ["1", "4", "5", "6"]
    [(line, found)] = bad(items)
    assert line == 4
    assert reason in found


def test_quoted_cells() -> None:
    data = f'id,note,md5\r\n1,"a ""b"",\r\nc\nd","{text_of(MD5)}"\r\n2,5" disk,{text_of(MD5, 2)}\r\n3,,oops\r\n'
    items = read("csv", data)
    assert [(entry.line, entry.fields) for entry in entries(items)] == [
        (2, {"note": 'a "b",\nc\nd'}),
        (5, {"note": '5" disk'}),
    ]
    assert bad(items)[0][0] == 6


def test_empty_cells_at_the_end_and_comments_are_no_damage() -> None:
    items = read("csv", f"id,md5\n1,{text_of(MD5)},,\n# generated\n#2,{text_of(MD5, 2)}\n")
    assert [entry.entry_id for entry in entries(items)] == ["1", "#2"]
    assert not bad(items)


def test_a_header_that_begins_with_a_hash_sign() -> None:
    [entry] = entries(read("csv", f"#;md5\n7;{text_of(MD5)}\n"))
    assert entry.fields == {"#": "7"}


def test_names_of_fields_are_distinct_and_long_values_left_out() -> None:
    [entry] = entries(read("csv", f"md5,a,,a,b\n{text_of(MD5)},1,2,3,{'x' * 5000}\n"))
    assert entry.fields == {"a": "1", "column_3": "2", "a_2": "3"}
    assert entry.entry_id == "2"


def test_the_good_hash_of_a_row_is_kept() -> None:
    items = read("csv", f"md5,sha1,PhotoDNA\n{text_of(MD5)},oops,AAAA\noops,,BBBB\n")
    [entry] = entries(items)
    assert entry.hashes == (("md5", made_up(MD5)),)
    assert "PhotoDNA" not in entry.fields
    ignored = "no signal type 'photodna' is registered here"
    wrong = "md5: expected 32 hex digits, found 4 characters"
    assert bad(items) == [(2, wrong.replace("md5", "sha1").replace("32", "40")), (2, ignored), (3, wrong), (3, ignored)]


@pytest.mark.parametrize(
    ("mark", "encoding"),
    [(codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be")],
)
def test_encodings(mark: bytes, encoding: str) -> None:
    [entry] = entries(read("csv", mark + f"md5;Série\n{text_of(MD5)};é\n".encode(encoding)))
    assert entry.fields == {"Série": "é"}


def test_a_row_in_another_encoding_is_a_bad_line() -> None:
    items = read("csv", f"md5;s\n{text_of(MD5)};é\n".encode("latin-1") + f"{text_of(MD5, 1)};e\n".encode())
    assert [entry.line for entry in entries(items)] == [3]
    assert bad(items)[0][0] == 2


@pytest.mark.parametrize(
    ("head", "filename", "least", "most"),
    [
        ("id,md5\n", "list", 70, 90),
        ("sep=;\nid;PDQ\n", "list", 70, 90),
        ("a,b\n", "list.csv", 40, 60),
        ("a,b\n", "list", 0, 0),
        ("", "list.csv", 1, 20),
        ('{"md5": 1}', "list", 0, 0),
    ],
)
def test_probe(head: str, filename: str, least: int, most: int) -> None:
    assert least <= reader("csv").probe(head.encode(), filename) <= most
