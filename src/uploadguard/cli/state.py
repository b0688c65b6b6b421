"""What the program's own options say, the configuration that follows from them, and how a command wants to fail."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uploadguard.config import Settings

__all__ = ["CONFIG_NAME", "NOTHING_LISTED", "STALE", "State"]

CONFIG_NAME = "uploadguard.toml"
STALE = (
    "no list was imported or updated for longer than hashset.stale_after_h, so every check fails as hash_set_stale: "
    "import the lists anew"
)
NOTHING_LISTED = (
    "the hash set is empty, and hashset.allow_empty lets it be: nothing but the test list can match, so whatever "
    "decodes is allowed. Import a list with `uploadguard lists add NAME FILE`"
)
_EMPTY = "the hash set is empty"
_NOT_ISOLATED = "sandbox.isolation is"


@dataclass(slots=True)
class State:
    """Options before the command, and what the command says of itself while it runs.

    ``error_record``, once set, has an error printed as JSON too, with these fields. ``said`` are beginnings of the
    library's warnings that the command says in words of its own: that of an empty hash set is an error here, and
    how uploads are isolated is for ``config check`` to say, not for every command.
    """

    config_path: Path | None = None
    debug: bool = False
    error_record: Mapping[str, object] | None = None
    said: tuple[str, ...] = (_EMPTY, _NOT_ISOLATED)

    def find_config(self) -> Path | None:
        """The configuration file to read: ``--config``, else what the environment names (None: the settings look
        there by themselves), else ``./uploadguard.toml`` if there is one."""
        if self.config_path is not None:
            return self.config_path
        if os.environ.get("UPLOADGUARD_CONFIG"):
            return None
        here = Path(CONFIG_NAME)
        return here if here.exists() else None

    def load_settings(self, *, required: bool = True, **overrides: Any) -> Settings:
        """The settings.

        With ``required`` something must say where the hash set is: a file, or the environment. Raises
        :class:`~uploadguard.errors.ConfigError`.
        """
        from uploadguard.config import Settings
        from uploadguard.errors import ConfigError

        path = self.find_config()
        said = ("UPLOADGUARD_CONFIG", "UPLOADGUARD_HASHSET__PATH")
        if required and path is None and not any(os.environ.get(name) for name in said):
            raise ConfigError(
                f"no configuration: there is no ./{CONFIG_NAME}. `uploadguard init DIR` writes one; "
                "then work in DIR, or use --config or UPLOADGUARD_CONFIG"
            )
        return Settings.load(path, **overrides)
