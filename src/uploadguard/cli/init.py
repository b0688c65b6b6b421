"""``uploadguard init``: a configuration and an empty hash set to start from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from uploadguard.cli.output import echo
from uploadguard.cli.state import CONFIG_NAME

if TYPE_CHECKING:
    from uploadguard.config import Settings

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

    DIR/uploadguard.toml has every setting, described; the hash set is beside it. What is there already is kept: where
    there is a configuration, the hash set that it names is created if it is missing.
    """
    from uploadguard.config import HashsetSettings, Settings
    from uploadguard.config_reference import render_default_toml

    config = directory / CONFIG_NAME
    has_config = config.exists() or config.is_symlink()
    fresh = HashsetSettings(path=directory / HashsetSettings().path)
    settings = Settings.load(config) if has_config else Settings(hashset=fresh)
    hashset = settings.hashset.path
    directory.mkdir(parents=True, exist_ok=True)
    has_hashset = _is_hashset(settings)
    if has_config:
        echo(f"{config}: there is a configuration already; it is kept as it is")
    if has_hashset:
        echo(f"{hashset}: there is a hash set already; it is kept as it is")
    if has_config and has_hashset:
        echo("nothing to do")
        return
    if not has_hashset:
        _create(settings)
    if not has_config:
        with config.open("x", encoding="utf-8") as file:
            file.write(render_default_toml())
        echo(f"{config}: the configuration, with all defaults")
    echo(_NEXT.format(directory=directory))


def _is_hashset(settings: Settings) -> bool:
    """Whether there is a hash set, one that can be read. Raises what is wrong with one that cannot."""
    from uploadguard.hashset.manifest import MANIFEST_NAME
    from uploadguard.opening import open_hashset

    if not (settings.hashset.path / MANIFEST_NAME).exists():
        return False
    open_hashset(settings)
    return True


def _create(settings: Settings) -> None:
    from uploadguard.opening import create_hashset

    create_hashset(settings)
    echo(f"{settings.hashset.path}: the hash set, empty; only this user can read it")
