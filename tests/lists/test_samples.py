"""Samples: written whole or not at all, for this user alone, and read without trust; the benign corpus."""

from __future__ import annotations

import gzip
import json
import re
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import photo
from uploadguard.config import Settings
from uploadguard.errors import ListFormatError
from uploadguard.hashing import MediaHasher
from uploadguard.lists.samples import SampleItem, SampleWriter, benign_corpus, is_sample, read_sample
from uploadguard.models import Hash
from uploadguard.sampling import make_sample

HEAD = '{"format":"uploadguard sample","version":1}\n'


def items() -> list[SampleItem]:
    return [
        SampleItem(0, "one", (Hash("md5", bytes(16)), Hash("pdq", bytes(range(32)), 97))),
        SampleItem(0, "", (Hash("md5", bytes(range(16))),)),
    ]


@pytest.mark.parametrize("name", ["sample.jsonl", "sample.jsonl.gz"])
def test_what_is_written_is_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with SampleWriter(path) as writer:
        for item in items():
            writer.add(item)
        assert not path.exists()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]
    assert is_sample(path)
    found = list(read_sample(path))
    assert [item.line for item in found] == [2, 3]
    assert [(item.label, item.hashes) for item in found] == [(item.label, item.hashes) for item in items()]
    assert "00" not in repr(found[0].hashes)


def test_a_sample_that_fails_is_not_there(tmp_path: Path) -> None:
    def write() -> None:
        with SampleWriter(tmp_path / "sample.jsonl") as writer:
            writer.add(items()[0])
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"{}",
        b"not JSON",
        b'{"format":"uploadguard sample","version":2}\n',
        HEAD.encode() + b'{"hashes":[["md5","zz"]]}\n',
        HEAD.encode() + b'{"hashes":[["md5"]]}\n',
        HEAD.encode() + b'{"hashes":[["pdq","00",101]]}\n',
        HEAD.encode() + b'{"hashes":[["pdq","00",true]]}\n',
        HEAD.encode() + b'{"hashes":[["pdq","' + b"00" * 65 + b'"]]}\n',
        HEAD.encode() + b'{"hashes":5}\n',
        HEAD.encode() + b'{"label":5,"hashes":[]}\n',
        HEAD.encode() + b"[" * 100_000,
        HEAD.encode() + b'"' + b"x" * 2_000_000,
        gzip.compress(HEAD.encode() * 1000)[:-9],
    ],
)
def test_what_is_no_sample_is_said_to_be_none(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "sample"
    path.write_bytes(data)
    with pytest.raises(ListFormatError, match="sample") as caught:
        list(read_sample(path))
    assert str(path) in str(caught.value)
    with pytest.raises(ListFormatError, match="cannot be read"):
        list(read_sample(tmp_path))


@given(st.binary(max_size=300))
def test_whatever_follows_the_head_gives_pictures_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, rest: bytes
) -> None:
    path = tmp_path_factory.mktemp("sample") / "sample"
    path.write_bytes(HEAD.encode() + rest)
    try:
        found = list(read_sample(path))
    except ListFormatError:
        return
    assert all(isinstance(item, SampleItem) for item in found)


def test_the_benign_corpus_is_large_labelled_and_harmless_to_ship() -> None:
    corpus = benign_corpus()
    assert 2_000 < len(corpus) < 6_000
    assert len({item.label for item in corpus}) == len(corpus)
    assert all({"md5", "sha1", "sha256"} <= {one.signal_type for one in item.hashes} for item in corpus)
    assert (
        sum(any(one.signal_type == "pdq" and (one.quality or 0) >= 50 for one in item.hashes) for item in corpus)
        > 2_000
    )
    projects = {item.label.partition(":")[0] for item in corpus}
    assert {"WordPress", "Drupal", "phpBB", "scikit-image", "made up"} <= projects
    readme = Path(__file__).parents[2] / "src/uploadguard/lists/data/README.md"
    named = readme.read_text(encoding="utf-8")
    assert all(re.split(r" (?=agency|freelancer|creative|twenty)", project)[0] in named for project in projects)


def test_the_benign_corpus_has_the_hashes_that_pictures_really_have() -> None:
    with MediaHasher(Settings.load(None, signals={"pdq": {"mode": "exact"}})) as hasher:
        hashed = SampleItem.of(hasher.hash(photo("coffee.png")), signal_types={"md5", "sha1", "sha256", "pdq"})
        empty = hasher.hash(b"")
    by_label = {item.label: item for item in benign_corpus()}
    coffee = by_label["scikit-image: coffee.png"]
    assert coffee.hashes == hashed.hashes
    assert [one.value for one in by_label["made up: empty file"].hashes][:3] == [one.value for one in empty.hashes][:3]


def test_a_sample_of_a_directory_has_each_picture_once_and_no_names(tmp_path: Path) -> None:
    place = tmp_path / "popular" / "deep"
    place.mkdir(parents=True)
    for name in ("coffee.png", "rocket.jpg"):
        (place / name).write_bytes(photo(name).read_bytes())
    (place / "again.png").write_bytes(photo("coffee.png").read_bytes())
    (place / "text.txt").write_text("not a picture")
    (place / "link.png").symlink_to(photo("page.png"))
    (place / "gone.png").symlink_to(tmp_path / "nowhere")
    told: list[int] = []
    output = tmp_path / "sample.jsonl"
    with MediaHasher(Settings()) as hasher:
        done = make_sample(hasher, [tmp_path / "popular"], output, told.append)
    assert (done.pictures, done.others, done.repeated, done.unread) == (2, 1, 1, 0)
    assert told == [1, 2, 3, 4]
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    assert [set(line) for line in lines[1:]] == [{"hashes"}, {"hashes"}]
    assert "coffee" not in output.read_text()
    assert stat.S_IMODE(output.stat().st_mode) == 0o600
