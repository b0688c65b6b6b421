"""The settings of what stands between a host and the Guard: the web adapters, the service, and the safety of lists."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from uploadguard.config_types import Count, Section, Span, Whole

__all__ = ["SafetySettings", "ServeSettings", "WebSettings"]


class WebSettings(Section):
    """What the adapters for web frameworks and the service answer to an uploader, and how much they take in."""

    block_status: Literal[422, 451] = Field(
        default=422, description="The HTTP status of a blocked upload; 451 says that the law is why."
    )
    queue_status: Annotated[Whole, Field(ge=200, le=599)] = Field(
        default=202, description="The HTTP status of a queued upload."
    )
    not_scanned: Literal["pass", "queue", "block"] = Field(
        default="pass", description="What an upload of the verdict not_scanned is treated as: pass lets it through."
    )
    max_body_bytes: Annotated[Whole, Field(ge=1)] = Field(
        default=268_435_456, description="Largest request body, in bytes; larger ones are answered 413."
    )
    max_files: Annotated[Whole, Field(ge=1)] = Field(
        default=32, description="Most files in one request; more are answered 413."
    )
    min_bytes_per_s: Count = Field(
        default=2048,
        description="Least rate at which a request's body must arrive, in bytes a second, once 20 seconds were spent "
        "waiting for it; a slower one is answered 408. Where there is no room, uploads of less than eight "
        "times that, after a second, make room for others. 0 takes any.",
    )
    retry_after_s: Count = Field(
        default=2, description="What an upload that cannot be checked now is told to wait, in seconds, with a 503."
    )


class ServeSettings(Section):
    """The service for hosts in other languages, `uploadguard serve` (extra: serve)."""

    host: str = Field(default="127.0.0.1", description="The address to listen on.")
    port: Annotated[Whole, Field(ge=0, le=65535)] = Field(default=8643, description="The port; 0 takes a free one.")
    socket: Path | None = Field(
        default=None,
        examples=[Path("/run/uploadguard/service.sock")],
        description="A Unix socket to listen on in place of an address; whoever may open it needs no token, unless "
        "there are tokens.",
    )
    socket_mode: Literal["0600", "0660"] = Field(
        default="0600", description="Who may open the socket: the service's own user, or its group too."
    )
    token_file: Path | None = Field(
        default=None,
        examples=[Path("service.tokens")],
        description="The file with the bearer tokens, one a line; several while one is being replaced. The word "
        "metrics after one limits it to /metrics.",
    )
    token_env: Annotated[str, Field(min_length=1)] | None = Field(
        default=None,
        examples=["UPLOADGUARD_TOKEN"],
        description="In place of token_file: the name of the environment variable that holds them.",
    )
    max_uploads: Annotated[Whole, Field(ge=1)] = Field(
        default=64, description="Most uploads that a process takes in at once; the next one is answered 503."
    )
    body_timeout_s: Annotated[Span, Field(gt=0)] = Field(
        default=60.0, description="How long a request's body may take to arrive, in seconds."
    )
    shutdown_s: Annotated[Whole, Field(ge=1)] = Field(
        default=8, description="How long what is under way may take when the service is told to stop, in seconds."
    )
    tusd_dir: Path | None = Field(
        default=None,
        examples=[Path("/srv/tusd/data")],
        description="Where a tusd on this machine keeps uploads; those below are checked for /v1/hooks/tusd.",
    )


class SafetySettings(Section):
    """What a list must pass before it is in force, and when one that matches too much is held back."""

    activation: Literal["direct", "bounded", "manual"] = Field(
        default="bounded",
        description="bounded: an import is tried first and comes into force if it keeps within these bounds; manual: "
        "only by `uploadguard lists activate`; direct: at once, untried.",
    )
    max_growth_percent: Count = Field(
        default=200,
        description="How much larger an import may make a list of 100 entries and more; 0 switches this off. How much "
        "smaller is hashset.max_shrink_percent.",
    )
    max_benign_hits: Count = Field(
        default=0, description="How many of the built-in hashes of ordinary pictures a list may match."
    )
    sample: Path | None = Field(
        default=None,
        examples=[Path("sample.jsonl")],
        description="Hashes of the host's own popular pictures, as `uploadguard lists sample` makes it. Relative as "
        "hashset.path is.",
    )
    max_sample_percent: Span = Field(default=0.1, description="How much of that sample a list may match, in percent.")
    breaker_percent: Span = Field(
        default=1.0,
        description="When matches of one list reach this share of the checks, in percent, the list only queues from "
        "then on, without reports, and an alarm is raised; 0 is never.",
    )
    breaker_min_uploads: Annotated[Whole, Field(ge=1)] = Field(
        default=20, description="From how many matched uploads on; each file counts once."
    )
    breaker_window_checks: Annotated[Whole, Field(ge=100)] = Field(
        default=10_000, description="Over how many of a process's last checks this is counted."
    )
