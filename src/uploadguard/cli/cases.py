"""``uploadguard cases``."""

from __future__ import annotations

import click

__all__ = ["cases"]


@click.group()
def cases() -> None:
    """To be written."""
