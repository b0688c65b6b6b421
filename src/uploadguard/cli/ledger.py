"""``uploadguard ledger``."""

from __future__ import annotations

import click

__all__ = ["ledger"]


@click.group()
def ledger() -> None:
    """To be written."""
