"""System checks: what ``manage.py check`` tells of an installation that would not check, or not keep, uploads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Error
from django.core.checks import Warning as CheckWarning
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from uploadguard.config import Settings
from uploadguard.errors import ConfigError, UploadguardError
from uploadguard.opening import open_hashset
from uploadguard.web.django.handlers import UploadguardUploadHandler
from uploadguard.web.django.host import Host, read_host
from uploadguard.web.django.middleware import UploadguardMiddleware
from uploadguard.web.django.storage import GuardedStorage

__all__ = ["check_deployment", "check_installation", "check_settings"]

_CSRF = "django.middleware.csrf.CsrfViewMiddleware"
_SIGN_IN = "django.contrib.auth.middleware.AuthenticationMiddleware"


def check_settings(*_args: Any, **_options: Any) -> list[CheckMessage]:
    """Whether there is a configuration, and a hash set to check against."""
    try:
        host = read_host()
    except ImproperlyConfigured as error:
        return [Error(f"The setting UPLOADGUARD is missing or wrong: {error}.", id="uploadguard.E001")]
    try:
        settings = host.load_settings()
    except ConfigError as error:
        return [Error(f"uploadguard's configuration cannot be used: {error}", id="uploadguard.E002")]
    return [*_check_hashset(settings), *_check_queue(host, settings)]


def check_installation(*_args: Any, **_options: Any) -> list[CheckMessage]:
    """Whether handler and middleware are there, and stand where they must."""
    return [*_check_handlers(), *_check_middleware()]


def check_deployment(*_args: Any, **_options: Any) -> list[CheckMessage]:
    """What is well for trying out, and not for production."""
    return [*_check_storages(), *_check_trial()]


def _check_hashset(settings: Settings) -> Iterator[CheckMessage]:
    try:
        lists = open_hashset(settings).lists()
    except UploadguardError as error:
        yield Error(
            f"The hash set cannot be opened: {error}",
            hint="'uploadguard init' makes one, 'uploadguard lists add' fills it.",
            id="uploadguard.E003",
        )
        return
    if not lists and not settings.hashset.allow_empty:
        yield CheckWarning(
            "The hash set is empty: every upload will be answered 503.",
            hint="'uploadguard lists add' imports a list; the test list alone does not count.",
            id="uploadguard.W001",
        )


def _check_queue(host: Host, settings: Settings) -> Iterator[CheckMessage]:
    if host.queue == "answer" and host.hold is None and settings.evidence.path is None:
        yield CheckWarning(
            "Nothing keeps the files of queued uploads.",
            hint='Set UPLOADGUARD["HOLD"], or UPLOADGUARD["QUEUE"] = "pass" with a GuardedStorage, or evidence.path.',
            id="uploadguard.W002",
        )


def _check_handlers() -> Iterator[CheckMessage]:
    place = _place(django_settings.FILE_UPLOAD_HANDLERS, UploadguardUploadHandler)
    if place is None:
        yield CheckWarning(
            "UploadguardUploadHandler is not in FILE_UPLOAD_HANDLERS: files are read a second time to be checked.",
            hint="Put it first.",
            id="uploadguard.W003",
        )
    elif place:
        yield Error(
            "UploadguardUploadHandler is not the first of FILE_UPLOAD_HANDLERS: those before it keep files from it.",
            id="uploadguard.E004",
        )
    elif len(django_settings.FILE_UPLOAD_HANDLERS) == 1:
        yield Error(
            "UploadguardUploadHandler stands alone in FILE_UPLOAD_HANDLERS: nothing keeps the files.",
            hint="Put Django's MemoryFileUploadHandler and TemporaryFileUploadHandler after it.",
            id="uploadguard.E005",
        )


def _check_middleware() -> Iterator[CheckMessage]:
    middleware = list(django_settings.MIDDLEWARE)
    place = _place(middleware, UploadguardMiddleware)
    if place is None:
        yield CheckWarning(
            "UploadguardMiddleware is not in MIDDLEWARE: only views with check_uploads, fields with validate_upload "
            "and guarded storages refuse uploads.",
            hint="Put it last; or silence this check if all of your views are decorated.",
            id="uploadguard.W004",
        )
        return
    for other in (_CSRF, _SIGN_IN):
        if other in middleware[place:]:
            yield CheckWarning(
                f"UploadguardMiddleware stands before {other.rpartition('.')[2]}: uploads are taken in for requests "
                "that are refused afterwards.",
                hint="Put it last.",
                id="uploadguard.W005",
            )


def _check_storages() -> Iterator[CheckMessage]:
    backend = (getattr(django_settings, "STORAGES", None) or {}).get("default", {}).get("BACKEND")
    if backend is None or not _is(backend, GuardedStorage):
        yield CheckWarning(
            "The default storage is not guarded: what views store without a form's check is not checked.",
            hint='STORAGES["default"]["BACKEND"] = "uploadguard.web.django.GuardedStorage", around the present one.',
            id="uploadguard.W006",
        )


def _check_trial() -> Iterator[CheckMessage]:
    try:
        settings = read_host().load_settings()
    except (ImproperlyConfigured, ConfigError):  # E001 and E002 tell of it
        return
    if settings.hashset.test_list:
        yield CheckWarning("hashset.test_list is on: it is for trying a deployment out.", id="uploadguard.W007")
    if settings.sandbox.isolation == "none":
        yield CheckWarning(
            "sandbox.isolation is none: uploads are decoded in Django's own process.", id="uploadguard.W008"
        )
    most = django_settings.DATA_UPLOAD_MAX_NUMBER_FILES
    if most is not None and most < settings.web.max_files:
        yield CheckWarning(
            "DATA_UPLOAD_MAX_NUMBER_FILES is below web.max_files: in between Django answers 400, not 413.",
            id="uploadguard.W009",
        )
    if django_settings.DATA_UPLOAD_MAX_MEMORY_SIZE is None:
        yield CheckWarning(
            "DATA_UPLOAD_MAX_MEMORY_SIZE is None: a form's text fields may fill the memory before its files come.",
            id="uploadguard.W010",
        )


def _place(paths: Any, wanted: type) -> int | None:
    return next((place for place, path in enumerate(paths) if _is(path, wanted)), None)


def _is(path: str, wanted: type) -> bool:
    """Whether a dotted path leads to this class, or one made of it."""
    try:
        found = import_string(path)
    except ImportError:  # Django itself tells of it
        return False
    return isinstance(found, type) and issubclass(found, wanted)
