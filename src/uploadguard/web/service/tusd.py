"""tusd's HTTP hooks: the finished upload is a file on this machine, and is checked before tusd says that it is done.

Only ``pre-finish`` can hold an upload back. Uploads in parts (the concatenation extension) never pass it as a whole, so
``pre-create`` refuses them; both hooks must be enabled in tusd.
"""

from __future__ import annotations

import enum
import json
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

from uploadguard.models import Context, Decision
from uploadguard.web.answers import Answers
from uploadguard.web.service.faults import Fault

__all__ = ["PARTIAL_REFUSED", "Hook", "Kind", "Refusal", "answer", "open_upload", "parse_hook"]

_MAX_TEXT = 1024

PARTIAL_REFUSED: Final = {
    "RejectUpload": True,
    "HTTPResponse": {
        "StatusCode": 400,
        "Body": json.dumps({"detail": "Uploads in parts are not taken."}),
        "Header": {"Content-Type": "application/json"},
    },
}


class Kind(enum.Enum):
    """What is to be done for a hook."""

    CHECK = enum.auto()
    REFUSE = enum.auto()
    IGNORE = enum.auto()


class Refusal(enum.Enum):
    """How tusd is told of an upload that may not go on.

    ``fail``: the hook fails, so that tusd answers the client with an error and calls no ``post-finish``. ``respond``:
    the client gets the status and the body; ``post-finish`` is called as ever, and must not publish.
    """

    FAIL = "fail"
    RESPOND = "respond"

    @classmethod
    def of(cls, query: list[tuple[str, str]]) -> Refusal:
        """What the query says. Raises :class:`Fault`."""
        match query:
            case []:
                return cls.FAIL
            case [("refuse", ("fail" | "respond") as value)]:
                return cls(value)
        raise Fault(400, "bad_option", "The query's one option is refuse, fail or respond.")


@dataclass(frozen=True, slots=True)
class Hook:
    """A hook that tusd calls. ``path`` is where it says that the upload is."""

    kind: Kind
    path: str = ""
    context: Context | None = None


def parse_hook(body: bytes) -> Hook:
    """Raises :class:`Fault` for what is no hook of tusd 2 with uploads in files."""
    try:
        found = json.loads(body)
        kind, event = found["Type"], found["Event"]
        upload, request = event["Upload"], event.get("HTTPRequest") or {}
        partial = bool(upload.get("IsPartial") or upload.get("IsFinal"))
        if kind == "pre-create":
            return Hook(Kind.REFUSE if partial else Kind.IGNORE)
        if kind != "pre-finish":
            return Hook(Kind.IGNORE)
        if partial:
            raise Fault(422, "partial_upload", "A part of an upload cannot be checked.")
        storage = upload["Storage"]
        if storage.get("Type") != "filestore":
            raise Fault(400, "bad_hook", "Only uploads that tusd stores in files can be checked.")
        path, names = storage["Path"], upload.get("MetaData") or {}
        context = Context(
            filename=_text(names.get("filename")),
            object_id=_text(upload.get("ID")),
            **_peer(_text(request.get("RemoteAddr"))),
        )
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise Fault(400, "bad_hook", "The body is not a hook as tusd 2 sends it.") from None
    if not isinstance(path, str) or not path:
        raise Fault(400, "bad_hook", "The hook does not say where the upload is.")
    return Hook(Kind.CHECK, path, context)


def open_upload(directory: Path | None, path: str) -> BinaryIO:
    """Open the upload, if it is a file below the directory. Raises :class:`Fault`, whose message has no path."""
    if directory is None:
        raise Fault(404, "hooks_off", "serve.tusd_dir is not set.")
    try:
        root, found = directory.resolve(strict=True), Path(path).resolve(strict=True)
        if not found.is_relative_to(root):
            raise Fault(403, "outside", "The upload is not below serve.tusd_dir.")
        # Between the look and the opening nothing may take its place.
        descriptor = os.open(found, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        file = os.fdopen(descriptor, "rb", buffering=0)
    except (OSError, ValueError, RuntimeError):  # the last one for links in a circle, until Python 3.13
        raise Fault(422, "unreadable", "The upload cannot be read.") from None
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise Fault(422, "unreadable", "The upload is not a regular file.")
    return file


def answer(decision: Decision, answers: Answers, refusal: Refusal) -> tuple[int, dict[str, Any]]:
    """The hook's status and answer."""
    found = answers.of(decision)
    if found is None:
        return 200, {}
    response = {
        "StatusCode": found.status,
        "Body": found.body.decode(),
        "Header": {"Content-Type": found.media_type, **found.headers},
    }
    return (200 if refusal is Refusal.RESPOND else 422), {"HTTPResponse": response}


def _text(value: Any) -> str | None:
    return value[:_MAX_TEXT] if isinstance(value, str) and value else None


def _peer(address: str | None) -> dict[str, Any]:
    host, _, port = (address or "").rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        return {}
    return {"ip": host.strip("[]"), "port": int(port)}
