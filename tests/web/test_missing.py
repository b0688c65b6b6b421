"""An adapter without its framework says what to install."""

from __future__ import annotations

import importlib
import sys

import pytest

from uploadguard.errors import ConfigError


@pytest.mark.parametrize(
    ("module", "missing", "extra"),
    [
        ("starlette", "starlette", "starlette"),
        ("fastapi", "fastapi", "fastapi"),
        ("aiohttp", "aiohttp", "aiohttp"),
        ("multipart", "python_multipart", "serve"),
    ],
)
def test_what_is_missing_is_named(module: str, missing: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(sys.modules):
        if name == f"uploadguard.web.{module}" or name == missing or name.startswith(f"{missing}."):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ConfigError, match=rf"uploadguard\[{extra}\]"):
        importlib.import_module(f"uploadguard.web.{module}")
