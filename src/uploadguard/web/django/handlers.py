"""The upload handler: digests each file while Django's parser takes it in, and decides when it is complete."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.core.files.uploadhandler import FileUploadHandler, StopUpload
from django.http import QueryDict
from django.utils.datastructures import MultiValueDict

from uploadguard.errors import UploadguardError
from uploadguard.models import Context
from uploadguard.streaming import StreamingCheck
from uploadguard.web.django.files import check_file, decision_of, keep_decision
from uploadguard.web.django.host import context_of
from uploadguard.web.django.uploads import RequestUploads, answers_late, is_exempt, uploads_of
from uploadguard.web.intake import DIGESTED_AS_IT_ARRIVES_BYTES

__all__ = ["UploadguardUploadHandler"]


class UploadguardUploadHandler(FileUploadHandler):
    """Stands first in FILE_UPLOAD_HANDLERS, before those that keep the file: it hands all bytes on to them.

    The file that they make has the decision as its ``uploadguard``. Refuses nothing itself: what it found out is in
    ``request.uploadguard``, for the middleware and for ``check_uploads`` to answer. Where a file could not be checked
    it stops the parser, so that neither this file nor any after it reaches the view.
    """

    def __init__(self, request: Any = None) -> None:
        super().__init__(request)
        self._uploads: RequestUploads | None = None
        self._context = Context()
        self._check: StreamingCheck | None = None
        self._files = 0
        self._form_bytes = 0

    def handle_raw_input(self, *_args: Any, encoding: str | None = None, **_kwargs: Any) -> tuple[Any, Any] | None:
        """Refuse a body that is too large before it is read, else begin."""
        if is_exempt(self.request):
            return None
        self._uploads = uploads_of(self.request)
        if not self._uploads.begin(self.request):
            return QueryDict(encoding=encoding), MultiValueDict()
        handlers = list(self.request.upload_handlers)
        for handler in handlers[handlers.index(self) + 1 :]:
            handler.file_complete = self._checked(handler.file_complete)
        return None

    def new_file(self, *args: Any, **kwargs: Any) -> None:
        """Begin a check. Raises ``StopUpload`` where none can be made, or there are too many files."""
        super().new_file(*args, **kwargs)
        self._check = None
        if self._uploads is None:
            return
        self._files += 1
        if self._files > self._uploads.intake.limits.max_files:
            self._uploads.fail_too_large()
            raise StopUpload(connection_reset=False)
        self._context = context_of(self.request, self.file_name)
        try:
            self._check = self._uploads.intake.guard.inspect(self._context)
        except UploadguardError as error:
            self._stop(error)

    def receive_data_chunk(self, raw_data: bytes, start: int) -> bytes:
        """Digest the chunk and hand it on; a large file is checked when it is complete, from where it was put."""
        if self._uploads is not None:
            self._form_bytes += len(raw_data)
            if self._form_bytes > self._uploads.intake.limits.max_body_bytes:
                self._uploads.fail_too_large()
                raise StopUpload(connection_reset=True)
        if self._check is not None:
            if start + len(raw_data) > DIGESTED_AS_IT_ARRIVES_BYTES:
                self._check = None
            else:
                self._check.write(raw_data)
        return raw_data

    def file_complete(self, file_size: int) -> None:
        """The file is made, and then checked, by the handlers after this one."""

    def upload_complete(self) -> None:
        """The form has been parsed."""
        if self._uploads is not None:
            self._uploads.leave()

    def upload_interrupted(self) -> None:
        """The body ended within a file."""
        self._check = None
        if self._uploads is not None:
            self._uploads.fail_broken()

    def _checked(self, file_complete: Callable[[int], Any]) -> Callable[[int], Any]:
        """A later handler's method, whose file is decided on before Django lists it."""

        def complete(file_size: int) -> Any:
            file = file_complete(file_size)
            if file is not None:
                check, self._check = self._check, None
                try:
                    if check is not None:
                        keep_decision(file, check.finish())
                    else:
                        check_file(file, self._context)
                except UploadguardError as error:
                    file.close()
                    self._stop(error)
                self._refuse_late(file)
            return file

        return complete

    def _refuse_late(self, file: Any) -> None:
        decision = decision_of(file)
        if self._uploads is None or decision is None or not answers_late(self.request):
            return
        if self._uploads.refuse(self.field_name, file, decision):
            file.close()
            raise StopUpload(connection_reset=False)

    def _stop(self, error: UploadguardError) -> None:
        if self._uploads is not None:
            self._uploads.fail(error)
        raise StopUpload(connection_reset=False) from error
