"""Filing a report in two phases, so that it is neither lost nor doubled, whatever breaks in between.

A report is opened, its id is committed to the journal, the file is uploaded and described, the journal is told that the
last step is about to be taken, and the report is finished. An open report that nobody finishes is deleted there by
itself, so one whose id was never committed does no harm. After a crash the same id is taken up again; a report that
was finished already says so (5102).
"""

from __future__ import annotations

import hashlib
import time
from typing import NoReturn

from uploadguard.actions import Evidence, Journal, Receipt, State, Task
from uploadguard.destinations.http import HttpClient
from uploadguard.destinations.options import Destination, Secret
from uploadguard.errors import PostponedError, RefusedError
from uploadguard_ncmec.answers import ApiAnswer
from uploadguard_ncmec.api import Code, CyberTipline, NothingDoneError
from uploadguard_ncmec.documents import file_document, file_name, report_document
from uploadguard_ncmec.options import NcmecOptions
from uploadguard_ncmec.schema import DocumentError

__all__ = ["NcmecAction"]

_TOTAL_S = 60.0
_MAX_ANSWER_BYTES = 256 * 1024


class NcmecAction(Destination):
    """Files reports with the CyberTipline. ``name`` is that of its table."""

    def __init__(self, name: str, options: NcmecOptions) -> None:
        super().__init__(name, options)
        self._options = options
        http = HttpClient(connect_s=10.0, total_s=_TOTAL_S, max_answer_bytes=_MAX_ANSWER_BYTES)
        password = Secret(options.password_env, options.password_file)
        self._api = CyberTipline(http, options.url, options.username, password)

    def deliver(self, task: Task, journal: Journal) -> Receipt:
        """File the report, or go on filing it; or retract it, where it was taken back."""
        filing = _Filing(self._api, self._options, task, journal)
        return filing.retract() if task.cancelled else filing.file()


class _Done(Exception):
    """The report is finished already."""


class _Filing:
    """One attempt at one task.

    The journal's notes: ``uploading`` while it is unknown whether a file arrived, ``file`` is the id of one that did.
    """

    def __init__(self, api: CyberTipline, options: NcmecOptions, task: Task, journal: Journal) -> None:
        self._api = api
        self._options = options
        self._task = task
        self._journal = journal
        self._until = time.monotonic() + _TOTAL_S

    def file(self) -> Receipt:
        """All that is left to do."""
        report_id = self._task.remote_id
        try:
            if report_id is None:
                evidence = self._evidence()
                report_id = self._open(evidence)
                self._add(report_id, None, evidence)
            elif self._task.state is not State.FINISHING:
                self._go_on(report_id)
            return self._finish(report_id)
        except _Done:
            return Receipt(report_id)
        except DocumentError as error:
            raise RefusedError(f"no valid report can be made of this upload: {error}") from None

    def retract(self) -> Receipt:
        """Take an open report back. A finished one cannot be: then a person must tell NCMEC."""
        report_id = self._task.remote_id
        if report_id is not None and self._api.retract(report_id).code == Code.FINISHED:
            raise RefusedError("the report was finished before it was taken back: tell NCMEC, it cannot be retracted")
        return Receipt(report_id)

    def _evidence(self) -> Evidence | None:
        """The file, if it was preserved. It must be the one that was decided on."""
        evidence = self._journal.evidence()
        if evidence is not None:
            known = [found.value for found in self._task.decision.hashes if found.signal_type == "md5"]
            if known and _md5(evidence).digest() not in known:
                raise RefusedError("the preserved file is not the one that was checked")
        return evidence

    def _open(self, evidence: Evidence | None) -> str:
        document = report_document(self._task, self._options, attached=evidence is not None)
        answer = self._api.submit(document)
        if answer.code != Code.SUCCESS or answer.report_id is None:
            # If it opened one nevertheless, that is deleted there by itself.
            raise PostponedError(f"its answer to a new report makes no sense (code {answer.code})")
        self._journal.opened(answer.report_id)
        return answer.report_id

    def _go_on(self, report_id: str) -> None:
        notes = self._task.notes
        if notes.get("uploading"):
            # Uploading again could leave the report with the file twice.
            self._start_again("it is unknown whether the file arrived", report_id)
        file_id = notes.get("file")
        self._add(report_id, file_id, None if file_id is not None else self._evidence())

    def _add(self, report_id: str, file_id: str | None, evidence: Evidence | None) -> None:
        """Upload the file, unless it is there already, and describe it."""
        name = file_name(self._task, self._task.decision.media.media_type)
        if evidence is not None:
            file_id = self._upload(report_id, name, evidence)
        if file_id is not None:
            self._describe(report_id, file_id, name)

    def _upload(self, report_id: str, name: str, evidence: Evidence) -> str:
        self._check_time()
        self._journal.note(uploading=True)
        try:
            answer = self._api.upload(report_id, name, evidence.data, evidence.media_type)
        except (NothingDoneError, RefusedError):
            self._journal.note(uploading=False)
            raise
        self._check(answer, report_id)
        if len(answer.file_ids) != 1 or answer.md5 != _md5(evidence).hexdigest():
            self._start_again("the file did not arrive as it was sent", report_id)
        self._journal.note(uploading=False, file=answer.file_ids[0])
        return answer.file_ids[0]

    def _describe(self, report_id: str, file_id: str, name: str) -> None:
        self._check_time()
        document = file_document(self._task, self._options, report_id=report_id, file_id=file_id, name=name)
        answer = self._api.describe(document)
        if answer.code == Code.NO_FILE:
            self._start_again("it does not know the file any more", report_id)
        self._check(answer, report_id)

    def _finish(self, report_id: str) -> Receipt:
        self._check_time()
        if self._task.state is not State.FINISHING:
            self._journal.finishing()
        answer = self._api.finish(report_id)
        self._check(answer, report_id)
        return Receipt(report_id, {"files": len(answer.file_ids)})

    def _check(self, answer: ApiAnswer, report_id: str) -> None:
        """Go on after a success; otherwise do what the report's state asks for."""
        match answer.code:
            case Code.SUCCESS:
                return
            case Code.FINISHED:
                raise _Done
            case Code.NO_REPORT | Code.RETRACTED:
                self._start_again(f"it has not got the report any more (code {answer.code})")
            case _:
                self._start_again(f"it has lost a part of the report (code {answer.code})", report_id)

    def _start_again(self, reason: str, report_id: str | None = None) -> NoReturn:
        """Give the report up, retracting that of ``report_id``; the next attempt opens another one."""
        if report_id is not None and self._api.retract(report_id).code == Code.FINISHED:
            raise _Done
        self._journal.reopen()
        raise PostponedError(f"{reason}: a new one will be opened")

    def _check_time(self) -> None:
        if time.monotonic() > self._until:
            raise PostponedError("it is slow: the next attempt goes on from here")


def _md5(evidence: Evidence) -> hashlib._Hash:
    return hashlib.md5(evidence.data, usedforsecurity=False)
