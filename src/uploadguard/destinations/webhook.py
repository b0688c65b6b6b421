"""Reports and callbacks as signed JSON over HTTP, by the Standard Webhooks convention.

Each request has ``webhook-id`` (the task's key, the same in each attempt), ``webhook-timestamp`` (seconds since 1970,
of this attempt) and ``webhook-signature``: ``v1,`` and the base64 of HMAC-SHA256 over id, timestamp and body, joined by
dots; one such for each secret, apart by blanks. Receivers check it with :func:`verify`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import time
from collections.abc import Iterable, Mapping
from typing import Any, Literal, Self

from pydantic import model_validator

from uploadguard.actions import Journal, Receipt, Task
from uploadguard.config_types import Flag
from uploadguard.destinations.body import task_json
from uploadguard.destinations.http import HttpClient, check_url, error_of
from uploadguard.destinations.options import (
    Destination,
    DestinationOptions,
    EnvName,
    OptionsError,
    Secret,
    SecretFile,
    TimeoutS,
    checked,
    plain_error,
    read_options,
)
from uploadguard.errors import PostponedError, WebhookError

__all__ = ["Webhook", "WebhookOptions", "sign", "verify"]

_PREFIX = "whsec_"
_MIN_SECRET_BYTES = 16
_MAX_ANSWER_BYTES = 4096


def _signing_keys(words: Iterable[str]) -> list[bytes]:
    """The keys of secrets as the convention writes them: ``whsec_`` and base64; the prefix may be left out."""
    keys = []
    for word in words:
        try:
            keys.append(base64.b64decode(word.removeprefix(_PREFIX), validate=True))
        except (binascii.Error, ValueError):
            raise ValueError("must hold base64, with or without whsec_ before it") from None
    if not keys or any(len(key) < _MIN_SECRET_BYTES for key in keys):
        raise ValueError(f"must hold secrets of {_MIN_SECRET_BYTES} bytes or more")
    return keys


class WebhookOptions(DestinationOptions):
    """``secret_env`` or ``secret_file`` hold one secret or, while it is changed, the old one too."""

    kind: Literal["webhook"]
    url: str
    secret_env: EnvName | None = None
    secret_file: SecretFile | None = None
    hashes: Flag = False
    plain_http: Flag = False
    timeout_s: TimeoutS = 60.0

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.secret_env is None) == (self.secret_file is None):
            raise ValueError("needs secret_env or secret_file, and not both")
        return self


class Webhook(Destination):
    """Posts each task to a URL, until a status of 2xx comes back. At least once: receivers go by ``webhook-id``."""

    def __init__(self, name: str, table: Mapping[str, Any], error: OptionsError = plain_error) -> None:
        options = read_options(WebhookOptions, name, table, error)
        super().__init__(name, options)
        self._url = checked(lambda: check_url(options.url, plain_http=options.plain_http), name, "url", error)
        self._secret = Secret(options.secret_env, options.secret_file)
        secret_key = "secret_env" if options.secret_env is not None else "secret_file"
        checked(lambda: _signing_keys(self._secret.words()), name, secret_key, error)
        self._hashes = options.hashes
        self._client = HttpClient(total_s=options.timeout_s, max_answer_bytes=_MAX_ANSWER_BYTES)

    def deliver(self, task: Task, journal: Journal) -> Receipt:  # noqa: ARG002
        """Post the task. Raises as :func:`~uploadguard.destinations.http.error_of` says."""
        if task.cancelled:
            return Receipt(facts={"sent": False})
        try:
            keys = _signing_keys(self._secret.words())
        except ValueError as error:
            raise PostponedError(f"the secret cannot be used: it {error}") from None
        body = task_json(task, hashes=self._hashes)
        at_s = int(time.time())
        headers = {
            "Content-Type": "application/json",
            "Idempotency-Key": f'"{task.key}"',
            "webhook-id": task.key,
            "webhook-timestamp": str(at_s),
            "webhook-signature": " ".join(_signature(key, task.key, at_s, body) for key in keys),
        }
        answer = self._client.send("POST", self._url, content=body, headers=headers)
        problem = error_of(answer)
        if problem is not None:
            raise problem
        return Receipt(facts={"sent": True, "status": answer.status})


def sign(secret: str, webhook_id: str, timestamp_s: int, body: bytes) -> str:
    """The signature of one secret, as it stands in ``webhook-signature``. Raises ``ValueError`` for a bad secret."""
    return _signature(_signing_keys([secret])[0], webhook_id, timestamp_s, body)


def verify(
    body: bytes,
    headers: Mapping[str, str],
    secrets: str | Iterable[str],
    *,
    tolerance_s: float = 300.0,
    now_s: float | None = None,
) -> str:
    """Check a request as a receiver; gives its ``webhook-id``, by which repetitions are known.

    ``body`` is the body as it came, to the byte. ``secrets`` are one or several, of which any may have signed. Raises
    :class:`~uploadguard.errors.WebhookError` where a header is missing, no signature is right, or the timestamp is
    more than ``tolerance_s`` away from now; and ``ValueError`` for bad secrets. Compares in constant time.
    """
    keys = _signing_keys([secrets] if isinstance(secrets, str) else secrets)
    lowered = {name.lower(): value for name, value in headers.items()}
    webhook_id = lowered.get("webhook-id", "")
    timestamp = lowered.get("webhook-timestamp", "")
    if not webhook_id or re.fullmatch(r"[0-9]{1,12}", timestamp, re.ASCII) is None:
        raise WebhookError("the request lacks webhook-id or webhook-timestamp")
    expected = [_signature(key, webhook_id, int(timestamp), body).encode() for key in keys]
    given = [word.encode("utf-8", "replace") for word in lowered.get("webhook-signature", "").split()]
    right = [hmac.compare_digest(one, word) for one in expected for word in given]
    if not any(right):
        raise WebhookError("the request has no signature by one of the secrets")
    if abs((now_s if now_s is not None else time.time()) - int(timestamp)) > tolerance_s:
        raise WebhookError("the request was signed too long ago, or a clock is wrong")
    return webhook_id


def _signature(key: bytes, webhook_id: str, timestamp_s: int, body: bytes) -> str:
    signed = b".".join((webhook_id.encode("utf-8", "replace"), str(timestamp_s).encode(), body))
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
