"""Where the plugin is only installed it costs nothing: the AWS client and the rest come when they are used."""

from __future__ import annotations

import subprocess
import sys

import pytest

import uploadguard_s3


def run(code: str) -> str:
    """What the code prints, in an interpreter of its own."""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)  # noqa: S603 - ours
    return done.stdout.strip()


@pytest.mark.parametrize("module", ["uploadguard_s3.hooks", "uploadguard_s3.commands"])
def test_what_the_program_imports_imports_nothing_heavy(module: str) -> None:
    heavy = ("aioboto3", "botocore", "sqlalchemy", "numpy", "pydantic")
    code = f"import sys, {module}; print([name for name in {heavy} if name in sys.modules])"
    assert run(code) == "[]"


def test_every_public_name_is_there_whatever_was_imported_before() -> None:
    code = (
        "import uploadguard_s3.checker, uploadguard_s3.reconciling, uploadguard_s3 as package; "
        "print([name for name in package.__all__ if not callable(getattr(package, name))])"
    )
    assert run(code) == "[]"
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        _ = uploadguard_s3.nothing_of_the_kind
