"""Checks of uploads that go straight to an S3 bucket: for each object version one check, and what its verdict asks for.

:mod:`~uploadguard_s3.model` holds what the parts hand to one another, :mod:`~uploadguard_s3.checker` checks one object
version, :mod:`~uploadguard_s3.effects` is what becomes of it, :mod:`~uploadguard_s3.state` what is kept of that,
:mod:`~uploadguard_s3.reconcile` finds what was missed, :mod:`~uploadguard_s3.options` are the settings.
"""

from __future__ import annotations

from uploadguard_s3.checker import ObjectChecker
from uploadguard_s3.metrics import ObjectMetrics
from uploadguard_s3.model import Checked, Checks, ObjectRef, Outcome, S3Error, S3Poison, S3Retry
from uploadguard_s3.options import S3Options
from uploadguard_s3.reconcile import Reconciled, reconcile

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
