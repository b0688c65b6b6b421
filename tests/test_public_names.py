"""The package's face: these names and no others, and no more imported than they need."""

from __future__ import annotations

import subprocess
import sys

import pytest

import uploadguard


def test_public_names() -> None:
    assert uploadguard.__all__ == [
        "ConfigError", "Context", "Decision", "Failure", "FailureCode", "Guard", "GuardStatus", "Hash", "HashSetError",
        "LedgerError", "ListError", "Match", "Media", "MediaReadError", "NotReadyError", "NotRecordedError",
        "PluginError", "SandboxError", "StreamingCheck", "UploadRefused", "UploadguardError", "Verdict", "__version__",
        "hookimpl",
    ]  # fmt: skip
    for name in uploadguard.__all__:
        assert getattr(uploadguard, name) is not None
    with pytest.raises(AttributeError, match="nothing"):
        _ = uploadguard.nothing


def test_importing_the_package_does_not_import_decoders_or_models() -> None:
    code = (
        "import sys, uploadguard; "
        "print([m for m in ('numpy', 'pydantic', 'PIL', 'pyvips', 'rich') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_opening_a_guard_does_not_import_decoders() -> None:
    code = (
        "import sys, uploadguard; uploadguard.Guard; "
        "heavy = {'PIL', 'pyvips', 'imagehash', 'pi_heif', 'rich', 'click', 'sqlalchemy', 'alembic', 'httpx'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
