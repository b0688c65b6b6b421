"""The settings of the queue that events come from: the table ``[queue]`` of the plugin's file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from uploadguard.config_types import Section, Span, Whole
from uploadguard_s3.events import KeyEncoding

__all__ = ["QueueOptions"]


class QueueOptions(Section):
    """Which queue of SQS a worker reads, and how. Credentials come from where the AWS SDKs look for them."""

    url: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="The queue's URL; a worker needs it."
    )
    dead_letter_url: Annotated[str, Field(min_length=1)] | None = Field(
        default=None,
        description="The dead-letter queue's URL; by default that of the redrive policy that the queue has.",
    )
    dead_letters: Path = Field(
        default=Path("uploadguard-s3-dead-letters.jsonl"),
        description="The file that says why a message became a dead letter. In a file of settings, relative to it.",
    )
    endpoint_url: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="The service's address; AWS's own by default."
    )
    region: Annotated[str, Field(min_length=1)] | None = Field(default=None, description="The region.")
    key_encoding: KeyEncoding = Field(
        default=KeyEncoding.AUTO,
        description="How keys stand in events: url, plain, or as their source (AWS, MinIO, Ceph, EventBridge) does it.",
    )
    visibility_s: Annotated[Whole, Field(ge=3, le=43_200)] = Field(
        default=60,
        description="How long a message is kept from other workers at a time, in seconds; it is extended while the "
        "work takes longer. After a worker died, so long until another one takes it.",
    )
    wait_s: Annotated[Whole, Field(ge=0, le=20)] = Field(
        default=20, description="How long one request waits for messages, in seconds."
    )
    max_receives: Annotated[Whole, Field(ge=1)] = Field(
        default=10, description="After how many tries a message is a dead letter that fails for no reason that passes."
    )
    stop_s: Span = Field(
        default=25.0, description="How long a worker that is to stop finishes what is under way, in seconds."
    )
