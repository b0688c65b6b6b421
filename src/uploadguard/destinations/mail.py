"""Reports by mail: how one looks, and how it is handed to an SMTP server, with every failure classified.

Errors name codes, never what the server said or who the mail is for: positions in the list of recipients do.
"""

from __future__ import annotations

import contextlib
import json
import smtplib
import ssl
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from email import policy
from email.mime.application import MIMEApplication
from email.mime.base import MIMEBase
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from email.utils import format_datetime, formataddr
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from uploadguard.config_types import Section, Whole
from uploadguard.destinations.deadline import deadline
from uploadguard.destinations.options import EnvName, Secret, SecretFile
from uploadguard.errors import ActionError, PostponedError, RefusedError

__all__ = ["Mailer", "SmtpOptions", "compose"]

_PORTS = {"starttls": 587, "tls": 465, "none": 25}
_CONNECT_S = 10.0
_MAX_REPLY_BYTES = 1 << 20


class SmtpOptions(Section):
    """A server that takes mail. ``ca_file`` has the certificates to trust, in place of the system's."""

    host: Annotated[str, Field(min_length=1)]
    port: Annotated[Whole, Field(ge=1, le=65535)] | None = None
    security: Literal["starttls", "tls", "none"] = "starttls"
    username: str | None = None
    password_env: EnvName | None = None
    password_file: SecretFile | None = None
    ca_file: Path | None = None


def compose(report: Mapping[str, Any], recipients: Sequence[str], headers: Mapping[str, Any]) -> bytes:
    """A mail with an XARF report, as it goes over the wire: for people, for machines that sort, and the report itself.

    ``headers`` are ``date`` and ``message_id``; both sides of the report give the rest.
    """
    sender = report["sender"]
    mail = MIMEMultipart("report", report_type="feedback-report", policy=policy.SMTP)
    mail["From"] = formataddr((sender["org"], sender["contact"]))
    mail["To"] = ", ".join(recipients)
    mail["Subject"] = f"Abuse report {report['report_id']} (csam)"
    mail["Date"] = format_datetime(headers["date"])
    mail["Message-ID"] = headers["message_id"]
    mail["Auto-Submitted"] = "auto-generated"
    mail.attach(MIMEText(_for_people(report), "plain", "utf-8"))
    sorting = MIMEBase("message", "feedback-report")
    sorting["Content-Disposition"] = "inline"
    sorting.set_payload("Feedback-Type: xarf\r\nUser-Agent: uploadguard\r\nVersion: 1\r\n")
    mail.attach(sorting)
    attached = MIMEApplication(json.dumps(report, indent=1).encode("ascii"), "json", name="xarf.json")
    attached["Content-Disposition"] = 'attachment; filename="xarf.json"'
    mail.attach(attached)
    return mail.as_bytes()


def _for_people(report: Mapping[str, Any]) -> str:
    reporter = report["reporter"]
    lines = [
        f"{reporter['org']} reports suspected child sexual abuse material.",
        "",
        f"Report:         {report['report_id']}",
        f"Uploaded:       {report['timestamp']}",
        f"Source:         {report['source_identifier']}",
        f"URL:            {report['url']}",
        f"Classification: {report['classification']}",
        f"Detected by:    {report['detection_method']}",
        "",
        "The attached xarf.json (XARF v4) says the same for machines. No picture is attached.",
        "A mail with the same Message-ID is the same report, sent again.",
        f"Contact: {reporter['contact']}",
        "",
    ]
    return "\r\n".join(lines)


@dataclass(frozen=True, slots=True)
class Refusals:
    """Of a mail that some took: the SMTP code for each position in the list of recipients that did not."""

    codes: Mapping[int, int]

    def error(self) -> ActionError | None:
        """What they come to; None where there is none."""
        if not self.codes:
            return None
        text = ", ".join(f"to[{place}] ({code})" for place, code in sorted(self.codes.items()))
        return _by_code(min(self.codes.values()), f"these recipients were refused: {text}")


class Mailer:
    """Hands mails to one server, each over a connection of its own. Thread-safe."""

    def __init__(self, options: SmtpOptions, hello: str, total_s: float) -> None:
        """``hello`` is the name that it greets with. Raises ``ValueError`` for certificates that cannot be read."""
        self._options = options
        self._hello = hello
        self._total_s = total_s
        self._port = options.port if options.port is not None else _PORTS[options.security]
        self._password = Secret(options.password_env, options.password_file)
        self._tls = None
        if options.security != "none":
            try:
                self._tls = ssl.create_default_context(cafile=options.ca_file)
            except (OSError, ssl.SSLError):
                raise ValueError("has a ca_file that holds no certificates, or cannot be read") from None

    def send(self, mail: bytes, envelope_from: str, recipients: Mapping[int, str]) -> Refusals:
        """Hand the mail over for these recipients, by position. Once it returns, the server has it for all others.

        Raises :class:`~uploadguard.errors.PostponedError` and :class:`~uploadguard.errors.RefusedError` where it took
        it for none, or nobody knows.
        """
        password = self._password.text() if self._password else None
        with deadline(self._total_s) as limit:
            smtp = self._client()
            limit.connection = lambda: smtp.sock
            try:
                with _classified(recipients):
                    self._greet(smtp, password)
                    refused = smtp.sendmail(envelope_from, list(recipients.values()), mail)
                with contextlib.suppress(OSError, smtplib.SMTPException):
                    smtp.putcmd("quit")  # without waiting for the answer: the mail is theirs
            except ActionError:
                if limit.passed:
                    raise PostponedError(f"it took longer than {self._total_s:g} s") from None
                raise
            finally:
                smtp.close()
        places = {address: place for place, address in recipients.items()}
        return Refusals({places[address]: code for address, (code, _) in refused.items()})

    def _client(self) -> smtplib.SMTP:
        timeout_s = min(_CONNECT_S, self._total_s)
        if self._options.security == "tls":
            return _BoundedTls(local_hostname=self._hello, timeout=timeout_s, context=self._tls)
        return _Bounded(local_hostname=self._hello, timeout=timeout_s)

    def _greet(self, smtp: smtplib.SMTP, password: str | None) -> None:
        # The name that a certificate is checked against.
        smtp._host = self._options.host  # type: ignore[attr-defined]
        try:
            code, _ = smtp.connect(self._options.host, self._port)
        except ssl.SSLError:
            raise
        except (OSError, smtplib.SMTPServerDisconnected):
            raise PostponedError("no connection to the mail server could be made", outage=True) from None
        if code != 220:
            raise smtplib.SMTPConnectError(code, b"")
        if smtp.sock is not None:
            smtp.sock.settimeout(self._total_s)
        if self._options.security == "starttls":
            smtp.starttls(context=self._tls)
        if self._options.username is not None and password is not None:
            smtp.login(self._options.username, password)


class _BoundedFile:
    """A server's replies, up to a bound: one of them may have any number of lines."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._left = _MAX_REPLY_BYTES

    def readline(self, size: int = -1) -> bytes:
        line: bytes = self._file.readline(size)
        self._left -= len(line)
        if self._left < 0:
            raise OSError("the server's replies are too long")
        return line

    def close(self) -> None:
        self._file.close()


class _Bounded(smtplib.SMTP):
    def getreply(self) -> tuple[int, bytes]:
        if self.file is None and self.sock is not None:
            self.file = _BoundedFile(self.sock.makefile("rb"))
        return super().getreply()


class _BoundedTls(_Bounded, smtplib.SMTP_SSL):
    pass


@contextlib.contextmanager
def _classified(recipients: Mapping[int, str]) -> Iterator[None]:
    """Turn what smtplib raises into what it means for the task."""
    try:
        yield
    except smtplib.SMTPRecipientsRefused as error:
        places = {address: place for place, address in recipients.items()}
        codes = {places[address]: code for address, (code, _) in error.recipients.items()}
        raise (Refusals(codes).error() or PostponedError("no recipient was taken")) from None
    except smtplib.SMTPNotSupportedError:
        raise RefusedError("the mail server lacks what security or username ask for") from None
    except smtplib.SMTPAuthenticationError as error:
        text = f"the mail server did not take username and password ({error.smtp_code})"
        raise _by_code(error.smtp_code, text, outage=True) from None
    except (smtplib.SMTPConnectError, smtplib.SMTPHeloError) as error:
        text = f"the mail server did not want to talk ({error.smtp_code})"
        raise _by_code(error.smtp_code, text, outage=True) from None
    except smtplib.SMTPResponseException as error:
        if isinstance(error.smtp_error, str):  # smtplib's own words: a line too long
            raise PostponedError("what answered is no mail server, or an odd one") from None
        raise _by_code(error.smtp_code, f"the mail server answered {error.smtp_code}") from None
    except smtplib.SMTPServerDisconnected:
        raise PostponedError("the mail server closed the connection") from None
    except ssl.SSLError:
        raise PostponedError("no trustworthy connection to the mail server could be made (TLS)", outage=True) from None
    except TimeoutError:
        raise PostponedError("the mail server took too long") from None
    except (smtplib.SMTPException, OSError, ValueError) as error:
        raise PostponedError(f"the mail server could not be spoken to ({type(error).__name__})") from None


def _by_code(code: int, text: str, *, outage: bool = False) -> ActionError:
    """5xx is the server's last word; 4xx, and what is no code at all, is not."""
    return RefusedError(text) if 500 <= code < 600 else PostponedError(text, outage=outage)
