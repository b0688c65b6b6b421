"""A deployment to run commands in, and ways to run them: in this process, as a process, on a pseudo-terminal."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from uploadguard.cli import program
from uploadguard.testing.picture import picture_bytes, unrelated_picture, variant_bytes
from uploadguard.testing.testlist import list_bytes


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("UPLOADGUARD_")]:
        if name != "UPLOADGUARD_SANDBOX__ISOLATION":
            monkeypatch.delenv(name)


def run(*args: str | Path, **options: object) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(program, [str(arg) for arg in args], **options)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Deployment:
    """A directory with a configuration, a hash set with the test list, and pictures; it is the working directory."""

    path: Path

    def write(self, name: str, data: bytes) -> Path:
        path = self.path / name
        path.write_bytes(data)
        return path


@pytest.fixture(scope="session")
def pictures() -> dict[str, bytes]:
    return {
        "listed.jpg": picture_bytes(),
        "mirrored.jpg": variant_bytes("mirrored"),
        "other.jpg": unrelated_picture(),
    }


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pictures: dict[str, bytes]) -> Deployment:
    """As ``deployment``, but no list is imported."""
    assert run("init", tmp_path / "guard").exit_code == 0
    deployment = Deployment(tmp_path / "guard")
    for name, data in pictures.items():
        deployment.write(name, data)
    deployment.write("test.csv", list_bytes())
    monkeypatch.chdir(deployment.path)
    return deployment


@pytest.fixture
def deployment(empty: Deployment) -> Deployment:
    result = run("lists", "add", "test", "test.csv")
    assert result.exit_code == 0, result.output
    return empty


def start(*args: str | Path, **options: object) -> subprocess.CompletedProcess[bytes]:
    """Run a command as a process of its own."""
    command = [sys.executable, "-W", "error", "-m", "uploadguard", *map(str, args)]
    return subprocess.run(command, capture_output=True, timeout=60, check=False, **options)  # type: ignore[call-overload,no-any-return]
