"""Reading takes the same memory whatever the file's size, native parsers included."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = r"""
import pathlib, re, sys
from uploadguard.lists import BUILTIN_READERS, ReadOptions
from uploadguard.signals.digests import DIGESTS

name, count = sys.argv[1], int(sys.argv[2])
head, row, between, tail = {
    "txt": ("", "md5 %032x", "\n", ""),
    "csv": ("md5,a,b\n", "%032x,note,more", "\n", ""),
    "jsonl": ("", '{"md5": "%032x", "note": "x"}', "\n", ""),
    "vics": ('{"value": [', '{"MediaID": 1, "Category": 1, "MD5": "%032X", "MediaSize": 123456}', ",", "]}"),
}[name]

def parts():
    yield head.encode()
    for first in range(1, count, 1000):
        rows = between.join(row % number for number in range(first, first + 1000))
        yield ((between if first > 1 else "") + rows).encode()
    yield tail.encode()

class Stream:
    made = filter(None, parts())
    def read(self, size=-1):
        return next(self.made, b"") if size else b""

def peak_kib():
    return int(re.search(r"VmHWM:\s*(\d+)", pathlib.Path("/proc/self/status").read_text())[1])

reader = next(reader for reader in BUILTIN_READERS if reader.name == name)
options = ReadOptions(signal_types={digest.name: digest for digest in DIGESTS})
entries = 0
for item in reader.read(Stream(), options):
    entries += bool(item.hashes)
    if entries == 20_000:
        early = peak_kib()
print(entries, peak_kib() - early)
"""


@pytest.mark.parametrize("name", ["txt", "csv", "jsonl", "vics"])
def test_a_large_file_is_read_in_bounded_memory(name: str) -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT, name, "100000"], capture_output=True, text=True, check=True)
    entries, growth_kib = map(int, done.stdout.split())
    assert entries == 100_000
    assert growth_kib < 2048
