"""The middleware: answers a request with refused uploads in the view's place."""

from __future__ import annotations

from typing import Any

from django.core.files.uploadhandler import StopUpload
from django.utils.deprecation import MiddlewareMixin

from uploadguard.web.django.uploads import (
    RequestUploads,
    answer_late,
    answer_to,
    has_form_upload,
    is_exempt,
    respond,
    uploads_of,
)

__all__ = ["UploadguardMiddleware"]


class UploadguardMiddleware(MiddlewareMixin):
    """Stands last in MIDDLEWARE, at any rate after those for sessions, sign-in and CSRF, and checks all forms' files.

    Takes the form in before the view, so that the view runs only where all files may go on. Under ASGI Django calls it
    on a thread: the event loop goes on meanwhile.
    """

    def process_view(self, request: Any, *_view: Any) -> Any:
        """Settle the request's uploads before the view."""
        if is_exempt(request):
            return None
        if not has_form_upload(request):
            answer_late(request)
            return None
        answer = uploads_of(request).settle(request)
        return respond(answer) if answer is not None else None

    def process_exception(self, request: Any, exception: Exception) -> Any:
        """What a storage, or a check of the view's own, refused; or the handler, to a parser of the view's own."""
        uploads = getattr(request, "uploadguard", None)
        if isinstance(exception, StopUpload) and isinstance(uploads, RequestUploads):
            return respond(uploads.early) if uploads.early is not None else None
        answer = answer_to(exception)
        return respond(answer) if answer is not None else None

    def process_response(self, request: Any, response: Any) -> Any:
        """A body that was not read lacks its CSRF token too: the uploader is told of the former. And what was refused
        while the view parsed the form."""
        uploads = getattr(request, "uploadguard", None)
        if isinstance(uploads, RequestUploads) and not uploads.settled and uploads.early is not None:
            return respond(uploads.early)
        return response
