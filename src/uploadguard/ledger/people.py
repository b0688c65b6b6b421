"""Who acts on cases, evidence and the audit log, and what each is allowed to do."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from uploadguard.errors import NotPermittedError

__all__ = ["Person", "Role"]


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
