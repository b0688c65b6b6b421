"""``uploadguard init``: a configuration, an empty hash set and an empty ledger to start from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from uploadguard.cli.output import echo
from uploadguard.cli.state import CONFIG_NAME

if TYPE_CHECKING:
    from uploadguard.config import Settings

__all__ = ["init"]

_LEDGER = "ledger"
_SIGNING_KEY = "audit.key"
_NEXT = """
Next:
  cd {directory}
  uploadguard lists add NAME FILE     import a hash list
  edit uploadguard.toml               say who gets reports, in [actions.NAME]
  uploadguard config check            see that all is in order
  uploadguard check PICTURE           check an upload
  uploadguard outbox run              carry out reports and callbacks, all the time
  uploadguard console                 review what was queued, in the browser"""


@click.command()
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
def init(directory: Path) -> None:
    """Write a configuration and create an empty hash set and an empty ledger.

    DIR/uploadguard.toml has every setting, described; the hash set and the ledger are beside it. Where the cryptography
    package is installed, a key to sign the audit log's checkpoints with is made too. What is there already is kept:
    where there is a configuration, the hash set and the ledger that it names are created if they are missing.
    """
    from uploadguard.config import HashsetSettings, Settings
    from uploadguard.config_ledger import LedgerSettings

    config = directory / CONFIG_NAME
    has_config = config.exists() or config.is_symlink()
    fresh = Settings(
        hashset=HashsetSettings(path=directory / HashsetSettings().path),
        ledger=LedgerSettings(path=directory / _LEDGER),
    )
    settings = Settings.load(config) if has_config else fresh
    directory.mkdir(parents=True, exist_ok=True)
    if has_config:
        echo(f"{config}: there is a configuration already; it is kept as it is")
    created = [_hashset(settings), _ledger(settings)]
    if not has_config:
        _write_config(config, _signing_key(directory))
    elif not any(created):
        echo("nothing to do")
        return
    echo(_NEXT.format(directory=directory))


def _hashset(settings: Settings) -> bool:
    """Create the hash set, unless it is there. Raises what is wrong with one that cannot be read."""
    from uploadguard.hashset.manifest import MANIFEST_NAME
    from uploadguard.opening import create_hashset, open_hashset

    path = settings.hashset.path
    if (path / MANIFEST_NAME).exists():
        open_hashset(settings)
        echo(f"{path}: there is a hash set already; it is kept as it is")
        return False
    create_hashset(settings)
    echo(f"{path}: the hash set, empty; only this user can read it")
    return True


def _ledger(settings: Settings) -> bool:
    """Create the ledger, if the configuration has one that is not there."""
    from uploadguard.errors import LedgerDownError, LedgerError
    from uploadguard.ledger.database import open_database

    path = settings.ledger.path
    if path is None:
        return False
    try:
        open_database(settings).close()
    except LedgerDownError:
        raise
    except LedgerError:
        open_database(settings, create=True).close()
        echo(f"{path}: the ledger, empty; only this user can read it")
        return True
    echo(f"{path}: there is a ledger already; it is kept as it is")
    return False


def _signing_key(directory: Path) -> bool:
    """Make the key for the audit log's checkpoints, where that can be done."""
    from importlib.util import find_spec

    if find_spec("cryptography") is None:
        return False
    from uploadguard.ledger.checkpoints import write_signing_key

    path = directory / _SIGNING_KEY
    if not path.exists():
        write_signing_key(path)
        echo(f"{path}: the key that signs the audit log; keep a copy of its public part elsewhere")
    return True


def _write_config(config: Path, has_key: bool) -> None:
    from uploadguard.config_reference import render_default_toml

    beside = (("ledger", "signing_key_file"),) if has_key else ()
    with config.open("x", encoding="utf-8") as file:
        file.write(render_default_toml(beside=beside))
    echo(f"{config}: the configuration, with all defaults")
