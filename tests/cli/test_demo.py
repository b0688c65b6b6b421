"""``demo`` and ``testpicture``."""

from __future__ import annotations

import json
import resource
import tempfile
from pathlib import Path

import pytest

from tests.cli.conftest import run
from tests.conftest import photo
from uploadguard.cli.demo import VARIANTS
from uploadguard.cli.exits import Exit
from uploadguard.testing import picture
from uploadguard.testing.media import flat_png, text_named_jpg


@pytest.fixture(autouse=True)
def _temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.chdir(tmp_path)


def test_the_variants_are_those_of_the_test_picture() -> None:
    assert tuple(picture.VARIANTS) == VARIANTS


def test_the_demo_shows_what_would_happen_and_cleans_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPLOADGUARD_CONFIG", str(tmp_path / "not read"))
    result = run("demo")
    assert result.exit_code == 0, result.output
    assert "Of 6 uploads of the listed picture: 1 refused, 5 held back for a person; 1 to be reported." in result.stdout
    assert "The unrelated picture: let through." in result.stdout
    assert "uploadguard init DIR" in result.stdout
    assert list((tmp_path / "temporary").iterdir()) == []


def test_the_demo_in_json() -> None:
    result = run("demo", "--json")
    verdicts = {record["upload"]: record["verdict"] for record in map(json.loads, result.stdout.splitlines())}
    assert verdicts == {"test picture": "block", **dict.fromkeys(VARIANTS, "queue"), "unrelated": "allow"}


@pytest.mark.parametrize("name", ["chelsea.png", "retina.jpg", "coins.png"])
def test_the_demo_with_a_picture_of_ones_own(name: str) -> None:
    result = run("demo", photo(name), "--json")
    assert result.exit_code == 0
    first, *others = map(json.loads, result.stdout.splitlines())
    assert (first["upload"], first["verdict"]) == (name, "block")
    assert {record["upload"] for record in others} == {*VARIANTS, "unrelated"}
    assert sum(record["verdict"] != "allow" for record in others) >= 4
    assert others[-1]["verdict"] == "allow"


@pytest.mark.parametrize("data", [None, b"", text_named_jpg()])
def test_the_demo_with_something_else(tmp_path: Path, data: bytes | None) -> None:
    if data is not None:
        (tmp_path / "thing.jpg").write_bytes(data)
    result = run("demo", "thing.jpg")
    assert result.exit_code == Exit.ERROR
    assert result.stderr.startswith("error: thing.jpg: ")
    assert list((tmp_path / "temporary").iterdir()) == []


def test_a_demo_that_goes_wrong_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture, "unrelated_picture", picture.picture_bytes)
    result = run("demo")
    assert result.exit_code == Exit.ERROR
    assert "error: unrelated: block instead of allow" in result.stderr


def test_the_test_picture_is_written_once(tmp_path: Path) -> None:
    assert run("testpicture", "out.jpg").exit_code == 0
    assert (tmp_path / "out.jpg").read_bytes() == picture.picture_bytes()
    again = run("testpicture", "out.jpg")
    assert again.exit_code == Exit.ERROR
    assert again.stderr == "error: out.jpg: File exists\n"
    assert run("testpicture", "-").stdout_bytes == picture.picture_bytes()


def test_a_test_picture_that_does_not_fit_on_the_disk_leaves_nothing(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        result = run("testpicture", "out.jpg")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert result.exit_code == Exit.ERROR
    assert result.stderr == "error: out.jpg: File too large\n"
    assert not (tmp_path / "out.jpg").exists()


@pytest.mark.parametrize(
    ("name", "variant", "right"),
    [("x.png", [], "x.jpg"), ("x.JPEG", ["--variant", "png"], "x.png"), ("x.webp", ["--variant", "mirrored"], "x.jpg")],
)
def test_a_name_that_contradicts_what_is_written(tmp_path: Path, name: str, variant: list[str], right: str) -> None:
    result = run("testpicture", name, *variant)
    assert result.exit_code == 2
    assert f"name it {right}" in result.stderr
    assert not (tmp_path / name).exists()
    assert run("testpicture", right, *variant).exit_code == 0


def test_the_demo_says_why_a_flat_picture_is_no_good(tmp_path: Path) -> None:
    (tmp_path / "flat.png").write_bytes(flat_png())
    result = run("demo", "flat.png")
    assert "Not inspected in full" in result.stdout
    assert "low_quality: " in result.stdout
    assert "resized" in result.stdout.split("low_quality: ")[1].splitlines()[0]


def test_forms_of_the_test_picture(tmp_path: Path) -> None:
    for name in VARIANTS:
        assert run("testpicture", name, "--variant", name).exit_code == 0
        assert (tmp_path / name).read_bytes() == picture.variant_bytes(name)
    assert run("testpicture", "other", "--variant", "unrelated").exit_code == 0
    assert (tmp_path / "other").read_bytes() == picture.unrelated_picture()
    assert run("testpicture", "x", "--variant", "sideways").exit_code == 2
