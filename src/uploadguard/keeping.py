"""What a Guard does about the ledger: keeps each decision before it is answered, and tends to what lies about.

A thread of each process brings counts and what waits in the spool to the database, and what reviewers confirmed or
dismissed to this host's hash set. It begins with the first check, in the process that checks.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from uploadguard.alarms import Alarm
from uploadguard.errors import EvidenceError, LedgerDownError, NotReadyError, NotRecordedError, UploadguardError
from uploadguard.logs import log
from uploadguard.models import Context, Decision, Failure, Match, Verdict

if TYPE_CHECKING:
    from uploadguard.config import Settings
    from uploadguard.late import LateChecks, Revise
    from uploadguard.ledger.codec import Recorded
    from uploadguard.ledger.ledger import Ledger
    from uploadguard.ledger.outbox_worker import OutboxThread
    from uploadguard.ledger.recorder import RecorderStatus
    from uploadguard.matching import Matching
    from uploadguard.plugins import Plugins

__all__ = ["Keeper", "open_keeper"]

_TEND_S: Final = 1.0
_SLACK_S: Final = 1.0
_LATE: Final = "late.db"


def open_keeper(
    settings: Settings, plugins: Plugins, *, alarm: Callable[[Alarm], None], changed: Callable[[], object]
) -> Keeper | None:
    """The keeper, where ``ledger.path`` is set. ``changed`` is called when the hash set got news from reviewers.

    Raises :class:`~uploadguard.errors.LedgerError`, :class:`~uploadguard.errors.ConfigError`.
    """
    if settings.ledger.path is None and settings.ledger.url is None and settings.ledger.url_env is None:
        return None
    from uploadguard.ledger.ledger import Ledger

    timeout_s = settings.ledger.write_timeout_s + _SLACK_S
    return Keeper(Ledger.open(settings, plugins, timeout_s=timeout_s, needed=False), alarm=alarm, changed=changed)


def open_late(settings: Settings, matching: Matching, revise: weakref.WeakMethod[Revise]) -> LateChecks | None:
    """What asks match services after the upload was answered, where a matcher is to be asked so.

    ``revise`` is a weak reference, so that a Guard that nobody closes can be forgotten. Raises
    :class:`~uploadguard.errors.NotRecordedError`.
    """
    path = settings.ledger.path / _LATE if settings.ledger.path is not None else None
    if path is None or not (any(one.prefetch for one in matching.matchers.values()) or path.exists()):
        return None
    from uploadguard.late import LateChecks

    def call(
        earlier: Recorded, matches: Sequence[Match], failures: Sequence[Failure], reference: str
    ) -> Decision | None:
        found = revise()
        if found is None:
            raise NotReadyError("the Guard is gone")
        return found(earlier, matches, failures, reference)

    return LateChecks(path, matching, call)


class Keeper:
    """Shared between threads; survives ``fork``."""

    def __init__(self, ledger: Ledger, *, alarm: Callable[[Alarm], None], changed: Callable[[], object]) -> None:
        self._settings = ledger.settings
        self._ledger = ledger
        self._vault = ledger.vault
        self._alarm = alarm
        self._changed = changed
        self._recorder = ledger.recorder(alarm)
        self._starting = threading.Lock()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self._outbox: OutboxThread | None = None
        self._last_error = ""

    @property
    def refusing(self) -> bool:
        """Whether decisions cannot be kept, so that no upload may be answered."""
        return self._recorder.refusing

    def require(self) -> None:
        """To be called before each check. Raises :class:`~uploadguard.errors.NotRecordedError` while refusing."""
        if self._thread is None:
            self._start()
        self._recorder.require()

    def keep(self, decision: Decision, context: Context, content: bytes | memoryview | None) -> None:
        """Keep what there is to be kept of a decision; when this returns, it is durable. A plain allow is only counted.

        ``content`` is the upload, if it is at hand. Raises :class:`~uploadguard.errors.NotRecordedError`.
        """
        if self._is_kept(decision):
            from uploadguard.ledger.codec import to_record

            record = to_record(decision, context, datetime.now(UTC))
            if self._is_preserved(decision) and content is not None:
                assert self._vault is not None
                try:
                    record["evidence"] = self._vault.store(decision.reference, content, decision.media.media_type)
                except EvidenceError as error:
                    raise NotRecordedError(f"the upload could not be preserved: {error}") from error
            self._recorder.record(record)
        self._recorder.count(decision.verdict.label)

    def status(self) -> RecorderStatus:
        """How recording is doing."""
        return self._recorder.status()

    def close(self) -> None:
        """Write what is under way, and let go of everything."""
        self._closed.set()
        if self._outbox is not None:
            self._outbox.stop(5.0)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(5.0)  # it tends once more at its end; a database that hangs is not waited for
        self._recorder.close()
        self._ledger.close()

    def after_fork(self) -> None:
        """In a forked child: the parent's threads do not exist here, and its connections are its own."""
        self._starting = threading.Lock()
        was_closed, self._closed = self._closed.is_set(), threading.Event()
        if was_closed:
            self._closed.set()
        self._thread = self._outbox = None
        self._ledger.after_fork()
        self._recorder.after_fork()

    def _is_kept(self, decision: Decision) -> bool:
        verdict = decision.shadow if decision.shadow is not None else decision.verdict
        if verdict is Verdict.NOT_SCANNED and not decision.matches:
            return self._settings.ledger.record_not_scanned
        return verdict is not Verdict.ALLOW or bool(decision.matches or decision.failures)

    def _is_preserved(self, decision: Decision) -> bool:
        if self._vault is None or decision.verdict < Verdict.QUEUE:
            return False
        return self._settings.evidence.keep == "all" or any(not match.allow for match in decision.matches)

    def _start(self) -> None:
        with self._starting:
            if self._thread is not None or self._closed.is_set():
                return
            thread = threading.Thread(
                target=_tend_until_closed, args=(weakref.ref(self), self._closed), name="uploadguard-keep", daemon=True
            )
            thread.start()
            if self._settings.outbox.run == "thread":
                from uploadguard.ledger.outbox_worker import OutboxThread

                self._outbox = OutboxThread(self._ledger.worker(self._alarm, chores=self._ledger.chores(self._alarm)))
                self._outbox.start()
            self._thread = thread

    def _tend(self) -> None:
        """Do what is due. What fails is said once, and tried again the next time; the rest is done all the same."""
        failed = ""
        for work in (self._recorder.tend, self._apply_local_lists, self._sign):
            try:
                work()
            except LedgerDownError as error:
                failed = str(error)
                break  # the others would wait for it just as long
            except UploadguardError as error:
                failed = str(error)
        if failed and failed != self._last_error:
            log.warning("the ledger cannot be tended to now: %s", failed)
        self._last_error = failed

    def _apply_local_lists(self) -> None:
        if self._ledger.apply_local_lists():
            self._changed()

    def _sign(self) -> None:
        if self._settings.ledger.signing_key_file is not None:
            self._ledger.checkpointer.run_if_due()

    def _tend_at_the_end(self) -> None:
        with suppress(UploadguardError):  # what waits in the spool is safe there
            self._recorder.tend()


def _tend_until_closed(keeper: weakref.ref[Keeper], closed: threading.Event) -> None:
    while True:
        is_over = closed.wait(_TEND_S)
        found = keeper()
        if found is None:
            return
        started = time.monotonic()
        try:
            if is_over:
                found._tend_at_the_end()
                return
            found._tend()
        except Exception as error:  # noqa: BLE001 - the thread must go on: it is what empties the spool
            log.error("tending to the ledger raised %s", type(error).__name__)
        del found
        # Where the database makes everybody wait, this thread need not add to it.
        closed.wait(min(time.monotonic() - started, 30.0))
