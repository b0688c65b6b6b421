"""The built-in hash list ``uploadguard-test``: the harmless test picture, and nothing else.

An operator switches it on, or imports the same from ``data/uploadguard-test.csv``, and uploads
:func:`~uploadguard.testing.picture.picture_bytes`. These hashes are no secret. A match of a list of this name makes no
report due, unless a rule for it says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources
from types import MappingProxyType

from uploadguard.lists.base import ListEntry
from uploadguard.testing.names import TEST_LIST_NAME

__all__ = ["TEST_ENTRY_ID", "TEST_HASHES", "TEST_LIST_NAME", "entries", "list_bytes"]

TEST_ENTRY_ID = "testpicture"
TEST_HASHES = MappingProxyType(
    {
        "md5": bytes.fromhex("7a54fea8abd5f978df7bf118a867102c"),
        "sha1": bytes.fromhex("51f1606361cb7cf1ebe7ecccd821ae7324caff23"),
        "sha256": bytes.fromhex("220e1d4ac0ea1ef4b96daa32e3002b624403c50c4fd6d8801dd9ced10f90c00a"),
        "pdq": bytes.fromhex("383e87c3c3ca083dd7d66a4a9cb9cdcd2c109edae1cd66ec136945cc1e04dc76"),
    }
)
"""The shipped picture's hashes by signal type."""


def entries() -> Iterator[ListEntry]:
    """The list's one entry, of category ``test``, with all four hashes."""
    yield ListEntry(TEST_ENTRY_ID, tuple(TEST_HASHES.items()), category="test", line=1)


def list_bytes() -> bytes:
    """The list as a CSV file with the columns id, md5, sha1, sha256, pdq and category."""
    return resources.files("uploadguard.testing").joinpath("data", "uploadguard-test.csv").read_bytes()
