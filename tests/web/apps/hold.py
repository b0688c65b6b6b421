"""Where the small picture hosts keep queued uploads unserved."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

from uploadguard import Decision


def hold(decision: Decision, file: BinaryIO) -> None:
    """Keep a queued upload where nobody is served it."""
    if "HELD" in os.environ:
        Path(os.environ["HELD"], decision.reference).write_bytes(file.read())
