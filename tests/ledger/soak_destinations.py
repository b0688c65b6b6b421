"""The destinations that the soak of the outbox files with, each a process of its own that misbehaves."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from tests.ledger.twophase import TwoPhaseAction
from tests.ledger.twophase_server import DestinationProcess, RemoteDestination
from uploadguard.actions import Action
from uploadguard.testing.fakes.process import FakeProcess

__all__ = ["Counts", "NcmecDestination", "PlainDestination", "SoakDestination"]

_PASSWORD_ENV = "SOAK_PASSWORD"


@dataclass(frozen=True, slots=True)
class Counts:
    """How often each report was finished: by its key, and by its id there, if that is known. ``calls`` are words."""

    keys: Mapping[str, int]
    ids: Mapping[str, int] | None
    calls: str


class SoakDestination(Protocol):
    """A running destination, and the action for it."""

    def make_action(self) -> Action: ...
    def counts(self) -> Counts: ...
    def calm(self) -> None: ...
    def close(self) -> None: ...


class PlainDestination:
    """The made-up one: fast."""

    def __init__(self, chaos: float, seed: int) -> None:
        self._process = DestinationProcess(chaos, seed)

    def make_action(self) -> Action:
        return TwoPhaseAction(RemoteDestination(self._process.port), notes=False)

    def counts(self) -> Counts:
        state = self._process.state()
        calls = state["calls"]
        return Counts(
            state["keys"], state["ids"], f"{calls['open']:,} opened, {calls['finish']:,} times asked to finish"
        )

    def calm(self) -> None:
        self._process.calm()

    def close(self) -> None:
        self._process.close()


class NcmecDestination:
    """The fake CyberTipline, over HTTP, with its plugin's action."""

    def __init__(self, chaos: float, seed: int) -> None:
        os.environ[_PASSWORD_ENV] = "made-up"
        self._process = FakeProcess("uploadguard.testing.fakes.ncmec", "--chaos", str(chaos), "--seed", str(seed))

    def make_action(self) -> Action:
        from uploadguard_ncmec import NcmecAction
        from uploadguard_ncmec.options import NcmecOptions

        options = {
            "kind": "ncmec",
            "base_url": self._process.url,
            "username": "esp",
            "password_env": _PASSWORD_ENV,
            "reporter": {"email": "abuse@images.example"},
        }
        return NcmecAction("authority", NcmecOptions.model_validate(options))

    def counts(self) -> Counts:
        state = self._process.snapshot()
        return Counts(state["finished"], None, f"{state['reports']:,} opened")

    def calm(self) -> None:
        self._process.calm()

    def close(self) -> None:
        self._process.close()
