"""The review console: a small server-rendered web application over the ledger, for the people who decide.

Needs the extra ``console``. :func:`create_console` makes it, to be mounted in a host's own application or to be run by
``uploadguard console``.
"""

from uploadguard.errors import ConfigError

try:
    from uploadguard.web.console.app import create_console
except ModuleNotFoundError as error:
    missing = (error.name or "").partition(".")[0]
    if missing not in ("starlette", "jinja2", "markupsafe"):
        raise
    raise ConfigError(f"the console needs the package {missing}: pip install 'uploadguard[console]'") from error

__all__ = ["create_console"]
