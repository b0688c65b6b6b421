"""The library's logger, and the net below it that keeps hashes out.

Nothing of ours logs a hash. But an exception of another package may quote what it was given, and a plugin may log what
it should not.
"""

from __future__ import annotations

import logging
import re

__all__ = ["RedactingFilter", "log", "redact"]

_PLACEHOLDER = "<redacted>"
_HASH = re.compile(
    r"(?<![0-9A-Za-z+/=])"
    r"(?:[0-9a-fA-F]{16,}"  # 8 bytes and more in hex
    r"|[A-Z2-7]{26,}={0,6}"  # base32
    r"|[A-Za-z0-9+/]{22,}={1,2}|[A-Za-z0-9+/]{160,})"  # base64; without padding, what is longer than a path's part
    r"(?![0-9A-Za-z+/=])"
)
_BYTES = re.compile(r"""\bb(?:'(?:[^'\\]|\\.){8,}'|"(?:[^"\\]|\\.){8,}")""")


def redact(text: str) -> str:
    """``text`` without what looks like a hash: in hex, base32 or base64, or a bytes literal. Paths stay."""
    return _HASH.sub(_PLACEHOLDER, _BYTES.sub(_PLACEHOLDER, text))


class RedactingFilter(logging.Filter):
    """Redacts messages and tracebacks, and lets every record pass."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite the record where there is something to redact."""
        try:
            message = record.getMessage()
        except (TypeError, ValueError):
            return True  # the handler says what is wrong with the arguments
        redacted = redact(message)
        if redacted != message:
            record.msg, record.args = redacted, None
        if record.exc_info and record.exc_info[0] is not None:
            record.exc_text = redact(logging.Formatter().formatException(record.exc_info))
            record.exc_info = None
        return True


log = logging.getLogger("uploadguard")
"""The one logger of the library."""

log.addFilter(RedactingFilter())
