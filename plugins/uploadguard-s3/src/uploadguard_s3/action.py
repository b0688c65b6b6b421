"""The action of the kind ``s3``: what a person decides about a queued object is done to it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from uploadguard.actions import Journal, Occasion, Receipt, Task
from uploadguard.destinations.options import Destination, DestinationOptions, read_options
from uploadguard.errors import PostponedError, RefusedError
from uploadguard.models import Context, Decision
from uploadguard_s3.clients import open_own_client
from uploadguard_s3.model import ObjectRef, S3Poison, S3Retry
from uploadguard_s3.options import S3Options
from uploadguard_s3.reviewed import Reviewed, Reviews
from uploadguard_s3.state import State
from uploadguard_s3.store import Store

__all__ = ["S3Action", "S3ActionOptions"]

_DELIVERY_S = 50.0
"""An action has a minute."""


class S3ActionOptions(DestinationOptions):
    """A table ``[actions.NAME]`` of the kind ``s3``. ``settings_file`` is the plugin's, as its worker reads it."""

    kind: Literal["s3"]
    occasions: Annotated[tuple[Literal["release", "delete"], ...], Field(min_length=1)] = ("release", "delete")
    settings_file: Path


class S3Action(Destination):
    """Publishes what a person found harmless, and deletes what one confirmed.

    The decision's ``Context.object_id`` must be the one that checks of objects fill in. Raises
    :class:`~uploadguard.errors.ConfigError` for options or settings that are wrong.
    """

    def __init__(self, name: str, table: Mapping[str, Any]) -> None:
        options = read_options(S3ActionOptions, name, table)
        super().__init__(name, options)
        self._options = S3Options.load(options.settings_file)

    def wants(self, decision: Decision, context: Context, occasion: Occasion) -> bool:
        """Whether the decision is on an object of the settings' routes, and matched one of ``lists``, if any."""
        return super().wants(decision, context, occasion) and self._ref(context) is not None

    def deliver(self, task: Task, journal: Journal) -> Receipt:  # noqa: ARG002 - each attempt finds what is done
        """Release or delete the version. Raises :class:`PostponedError` and :class:`RefusedError`."""
        if task.cancelled:
            return Receipt(facts={"done": False})
        ref = self._ref(task.context)
        if ref is None:
            raise RefusedError("its object_id names no object on a route of the S3 plugin's settings")
        try:
            reviewed = asyncio.run(self._carry_out(ref, task))
        except S3Retry as error:
            raise PostponedError(error.reason, after_s=error.after_s) from None
        except S3Poison as error:
            raise RefusedError(error.reason) from None
        except TimeoutError:
            raise PostponedError(f"it took longer than {_DELIVERY_S:.0f} s") from None
        facts = {"effects": list(reviewed.effects), "overwritten": reviewed.overwritten}
        return Receipt(facts={"done": bool(reviewed.effects), **facts})

    async def _carry_out(self, ref: ObjectRef, task: Task) -> Reviewed:
        state = State(self._options.state)
        try:
            async with asyncio.timeout(_DELIVERY_S):
                await state.open()
                async with open_own_client(self._options) as client:
                    reviews = Reviews(self._options, Store(client), state)
                    done = reviews.release if task.occasion is Occasion.RELEASE else reviews.delete
                    return await done(ref, task.decision)
        finally:
            await state.close()

    def _ref(self, context: Context) -> ObjectRef | None:
        try:
            ref = ObjectRef.from_url(context.object_id or "")
        except ValueError:
            return None
        route = self._options.route(ref.bucket, ref.key)
        return ref if route is not None and route.takes(ref.key) else None
