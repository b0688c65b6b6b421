"""Hash lists as they come from hotlines: one streaming reader for each format.
What is read here is compiled into the hash set elsewhere.
"""

from uploadguard.lists.base import BadLine, ListEntry, ListReader, ReadOptions
from uploadguard.lists.icse import IcseReader
from uploadguard.lists.jsonl import JsonlReader
from uploadguard.lists.lines import HEAD_BYTES
from uploadguard.lists.opening import MAX_UNPACK_RATIO, choose_reader, open_list
from uploadguard.lists.plain import TxtReader
from uploadguard.lists.tabular import CsvReader
from uploadguard.lists.vics import VicsReader

__all__ = [
    "BUILTIN_READERS",
    "HEAD_BYTES",
    "MAX_UNPACK_RATIO",
    "BadLine",
    "CsvReader",
    "IcseReader",
    "JsonlReader",
    "ListEntry",
    "ListReader",
    "ReadOptions",
    "TxtReader",
    "VicsReader",
    "choose_reader",
    "open_list",
]

BUILTIN_READERS: tuple[ListReader, ...] = (VicsReader(), IcseReader(), JsonlReader(), CsvReader(), TxtReader())
