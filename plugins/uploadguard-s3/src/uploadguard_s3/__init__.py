"""Checks of uploads that go straight to an S3 bucket: for each object version one check, and what its verdict asks for.

:mod:`~uploadguard_s3.model` holds what the parts hand to one another, :mod:`~uploadguard_s3.checker` checks one object
version, :mod:`~uploadguard_s3.options` its settings.
"""

from __future__ import annotations

from uploadguard_s3.model import Checked, Checks, ObjectRef, Outcome, S3Error, S3Poison, S3Retry

__all__ = ["Checked", "Checks", "ObjectRef", "Outcome", "S3Error", "S3Poison", "S3Retry"]
