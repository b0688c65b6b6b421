"""Key files: what ``hashset newkey`` and ``evidence newkey`` have in common."""

from __future__ import annotations

from pathlib import Path

from uploadguard.cli.exits import Exit
from uploadguard.cli.output import echo

__all__ = ["make_key_file"]


def make_key_file(file: Path) -> Exit:
    """Write a new random key to a new file. Raises :class:`~uploadguard.errors.ConfigError`."""
    from uploadguard.errors import ConfigError
    from uploadguard.storage.keys import write_key_file

    try:
        key = write_key_file(file)
    except FileExistsError:
        raise ConfigError("there is a file of that name; it is kept as it is", path=file) from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot be written: {getattr(error, 'strerror', None) or error}", path=file) from None
    echo(f"{file}: a new key, of id {key.short_id}; only this user can read it")
    return Exit.OK
