"""A validator for the file fields of forms and models."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy

from uploadguard.errors import UploadguardError
from uploadguard.models import Verdict
from uploadguard.web.django.files import check_file, decision_of, was_held
from uploadguard.web.django.host import context_of, get_intake

__all__ = ["validate_upload"]

_REFUSED = gettext_lazy("This file was not accepted.")
_UNCHECKED = gettext_lazy("This file cannot be taken now. Please try again.")


def validate_upload(value: Any) -> None:
    """Refuse a file that is blocked, and, unless ``QUEUE`` is ``pass``, one that is queued, which is held then.

    For FileField and ImageField of forms and models: ``validators=[validate_upload]``. Uses the decision that the
    upload handler made, and checks the file itself where there is none. Raises ``ValidationError`` with one message
    for whatever reason, of code ``upload_refused``; or ``upload_unchecked`` where it cannot be checked now.
    """
    if not value or getattr(value, "_committed", False):  # a model's file that is stored was checked before it was
        return
    file = value.file if hasattr(value, "_committed") else value
    intake = get_intake()
    try:
        decision = decision_of(file) or check_file(file, context_of(None, file.name))
    except UploadguardError:
        raise ValidationError(_UNCHECKED, code="upload_unchecked") from None
    if not intake.refuses(decision):
        return
    if intake.answers.verdict(decision) is Verdict.QUEUE and not was_held(file):
        intake.hold(decision, file)
        file.seek(0)
    raise ValidationError(_REFUSED, code="upload_refused")
