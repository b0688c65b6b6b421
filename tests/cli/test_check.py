"""``check``, ``hash``, ``config check``, ``init``."""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Deployment, run, start
from uploadguard.cli.exits import Exit
from uploadguard.config import Settings
from uploadguard.testing.media import animated_gif, flat_png, text_named_jpg, truncated_jpeg
from uploadguard.testing.testlist import TEST_HASHES


@pytest.mark.parametrize(
    ("names", "code"),
    [
        (["other.jpg"], Exit.OK),
        (["mirrored.jpg"], Exit.QUEUE),
        (["listed.jpg"], Exit.BLOCK),
        (["other.jpg", "listed.jpg", "mirrored.jpg"], Exit.BLOCK),
        (["listed.jpg", "nowhere.jpg"], Exit.ERROR),
    ],
)
def test_the_exit_code_is_the_highest_verdict(deployment: Deployment, names: list[str], code: Exit) -> None:
    for options in ([], ["--json"]):
        assert run("check", *options, *names).exit_code == code
    if code is Exit.BLOCK and len(names) > 1:
        assert start("check", *names).returncode == code


def test_the_table_has_a_row_for_each_file(deployment: Deployment) -> None:
    result = run("check", "other.jpg", "mirrored.jpg", "listed.jpg")
    heading, *rows = result.stdout.splitlines()
    assert heading.split() == ["File", "Verdict", "ms", "Reasons", "Match"]
    assert heading.index("Reasons") == rows[1].index("perceptual_match")
    assert [row.split()[:2] for row in rows] == [
        ["other.jpg", "allow"],
        ["mirrored.jpg", "queue"],
        ["listed.jpg", "block"],
    ]
    assert "test: pdq" in rows[1]
    assert "flip_y" in rows[1]
    assert "\x1b" not in result.output
    assert not any(line.endswith(" ") for line in rows)


def test_long_names_stay_on_one_line_in_a_pipe(deployment: Deployment) -> None:
    name = "n" * 200 + ".jpg"
    deployment.write(name, (deployment.path / "other.jpg").read_bytes())
    assert any(line.startswith(name) and " allow " in line for line in run("check", name).stdout.splitlines())


def test_json_is_one_decision_a_line(deployment: Deployment) -> None:
    result = run("check", "--json", "listed.jpg", "nowhere.jpg", "mirrored.jpg")
    listed, nowhere, mirrored = map(json.loads, result.stdout.splitlines())
    assert (listed["file"], listed["verdict"]) == ("listed.jpg", "block")
    assert nowhere == {"file": "nowhere.jpg", "error": "no such file; it may have been moved or deleted"}
    assert mirrored["matches"][0]["variant"] == "flip_y"
    assert "hashes" not in listed
    assert result.stderr == "error: nowhere.jpg: no such file; it may have been moved or deleted\n"


def test_explanations_and_hashes_only_when_asked_for(deployment: Deployment) -> None:
    md5 = TEST_HASHES["md5"].hex()
    plain = run("check", "listed.jpg").output
    assert md5 not in plain
    assert "entry 'testpicture'" not in plain
    assert "entry 'testpicture'" in run("check", "--explain", "listed.jpg").stdout
    assert md5 in run("check", "--show-hashes", "listed.jpg").stdout
    record = json.loads(run("check", "--json", "--explain", "--show-hashes", "listed.jpg").stdout)
    assert "entry 'testpicture'" in record["explanation"]
    assert md5 in [item["value"] for item in record["hashes"]]


def test_standard_input(deployment: Deployment) -> None:
    listed = (deployment.path / "listed.jpg").read_bytes()
    assert start("check", "-", input=listed).returncode == Exit.BLOCK
    result = start("hash", "--json", "-", input=listed)
    assert json.loads(result.stdout)["hashes"]["md5"] == TEST_HASHES["md5"].hex()


def test_a_hash_set_needs_no_configuration(
    deployment: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("check", "--hashset", deployment.path / "hashset", deployment.path / "listed.jpg").exit_code == 30


def test_a_tenants_rules(deployment: Deployment) -> None:
    with Path("uploadguard.toml").open("a") as file:
        file.write('\n[tenants.forum.policy.signals.pdq]\nverdict = "allow"\n')
    assert run("check", "--tenant", "forum", "mirrored.jpg").exit_code == Exit.OK
    unknown = run("check", "--tenant", "forun", "mirrored.jpg")
    assert unknown.exit_code == Exit.QUEUE
    assert "no tenant 'forun'" in unknown.stderr


EMPTY = (
    "error: the hash set is empty of hashes that checks use, so nothing could ever match: import a list with "
    "`uploadguard lists add NAME FILE`, enable its signal types, or set hashset.allow_empty\n"
)


def test_an_empty_hash_set_is_an_error_not_an_allow(empty: Deployment) -> None:
    result = run("check", "other.jpg")
    assert result.exit_code == Exit.ERROR
    assert result.stderr == EMPTY
    assert result.stdout == ""


@pytest.mark.parametrize("command", [("check", "other.jpg"), ("status",), ("config", "check")])
def test_the_test_list_alone_is_no_protection_and_is_said_so_everywhere(
    empty: Deployment, command: tuple[str, ...]
) -> None:
    Path("uploadguard.toml").write_text("[hashset]\ntest_list = true\n")
    result = run(*command)
    assert result.exit_code == Exit.ERROR
    said = EMPTY.replace(": import", ": the test list alone does not count as protection: import")
    assert result.stderr.endswith(said)
    assert result.stderr.count("is empty") == 1


def test_rows_come_one_by_one_and_errors_only_as_errors(deployment: Deployment) -> None:
    command = [sys.executable, "-m", "uploadguard", "check", "other.jpg", "gone.jpg", "-"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, env={**os.environ, "PYTHONUNBUFFERED": "1"}) as process:  # type: ignore[call-overload]
        assert process.stdout.readline().split()[0] == b"File"
        assert process.stdout.readline().split()[:2] == [b"other.jpg", b"allow"]
        assert process.stderr.readline().startswith(b"error: gone.jpg: no such file")
        rest, errors = process.communicate(Path("listed.jpg").read_bytes(), 60)
        assert rest.split()[:2] == [b"-", b"block"]
        assert errors == b""
        assert process.returncode == Exit.ERROR


@pytest.mark.parametrize(
    ("name", "data", "reason", "code"),
    [
        ("empty.jpg", b"", "empty_file", Exit.NOT_SCANNED),
        ("text.jpg", text_named_jpg(), "unsupported_format", Exit.NOT_SCANNED),
        ("noise.bin", bytes(range(256)) * 8, "unsupported_format", Exit.NOT_SCANNED),
        ("cut.jpg", truncated_jpeg(), "truncated", Exit.QUEUE),
        ("flat.png", flat_png(), "low_quality", Exit.NOT_SCANNED),
    ],
)
def test_odd_media_are_answered(deployment: Deployment, name: str, data: bytes, reason: str, code: Exit) -> None:
    deployment.write(name, data)
    checked = run("check", "--json", name)
    assert checked.exit_code == code
    assert json.loads(checked.stdout)["reasons"] == [reason]
    hashed = run("hash", "--json", name)
    assert hashed.exit_code == (Exit.OK if reason == "low_quality" else Exit.NOT_SCANNED)
    record = json.loads(hashed.stdout)
    assert record["hashes"]["sha256"] == hashlib.sha256(data).hexdigest()
    assert [failure["code"] for failure in record["failures"]] == [reason]


@pytest.mark.parametrize("command", ["check", "hash"])
def test_what_cannot_be_read_is_an_error_and_the_rest_is_answered(deployment: Deployment, command: str) -> None:
    (deployment.path / "folder").mkdir()
    (deployment.path / "dangling").symlink_to("gone")
    result = run(command, "--json", "folder", "dangling", "other.jpg")
    assert result.exit_code == Exit.ERROR
    folder, dangling, other = map(json.loads, result.stdout.splitlines())
    assert folder["error"] == "is a directory, not a file"
    assert dangling["error"].startswith("no such file")
    assert "error" not in other


def test_an_unreadable_file(deployment: Deployment) -> None:
    # /proc/self/mem refuses reads of its first page to everybody, root included.
    result = run("hash", "/proc/self/mem")
    assert result.exit_code == Exit.ERROR
    assert "cannot be read" in result.stderr


def test_hostile_file_names(deployment: Deployment) -> None:
    names = [b"red\x1b[31m\n.jpg", b"\xff\xfe.jpg", "写真 \u202e.jpg".encode()]
    given = [os.fsdecode(name) for name in names]
    for name in names:
        path = os.fsencode(deployment.path) + b"/" + name
        Path(os.fsdecode(path)).write_bytes((deployment.path / "other.jpg").read_bytes())
    for command in ("check", "hash"):
        plain = start(command, *given)
        assert plain.returncode == 0
        assert b"\x1b" not in plain.stdout
        text = plain.stdout.decode()
        assert all(char.isprintable() for char in text.replace("\n", ""))
        records = [json.loads(line) for line in start(command, "--json", *given).stdout.splitlines()]
        assert len(records) == len(names)
        for record, name in zip(records, names, strict=True):
            said = bytes.fromhex(record["file_hex"]) if "file_hex" in record else record["file"].encode()
            assert said == name
    missing = start("check", *(f"{name}x" for name in given))
    assert missing.stderr.decode().count("\n") == len(names)


def test_output_in_an_encoding_that_lacks_the_characters(deployment: Deployment) -> None:
    deployment.write("写真.jpg", (deployment.path / "other.jpg").read_bytes())
    result = start("check", "写真.jpg", env={**os.environ, "PYTHONIOENCODING": "latin-1"})
    assert result.returncode == 0
    assert b"\\u5199" in result.stdout


def test_hash_is_the_same_in_both_outputs_and_exact_differs_by_request(deployment: Deployment) -> None:
    record = json.loads(run("hash", "--json", "listed.jpg", "--pdq", "exact").stdout)
    assert record["hashes"] == {name: value.hex() for name, value in TEST_HASHES.items()}
    assert record["pdq_quality"] == 100
    assert (record["width"], record["height"], record["media_type"]) == (1200, 900, "image/jpeg")
    text = run("hash", "listed.jpg", "--pdq", "exact").stdout
    for value in record["hashes"].values():
        assert value in text
    assert "quality 100" in text


def test_hash_needs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flat.png").write_bytes(flat_png())
    result = run("hash", "flat.png")
    assert result.exit_code == 0
    assert "quality 0" in result.stdout


def test_the_frames_of_an_animation(deployment: Deployment) -> None:
    deployment.write("moving.gif", animated_gif(frames=3))
    record = json.loads(run("hash", "--json", "moving.gif").stdout)
    assert (record["frames_total"], record["frames_hashed"]) == (3, 3)
    assert [frame["frame"] for frame in record["frames"]] == [0, 1, 2]
    assert set(record["hashes"]) == {"md5", "sha1", "sha256", "pdq"}
    assert record["frames"][0]["hashes"] == {"pdq": record["hashes"]["pdq"]}
    assert len({frame["hashes"]["pdq"] for frame in record["frames"]}) == 3
    assert "frame 2" in run("hash", "moving.gif").stdout


def test_init_makes_a_deployment_and_overwrites_nothing(tmp_path: Path) -> None:
    directory = tmp_path / "a" / "b"
    assert run("init", directory).exit_code == 0
    assert stat.S_IMODE((directory / "hashset").stat().st_mode) == 0o700
    assert Settings.load(directory / "uploadguard.toml").hashset.path == directory / "hashset"
    (directory / "uploadguard.toml").write_text("# mine\n")
    again = run("init", directory)
    assert again.exit_code == 0
    assert again.stdout.count("it is kept as it is") == 2
    assert again.stdout.endswith("nothing to do\n")
    assert (directory / "uploadguard.toml").read_text() == "# mine\n"


def test_init_creates_the_hash_set_that_a_configuration_names(tmp_path: Path) -> None:
    config = tmp_path / "uploadguard.toml"
    config.write_text('[hashset]\npath = "volume/lists"\n')
    missing = run("--config", config, "lists", "status")
    assert missing.exit_code == 1
    assert "uploadguard init DIR" in missing.stderr
    result = run("init", tmp_path)
    assert result.exit_code == 0
    assert f"{config}: there is a configuration already" in result.stdout
    assert (tmp_path / "volume" / "lists" / "manifest.json").exists()
    assert not (tmp_path / "hashset").exists()
    assert run("--config", config, "lists", "status").exit_code == 0


def test_init_writes_a_configuration_for_a_hash_set(deployment: Deployment) -> None:
    Path("uploadguard.toml").unlink()
    result = run("init", ".")
    assert result.exit_code == 0
    assert "hashset: there is a hash set already" in result.stdout
    assert run("check", "listed.jpg").exit_code == Exit.BLOCK


def test_init_does_not_pass_over_what_is_damaged(deployment: Deployment) -> None:
    Path("hashset/manifest.json").write_text("{}")
    assert "is not a manifest" in run("init", ".").stderr
    Path("hashset/manifest.json").unlink()
    assert "is not empty" in run("init", ".").stderr
    Path("uploadguard.toml").write_text("nonsense = 1\n")
    result = run("init", ".")
    assert result.exit_code == 1
    assert "line 1: nonsense: unknown key" in result.stderr


def test_init_where_a_file_stands_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = run("init", tmp_path / "file")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")


def test_config_check_of_a_deployment_in_order(deployment: Deployment) -> None:
    result = run("config", "check")
    assert result.exit_code == 0
    assert "test: 1 entries" in result.stdout
    record = json.loads(run("config", "check", "--json").stdout)
    assert record["ready"] is True
    assert record["problems"] == []
    assert [info["name"] for info in record["lists"]] == ["test"]


def test_config_check_of_an_empty_hash_set(empty: Deployment) -> None:
    result = run("config", "check")
    assert result.exit_code == 1
    assert result.stderr.endswith(EMPTY)


def test_config_check_lists_every_problem(deployment: Deployment) -> None:
    Path("uploadguard.toml").write_text('[media]\nmax_pixel = 5\n[signals]\nenabled = "pdq"\n[nonsense]\n')
    result = run("config", "check")
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 3
    assert "line 2: media.max_pixel: unknown key; did you mean" in result.stderr
    assert len(json.loads(run("config", "check", "--json").stdout)["problems"]) == 3


def test_config_check_finds_wrong_plugins_and_hash_sets_at_once(deployment: Deployment) -> None:
    Path("uploadguard.toml").write_text('plugins = ["missing"]\n[hashset]\npath = "elsewhere"\n')
    result = run("config", "check")
    assert result.exit_code == 1
    assert "line 1: plugins[0]: no plugin named 'missing'" in result.stderr
    assert "no hash set here" in result.stderr
    assert "signal types" not in result.stdout


def test_config_check_finds_slips_in_plugins_and_signal_types_at_once(deployment: Deployment) -> None:
    Path("uploadguard.toml").write_text(
        'plugins = [\n "missing",\n "exmaple",\n]\n[signals]\nenabled = ["md55", "pdq", "pdqq", "own"]\n'
    )
    lines = run("config", "check").stderr.splitlines()
    assert [line.split(": ")[2:4] for line in lines] == [
        ["line 2", "plugins[0]"],
        ["line 3", "plugins[1]"],
        ["line 6", "signals.enabled[0]"],
        ["line 6", "signals.enabled[2]"],
    ]
    assert lines[1].endswith("did you mean 'example'?")
    assert lines[3].endswith("no signal type named 'pdqq'; did you mean 'pdq'?")
    text = Path("uploadguard.toml").read_text()
    Path("uploadguard.toml").write_text(text[text.index("[signals]") :])
    result = run("config", "check")
    assert "no signal type named 'own'; there are: " in result.stderr
    assert "signal types" not in result.stdout
    assert "plugins" in result.stdout


def test_config_check_of_rules_and_a_missing_hash_set_at_once(deployment: Deployment) -> None:
    Path("uploadguard.toml").write_text('[hashset]\npath = "elsewhere"\n[policy.signals.pdqq]\nverdict = "queue"\n')
    lines = run("config", "check").stderr.splitlines()
    assert len(lines) == 2
    assert "no hash set here" in lines[0]
    assert "line 3: policy.signals.pdqq: not a signal type in use" in lines[1]


def test_config_check_shows_fail_open_settings_and_rules_for_no_list(deployment: Deployment) -> None:
    Path("uploadguard.toml").write_text(
        '[policy.failures]\nunsupported_format = "allow"\n[policy.lists.gone]\nverdict = "queue"\n'
    )
    result = run("config", "check", "--json")
    record = json.loads(result.stdout)
    assert record["fail_open"] == ["policy.failures.unsupported_format"]
    assert result.stderr == ""
    assert run("config", "check").stderr == "warning: a rule names the list 'gone', which the hash set does not hold\n"
    assert record["warnings"] == ["a rule names the list 'gone', which the hash set does not hold"]


def test_a_flipped_byte_in_a_segment_stops_checks(deployment: Deployment) -> None:
    (segment,) = (deployment.path / "hashset").glob("*.ugs")
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1
    segment.chmod(0o600)
    segment.write_bytes(data)
    for args in (["check", "other.jpg"], ["config", "check"]):
        result = run(*args)
        assert result.exit_code == 1
        assert f"{segment.name}: a segment of the list 'test': " in result.stderr
        assert result.stderr.count("\n") == 1


def test_a_decision_with_odd_text_from_a_list_prints(deployment: Deployment) -> None:
    md5 = TEST_HASHES["md5"].hex()
    line = json.dumps({"id": "\x1b[2J\ud800", "md5": md5, "category": "\u202e"})
    deployment.write("odd.jsonl", line.encode() + b"\n")
    assert run("lists", "add", "odd", "odd.jsonl").exit_code == 0
    result = start("check", "--explain", "listed.jpg")
    assert result.returncode == Exit.BLOCK
    assert b"\x1b" not in result.stdout
    matches = json.loads(start("check", "--json", "listed.jpg").stdout)["matches"]
    assert {match["list"] for match in matches} == {"test", "odd"}


def test_standard_input_that_is_no_picture(deployment: Deployment) -> None:
    result = run("check", "--json", "-", input=io.BytesIO(b"words"))
    assert result.exit_code == Exit.NOT_SCANNED
    assert json.loads(result.stdout)["file"] == "-"


def test_hash_has_room_for_long_names_of_signal_types(deployment: Deployment) -> None:
    Path("uploadguard.toml").write_text('plugins = ["example"]\n[signals]\nenabled = ["md5", "pdq", "blockmean"]\n')
    lines = run("hash", "listed.jpg").stdout.splitlines()[1:]
    columns = {line.index(line.split()[-1]) for line in lines if "quality" not in line}
    assert columns == {len("  blockmean ")}
