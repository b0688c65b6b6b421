"""FastAPI: a dependency that gives an endpoint its uploads with their decisions. (extra: fastapi)

::

    guard = Guard.open()
    app = FastAPI()
    app.router.route_class = CheckedRoute

    @app.post("/pictures")
    async def add(picture: Annotated[CheckedUpload, Depends(upload_check(guard, "picture"))]) -> dict[str, str]:
        await store(picture.file)                     # an UploadFile, at its beginning
        return {"reference": picture.decision.reference}

:class:`CheckedRoute` has forms read here, digested as they arrive and within the limits from the first byte. Without it
FastAPI reads them, and the dependency checks what is there.
"""

from __future__ import annotations

import inspect
import io
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Literal, cast, overload

from uploadguard.errors import ConfigError
from uploadguard.models import Decision
from uploadguard.web.answers import Answer, Shape
from uploadguard.web.arriving import CheckedFile, Hold, Queue, Refused, admit, conclude, decide, is_encoded
from uploadguard.web.checking import GuardSource, RequestCheck, RequestContext
from uploadguard.web.multipart import ReceivedForm, is_form
from uploadguard.web.starlette import peer_context, receive_request, response_of

try:
    from fastapi import File, HTTPException, UploadFile
    from fastapi.dependencies.models import Dependant
    from fastapi.routing import APIRoute
    from starlette.datastructures import FormData, Headers
    from starlette.datastructures import UploadFile as StarletteUploadFile
    from starlette.requests import Request
    from starlette.responses import Response
except ModuleNotFoundError as error:
    raise ConfigError("FastAPI is not installed: install uploadguard[fastapi]") from error

__all__ = ["CheckedRoute", "CheckedUpload", "UploadAnswered", "upload_check"]

_CHECKED = "uploadguard.checked"
"""Where in a request's scope the uploads stand that were checked, by their UploadFile."""


@dataclass(frozen=True, slots=True, eq=False)
class CheckedUpload:
    """An upload that may go on, and why. ``file`` is at its beginning; FastAPI closes it after the response.

    With ``queue="pass"`` the decision may be a queued one: such a file must be kept unserved.
    """

    decision: Decision
    file: UploadFile

    @property
    def filename(self) -> str | None:
        """What the client says; nothing to rely on."""
        return self.file.filename


class UploadAnswered(HTTPException):
    """The request is answered in its endpoint's place. ``answer`` is what is sent, unless the host handles this."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status, _phrase(answer.status), dict(answer.headers))
        self.answer = answer


@overload
def upload_check(
    guard: GuardSource[Request],
    field: str = "file",
    *,
    multiple: Literal[False] = False,
    required: Literal[True] = True,
    description: str | None = None,
    hold: Hold | None = None,
    queue: Queue = "answer",
    context: RequestContext[Request] | None = None,
    shape: Shape | None = None,
    body_timeout_s: float | None = 600.0,
) -> Callable[..., Awaitable[CheckedUpload]]: ...
@overload
def upload_check(
    guard: GuardSource[Request],
    field: str = "file",
    *,
    multiple: Literal[False] = False,
    required: Literal[False],
    description: str | None = None,
    hold: Hold | None = None,
    queue: Queue = "answer",
    context: RequestContext[Request] | None = None,
    shape: Shape | None = None,
    body_timeout_s: float | None = 600.0,
) -> Callable[..., Awaitable[CheckedUpload | None]]: ...
@overload
def upload_check(
    guard: GuardSource[Request],
    field: str = "file",
    *,
    multiple: Literal[True],
    required: bool = True,
    description: str | None = None,
    hold: Hold | None = None,
    queue: Queue = "answer",
    context: RequestContext[Request] | None = None,
    shape: Shape | None = None,
    body_timeout_s: float | None = 600.0,
) -> Callable[..., Awaitable[list[CheckedUpload]]]: ...
def upload_check(
    guard: GuardSource[Request],
    field: str = "file",
    *,
    multiple: bool = False,
    required: bool = True,
    description: str | None = None,
    hold: Hold | None = None,
    queue: Queue = "answer",
    context: RequestContext[Request] | None = None,
    shape: Shape | None = None,
    body_timeout_s: float | None = 600.0,
) -> Callable[..., Awaitable[Any]]:
    """A dependency that gives the upload of one form field: a :class:`CheckedUpload`; with ``multiple`` a list of them.

    Where the field is not ``required``, None, or an empty list, is given for one left empty. All files of the request
    are checked, whatever their fields; where one may not go on, the request is answered in the endpoint's place
    (:class:`UploadAnswered`).

    ``guard`` is a Guard, or a function that gets the request and gives one. ``hold`` gets the decision and the file of
    each queued upload before it is answered; with ``queue="pass"`` the endpoint gets it instead, and must look at the
    decision. ``context`` gets the request and the file's name; ``shape`` makes the answers the host's own.
    ``body_timeout_s`` is for a whole body, with :class:`CheckedRoute`. Where an endpoint has several such dependencies,
    what they say of the answers should be the same: the first is asked.
    """
    check = RequestCheck(
        guard,
        peer_context,
        context=context,
        hold=hold,
        queue=queue,
        shape=shape,
        body_timeout_s=body_timeout_s,
    )
    return _Dependency(check, field, multiple=multiple, required=required, description=description)


class _Dependency:
    """What FastAPI calls, with the file or files that it found; its signature is what it shows in OpenAPI."""

    def __init__(
        self, check: RequestCheck[Request], field: str, *, multiple: bool, required: bool, description: str | None
    ) -> None:
        self.check = check
        self._multiple = multiple
        one: Any = list[UploadFile] if multiple else UploadFile
        default: Any = ... if required else None
        marker = File(default, alias=field, description=description)
        kind = inspect.Parameter.KEYWORD_ONLY
        self.__signature__ = inspect.Signature(
            [
                inspect.Parameter("request", kind, annotation=Request),
                inspect.Parameter("found", kind, annotation=one if required else one | None, default=marker),
            ]
        )

    async def __call__(self, request: Request, found: Any) -> CheckedUpload | list[CheckedUpload] | None:
        with _answering(request):
            checked = request.scope.get(_CHECKED)
            if checked is None:
                checked = request.scope[_CHECKED] = await _check_parsed(self.check, request)
        if self._multiple:
            return [checked[file] for file in found or ()]
        return checked[found] if found is not None else None


class CheckedRoute(APIRoute):
    """A route whose uploads are checked as they arrive, where its endpoint depends on :func:`upload_check`.

    For a whole application: ``app.router.route_class = CheckedRoute``; for one router: ``APIRouter(route_class=...)``.
    Other endpoints are as they would be.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The route's handler, for requests that read their own forms."""
        handler = super().get_route_handler()
        dependency = _find_check(self.dependant)
        if dependency is None:
            return handler

        async def checked(request: Request) -> Response:
            if dependency in getattr(request.app, "dependency_overrides", ()):
                return await handler(request)
            return await handler(_CheckedRequest(request, dependency.check))

        return checked


class _CheckedRequest(Request):
    """A request that checks its form's files while it reads it."""

    def __init__(self, request: Request, check: RequestCheck[Request]) -> None:
        super().__init__(request.scope, request.receive)
        self._check = check
        self._received: FormData | None = None

    async def form(self, **limits: Any) -> FormData:  # type: ignore[override]
        """The form. Raises :class:`UploadAnswered`."""
        if self._received is None:
            if not is_form(self.headers.get("content-type")):
                return await super().form(**limits)
            with _answering(self):
                received = await receive_request(self._check, self)
            self._received = _form_data(received, self)
        return self._received


def _form_data(received: ReceivedForm, request: Request) -> FormData:
    """The form as Starlette's own reader gives it. Closing it removes the temporary files."""
    items: list[tuple[str, str | StarletteUploadFile]] = []
    checked: dict[StarletteUploadFile, CheckedUpload] = {}
    for part in received.parts:
        if part.filename is None:
            items.append((part.name, part.text))
            continue
        file = part.checked.file if part.checked is not None else io.BytesIO()
        size_bytes = part.checked.size_bytes if part.checked is not None else 0
        headers = Headers(raw=list(part.headers.items()))
        upload = UploadFile(file, size=size_bytes, filename=part.filename, headers=headers)
        items.append((part.name, upload))
        if part.checked is not None:
            checked[upload] = CheckedUpload(part.checked.decision, upload)
    request.scope[_CHECKED] = checked
    return FormData(items)


async def _check_parsed(check: RequestCheck[Request], request: Request) -> dict[StarletteUploadFile, CheckedUpload]:
    """Check the files of a form that FastAPI has read. Raises :class:`Refused`."""
    guard = check.guard_of(request)
    answers, limits = check.answers(guard), check.limits(guard)
    form = await request.form()
    uploads = [(name, value) for name, value in form.multi_items() if isinstance(value, StarletteUploadFile)]
    uploads = [(name, upload) for name, upload in uploads if upload.filename or upload.size]
    if len(uploads) > limits.max_files or sum(upload.size or 0 for _, upload in uploads) > limits.max_body_bytes:
        raise Refused(answers.too_large())
    if any(is_encoded(upload.headers.get("content-transfer-encoding")) for _, upload in uploads):
        raise Refused(answers.broken())
    files = []
    with admit(guard, answers, limits, request.headers.get("content-length")):
        for name, upload in uploads:
            context = check.context_of(request, upload.filename)
            decision = await decide(guard.acheck(upload.file, context=context), answers)
            files.append(
                CheckedFile(decision, upload.file, upload.filename, upload.content_type, name, upload.size or 0)
            )
    answer = await conclude(files, answers, check.hold, check.queue)
    if answer is not None:
        raise Refused(answer)
    return {
        upload: CheckedUpload(file.decision, cast(UploadFile, upload))
        for (_, upload), file in zip(uploads, files, strict=True)
    }


@contextmanager
def _answering(request: Request) -> Iterator[None]:
    """Turn a refusal into the exception that FastAPI answers, and see to it that it answers with our body.

    Without a handler of its own the exception would be answered with the status and its phrase alone.
    """
    try:
        yield
    except Refused as refused:
        handlers, _ = request.scope.get("starlette.exception_handlers", ({}, {}))
        handlers.setdefault(UploadAnswered, _handle_answered)
        raise UploadAnswered(refused.answer) from None


async def _handle_answered(_request: Request, answered: UploadAnswered) -> Response:
    return response_of(answered.answer)


def _find_check(dependant: Dependant) -> _Dependency | None:
    if isinstance(dependant.call, _Dependency):
        return dependant.call
    return next((found for child in dependant.dependencies if (found := _find_check(child)) is not None), None)


def _phrase(status: int) -> str | None:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return None
