"""Changing a task's row under its lease.

Each report is written to several times, so the statements are made once and used again.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from uploadguard.ledger import schema

__all__ = ["After", "Written", "has_lease", "update_under_lease"]


class Written(enum.Enum):
    """What became of a change under a lease."""

    KEPT = enum.auto()
    KEPT_CANCELLED = enum.auto()
    """Kept; but the task was taken back."""
    CONTRADICTED = enum.auto()
    """Nothing was changed, since the task was taken back meanwhile, or not any more."""
    LOST = enum.auto()
    """Nothing was changed: another worker has the task."""


@dataclass(frozen=True, slots=True)
class After:
    """So many seconds from now, by the database's clock."""

    wait_s: float = 0.0


def update_under_lease(
    connection: Connection, task_id: int, token: str, values: Mapping[str, Any], *, cancelled: bool | None = None
) -> Written:
    """Change the task's row, if the lease still holds; and, unless None, only if the task is ``cancelled`` or not.

    Values may be :class:`After`.
    """
    is_sqlite = connection.dialect.name == "sqlite"
    timed = tuple(sorted(name for name, value in values.items() if isinstance(value, After)))
    plain = tuple(sorted(values.keys() - timed))
    parameters = {f"new_{name}": values[name] for name in plain} | {"task_id": task_id, "token": token}
    for name in timed:
        wait = timedelta(seconds=values[name].wait_s)
        parameters[f"new_{name}"] = datetime.now(UTC) + wait if is_sqlite else wait
    statement = _update(plain, timed, cancelled, is_sqlite)
    found = connection.execute(statement, parameters).scalar_one_or_none()
    if found is not None:
        return Written.KEPT_CANCELLED if found else Written.KEPT
    if cancelled is None:
        return Written.LOST
    return Written.CONTRADICTED if has_lease(connection, task_id, token) else Written.LOST


def has_lease(connection: Connection, task_id: int, token: str) -> bool:
    """Whether the lease still holds."""
    return connection.execute(_LOOK, {"task_id": task_id, "token": token}).scalar_one_or_none() is not None


_TASKS = schema.tasks.c
_MINE = sa.and_(_TASKS.id == sa.bindparam("task_id"), _TASKS.lease == sa.bindparam("token"))
_LOOK = sa.select(_TASKS.id).where(_MINE)


@lru_cache(maxsize=64)
def _update(plain: tuple[str, ...], timed: tuple[str, ...], cancelled: bool | None, is_sqlite: bool) -> sa.Executable:
    values: dict[str, Any] = {name: sa.bindparam(f"new_{name}", type_=_TASKS[name].type) for name in plain}
    for name in timed:
        value = sa.bindparam(f"new_{name}", type_=schema.Utc() if is_sqlite else sa.Interval())
        values[name] = value if is_sqlite else sa.func.clock_timestamp(type_=sa.DateTime(timezone=True)) + value
    statement = sa.update(schema.tasks).where(_MINE).values(values)
    if cancelled is not None:
        statement = statement.where(_TASKS.cancelled.is_(sa.true() if cancelled else sa.false()))
    return statement.returning(_TASKS.cancelled)
