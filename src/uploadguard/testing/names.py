"""The name of the built-in test list, for whoever needs no more of it."""

from __future__ import annotations

__all__ = ["TEST_LIST_NAME"]

TEST_LIST_NAME = "uploadguard-test"
