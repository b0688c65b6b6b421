"""The adapter for Flask: an extension that holds the Guard, and a decorator that checks a view's uploads before it.

::

    uploads = Uploadguard(app)

    @app.post("/pictures")
    @uploads.check_uploads
    def add_picture():
        request.files["picture"].save(...)
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from functools import wraps
from typing import IO, Any, BinaryIO, TypeVar, cast, overload

from uploadguard.config import Settings
from uploadguard.errors import ConfigError, NotReadyError, NotRecordedError, UploadguardError, UploadRefused
from uploadguard.guard import Guard
from uploadguard.models import Context, Decision
from uploadguard.streaming import StreamingCheck
from uploadguard.web.answers import Answer, Shape
from uploadguard.web.arriving import Queue, Refused, is_encoded
from uploadguard.web.intake import DIGESTED_AS_IT_ARRIVES_BYTES, Checked, Hold, Intake, brings_a_body
from uploadguard.web.opened import OpenedOnce

try:
    import flask
    from werkzeug.datastructures import FileStorage
    from werkzeug.exceptions import ClientDisconnected, RequestEntityTooLarge
    from werkzeug.formparser import FormDataParser
except ImportError as error:
    raise ConfigError("Flask is not installed: install uploadguard[flask]") from error

__all__ = ["CheckedUploads", "Uploadguard"]

View = TypeVar("View", bound=Callable[..., Any])
MakeContext = Callable[[flask.Request, str | None], Context]

_CHUNK_BYTES = 64 * 1024
_MEMORY_BYTES = 512 * 1024
_NAME = "uploadguard"


class CheckedUploads:
    """The checked uploads of one request, as ``g.uploadguard``.

    ``checked`` has each file with its form field and its decision, in the order in which they came. ``body`` is the
    upload of a request whose body is the file itself, at its beginning.
    """

    def __init__(self, checked: Sequence[Checked[FileStorage]], body: FileStorage | None = None) -> None:
        self.checked = tuple(checked)
        self.body = body

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """All decisions of the request."""
        return tuple(one.decision for one in self.checked)

    def __getitem__(self, field: str) -> Decision:
        """The decision on a field's file, of several the first, as ``request.files[field]`` is. Raises ``KeyError``."""
        for one in self.checked:
            if one.field == field:
                return one.decision
        raise KeyError(field)


class Uploadguard:
    """The extension. One for each application, or one for several by :meth:`init_app`.

    The Guard is ``guard``, or is opened from the application's configuration when the first upload comes: from the file
    ``UPLOADGUARD_CONFIG`` (else the environment's), with ``UPLOADGUARD_OVERRIDES``, a mapping of settings. It survives
    a fork, and is closed at exit.

    ``hold`` keeps queued uploads; it gets the decision and werkzeug's ``FileStorage``. ``queue="pass"`` lets the view
    run with them. ``context`` makes a Context of the request and a file's name. ``shape`` words the answers.
    """

    def __init__(
        self,
        app: flask.Flask | None = None,
        *,
        guard: Guard | None = None,
        hold: Hold | None = None,
        queue: Queue = "answer",
        context: MakeContext | None = None,
        shape: Shape | None = None,
    ) -> None:
        self._guard = guard
        self._hold = hold
        self._queue: Queue = queue
        self._shape = shape
        self._context = context or _default_context
        if app is not None:
            self.init_app(app)

    def init_app(self, app: flask.Flask) -> None:
        """Register with an application. Its request class becomes one that digests files while it parses forms."""
        app.config.setdefault("UPLOADGUARD_CONFIG", None)
        app.config.setdefault("UPLOADGUARD_OVERRIDES", {})
        app.extensions[_NAME] = OpenedOnce(lambda: self._open(app), self._close)
        app.request_class = type("Request", (_DigestingRequest, app.request_class), {})
        for error in (UploadRefused, NotReadyError, NotRecordedError):
            app.register_error_handler(error, self._answer_error)

    @property
    def intake(self) -> Intake:
        """The current application's Guard, with what was said of the answers.

        Raises :class:`~uploadguard.errors.UploadguardError` where it cannot be opened.
        """
        opened: OpenedOnce[Intake] | None = flask.current_app.extensions.get(_NAME)
        if opened is None:
            raise ConfigError("this application has no uploadguard yet: call init_app")
        return opened.get()

    @property
    def guard(self) -> Guard:
        """The current application's Guard, opened if it was not yet."""
        return self.intake.guard

    def close(self, app: flask.Flask) -> None:
        """Close the application's Guard, if this opened it; the next upload opens another one. At exit this is done."""
        app.extensions[_NAME].close()

    @overload
    def check_uploads(self, view: View) -> View: ...
    @overload
    def check_uploads(self, *, raw: bool = False) -> Callable[[View], View]: ...
    def check_uploads(self, view: Any = None, *, raw: bool = False) -> Any:
        """Check all files of a view's requests before the view; what is refused is answered in its place.

        The view finds the files in ``request.files``, at their beginning, and the decisions in ``g.uploadguard``. With
        ``raw`` a body that is no form is one upload: ``g.uploadguard.body``. Goes below the route's decorator. For
        asynchronous views too.
        """

        def decorate(view: Any) -> Any:
            @wraps(view)
            def answer(*args: Any, **kwargs: Any) -> Any:
                refusal = self._take(raw=raw)
                try:
                    if refusal is not None:
                        return _respond(refusal)
                    return flask.current_app.ensure_sync(view)(*args, **kwargs)
                finally:
                    body = flask.g.uploadguard.body
                    if body is not None:
                        body.close()

            return answer

        return decorate if view is None else decorate(view)

    def _open(self, app: flask.Flask) -> Intake:
        guard = self._guard
        if guard is None:
            guard = Guard(Settings.load(app.config["UPLOADGUARD_CONFIG"], **app.config["UPLOADGUARD_OVERRIDES"]))
        return Intake(guard, hold=self._hold, queue=self._queue, shape=self._shape)

    def _close(self, intake: Intake) -> None:
        if self._guard is None:  # the host's own is the host's to close
            intake.guard.close()

    def _take(self, *, raw: bool) -> Answer | None:
        """Take the request's body in and settle it; sets ``g.uploadguard``."""
        request = flask.request
        is_form = request.mimetype == "multipart/form-data"
        flask.g.uploadguard = CheckedUploads(())
        if not is_form and not (raw and brings_a_body(request.environ)):
            return None
        intake = self.intake
        taking = _Taking(intake, request._get_current_object(), self._context)  # type: ignore[attr-defined]
        try:
            with intake.admit(request.headers.get("Content-Length"), request.headers.get("Content-Encoding")):
                uploads = taking.take(is_form=is_form)
        except Refused as refused:
            return refused.answer
        except RequestEntityTooLarge:
            return intake.answers.too_large()
        except ClientDisconnected:
            return intake.answers.broken()
        except UploadguardError as error:
            return intake.answers.of_error(error)
        flask.g.uploadguard = uploads
        return intake.settle(uploads.checked)

    def _answer_error(self, error: UploadguardError) -> Any:
        """The answer to what a view's own check raised: for ``decision.raise_for_verdict()``."""
        answers = self.intake.answers
        answer = answers.of(error.decision) if isinstance(error, UploadRefused) else answers.of_error(error)
        if answer is None:
            raise error
        return _respond(answer)


class _Arriving:
    """A file while it arrives: digested, and written to where it stays. What werkzeug's parser needs of a file."""

    def __init__(self, intake: Intake, filename: str | None, context: Context) -> None:
        self._intake = intake
        self._context = context
        self._check: StreamingCheck | None = intake.guard.inspect(context)
        self._is_part = filename is not None
        self._filename = filename
        self.file = cast(BinaryIO, tempfile.SpooledTemporaryFile(max_size=_MEMORY_BYTES))  # noqa: SIM115
        self.size_bytes = 0
        self.decision: Decision | None = None

    def write(self, data: bytes) -> int:
        """Take in the next bytes."""
        self.size_bytes += len(data)
        if self.size_bytes > DIGESTED_AS_IT_ARRIVES_BYTES:
            self._check = None
        elif self._check is not None:
            self._check.write(data)
        return self.file.write(data)

    def seek(self, offset: int) -> int:
        """Go to a place in the file."""
        return self.file.seek(offset)

    def close(self) -> None:
        """Let go of it."""
        self._check = None
        self.file.close()

    def decide(self) -> None:
        """All bytes are in. A form's file field that was left empty is not checked."""
        check, self._check = self._check, None
        if self.decision is not None or (self._is_part and not self._filename and not self.size_bytes):
            return
        self.file.seek(0)
        self.decision = (
            check.finish() if check is not None else self._intake.guard.check(self.file, context=self._context)
        )


class _Taking:
    """Takes the body of one request in."""

    def __init__(self, intake: Intake, request: Any, context: MakeContext) -> None:
        self._intake = intake
        self._request = request
        self._context = context
        self._arriving: list[_Arriving] = []
        self._asking = False

    def take(self, *, is_form: bool) -> CheckedUploads:
        """The checked uploads. Raises werkzeug's errors, :class:`Refused` and the library's."""
        request, limit_bytes = self._request, self._intake.limits.max_body_bytes
        if request.max_content_length is None or request.max_content_length > limit_bytes:
            request.max_content_length = limit_bytes
        try:
            return CheckedUploads(self._form()) if is_form else self._body()
        except BaseException:
            for arriving in self._arriving:
                arriving.close()
            raise

    def open(self, filename: str | None) -> _Arriving:
        """The next file; the one before it is whole."""
        self._decide()
        if len(self._arriving) >= self._intake.limits.max_files:
            raise RequestEntityTooLarge
        self._asking = True
        context = self._context(self._request, filename or None)
        self._asking = False
        arriving = _Arriving(self._intake, filename, context)
        self._arriving.append(arriving)
        return arriving

    def _decide(self) -> None:
        if self._arriving:
            self._arriving[-1].decide()

    def _form(self) -> list[Checked[FileStorage]]:
        self._request.taking = self
        try:
            files = list(self._request.files.items(multi=True))
        except ValueError as error:
            if self._asking:  # by the host's own function
                raise
            raise Refused(self._intake.answers.broken()) from error
        finally:
            self._request.taking = None
        self._decide()
        if len(files) > self._intake.limits.max_files:
            raise RequestEntityTooLarge
        if any(is_encoded(file.headers.get("Content-Transfer-Encoding")) for _, file in files):
            raise Refused(self._intake.answers.broken())
        checked = []
        for field, file in files:
            decision = self._decision(file)
            if decision is not None:
                file.seek(0)
                checked.append(Checked(field, file, decision))
        return checked

    def _decision(self, file: FileStorage) -> Decision | None:
        arrived = file.stream
        if isinstance(arrived, _Arriving):
            file.stream = arrived.file
            return arrived.decision
        # Somebody parsed the form before.
        is_empty = not file.stream.read(1)
        file.seek(0)
        if is_empty and not file.filename:
            return None
        return self._intake.guard.check(
            cast(BinaryIO, file.stream), context=self._context(self._request, file.filename or None)
        )

    def _body(self) -> CheckedUploads:
        request = self._request
        arriving = self.open(None)
        stream = request._get_stream_for_parsing()  # what somebody read before and kept, too
        while chunk := stream.read(_CHUNK_BYTES):
            arriving.write(chunk)
        if request.content_length is not None and arriving.size_bytes != request.content_length:
            raise Refused(self._intake.answers.broken())
        arriving.decide()
        arriving.seek(0)
        assert arriving.decision is not None
        body = FileStorage(arriving.file, filename="", content_type=request.content_type)
        return CheckedUploads([Checked("", body, arriving.decision)], body)


class _DigestingRequest(flask.Request):
    """Hands the files of a form that is being checked to the one who checks them, while werkzeug parses it."""

    taking: _Taking | None = None

    def make_form_data_parser(self) -> FormDataParser:
        """A parser that tells of a form that broke off, where it would be taken for an empty one."""
        parser = super().make_form_data_parser()
        parser.silent = parser.silent and self.taking is None
        return parser

    def _get_file_stream(
        self,
        total_content_length: int | None,
        content_type: str | None,
        filename: str | None = None,
        content_length: int | None = None,
    ) -> IO[bytes]:
        if self.taking is None:
            return super()._get_file_stream(total_content_length, content_type, filename, content_length)
        return cast(IO[bytes], self.taking.open(filename or ""))


def _default_context(request: flask.Request, filename: str | None) -> Context:
    port = str(request.environ.get("REMOTE_PORT") or "")
    return Context(filename=filename, ip=request.remote_addr, port=int(port) if port.isdecimal() else None)


def _respond(answer: Answer) -> flask.Response:
    return flask.current_app.response_class(
        answer.body, status=answer.status, headers=dict(answer.headers), mimetype=answer.media_type
    )
