"""uploadguard checks image uploads against hash lists of known abuse material.

Open a :class:`Guard` once, check every upload with it, and act on the :class:`Verdict` of its :class:`Decision`.
"""

from typing import TYPE_CHECKING, Any

from uploadguard.errors import (
    ConfigError,
    HashSetError,
    LedgerError,
    ListError,
    MediaReadError,
    NotReadyError,
    NotRecordedError,
    PluginError,
    SandboxError,
    UploadguardError,
    UploadRefused,
)
from uploadguard.hookspecs import hookimpl
from uploadguard.models import Context, Decision, Failure, FailureCode, Hash, Match, Media, Verdict

if TYPE_CHECKING:
    from uploadguard.guard import Guard, GuardStatus, StreamingCheck

    __version__: str

__all__ = [
    "ConfigError",
    "Context",
    "Decision",
    "Failure",
    "FailureCode",
    "Guard",
    "GuardStatus",
    "Hash",
    "HashSetError",
    "LedgerError",
    "ListError",
    "Match",
    "Media",
    "MediaReadError",
    "NotReadyError",
    "NotRecordedError",
    "PluginError",
    "SandboxError",
    "StreamingCheck",
    "UploadRefused",
    "UploadguardError",
    "Verdict",
    "__version__",
    "hookimpl",
]


def __getattr__(name: str) -> Any:
    """The Guard and the version when first asked for: whoever needs only the values imports in a few milliseconds."""
    if name in {"Guard", "GuardStatus", "StreamingCheck"}:
        from uploadguard import guard

        return getattr(guard, name)
    if name == "__version__":
        from importlib.metadata import version

        return version("uploadguard")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
