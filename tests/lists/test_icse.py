from __future__ import annotations

import base64

import pytest

from uploadguard.errors import ListFormatError

from .helpers import MD5, PHOTODNA, SHA1, USUAL, bad, entries, made_up, options, read, reader, text_of

HEADER = (
    "MD5;SHA1;PhotoDNA;Image ID;Is distributed;Victim identified;Offender identified;Series name;"
    "Number of submissions;File Available;Media Type;Baseline"
)
PDNA = base64.b64encode(made_up(PHOTODNA)).decode()
ROW = f"{text_of(MD5).upper()};{text_of(SHA1).upper()};{PDNA};1234;True;False;;Made up;3;True;Image;Yes"


def test_a_row() -> None:
    items = read("icse", f"\ufeff{HEADER}\r\n{ROW}\r\n")
    [entry] = entries(items)
    assert (entry.entry_id, entry.category, entry.line) == ("1234", "Yes", 2)
    assert entry.hashes == (("md5", made_up(MD5)), ("sha1", made_up(SHA1)))
    assert entry.fields == {
        "is_distributed": "True",
        "victim_identified": "False",
        "series_name": "Made up",
        "number_of_submissions": "3",
        "file_available": "True",
        "media_type": "Image",
    }
    assert bad(items) == [(2, "no signal type 'photodna' is registered here")]


def test_photodna_where_it_is_registered() -> None:
    [entry] = entries(read("icse", f"{HEADER}\n{ROW}", options(*USUAL, PHOTODNA)))
    assert ("photodna", made_up(PHOTODNA)) in entry.hashes


def test_columns_in_another_order() -> None:
    [entry] = entries(read("icse", f"Baseline;Image ID;MD5\nNo;7;{text_of(MD5)}\n"))
    assert (entry.entry_id, entry.category) == ("7", "No")


def test_damage() -> None:
    items = read("icse", f"{HEADER}\nx;y\n{ROW}\n;;;;;;;;;;;\n;;;5;;;;;;;;\n")
    assert [entry.line for entry in entries(items)] == [3]
    assert [line for line, _ in bad(items)] == [2, 3, 5]


def test_another_header_is_refused() -> None:
    with pytest.raises(ListFormatError, match="not the header"):
        read("icse", f"md5;id\n{text_of(MD5)};1\n")
    with pytest.raises(ListFormatError, match="no header"):
        read("icse", "")


def test_probe() -> None:
    assert reader("icse").probe(HEADER.encode(), "x.csv") > reader("csv").probe(HEADER.encode(), "x.csv")
    assert reader("icse").probe(b"md5;id\n", "icse.csv") == 0
