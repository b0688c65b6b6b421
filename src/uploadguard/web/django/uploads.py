"""The uploads of one request: what handler, middleware and decorator tell each other, as ``request.uploadguard``."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.files.uploadedfile import TemporaryUploadedFile, UploadedFile
from django.http import HttpResponse
from django.http.multipartparser import MultiPartParserError
from django.http.request import UnreadablePostError

from uploadguard.errors import NotReadyError, NotRecordedError, UploadguardError, UploadRefused
from uploadguard.models import Decision
from uploadguard.streaming import StreamingCheck
from uploadguard.web.answers import Answer
from uploadguard.web.arriving import Refused
from uploadguard.web.django.files import check_file, decision_of, keep_decision
from uploadguard.web.django.host import context_of, get_intake
from uploadguard.web.intake import DIGESTED_AS_IT_ARRIVES_BYTES, SAFE_METHODS, Checked, brings_a_body

__all__ = [
    "RequestUploads",
    "answer_late",
    "answer_to",
    "answers_late",
    "has_form_upload",
    "is_exempt",
    "respond",
    "uploads_of",
]

_ATTRIBUTE = "uploadguard"
_LATE = "_uploadguard_late"
_CHUNK_BYTES = 64 * 1024


class RequestUploads:
    """The uploads of one request. Made before its body is read, and known as ``request.uploadguard`` from then on.

    ``early`` is the answer where the body was not read to its end, or a file could not be checked: no decision is to
    be told then. ``body`` is the upload of a request whose body is the file itself. For one thread at a time.
    """

    def __init__(self) -> None:
        self.intake = get_intake()
        self.early: Answer | None = None
        self.checked: tuple[Checked[UploadedFile], ...] = ()
        self.body: UploadedFile | None = None
        self.settled = False
        self._begun = False
        self._admitted = ExitStack()  # left, at the latest, when the request is forgotten

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """The decisions of the request's files, in the order in which Django lists them."""
        return tuple(one.decision for one in self.checked)

    def begin(self, request: Any) -> bool:
        """Whether the body is to be read at all. From here to :meth:`leave` the request counts as under way."""
        if not self._begun:
            self._begun = True
            self._leave_with(request)
            try:
                meta = request.META
                place = self.intake.admit(meta.get("CONTENT_LENGTH"), meta.get("HTTP_CONTENT_ENCODING"))
                self._admitted.enter_context(place)
            except Refused as refused:
                self.early = refused.answer
        return self.early is None

    def leave(self) -> None:
        """The body is read, or will not be."""
        self._admitted.close()

    def _leave_with(self, request: Any) -> None:
        """A parser that fails tells no handler of it; but Django closes each request that it made."""
        close = request.close

        def leave_and_close() -> None:
            self.leave()
            close()

        request.close = leave_and_close

    def fail(self, error: UploadguardError) -> None:
        """A file could not be checked."""
        self.early = self.early or self.intake.answers.of_error(error)

    def fail_too_large(self) -> None:
        """There are too many files or bytes."""
        self.early = self.early or self.intake.answers.too_large()

    def fail_broken(self) -> None:
        """The body ended early, or is no form."""
        self.early = self.early or self.intake.answers.broken()

    def refuse(self, field: str, file: UploadedFile, decision: Decision) -> bool:
        """Settle one file at once, of a form that nobody takes in before the view. Whether it is refused."""
        answer = self.intake.settle([Checked(field, file, decision)])
        self.early = self.early or answer
        file.seek(0)
        return answer is not None

    def settle(self, request: Any, *, raw: bool = False) -> Answer | None:
        """Take the request's body in, if nobody did; the answer in the view's place, None where the view goes on.

        Once for each request: after that it is None. With ``raw`` a body that is no form is the upload itself. Raises
        what Django does for a form of too many fields, and the like.
        """
        if self.settled:
            return None
        self.settled = True
        take = self._take_form if has_form_upload(request) else self._take_body
        if take == self._take_body and not (raw and _may_bring_a_body(request)):
            answer_late(request)
            return None
        try:
            if self.begin(request):
                take(request)
        except (MultiPartParserError, UnreadablePostError):
            self.fail_broken()
        except UploadguardError as error:
            self.fail(error)
        finally:
            self.leave()
        return self.early or self.intake.settle(self.checked)

    def close(self) -> None:
        """Let go of a raw body's temporary file; those of a form are closed by Django."""
        if self.body is not None:
            self.body.close()

    def _take_form(self, request: Any) -> None:
        files = [(field, file) for field, found in request.FILES.lists() for file in found]
        if len(files) > self.intake.limits.max_files:
            self.fail_too_large()
        if self.early is not None:  # by the handler, while Django parsed
            return
        checked = []
        for field, file in files:
            decision = decision_of(file) or check_file(file, context_of(request, file.name))
            file.seek(0)
            checked.append(Checked(field, file, decision))
        self.checked = tuple(checked)

    def _take_body(self, request: Any) -> None:
        context = context_of(request, None)
        check: StreamingCheck | None = self.intake.guard.inspect(context)
        file = self.body = TemporaryUploadedFile("upload", request.content_type, 0, None)
        while chunk := request.read(_CHUNK_BYTES):
            file.size += len(chunk)
            if file.size > self.intake.limits.max_body_bytes:
                self.fail_too_large()
                return
            file.write(chunk)
            if file.size > DIGESTED_AS_IT_ARRIVES_BYTES:
                check = None
            elif check is not None:
                check.write(chunk)
        if not file.size and request.method in SAFE_METHODS:
            return
        expected_bytes = str(request.META.get("CONTENT_LENGTH") or "")
        if expected_bytes.isdecimal() and int(expected_bytes) != file.size:
            self.fail_broken()
            return
        if check is not None:
            keep_decision(file, check.finish())
        file.seek(0)
        self.checked = (Checked("", file, decision_of(file) or check_file(file, context)),)


def _may_bring_a_body(request: Any) -> bool:
    # With HTTP/2 a body may come that is not announced.
    version = str(getattr(request, "scope", {}).get("http_version", "1.1"))
    return brings_a_body(request.META) or not version.startswith("1")


def uploads_of(request: Any) -> RequestUploads:
    """Those of this request; made now, if they were not."""
    found: RequestUploads | None = getattr(request, _ATTRIBUTE, None)
    if found is None:
        found = RequestUploads()
        setattr(request, _ATTRIBUTE, found)
    return found


def has_form_upload(request: Any) -> bool:
    """Whether Django has parsed files from this request, which may have had another method then, or would."""
    parsed = bool(getattr(request, "_files", None))
    return parsed or bool(request.method == "POST" and request.content_type == "multipart/form-data")


def answer_late(request: Any) -> None:
    """Nothing is taken in before this request's view. Should the view parse a form itself, as for methods other than
    POST, the handler refuses file by file, and what it refused is answered when the view is done."""
    setattr(request, _LATE, True)


def answers_late(request: Any) -> bool:
    """Whether that was said."""
    return getattr(request, _LATE, False)


def answer_to(error: Exception) -> Answer | None:
    """The answer for what a storage or a check of the view's own raised; None for errors of another kind."""
    try:
        answers = get_intake().answers
    except ImproperlyConfigured:
        return None
    if isinstance(error, UploadRefused):
        return answers.of(error.decision)
    if isinstance(error, NotReadyError | NotRecordedError):
        return answers.of_error(error)
    return None


def respond(answer: Answer) -> HttpResponse:
    """The answer as Django sends it."""
    return HttpResponse(answer.body, status=answer.status, content_type=answer.media_type, headers=answer.headers)


def is_exempt(request: Any) -> bool:
    """Whether the view that the request goes to is marked by ``uploads_exempt``, and asked for no check itself."""
    match = getattr(request, "resolver_match", None)
    exempt = match is not None and getattr(match.func, "uploads_exempt", False)
    return exempt and not hasattr(request, _ATTRIBUTE)
