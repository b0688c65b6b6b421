"""The review console: a small server-rendered web application over the ledger, for the people who decide.

Needs the extra ``console``. :func:`create_console` makes it, to be mounted in a host's own application or to be run by
``uploadguard console``.
"""

from uploadguard.web.console.app import create_console

__all__ = ["create_console"]
