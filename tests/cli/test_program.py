"""What all commands share: help, versions, configuration, exit codes, and never a traceback."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from tests.cli.conftest import Deployment, run, start
from uploadguard.cli import program
from uploadguard.cli.exits import Exit, highest, of_verdict
from uploadguard.cli.output import file_fields, safe_text
from uploadguard.models import Verdict


def files_of_hash_set() -> list[str]:
    return sorted(path.name for path in Path("hashset").iterdir())


def test_version_names_the_package_and_its_codecs() -> None:
    result = run("--version")
    assert result.exit_code == 0
    names = [line.split()[0] for line in result.stdout.splitlines()]
    assert {"uploadguard", "Pillow", "libjpeg-turbo", "libvips", "libheif"} <= set(names)


def test_help_shows_the_exit_codes() -> None:
    for args in (["--help"], ["check", "-h"]):
        result = run(*args)
        assert result.exit_code == 0, (result.output, result.exception)
        text = result.stdout
        for code in Exit:
            assert f"{code.value:>3}  {code.meaning}" in text


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom uploadguard.cli import program\n"
        "program.main(['--help'], standalone_mode=False)\n"
        "print([name for name in ('numpy', 'rich', 'pydantic', 'PIL', 'pyvips') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.splitlines()[-1] == "[]"


def test_exit_codes_rise_with_the_verdict_and_an_error_goes_before_all() -> None:
    assert [of_verdict(verdict) for verdict in Verdict] == [Exit.OK, Exit.NOT_SCANNED, Exit.QUEUE, Exit.BLOCK]
    assert highest([]) is Exit.OK
    assert highest([Exit.OK, Exit.BLOCK, Exit.QUEUE]) is Exit.BLOCK
    assert highest([Exit.BLOCK, Exit.ERROR]) is Exit.ERROR


@pytest.mark.parametrize("args", [[], ["nonsense"], ["check"], ["hash", "--pdq", "roughly", "x"], ["hash", "-", "-"]])
def test_a_wrong_command_line_ends_with_2(args: list[str]) -> None:
    assert run(*args).exit_code == 2


@pytest.mark.parametrize("option", ["--config", "--debug"])
def test_the_programs_options_after_a_command_get_a_hint(option: str) -> None:
    result = run("check", option, "x.toml", "other.jpg")
    assert result.exit_code == 2
    assert f"{option} stands before the command: uploadguard {option} " in result.stderr
    assert "stands before" not in run("check", "--nonsense", "other.jpg").stderr


def test_without_a_configuration_it_says_how_to_make_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("lists", "status")
    assert result.exit_code == 1
    assert "uploadguard init DIR" in result.stderr


def test_the_configuration_is_found_in_this_order(
    deployment: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def path_used(*options: str) -> str:
        record = json.loads(run(*options, "config", "check", "--json").stdout)
        return str(record["config"])

    for name in ("named", "in-environment"):
        (tmp_path / f"{name}.toml").write_text("")
    assert path_used() == "uploadguard.toml"
    monkeypatch.setenv("UPLOADGUARD_CONFIG", str(tmp_path / "in-environment.toml"))
    assert path_used() == str(tmp_path / "in-environment.toml")
    assert path_used("--config", str(tmp_path / "named.toml")) == str(tmp_path / "named.toml")


def test_the_environment_alone_is_enough(
    deployment: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = deployment.path / "listed.jpg"
    monkeypatch.setenv("UPLOADGUARD_HASHSET__PATH", str(deployment.path / "hashset"))
    monkeypatch.chdir(tmp_path)
    assert run("check", listed).exit_code == Exit.BLOCK


def test_an_unexpected_error_is_named_without_its_text(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise KeyError("c0ffee" * 10)

    monkeypatch.setattr("uploadguard.guard.Guard.check", broken)
    result = run("check", "other.jpg")
    assert result.exit_code == 1
    assert result.stderr == "error: unexpected KeyError; `uploadguard --debug ...` shows where\n"
    assert "Traceback" in run("--debug", "check", "other.jpg").stderr


def test_a_named_error_has_no_traceback(deployment: Deployment) -> None:
    result = start("--config", "missing.toml", "check", "other.jpg")
    assert result.returncode == 1
    assert result.stderr.startswith(b"error: missing.toml: no such file")
    assert b"Traceback" not in result.stderr


def test_python_dash_m_is_the_same_program(tmp_path: Path) -> None:
    assert start("--help", cwd=tmp_path).stdout == start("-h", cwd=tmp_path).stdout
    assert start("--help", cwd=tmp_path).stdout.startswith(b"Usage: uploadguard [OPTIONS]")


def test_a_closed_pipe_is_met_with_silence(deployment: Deployment) -> None:
    command = [sys.executable, "-m", "uploadguard", "hash", "--json", *["other.jpg"] * 200]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 1


@pytest.mark.parametrize("args", [["--help"], ["hash", "other.jpg"], ["lists", "status"], ["testpicture", "-"]])
def test_a_full_disk_behind_stdout_is_one_line(deployment: Deployment, args: list[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        result = subprocess.run(
            [sys.executable, "-m", "uploadguard", *args], stdout=full, stderr=subprocess.PIPE, timeout=60, check=False
        )
    assert result.returncode == 1
    assert result.stderr == b"error: No space left on device\n"


def test_an_interrupt_ends_with_130_and_cleans_up(deployment: Deployment) -> None:
    """The import waits for its input when the interrupt comes, inside the write to the hash set."""
    before = files_of_hash_set()
    command = [sys.executable, "-m", "uploadguard", "lists", "add", "more", "-", "--format", "txt"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(b"%032x\n" % 0xFEED0123456789ABCDEF * 40_000)
        process.stdin.flush()
        deadline = time.monotonic() + 30
        while files_of_hash_set() == before and time.monotonic() < deadline:
            time.sleep(0.02)
        assert files_of_hash_set() != before
        # One that comes just before the process goes to wait for input is seen only when the wait ends: a person would
        # press the keys again.
        while process.poll() is None and time.monotonic() < deadline + 30:
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(1)
        assert process.returncode == 130
        assert process.stderr.read().strip() == b"error: interrupted"
    assert files_of_hash_set() == before
    assert run("check", "listed.jpg").exit_code == Exit.BLOCK


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("plain name.jpg", "plain name.jpg"),
        ("Ünïcode 写真.jpg", "Ünïcode 写真.jpg"),
        ("a\x1b[31mred\nnext\r", "a\\x1b[31mred\\nnext\\r"),
        ("\u202egpj.exe", "\\u202egpj.exe"),
        ("bytes\udcff", "bytes\\xff"),
        ("c1\x9b", "c1\\x9b"),
    ],
)
def test_names_are_shown_on_one_line_without_control_characters(name: str, shown: str) -> None:
    assert safe_text(name) == shown


def test_names_in_json_are_text_and_undecodable_ones_can_be_had_back() -> None:
    assert file_fields("é\n.jpg") == {"file": "é\n.jpg"}
    fields = file_fields("bytes\udcff.jpg")
    assert fields["file"] == "bytes\ufffd.jpg"
    assert bytes.fromhex(fields["file_hex"]) == b"bytes\xff.jpg"


def test_every_option_has_a_help_text() -> None:
    def walk(command: click.Command) -> None:
        assert command.help
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, (command.name, parameter.name)
        for child in command.commands.values() if isinstance(command, click.Group) else ():
            walk(child)

    walk(program)


def test_the_library_logs_as_before_after_a_command(deployment: Deployment, caplog: pytest.LogCaptureFixture) -> None:
    import logging

    CliRunner().invoke(program, ["check", "other.jpg"])
    logging.getLogger("uploadguard").warning("still heard")
    assert "still heard" in caplog.text
