"""Answers are read strictly: what is no answer never counts as one."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uploadguard_ncmec.answers import ApiAnswer, UnreadableError, read_answer

UPLOADED = (
    b'<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n<reportResponse><responseCode>0</responseCode>'
    b"<responseDescription>Success</responseDescription><reportId>77</reportId><fileId>f1</fileId>"
    b"<hash>ABCD</hash></reportResponse>"
)


def test_the_values_of_an_answer() -> None:
    assert read_answer(UPLOADED) == ApiAnswer(0, "77", ("f1",), "abcd", "Success")
    done = (
        b"<reportDoneResponse>\n <responseCode> 0 </responseCode><reportId>77</reportId>"
        b"<files><fileId>f1</fileId><fileId>f2</fileId></files></reportDoneResponse>"
    )
    assert read_answer(done) == ApiAnswer(0, "77", ("f1", "f2"))


def test_namespaces_comments_and_what_is_new_do_not_matter() -> None:
    text = (
        b'<n:reportResponse xmlns:n="urn:x"><!-- c --><n:responseCode>51<![CDATA[02]]></n:responseCode>'
        b"<n:new><n:er>x</n:er></n:new></n:reportResponse>"
    )
    assert read_answer(text).code == 5102


def test_an_answer_shows_neither_hash_nor_description() -> None:
    assert "abcd" not in repr(read_answer(UPLOADED))
    assert "Success" not in repr(read_answer(UPLOADED))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"OK",
        b"<html><body>Maintenance</body></html>",
        b"<reportResponse/>",
        UPLOADED[:-5],
        UPLOADED + b"<more/>",
        UPLOADED.replace(b">0<", b"><"),
        UPLOADED.replace(b">0<", b">-1<"),
        UPLOADED.replace(b">0<", b">zero<"),
        UPLOADED.replace(b">0<", b">0000000<"),
        UPLOADED.replace(b">0<", ">٣<".encode()),
        UPLOADED.replace(b">0</responseCode>", b">0</responseCode><responseCode>5102</responseCode>"),
        UPLOADED.replace(b">77<", b">7-7<"),
        UPLOADED.replace(b">f1<", b">" + b"f" * 300 + b"<"),
        UPLOADED.replace(b"UTF-8", b"klingon"),
        b"<x>" + UPLOADED.partition(b"\n")[2] + b"</x>",
        b"<reportResponse>" + b"<a>" * 100 + b"</a>" * 100 + b"</reportResponse>",
        b"<!DOCTYPE reportResponse>" + UPLOADED.partition(b"\n")[2],
        b'<!DOCTYPE r [<!ENTITY c "0">]><reportResponse><responseCode>&c;</responseCode></reportResponse>',
        b'<!DOCTYPE r SYSTEM "http://192.0.2.1/x.dtd"><reportResponse><responseCode>0</responseCode></reportResponse>',
    ],
)
def test_anything_else_is_unreadable(body: bytes) -> None:
    with pytest.raises(UnreadableError):
        read_answer(body)


@settings(deadline=None)
@given(
    st.binary(max_size=200)
    | st.text("<>/!&;[]ar0 \0\ufffe", max_size=80).map(lambda t: f"<reportResponse>{t}".encode())
)
def test_no_bytes_do_more_than_be_unreadable(body: bytes) -> None:
    with contextlib.suppress(UnreadableError):
        assert read_answer(body).code >= 0


@settings(deadline=None)
@given(st.integers(0, len(UPLOADED) - 1), st.binary(min_size=1, max_size=1))
def test_an_altered_answer_is_unreadable_or_whole(place: int, byte: bytes) -> None:
    try:
        found = read_answer(UPLOADED[:place] + byte + UPLOADED[place + 1 :])
    except UnreadableError:
        return
    assert found.report_id is None or found.report_id.isdigit()
