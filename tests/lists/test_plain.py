from __future__ import annotations

import base64

import pytest

from uploadguard.errors import ListFormatError

from .helpers import MD5, PDQ, PHASH, PHOTODNA, SHA1, SHA256, Hex, bad, entries, made_up, options, read, reader, text_of


def test_bare_hashes_are_told_by_their_length() -> None:
    data = f"\ufeff# a list\r\n\r\n{text_of(MD5)}\r\n  {text_of(SHA1).upper()}  \r\n{text_of(MD5, 1)} # why\r\n"
    items = read("txt", data)
    assert not bad(items)
    assert [(entry.entry_id, entry.line, entry.hashes) for entry in entries(items)] == [
        ("3", 3, (("md5", made_up(MD5)),)),
        ("4", 4, (("sha1", made_up(SHA1)),)),
        ("5", 5, (("md5", made_up(MD5, 1)),)),
    ]


@pytest.mark.parametrize("separator", [" ", "  ", "\t", ",", ", ", ":", ": ", ";", " , "])
def test_pairs(separator: str) -> None:
    items = read("txt", "".join(f"{name}{separator}{text_of(PDQ)}\n" for name in ("pdq", "PDQ", "sha-256", "SHA_256")))
    assert not bad(items)
    assert [entry.hashes[0] for entry in entries(items)] == [("pdq", made_up(PDQ))] * 2 + [("sha256", made_up(PDQ))] * 2


def test_a_length_of_two_signal_types_is_refused_up_front() -> None:
    data = f"# list\n{text_of(PDQ)}\n{text_of(PDQ, 1)}\n"
    with pytest.raises(ListFormatError, match=r"pdq or sha256.*--signal-type") as caught:
        read("txt", data)
    assert caught.value.line == 2
    assert text_of(PDQ)[:8] not in str(caught.value)
    items = read("txt", data, options(signal_type="pdq"))
    assert [entry.hashes[0][0] for entry in entries(items)] == ["pdq", "pdq"]
    assert len(entries(read("txt", data, options(MD5, SHA256)))) == 2


def test_one_lost_line_end_does_not_make_a_list_ambiguous() -> None:
    texts = [text_of(MD5, seed) for seed in range(6)]
    items = read("txt", f"{texts[0]}{texts[1]}\n" + "\n".join(texts[2:]))
    assert len(entries(items)) == 4
    [(line, reason)] = bad(items)
    assert line == 1
    assert "--signal-type" in reason


def test_the_named_signal_type_must_be_registered() -> None:
    with pytest.raises(ListFormatError, match=r"'phash'.*registered: md5, sha1"):
        read("txt", text_of(PHASH), options(MD5, SHA1, signal_type="phash"))


@pytest.mark.parametrize("line", ["{md5} picture 7.jpg", "md5 {md5} picture 7.jpg", "md5,{md5},picture 7.jpg"])
def test_an_id_after_the_hash(line: str) -> None:
    [entry] = read("txt", line.format(md5=text_of(MD5)))
    assert entry in entries([entry])
    assert entries([entry])[0].entry_id == "picture 7.jpg"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("zz" * 16, "32 characters: not a hash"),
        ("abc", "3 characters: not a hash"),
        ("md5", "3 characters: not a hash"),
        ("nonsense {md5}", "8 characters: not a hash"),
        ("md5 {md5}0", "md5: expected 32 hex digits, found 33 characters"),
        ("md5 {md5} {md5}", "more than one hash"),
        ("{md5} {md5}", "more than one hash"),
        ("pdq " + "00" * 32, "pdq: all bits are the same"),
        ("pdq " + "FF" * 32, "pdq: all bits are the same"),
        ("d41d8cd98f00b204e9800998ecf8427e", "md5: the digest of an empty file"),
        ("DA39A3EE5E6B4B0D3255BFEF95601890AFD80709", "sha1: the digest of an empty file"),
        (
            "sha256 e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "sha256: the digest of an empty file",
        ),
    ],
)
def test_bad_lines(line: str, reason: str) -> None:
    data = f"{text_of(MD5, 1)}\n\n{line.format(md5=text_of(MD5))}\n{text_of(MD5, 2)}\n"
    items = read("txt", data)
    assert [entry.line for entry in entries(items)] == [1, 4]
    [(number, found)] = bad(items)
    assert number == 3
    assert found.startswith(reason)
    assert text_of(MD5)[:8] not in found


def test_a_blank_perceptual_hash_of_any_length_is_refused() -> None:
    items = read("txt", "phash 0000000000000000\nphash 0000000000000001\n", options(PHASH))
    assert [line for line, _ in bad(items)] == [1]
    assert len(entries(items)) == 1


def test_an_unregistered_signal_type_is_ignored_not_wrong() -> None:
    text = base64.b64encode(made_up(PHOTODNA)).decode()
    [ignored, entry] = read("txt", f"photodna {text}\n{text_of(MD5)}\n")
    assert bad([ignored]) == [(1, "no signal type 'photodna' is registered here")]
    assert ignored.ignored  # type: ignore[union-attr]
    assert entries([entry])


@pytest.mark.parametrize("spelling", [bytes.hex, lambda value: base64.b64encode(value).decode()])
def test_photodna_in_both_spellings(spelling: object) -> None:
    text = spelling(made_up(PHOTODNA))  # type: ignore[operator]
    for data, settings in [
        (f"photodna {text}", options(PHOTODNA)),
        (text, options(PHOTODNA, signal_type="photodna")),
    ]:
        [entry] = read("txt", data, settings)
        assert entries([entry])[0].hashes == (("photodna", made_up(PHOTODNA)),)


def test_a_reason_that_repeats_the_hash_is_not_passed_on() -> None:
    class Chatty(Hex):
        def parse(self, text: str) -> bytes:
            raise ValueError(f"cannot read {text.lower()}")

    items = read("txt", f"md5 {text_of(MD5).upper()}", options(Chatty("md5", 16)))
    assert bad(items) == [(1, "md5: not a valid hash")]


def test_a_signal_type_that_gives_another_length_is_caught() -> None:
    class Short(Hex):
        def parse(self, text: str) -> bytes:
            return b"abc"

    assert bad(read("txt", f"md5 {text_of(MD5)}", options(Short("md5", 16)))) == [(1, "md5: 3 bytes instead of 16")]


@pytest.mark.parametrize(
    ("head", "filename", "sure"),
    [
        (text_of(MD5), "list", True),
        (f"# list\n{text_of(MD5)}\n", "list.csv", True),
        (f"pdq {text_of(PDQ)}\n", "list", True),
        ("hello\nworld\n", "list", False),
        ("hello\nworld\n", "list.txt", True),
        ("", "list.txt", True),
        ("", "list", False),
    ],
)
def test_probe(head: str, filename: str, sure: bool) -> None:
    assert (reader("txt").probe(head.encode(), filename) > 0) == sure


def test_columns_are_for_tables() -> None:
    with pytest.raises(ListFormatError, match="--format csv"):
        read("txt", text_of(MD5), options(columns={"md5": "1"}))
