"""Keys as the settings name them: a file, or an environment variable, for the hash set and for preserved files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from uploadguard.logs import log
from uploadguard.storage.keys import Key, parse_keys, read_key_file

if TYPE_CHECKING:
    from uploadguard.config import Settings

__all__ = ["configured_keys"]

_OTHERS = 0o007


def configured_keys(
    settings: Settings, section: tuple[str, ...], key_file: Path | None, key_env: str | None
) -> list[Key]:
    """The keys that ``key_file`` or ``key_env`` of a section of the settings leads to, read anew; none without either.

    Raises :class:`~uploadguard.errors.ConfigError`, which names the setting and never what it leads to.
    """
    if key_file is None and key_env is None:
        return []
    place = (*section, "key_file" if key_file is not None else "key_env")
    if key_file is not None and key_env is not None:
        raise settings.error([(place, f"stands beside {'.'.join(section)}.key_env; give one of the two")])
    try:
        found = _from_file(key_file, ".".join(place)) if key_file is not None else _from_env(key_env)
        if not found:
            raise ValueError("holds no key; `uploadguard hashset newkey FILE` makes one")
        return found
    except ValueError as error:
        problem = str(error)
    except OSError as error:
        problem = f"cannot be read: {error.strerror or type(error).__name__}"
    raise settings.error([(place, problem)])


def _from_file(path: Path, setting: str) -> list[Key]:
    if path.stat().st_mode & _OTHERS:
        log.warning("%s: everyone on this machine can read the key; chmod 600 it", setting)
    return read_key_file(path)


def _from_env(name: str | None) -> list[Key]:
    text = os.environ.get(name or "")
    if text is None:
        # The name is not shown: it may be the key, put in the wrong place.
        raise ValueError("the environment variable that it names is not set")
    return parse_keys(text)
