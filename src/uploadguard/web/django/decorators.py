"""Checks for single views, in place of the middleware or under it."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, overload

from asgiref.sync import iscoroutinefunction, sync_to_async

from uploadguard.web.answers import Answer
from uploadguard.web.django.uploads import RequestUploads, respond, uploads_of

__all__ = ["check_uploads", "uploads_exempt"]

View = TypeVar("View", bound=Callable[..., Any])


@overload
def check_uploads(view: View) -> View: ...
@overload
def check_uploads(*, raw: bool = False) -> Callable[[View], View]: ...
def check_uploads(view: Any = None, *, raw: bool = False) -> Any:
    """Check the files of a view's requests before the view; what is refused is answered in its place.

    The view finds the decisions in ``request.uploadguard.decisions`` and as ``request.FILES["picture"].uploadguard``.
    With ``raw`` a body that is no form is one upload, whatever the method: ``request.uploadguard.body`` is its file.
    For asynchronous views too: their forms are parsed and checked on a thread. A view that is a class is decorated as
    ``check_uploads(PictureView.as_view())``.
    """

    def decorate(view: Any) -> Any:
        def take(request: Any) -> tuple[RequestUploads, Answer | None]:
            uploads = uploads_of(request)
            return uploads, uploads.settle(request, raw=raw)

        if iscoroutinefunction(view):

            @wraps(view)
            async def answer(request: Any, *args: Any, **kwargs: Any) -> Any:
                uploads, answer = await sync_to_async(take, thread_sensitive=False)(request)
                try:
                    if answer is not None:
                        return respond(answer)
                    return _late(uploads, await view(request, *args, **kwargs))
                finally:
                    uploads.close()
        else:

            @wraps(view)
            def answer(request: Any, *args: Any, **kwargs: Any) -> Any:
                uploads, answer = take(request)
                try:
                    if answer is not None:
                        return respond(answer)
                    return _late(uploads, view(request, *args, **kwargs))
                finally:
                    uploads.close()

        return answer

    return decorate if view is None else decorate(view)


def _late(uploads: RequestUploads, response: Any) -> Any:
    """The view's response, unless something was refused while it ran."""
    return respond(uploads.early) if uploads.early is not None else response


def uploads_exempt(view: View) -> View:
    """Let the middleware leave a view alone: it takes no uploads in, or checks them by ``check_uploads`` itself."""
    if iscoroutinefunction(view):

        @wraps(view)
        async def answer(*args: Any, **kwargs: Any) -> Any:
            return await view(*args, **kwargs)
    else:

        @wraps(view)
        def answer(*args: Any, **kwargs: Any) -> Any:
            return view(*args, **kwargs)

    answer.uploads_exempt = True  # type: ignore[attr-defined]
    return answer  # type: ignore[return-value]
