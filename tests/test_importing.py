"""Importing a list file: what is counted stays bounded, whatever the file holds."""

from __future__ import annotations

import io
from pathlib import Path

from uploadguard.config import Settings
from uploadguard.hashset import HashSet
from uploadguard.importing import import_list
from uploadguard.plugins import Plugins


def test_names_that_a_file_makes_up_do_not_fill_the_memory(tmp_path: Path) -> None:
    lines = [f'{{"signal_type": "made-up-{number}", "hash": "{number:032x}"}}' for number in range(1000)]
    lines.append('{"md5": "0123456789abcdef0123456789abcdef"}')
    hashset = HashSet.create(tmp_path / "set")
    done = import_list(hashset, "many", io.BytesIO("\n".join(lines).encode()), Plugins(Settings()))
    assert done.entries == 1
    assert len(done.ignored) == 21
    assert sum(done.ignored.values()) == 1000
