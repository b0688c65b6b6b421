"""The hash set's key on the command line: making it, using it, losing it, changing it; and never showing it."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from tests.cli.conftest import Deployment, run
from uploadguard.cli.exits import Exit
from uploadguard.config import Settings
from uploadguard.errors import ConfigError
from uploadguard.guard import Guard
from uploadguard.opening import hashset_keys

COMMANDS = (
    ("config", "check"),
    ("config", "check", "--json"),
    ("hashset", "verify"),
    ("hashset", "stats"),
    ("hashset", "compact"),
    ("lists", "status"),
    ("lists", "remove", "test", "--yes"),
    ("check", "listed.jpg"),
)


def configure(text: str) -> None:
    """Put this in ``[hashset.encryption]``."""
    config = Path("uploadguard.toml")
    head, _, rest = config.read_text().partition("[hashset.encryption]\n")
    _, _, rest = rest.partition("\n\n")
    config.write_text(f"{head}[hashset.encryption]\n{text}\n\n{rest}")


def newkey(name: str) -> str:
    """Make a key; gives its hex digits."""
    result = run("hashset", "newkey", name)
    assert result.exit_code == Exit.OK, result.output
    key = Path(name).read_text().strip()
    assert key not in result.output
    return key


def files() -> tuple[int, int, int]:
    record = json.loads(run("hashset", "stats", "--json").stdout)
    return record["files"], record["encrypted_files"], record["files_as_configured"]


def test_a_new_key_is_private_and_kept(empty: Deployment) -> None:
    key = newkey("hashset.key")
    assert Path("hashset.key").stat().st_mode & 0o777 == 0o600
    result = run("hashset", "newkey", "hashset.key")
    assert result.exit_code == Exit.ERROR
    assert "hashset.key: there is a file of that name; it is kept as it is" in result.stderr
    assert Path("hashset.key").read_text().strip() == key
    assert "nowhere" in run("hashset", "newkey", "nowhere/key").stderr


def test_encrypted_and_back(deployment: Deployment) -> None:
    key = newkey("hashset.key")
    configure('key_file = "hashset.key"')
    assert files() == (2, 0, 0)
    assert "2 not as configured: `uploadguard hashset compact` rewrites them" in run("hashset", "stats").stdout
    assert run("check", "listed.jpg").exit_code == Exit.BLOCK
    assert run("hashset", "compact").exit_code == Exit.OK
    assert files() == (2, 2, 2)
    assert run("hashset", "verify").exit_code == Exit.OK
    assert run("check", "listed.jpg").exit_code == Exit.BLOCK
    assert run("check", "mirrored.jpg").exit_code == Exit.QUEUE
    checked = run("config", "check")
    assert checked.exit_code == Exit.OK
    assert f"the key of {Path('hashset.key').absolute()}" in checked.stdout
    other = newkey("new.key")
    Path("hashset.key").write_text(f"{other}\n{key}\n")
    assert files() == (2, 2, 0)
    run("hashset", "compact")
    Path("hashset.key").write_text(other)
    assert files() == (2, 2, 2)
    configure('key_file = "hashset.key"\nwrite = false')
    assert "for reading only" in run("config", "check").stdout
    run("hashset", "compact")
    configure("")
    assert files() == (2, 0, 2)
    assert run("check", "listed.jpg").exit_code == Exit.BLOCK


def test_the_key_is_never_shown_and_a_wrong_one_is_one_line(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = newkey("hashset.key")
    configure('key_file = "hashset.key"')
    run("hashset", "compact")
    shown = [run(*command) for command in COMMANDS if "remove" not in command]
    wrong = newkey("wrong.key")
    configure('key_file = "wrong.key"')
    refused = [run(*command) for command in COMMANDS]
    configure("")
    missing = [run(*command) for command in COMMANDS]
    configure('key_env = "HASHSET_KEY"')
    unset = [run(*command) for command in COMMANDS]
    for result in (*shown, *refused, *missing, *unset):
        for secret in (key, wrong):
            assert secret[:16] not in result.output
        assert "Traceback" not in result.output
    for results, text in (
        (refused, "which is not among those that hashset.encryption.key_file or hashset.encryption.key_env gives"),
        (missing, "is encrypted; set hashset.encryption.key_file or hashset.encryption.key_env"),
        (unset, "hashset.encryption.key_env: the environment variable that it names is not set"),
    ):
        for result in results:
            assert result.exit_code == Exit.ERROR
            assert text in result.output
    monkeypatch.setenv("HASHSET_KEY", key)
    checked = run("config", "check")
    assert checked.exit_code == Exit.OK
    assert "a key in the environment" in checked.stdout
    assert "HASHSET_KEY" not in checked.stdout


def test_init_creates_it_encrypted_where_the_configuration_says_so(empty: Deployment) -> None:
    newkey("hashset.key")
    configure('key_file = "hashset.key"')
    for path in Path("hashset").iterdir():
        path.unlink()
    Path("hashset").rmdir()
    assert run("init", ".").exit_code == Exit.OK
    assert files() == (1, 1, 1)
    assert run("lists", "add", "test", "test.csv").exit_code == Exit.OK
    assert files() == (2, 2, 2)
    with Guard.open("uploadguard.toml") as guard:
        assert guard.check(Path("listed.jpg")).verdict.label == "block"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read: No such file or directory"),
        ("", "holds no key; `uploadguard hashset newkey FILE` makes one"),
        ("my password", "holds what is not a key: 32 bytes as 64 hex digits or in base64"),
        ("\xe4" * 64, "is not a key file"),
    ],
)
def test_what_is_wrong_with_the_key_is_said_of_its_setting(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "key"
    if content is not None:
        path.write_text(content)
        path.chmod(0o600)
    settings = Settings.load(hashset={"encryption": {"key_file": path}})
    with pytest.raises(ConfigError) as caught:
        hashset_keys(settings)
    assert caught.value.problems == [f"keyword argument: hashset.encryption.key_file: {message}"]


def test_one_source_only_and_a_warning_for_a_key_that_all_can_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "key"
    path.write_text("ab" * 32)
    path.chmod(0o644)
    assert hashset_keys(Settings.load(hashset={"encryption": {"key_file": path}})) is not None
    (record,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "chmod 600" in record.getMessage()
    with pytest.raises(ConfigError, match="give one of the two"):
        hashset_keys(Settings.load(hashset={"encryption": {"key_file": path, "key_env": "A"}}))
    assert hashset_keys(Settings.load()) is None
