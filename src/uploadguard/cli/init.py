"""``uploadguard init``: a configuration and an empty hash set to start from."""

from __future__ import annotations

from pathlib import Path

import click

from uploadguard.cli.output import echo
from uploadguard.cli.state import CONFIG_NAME

__all__ = ["init"]

_NEXT = """
Next:
  cd {directory}
  uploadguard lists add NAME FILE     import a hash list
  uploadguard config check            see that all is in order
  uploadguard check PICTURE           check an upload"""


@click.command()
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
def init(directory: Path) -> None:
    """Write a configuration and create an empty hash set.

    DIR/uploadguard.toml has every setting, described; the hash set is beside it. Overwrites nothing.
    """
    from uploadguard.config import HashsetSettings
    from uploadguard.config_reference import render_default_toml
    from uploadguard.errors import ConfigError
    from uploadguard.hashset import HashSet

    config = directory / CONFIG_NAME
    if config.exists() or config.is_symlink():
        raise ConfigError("exists already; nothing was changed", path=config)
    hashset = directory / HashsetSettings().path
    directory.mkdir(parents=True, exist_ok=True)
    HashSet.create(hashset)
    with config.open("x", encoding="utf-8") as file:
        file.write(render_default_toml())
    echo(f"{config}: the configuration, with all defaults")
    echo(f"{hashset}: the hash set, empty; only this user can read it")
    echo(_NEXT.format(directory=directory))
