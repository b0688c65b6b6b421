"""The service: the Guard over HTTP, for hosts in other languages. ``uploadguard serve`` runs it (extra: serve)."""

from __future__ import annotations

from uploadguard.web.service.app import Service, create_service
from uploadguard.web.service.tokens import Scope, Tokens

__all__ = ["Scope", "Service", "Tokens", "create_service"]
