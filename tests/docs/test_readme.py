"""The README's two commands are what CI runs and what stands in the getting-started guide."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_ci_runs_the_readmes_test_command() -> None:
    commands = re.findall(r"^```sh\n(.*?)\n```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert len(commands) == 2
    demo, tests = commands
    assert demo.endswith("uploadguard demo")
    assert tests in (ROOT / ".ci" / "run").read_text().splitlines()
