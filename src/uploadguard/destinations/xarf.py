"""XARF v4 reports, posted as JSON or sent by mail. At least once: receivers go by ``report_id``, or the Message-ID."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from uploadguard.actions import Journal, Receipt, Task
from uploadguard.config_types import Flag
from uploadguard.destinations.http import HttpClient, check_url, error_of
from uploadguard.destinations.mail import Mailer, SmtpOptions, compose
from uploadguard.destinations.options import (
    Destination,
    DestinationOptions,
    EnvName,
    OptionsError,
    Secret,
    SecretFile,
    TimeoutS,
    checked,
    plain_error,
    read_options,
)
from uploadguard.destinations.xarf_report import Email, ReportOptions, build_report

__all__ = ["XarfOptions", "XarfReporter"]

_MAX_ANSWER_BYTES = 4096
_NOTE = "accepted"


class XarfOptions(DestinationOptions, ReportOptions):
    """Either ``url``, and a bearer token if it takes one, or ``to`` and ``smtp``."""

    kind: Literal["xarf"]
    occasions: tuple[Literal["report"]] = ("report",)
    url: str | None = None
    token_env: EnvName | None = None
    token_file: SecretFile | None = None
    plain_http: Flag = False
    to: Annotated[tuple[Email, ...], Field(max_length=100)] = ()
    smtp: SmtpOptions | None = None
    mail_from: Email | None = None
    timeout_s: TimeoutS = 60.0

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.url is None) == (not self.to):
            raise ValueError("needs url, or to and smtp, and not both")
        if bool(self.to) != (self.smtp is not None):
            raise ValueError("needs to and smtp together")
        if len(set(self.to)) < len(self.to):
            raise ValueError("has the same recipient twice")
        if self.token_env is not None and self.token_file is not None:
            raise ValueError("needs token_env or token_file, and not both")
        if self.smtp is not None:
            _check_login(self.smtp)
        return self


def _check_login(smtp: SmtpOptions) -> None:
    passwords = (smtp.password_env is not None) + (smtp.password_file is not None)
    if passwords != (smtp.username is not None):
        raise ValueError("needs, in smtp, username with password_env or password_file, or none of them")
    if smtp.username is not None and smtp.security == "none":
        raise ValueError("has, in smtp, a username, and security = none would show the password to anybody")


class XarfReporter(Destination):
    """Tells an authority, a hotline or a provider in the format that abuse desks read."""

    def __init__(self, name: str, table: Mapping[str, Any], error: OptionsError = plain_error) -> None:
        options = read_options(XarfOptions, name, table, error)
        super().__init__(name, options)
        self._options = options
        if options.url is not None:
            url = options.url
            checked(lambda: check_url(url, plain_http=options.plain_http), name, "url", error)
            self._client = HttpClient(total_s=options.timeout_s, max_answer_bytes=_MAX_ANSWER_BYTES)
            self._token = Secret(options.token_env, options.token_file)
        elif options.smtp is not None:
            smtp, hello = options.smtp, (options.sender or options.reporter).domain
            self._mailer = checked(lambda: Mailer(smtp, hello, options.timeout_s), name, "smtp", error)

    def deliver(self, task: Task, journal: Journal) -> Receipt:
        """Post or mail the report.

        Raises :class:`~uploadguard.errors.RefusedError` for a task without the facts that the format requires.
        """
        if task.cancelled:
            return Receipt(facts={"sent": False})
        report = build_report(task, self._options)
        return self._post(report) if self._options.url is not None else self._mail(report, task, journal)

    def _post(self, report: Mapping[str, Any]) -> Receipt:
        headers = {"Content-Type": "application/json", "Idempotency-Key": f'"{report["report_id"]}"'}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token.text()}"
        content = json.dumps(report).encode("ascii")
        answer = self._client.send("POST", self._options.url or "", content=content, headers=headers)
        problem = error_of(answer)
        if problem is not None:
            raise problem
        return Receipt(facts={"sent": True, "status": answer.status})

    def _mail(self, report: Mapping[str, Any], task: Task, journal: Journal) -> Receipt:
        """Whom an earlier attempt reached is left out: their server said so, and it was noted."""
        reached = set(task.notes.get(_NOTE, ()))
        waiting = {place: to for place, to in enumerate(self._options.to) if to not in reached}
        message_id = f"<{task.key}@{report['sender']['domain']}>"
        if waiting:
            mail = compose(report, self._options.to, {"date": datetime.now(UTC), "message_id": message_id})
            envelope_from = self._options.mail_from or report["sender"]["contact"]
            refusals = self._mailer.send(mail, envelope_from, waiting)
            reached |= {to for place, to in waiting.items() if place not in refusals.codes}
            if len(waiting) > 1 or refusals.codes:
                journal.note(**{_NOTE: sorted(reached)})
            problem = refusals.error()
            if problem is not None:
                raise problem
        return Receipt(facts={"sent": True, "message_id": message_id})
