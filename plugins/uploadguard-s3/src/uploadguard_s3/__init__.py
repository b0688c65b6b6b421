"""Checks of uploads that go straight to an S3 bucket: for each object version one check, and what its verdict asks for.

:mod:`~uploadguard_s3.model` holds what the parts hand to one another, :mod:`~uploadguard_s3.checker` checks one object
version, :mod:`~uploadguard_s3.effects` is what becomes of it, :mod:`~uploadguard_s3.state` what is kept of that,
:mod:`~uploadguard_s3.reconciling` finds what was missed, :mod:`~uploadguard_s3.options` are the settings.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uploadguard_s3.checker import ObjectChecker
    from uploadguard_s3.metrics import ObjectMetrics
    from uploadguard_s3.model import Checked, Checks, ObjectRef, Outcome, S3Error, S3Poison, S3Retry
    from uploadguard_s3.options import S3Options
    from uploadguard_s3.reconciling import Reconciled, reconcile

__all__ = [
    "Checked",
    "Checks",
    "ObjectChecker",
    "ObjectMetrics",
    "ObjectRef",
    "Outcome",
    "Reconciled",
    "S3Error",
    "S3Options",
    "S3Poison",
    "S3Retry",
    "reconcile",
]

_MODULES = {
    "ObjectChecker": "checker",
    "ObjectMetrics": "metrics",
    "Reconciled": "reconciling",
    "S3Options": "options",
    "reconcile": "reconciling",
}
"""Where the public names are; the others are in ``model``."""


def __getattr__(name: str) -> Any:
    """A public name when first asked for: where the plugin is only installed, no AWS client is imported."""
    if name in __all__:
        return getattr(import_module(f"{__name__}.{_MODULES.get(name, 'model')}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
