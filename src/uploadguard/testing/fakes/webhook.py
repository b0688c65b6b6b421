"""A receiver of webhooks: it checks signatures, and tells repetitions from news."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from uploadguard.destinations.webhook import verify
from uploadguard.errors import WebhookError
from uploadguard.testing.fakes.messages import Request, Response
from uploadguard.testing.fakes.server import FakeServer

__all__ = ["FakeWebhookReceiver"]


class FakeWebhookReceiver(FakeServer):
    """Takes in what ``secrets`` signed, whatever the path. 401 for a bad signature, 400 for what is not JSON.

    ``received`` has the body of each id, the first one that came; ``repeats`` how often an id came again. ``changed``
    has the ids that came again with another body, which a sender must not do.
    """

    SECRET = "whsec_dGhpcyBzZWNyZXQgaXMgZm9yIHRlc3RzIG9ubHk="  # noqa: S105 - made up

    def __init__(self, *, secrets: Sequence[str] = (SECRET,), port: int = 0, seed: int = 0) -> None:
        super().__init__(port=port, seed=seed)
        self.secrets = tuple(secrets)
        self.received: dict[str, dict[str, Any]] = {}
        self.repeats: Counter[str] = Counter()
        self.changed: set[str] = set()
        self.refused = 0

    def answer(self, request: Request) -> Response:
        """Take a webhook in, once."""
        if request.method != "POST":
            return Response(405)
        try:
            webhook_id = verify(request.body, request.headers, self.secrets, now_s=self.clock.now().timestamp())
        except WebhookError:
            self.refused += 1
            return Response(401)
        if request.media_type != "application/json" or request.headers.get("idempotency-key") != f'"{webhook_id}"':
            return Response(400)
        try:
            body = json.loads(request.body)
        except ValueError:
            return Response(400)
        if webhook_id in self.received:
            self.repeats[webhook_id] += 1
            if self.received[webhook_id] != body:
                self.changed.add(webhook_id)
        else:
            self.received[webhook_id] = body
        return Response(204)

    def snapshot(self) -> dict[str, Any]:
        """How often each id came."""
        return {"requests": len(self.requests), "received": {one: 1 + self.repeats[one] for one in self.received}}


if __name__ == "__main__":
    from uploadguard.testing.fakes.process import run_fake

    run_fake(FakeWebhookReceiver)
