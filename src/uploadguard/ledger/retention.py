"""How long the ledger keeps what, and what stops it."""

from __future__ import annotations

from uploadguard.ledger.holds import hold, is_held, release_hold

__all__ = ["hold", "is_held", "release_hold"]
