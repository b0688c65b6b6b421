"""``uploadguard console``."""

from __future__ import annotations

import click

__all__ = ["console"]


@click.group(invoke_without_command=True)
def console() -> None:
    """To be written."""
