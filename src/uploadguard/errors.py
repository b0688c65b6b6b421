"""Every error the library raises, in one tree.

::

    UploadguardError
    |-- ConfigError            a setting is wrong: file, key and what to do
    |-- NotReadyError          no hash set to check against; never a silent pass
    |-- MediaReadError         the upload's bytes could not be read (vanished, a directory, permissions)
    |-- ListError
    |   |-- ListFormatError    a list file cannot be read as the format it should be
    |   |-- ShrunkListError    a list file is far smaller than the list it would replace
    |   |-- EmptyListError     a list file held no valid entry
    |   |-- HeldListError      a list or an update goes beyond the bounds of [safety], and stays staged
    |   |-- StagedListError    what is staged for a list cannot be put in force, or would be lost
    |   `-- UnknownListError   no list of that name
    |-- HashSetError
    |   |-- SegmentError       a segment is truncated, altered or of another version
    |   |-- ManifestError      the manifest is missing, altered or of another version
    |   |-- HashSetBusyError   another process is changing the hash set
    |   `-- HashSetWriteError  the disk refused a write; the old generation still serves
    |-- SandboxError           the isolation that the settings ask for cannot be had here
    |-- LedgerError
    |   |-- LedgerDownError    the ledger's database cannot be reached, or is too slow
    |   |-- NotRecordedError   neither the ledger nor its spool took a decision: refuse uploads
    |   |-- UnknownRecordError no case, decision or task of that id
    |   |-- CaseStateError     the case is not in a state in which this can be done
    |   |-- NotPermittedError  the person's roles do not allow this
    |   |-- AuditError         the audit log cannot be written, or does not verify
    |   `-- EvidenceError      the preserved file is gone, altered or cannot be decrypted
    |-- ActionError
    |   |-- PostponedError     an action could not be carried out now: it is tried again
    |   |-- RefusedError       an action will not be carried out as it is: a person must look
    |   `-- LeaseLostError     another worker has taken the task over
    |-- WebhookError           a webhook was not signed by who has the secret, or not now
    |-- MatcherError           a match service gave no answer that can be relied on
    |-- ServiceError           the service did not answer a client, or refused its request
    |-- PluginError            a plugin raised or broke its contract; names the plugin
    `-- UploadRefused          only from ``Decision.raise_for_verdict()``

A match is a value in a :class:`~uploadguard.models.Decision`, never an error, and so is "could not inspect".
Messages never hold a hash or a payload. Errors carry their data as attributes.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uploadguard.models import Decision

__all__ = [
    "ActionError",
    "AuditError",
    "CaseStateError",
    "ConfigError",
    "EmptyListError",
    "EvidenceError",
    "HashSetBusyError",
    "HashSetError",
    "HashSetWriteError",
    "HeldListError",
    "LeaseLostError",
    "LedgerDownError",
    "LedgerError",
    "ListError",
    "ListFormatError",
    "ManifestError",
    "MatcherError",
    "MediaReadError",
    "NotPermittedError",
    "NotReadyError",
    "NotRecordedError",
    "PluginError",
    "PostponedError",
    "RefusedError",
    "SandboxError",
    "SegmentError",
    "ServiceError",
    "ShrunkListError",
    "StagedListError",
    "UnknownListError",
    "UnknownRecordError",
    "UploadRefused",
    "UploadguardError",
    "WebhookError",
]


class UploadguardError(Exception):
    """Base of all errors of this library."""


class ConfigError(UploadguardError):
    """A setting is wrong. ``problems`` holds one sentence each; ``path`` is the file, if one was read."""

    def __init__(self, problems: str | list[str], *, path: Path | None = None) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        self.path = path
        where = f"{path}: " if path is not None else ""
        super().__init__("\n".join(f"{where}{problem}" for problem in self.problems))


class NotReadyError(UploadguardError):
    """There is nothing to check against, so no check can answer."""


class MediaReadError(UploadguardError):
    """The bytes to check could not be read."""

    def __init__(self, reason: str, *, path: Path | None = None) -> None:
        self.path = path
        self.reason = reason
        super().__init__(f"{path}: {reason}" if path is not None else reason)


class ListError(UploadguardError):
    """Something is wrong with a hash list."""


class ListFormatError(ListError):
    """A list file cannot be read as its format. ``line`` counts from 1; None where the format has no lines."""

    def __init__(self, reason: str, *, path: Path | None = None, line: int | None = None) -> None:
        self.path = path
        self.line = line
        self.reason = reason
        where = "".join(f"{part}:" for part in (path, line) if part is not None)
        super().__init__(f"{where} {reason}" if where else reason)


class EmptyListError(ListError):
    """A list file held no valid entry, so importing it would switch protection off without a word."""


class ShrunkListError(ListError):
    """A list file is so much smaller than the list it would replace that something went wrong with it, most likely."""


class HeldListError(ListError):
    """A list or an update goes beyond the bounds of ``[safety]``: it is staged, and the old list stays in force.

    ``reasons`` has one sentence for each bound; ``outcome`` is the :class:`~uploadguard.importing.ListImport` or
    :class:`~uploadguard.importing.FileUpdate` of what is staged.
    """

    def __init__(self, reasons: tuple[str, ...], outcome: object = None) -> None:
        self.reasons = reasons
        self.outcome = outcome
        super().__init__(f"it is staged and not in force: {'; '.join(reasons)}")


class StagedListError(ListError):
    """What is staged for a list does not fit it any more, or would be lost to another change."""


class UnknownListError(ListError):
    """No list of this name is in the hash set."""


class HashSetError(UploadguardError):
    """Something is wrong with the hash set on disk."""


class SegmentError(HashSetError):
    """A segment file is truncated, altered or of another version."""

    def __init__(self, reason: str, *, path: Path | None = None) -> None:
        self.path = path
        self.reason = reason
        super().__init__(f"{path}: {reason}" if path is not None else reason)


class ManifestError(HashSetError):
    """The hash set's manifest is missing, altered or of another version."""


class HashSetBusyError(HashSetError):
    """Another process holds the hash set's write lock."""


class HashSetWriteError(HashSetError):
    """The disk refused a write, and the old generation still serves.

    One case differs and says so: the new generation is in force, but the disk did not confirm that it would survive a
    power failure.
    """


class SandboxError(UploadguardError):
    """Uploads cannot be isolated as the settings ask for. The text says what is missing and what to do."""


class LedgerError(UploadguardError):
    """Something is wrong with the ledger: the database of decisions, cases, reports and the audit log."""


class LedgerDownError(LedgerError):
    """The ledger's database cannot be reached, does not answer in time, or its disk is full. Trying again may help."""


class NotRecordedError(LedgerError):
    """Neither the ledger nor its spool could keep a decision, so no upload may be answered: refuse them (503)."""


class UnknownRecordError(LedgerError):
    """No record of this id is in the ledger."""


class CaseStateError(LedgerError):
    """The case is not in a state in which this can be done: somebody else was faster, or it is decided."""


class NotPermittedError(LedgerError):
    """The person has not the role that this needs."""


class AuditError(LedgerError):
    """The audit log cannot be written, so nothing that must be in it is done; or it does not verify."""


class EvidenceError(LedgerError):
    """The preserved file of an upload cannot be had: it was destroyed, altered, or the key is missing."""


class ActionError(UploadguardError):
    """What an action says of a task that it could not carry out. The text is kept with the task, for the operator."""


class PostponedError(ActionError):
    """Not now: the task is tried again.

    ``after_s`` is the least wait in seconds, where the other side asked for one (``Retry-After``). ``outage`` says
    that the other side is down or asks for peace, so that other tasks for it need not be tried meanwhile.
    """

    def __init__(self, reason: str, *, after_s: float | None = None, outage: bool = False) -> None:
        self.reason = reason
        self.after_s = after_s
        self.outage = outage
        super().__init__(reason)


class RefusedError(ActionError):
    """The other side will not take it as it is: a person must look, and have it tried again."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class LeaseLostError(ActionError):
    """This worker took too long, and another one has the task now."""


class WebhookError(UploadguardError):
    """A webhook came that was not signed by who has the secret, or not now. For its receiver: answer 401."""


class MatcherError(UploadguardError):
    """A match service gave no answer that can be relied on. Its message is one sentence, without hash or payload."""


class ServiceError(UploadguardError):
    """The service did not answer a client, or refused its request. ``status`` is the HTTP status, if there was one."""

    def __init__(self, reason: str, *, status: int | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.retry_after_s = retry_after_s


class PluginError(UploadguardError):
    """A plugin raised, or handed over something that breaks its contract."""

    def __init__(self, plugin: str, reason: str) -> None:
        self.plugin = plugin
        self.reason = reason
        super().__init__(f"plugin {plugin!r}: {reason}")

    def __reduce__(self) -> tuple[type[PluginError], tuple[str, str]]:
        return type(self), (self.plugin, self.reason)


class UploadRefused(UploadguardError):
    """The upload must not be served. Says nothing of why: its text may reach the uploader."""

    def __init__(self, decision: Decision) -> None:
        self.decision = decision
        super().__init__(f"upload refused (reference {decision.reference})")

    def __reduce__(self) -> tuple[type[UploadRefused], tuple[Decision]]:
        return type(self), (self.decision,)
