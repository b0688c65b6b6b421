"""The load run, small: with sandboxed workers, as a host runs. ``python -m tests.web.load`` is the whole of it."""

from __future__ import annotations

import json

import pytest

from tests.web import load


@pytest.mark.sandboxed
def test_many_uploads_at_once_are_all_answered(capsys: pytest.CaptureFixture[str]) -> None:
    assert load.main(["--framework", "starlette", "--uploads", "20", "--hostile", "0.2", "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert sum(table["last answers"].values()) == 20
    assert table["last answers"].get("hostile: 422") is None
    assert table["loop"]["samples"] > 0
    assert table["faults"] == {}
