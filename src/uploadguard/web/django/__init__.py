"""The adapter for Django: put ``uploadguard.web.django`` in INSTALLED_APPS, and what stands here where it belongs.

Nothing here needs Django's settings to be imported, so that a settings module may import it too.
"""

from __future__ import annotations

try:
    import django  # noqa: F401
except ImportError as error:
    from uploadguard.errors import ConfigError

    raise ConfigError("Django is not installed: install uploadguard[django]") from error

from uploadguard.web.django.decorators import check_uploads, uploads_exempt
from uploadguard.web.django.handlers import UploadguardUploadHandler
from uploadguard.web.django.host import close_guard, get_guard
from uploadguard.web.django.middleware import UploadguardMiddleware
from uploadguard.web.django.storage import GuardedStorage, HeldFileError
from uploadguard.web.django.validators import validate_upload

__all__ = [
    "GuardedStorage",
    "HeldFileError",
    "UploadguardMiddleware",
    "UploadguardUploadHandler",
    "check_uploads",
    "close_guard",
    "get_guard",
    "uploads_exempt",
    "validate_upload",
]
