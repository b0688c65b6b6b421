"""The calls of the CyberTipline's API, and what its answers mean for a task.

Whatever affects all reports (the service is down, the password is wrong) postpones, so that nothing is lost and all
mends itself with its cause. Only what is wrong with this very report refuses it.
"""

from __future__ import annotations

import enum
import re

from uploadguard.destinations.http import Answer, HttpClient, error_of, retry_after_s
from uploadguard.destinations.options import Secret
from uploadguard.errors import ActionError, PostponedError, RefusedError
from uploadguard_ncmec.answers import ApiAnswer, UnreadableError, read_answer
from uploadguard_ncmec.schema import NAMES

__all__ = ["Code", "CyberTipline", "NothingDoneError", "error_of_code"]

_XML = {"Content-Type": "text/xml; charset=utf-8"}
_MISPLACED = frozenset({404, 405, 407, 410})
_LONGEST_WAIT_S = 3600.0
_MEDIA_TYPE = re.compile(r"[a-z]+/[a-z0-9][a-z0-9.+-]{0,99}")


class Code(enum.IntEnum):
    """The answers that the order of steps depends on."""

    SUCCESS = 0
    NO_REPORT = 5001
    NO_FILE = 5002
    RETRACTED = 5101
    FINISHED = 5102


_STATES = frozenset(Code)


class NothingDoneError(PostponedError):
    """Postponed, and the other side certainly did nothing."""


class CyberTipline:
    """The API at one address. Thread-safe.

    Each call returns an answer whose code is one of :class:`Code`, and raises
    :class:`~uploadguard.errors.PostponedError` or :class:`~uploadguard.errors.RefusedError` for all else. Without an
    answer it is unknown whether the call took effect, unless :class:`NothingDoneError` says so.
    """

    def __init__(self, http: HttpClient, url: str, username: str, password: Secret) -> None:
        self._http = http
        self._url = url
        self._username = username
        self._password = password

    def __repr__(self) -> str:
        return "CyberTipline(<redacted>)"

    def submit(self, document: bytes) -> ApiAnswer:
        """Open a report; the answer has its id."""
        return self._call("/submit", content=document)

    def upload(self, report_id: str, name: str, data: bytes, media_type: str | None) -> ApiAnswer:
        """Add a file; the answer has its id, and the MD5 of what arrived."""
        kind = media_type if media_type and _MEDIA_TYPE.fullmatch(media_type) else "application/octet-stream"
        answer = self._http.send(
            "POST",
            f"{self._url}/upload",
            basic=self._basic(),
            data={"id": report_id},
            files={"file": (name, data, kind)},
        )
        return _read(answer, report_id)

    def describe(self, document: bytes) -> ApiAnswer:
        """Tell about a file."""
        return self._call("/fileinfo", content=document)

    def finish(self, report_id: str) -> ApiAnswer:
        """File the report: this cannot be undone."""
        return self._call("/finish", report_id=report_id)

    def retract(self, report_id: str) -> ApiAnswer:
        """Take back a report that is not finished."""
        return self._call("/retract", report_id=report_id)

    def _basic(self) -> tuple[str, str]:
        return self._username, self._password.text()

    def _call(self, path: str, *, content: bytes | None = None, report_id: str | None = None) -> ApiAnswer:
        answer = self._http.send(
            "POST",
            self._url + path,
            basic=self._basic(),
            content=content,
            headers=_XML if content is not None else None,
            data={"id": report_id} if report_id is not None else None,
        )
        return _read(answer, report_id)


def _read(answer: Answer, report_id: str | None) -> ApiAnswer:
    status = answer.status
    if status in (401, 403):
        raise NothingDoneError(f"it does not accept the user name and password ({status})", outage=True)
    succeeded = 200 <= status < 300
    try:
        found = read_answer(answer.body) if answer.complete else None
    except UnreadableError as error:
        if succeeded:
            raise PostponedError(f"its answer cannot be read: {error}") from None
        found = None
    if found is None or (not succeeded and found.code == Code.SUCCESS):
        raise _status_error(answer)
    if report_id is not None and found.report_id not in (None, report_id):
        raise PostponedError("its answer is about another report")
    if found.code in _STATES:
        return found
    raise error_of_code(found, answer)


def _status_error(answer: Answer) -> ActionError:
    """What it means that there is no answer but the status."""
    status = answer.status
    after_s = retry_after_s(answer.headers)
    if after_s is not None:
        after_s = min(after_s, _LONGEST_WAIT_S)
    if status == 429:
        return NothingDoneError("it asks for fewer requests (429)", after_s=after_s, outage=True)
    if status >= 500:
        return PostponedError(f"it answered {status}", after_s=after_s, outage=True)
    if 300 <= status < 400 or status in _MISPLACED:
        return PostponedError(f"there is no CyberTipline at this address (it answered {status})", outage=True)
    error = error_of(answer)
    return error if error is not None else PostponedError("its answer broke off, or was too long")


def error_of_code(found: ApiAnswer, answer: Answer) -> ActionError:
    """What a code means that is none of :class:`Code`."""
    code = found.code
    number = answer.headers.get("request-id", "")
    where = f", Request-ID {number}" if re.fullmatch(r"[\w-]{1,64}", number) else ""
    if 4000 <= code < 5000:
        # Its description may quote the report, so only the elements that it names are repeated.
        named = sorted(NAMES.intersection(re.findall(r"[A-Za-z]+", found.description)))
        about = f"; it names {', '.join(named)}" if named else ""
        return RefusedError(f"it refuses the report (code {code}{where}){about}")
    if 2000 <= code < 4000:
        text = "it does not accept the user name and password" if code < 3000 else "the account may not do this"
        return NothingDoneError(f"{text} (code {code}{where})", outage=True)
    return PostponedError(f"it failed (code {code}{where})", outage=code == 1000)
