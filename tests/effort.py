"""How much the tests try that draw their cases at random, or kill something again and again.

``UPLOADGUARD_TEST_EFFORT=5 pytest`` tries five times as much as a plain run; the modules ``soak_*`` try for hours.
"""

from __future__ import annotations

import os

__all__ = ["EFFORT", "tries"]

EFFORT = float(os.environ.get("UPLOADGUARD_TEST_EFFORT", "1"))


def tries(count: int) -> int:
    """How often to try what a plain run tries ``count`` times."""
    return max(1, round(count * EFFORT))
