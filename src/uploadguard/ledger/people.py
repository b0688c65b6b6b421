"""Who acts on cases, evidence and the audit log, and what each is allowed to do."""

from __future__ import annotations

import enum
import unicodedata
from dataclasses import dataclass

from uploadguard.errors import NotPermittedError

__all__ = ["MACHINES", "Person", "Role", "is_machine", "is_same"]

MACHINES = frozenset({"guard", "outbox", "system"})
"""Who acts in the audit log where no person does. Nobody may have one of these names."""


class Role(enum.StrEnum):
    """What a person may do."""

    REVIEW = "review"
    """See and claim cases, decide and escalate them."""
    LEAD = "lead"
    """Decide many at once, open decided cases again, mend reports, hold records."""
    REVEAL = "reveal"
    """Be shown a preview of a preserved file: blurred and grey, or clear."""
    EVIDENCE = "evidence"
    """Take a preserved file out of the vault, and have it destroyed on order."""
    AUDIT = "audit"
    """Read and verify the audit log."""
    ADMIN = "admin"
    """Make accounts."""


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody, by the name that stands in the audit log."""

    name: str
    roles: frozenset[Role] = frozenset()

    def may(self, role: Role) -> bool:
        """Whether the person has the role."""
        return role in self.roles

    def require(self, role: Role) -> None:
        """Raise :class:`~uploadguard.errors.NotPermittedError` unless the person has the role."""
        if not self.may(role):
            raise NotPermittedError(f"this needs the role {role.value!r}")


def is_same(name: str, other: str) -> bool:
    """Whether two names may be one person's: they differ in case, in width or in blanks around them at most.

    Many a sign-in takes them all for one, so what needs two persons must not go by spelling.
    """
    return _plain(name) == _plain(other)


def is_machine(name: str) -> bool:
    """Whether the audit log would take the name for one of the :data:`MACHINES`."""
    return _plain(name) in MACHINES


def _plain(name: str) -> str:
    return unicodedata.normalize("NFKC", name).strip().casefold()
