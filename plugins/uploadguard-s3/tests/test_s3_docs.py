"""What the documentation says of the settings."""

from __future__ import annotations

import re
from pathlib import Path

from uploadguard.config_schema import toml_value, walk
from uploadguard_s3 import S3Options

DOCUMENT = Path(__file__).parents[3] / "docs" / "s3.md"


def rendered() -> str:
    rows = ["| key | takes | default | meaning |", "|---|---|---|---|"]
    for setting in walk(S3Options):
        default = "none" if setting.default is None else f"`{toml_value(setting.default)}`"
        shown = "see above" if setting.below_free_key else default
        rows.append(f"| `{setting.shown}` | {setting.type_text} | {shown} | {setting.meaning} |")
    return "\n".join(rows)


def test_the_table_of_the_settings_is_the_models() -> None:
    found = re.search(r"<!-- settings: [^>]*-->\n(.*?)\n<!-- end -->", DOCUMENT.read_text(), re.DOTALL)
    assert found is not None
    assert found.group(1) == rendered()
    assert all(setting.meaning for setting in walk(S3Options))
