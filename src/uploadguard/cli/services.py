"""What commands say of match services."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uploadguard.config import Settings
    from uploadguard.plugins import Plugins

__all__ = ["service_records", "service_text"]


def service_records(settings: Settings, plugins: Plugins) -> dict[str, dict[str, str]]:
    """By match service: ``mode``, inline or prefetch, and ``on_failure``, the verdict where it does not answer."""
    return {
        name: {
            "mode": "prefetch" if matcher.prefetch else "inline",
            "on_failure": matcher.on_failure.label
            if matcher.on_failure is not None
            else settings.policy.failures.matcher_failed,
        }
        for name, matcher in plugins.matchers.items()
    }


def service_text(record: dict[str, str]) -> str:
    """One of them in words, but for its name."""
    return f"{record['mode']}; {record['on_failure']} where it does not answer"
