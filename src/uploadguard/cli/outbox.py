"""``uploadguard outbox``."""

from __future__ import annotations

import click

__all__ = ["outbox"]


@click.group()
def outbox() -> None:
    """To be written."""
