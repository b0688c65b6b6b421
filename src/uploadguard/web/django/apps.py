"""The application, as Django registers it."""

from __future__ import annotations

from django.apps import AppConfig
from django.core.checks import Tags, register
from django.core.signals import setting_changed

from uploadguard.web.django import checks, host

__all__ = ["UploadguardConfig"]


class UploadguardConfig(AppConfig):
    """``uploadguard.web.django`` in INSTALLED_APPS."""

    name = "uploadguard.web.django"
    label = "uploadguard"
    verbose_name = "Upload checks"

    def ready(self) -> None:
        """Register the system checks; let tests override the settings."""
        register(checks.check_settings, Tags.security)
        register(checks.check_installation, Tags.security)
        register(checks.check_deployment, Tags.security, deploy=True)
        setting_changed.connect(host.setting_changed)
