"""The hash set as the settings have it: its directory, and the keys that it is encrypted with."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from uploadguard.hashset import HashSet
from uploadguard.logs import log
from uploadguard.storage.keys import Key, Keys, parse_keys, read_key_file

if TYPE_CHECKING:
    from uploadguard.config import Settings

__all__ = ["create_hashset", "hashset_keys", "open_hashset"]

_OTHERS = 0o007


def open_hashset(settings: Settings) -> HashSet:
    """Open it. Raises :class:`~uploadguard.errors.HashSetError` and :class:`~uploadguard.errors.ConfigError`."""
    return HashSet.open(
        settings.hashset.path, keep_previous=settings.hashset.keep_previous, keys=hashset_keys(settings)
    )


def create_hashset(settings: Settings) -> HashSet:
    """Create it, empty. Raises :class:`~uploadguard.errors.HashSetError`, :class:`~uploadguard.errors.ConfigError`."""
    return HashSet.create(
        settings.hashset.path, keep_previous=settings.hashset.keep_previous, keys=hashset_keys(settings)
    )


def hashset_keys(settings: Settings) -> Keys | None:
    """The keys of ``hashset.encryption``, read anew; None if it names none.

    Raises :class:`~uploadguard.errors.ConfigError`, which names the setting and never what it leads to.
    """
    encryption = settings.hashset.encryption
    if encryption.key_file is None and encryption.key_env is None:
        return None
    place = ("hashset", "encryption", "key_file" if encryption.key_file is not None else "key_env")
    if encryption.key_file is not None and encryption.key_env is not None:
        raise settings.error([(place, "stands beside hashset.encryption.key_env; give one of the two")])
    try:
        found = _from_file(encryption.key_file) if encryption.key_file is not None else _from_env(encryption.key_env)
        return Keys(found, write=encryption.write)
    except ValueError as error:
        problem = str(error)
    except OSError as error:
        problem = f"cannot be read: {error.strerror or type(error).__name__}"
    raise settings.error([(place, problem)])


def _from_file(path: Path) -> list[Key]:
    if path.stat().st_mode & _OTHERS:
        log.warning("hashset.encryption.key_file: everyone on this machine can read the key; chmod 600 it")
    return read_key_file(path)


def _from_env(name: str | None) -> list[Key]:
    text = os.environ.get(name or "")
    if text is None:
        # The name is not shown: it may be the key, put in the wrong place.
        raise ValueError("the environment variable that it names is not set")
    return parse_keys(text)
