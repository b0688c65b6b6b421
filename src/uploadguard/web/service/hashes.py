"""The body of ``POST /v1/check-hash``."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

from uploadguard.models import Context, Hash
from uploadguard.web.service.context import context_of_json
from uploadguard.web.service.faults import Fault

__all__ = ["MAX_BODY_BYTES", "MAX_HASHES", "parse_hashes"]

MAX_BODY_BYTES = 1 << 20
MAX_HASHES = 1024
_KEYS = frozenset({"signal_type", "value", "quality", "variant", "frame"})
_MAX_FRAME = 1_000_000


def parse_hashes(body: bytes) -> tuple[list[Hash], Context]:
    """The hashes with their context. Raises :class:`Fault`, whose message has no hash."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise Fault(400, "bad_json", "The body is not JSON.") from None
    if not isinstance(found, dict) or not found.keys() <= {"hashes", "context"}:
        raise Fault(400, "bad_json", "The body is an object with hashes and, if need be, context.")
    items = found.get("hashes")
    if not isinstance(items, list) or not 1 <= len(items) <= MAX_HASHES:
        raise Fault(400, "bad_hash", f"hashes is a list of 1 to {MAX_HASHES} hashes.")
    hashes = [_hash(item, number) for number, item in enumerate(items)]
    return hashes, context_of_json(found.get("context", {}))


def _hash(item: Any, number: int) -> Hash:
    where = f"hashes[{number}]"
    if not isinstance(item, dict) or not item.keys() <= _KEYS:
        raise Fault(400, "bad_hash", f"{where}: an object with {', '.join(sorted(_KEYS))}.")
    signal_type, value = item.get("signal_type"), item.get("value")
    quality, variant, frame = item.get("quality"), item.get("variant", "original"), item.get("frame", 0)
    if not isinstance(signal_type, str) or not isinstance(value, str):
        raise Fault(400, "bad_hash", f"{where}: signal_type and value are text.")
    if quality is not None and not _is_whole(quality, 100):
        raise Fault(400, "bad_hash", f"{where}: quality is 0 to 100.")
    if not _is_whole(frame, _MAX_FRAME) or not isinstance(variant, str) or not 1 <= len(variant) <= 64:
        raise Fault(400, "bad_hash", f"{where}: frame is a number from 0 on, variant a name.")
    return Hash(signal_type, _bytes(value, where), quality, variant, frame)


def _is_whole(value: Any, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most


def _bytes(text: str, where: str) -> bytes:
    """Hex, or base64 where the text is not all hex digits: padded, as that of any known hash is, it never is."""
    try:
        if all(char in "0123456789abcdefABCDEF" for char in text):
            return bytes.fromhex(text)
        return base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        raise Fault(400, "bad_hash", f"{where}: value is neither hex nor base64.") from None
