"""The plugin's settings: a TOML file of its own, read as strictly as uploadguard's.

It is a file of its own because uploadguard's takes no tables that it does not know, and because a worker for S3 often
runs where nothing else of uploadguard does.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import AfterValidator, Field, ValidationError

from uploadguard.config_problems import config_error, problems_of
from uploadguard.config_schema import Key
from uploadguard.config_sources import Origin, read_file
from uploadguard.config_toml import KeyPath
from uploadguard.config_types import NO_KEYS, Count, Flag, Frozen, Section, Span, UniqueNames, Whole
from uploadguard.destinations.options import EnvName
from uploadguard.models import Verdict
from uploadguard_s3.queue_options import QueueOptions

__all__ = ["ClientOptions", "Effect", "LimitOptions", "RouteOptions", "S3Options", "StateOptions", "Vocabulary"]

Effect: TypeAlias = Literal["tag", "quarantine", "promote", "delete"]
Vocabulary: TypeAlias = Literal["none", "guardduty", "clamscan"]

_ORDER: tuple[Effect, ...] = ("tag", "quarantine", "promote", "delete")


def _effects(effects: tuple[Effect, ...]) -> tuple[Effect, ...]:
    """In the order in which they are carried out."""
    if len(set(effects)) < len(effects):
        raise ValueError("the same effect stands there twice")
    return tuple(effect for effect in _ORDER if effect in effects)


def _suffixes(suffixes: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(suffix.lower() for suffix in suffixes)


Effects = Annotated[tuple[Effect, ...], AfterValidator(_effects)]
Suffixes = Annotated[UniqueNames, AfterValidator(_suffixes)]
Bucket = Annotated[str, Field(min_length=1, max_length=255)]
Prefix = Annotated[str, Field(max_length=512)]


class ClientOptions(Section):
    """How the S3 service is reached. Credentials come from where the AWS SDKs look for them."""

    endpoint_url: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="The service's address; AWS's own by default."
    )
    region: Annotated[str, Field(min_length=1)] | None = Field(default=None, description="The region.")
    addressing: Literal["auto", "path", "virtual"] = Field(
        default="auto", description="Where a bucket's name goes in an address."
    )
    connect_s: Annotated[Span, Field(gt=0)] = Field(
        default=5.0, description="How long to wait for a connection, in seconds."
    )
    read_s: Annotated[Span, Field(gt=0)] = Field(
        default=30.0, description="How long to wait for the next bytes of an answer, in seconds."
    )
    attempts: Annotated[Whole, Field(ge=1)] = Field(
        default=3, description="How often a request is tried before its event waits for another delivery."
    )


class StateOptions(Section):
    """Where it is kept what was done already."""

    path: Path = Field(
        default=Path("uploadguard-s3.db"),
        description="An SQLite file, for the workers of one host. In a file of settings, relative to that file.",
    )
    url_env: EnvName | None = Field(
        default=None,
        description="In place of path: the name of the environment variable with the URL of a PostgreSQL database, for "
        "workers on several hosts.",
    )
    retention_days: Annotated[Whole, Field(ge=15)] = Field(
        default=35, description="How long, in days. Longer than a queue keeps messages, 14 days."
    )
    lease_s: Annotated[Span, Field(ge=1)] = Field(
        default=30.0,
        description="How long a key stays reserved for a worker that died, in seconds. Workers at work renew theirs.",
    )


class LimitOptions(Section):
    """How much is done at once."""

    at_once: Annotated[Whole, Field(ge=1)] = Field(
        default=16, description="Most objects at once; never more than the Guard takes."
    )
    memory_bytes: Annotated[Whole, Field(ge=1)] = Field(
        default=268_435_456, description="Most bytes of objects in memory; one object may be larger, alone."
    )
    read_too_large: Flag = Field(
        default=False,
        description="Whether objects over media.max_file_bytes are read for their digests, or answered as too_large "
        "unread.",
    )


class RouteOptions(Section):
    """Which objects are checked, and what becomes of them. ``[routes.NAME]``."""

    bucket: Bucket = Field(description="The bucket that uploads come into.")
    prefix: Prefix = Field(default="", description="What keys begin with. Of several routes the longest prefix wins.")
    only_suffixes: Suffixes = Field(default=(), description="What keys must end in, in any case; all keys by default.")
    skip_suffixes: Suffixes = Field(default=(), description="What keys end in that are not checked, nor published.")
    tenant: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="The tenant whose rules apply, as in uploadguard's settings."
    )
    public_bucket: Bucket | None = Field(
        default=None, description="Where promote moves to; the same bucket if left out."
    )
    public_prefix: Prefix | None = Field(default=None, description="What takes prefix's place in the key there.")
    quarantine_bucket: Bucket | None = Field(default=None, description="Where quarantine copies to.")
    quarantine_prefix: Prefix = Field(default="", description="What goes before the key there.")
    legal_hold: Flag = Field(default=False, description="Whether copies in quarantine get a legal hold.")
    retain_days: Count = Field(default=0, description="For how many days they cannot be deleted (object lock).")
    retain_mode: Literal["governance", "compliance"] = Field(
        default="governance", description="Whether special permission lifts that."
    )
    allow: Effects | None = Field(
        default=None, description="By default promote where a public place is given, else tag."
    )
    not_scanned: Effects = Field(default=("tag",), description="What is done where not all could be inspected.")
    queue: Effects | None = Field(default=None, description="By default tag and, where a bucket is given, quarantine.")
    block: Effects | None = Field(
        default=None, description="By default quarantine and delete where a quarantine bucket is given, else tag."
    )

    @property
    def public(self) -> tuple[str, str] | None:
        """The bucket and prefix that ``promote`` moves to."""
        if self.public_bucket is None and self.public_prefix is None:
            return None
        return self.public_bucket or self.bucket, self.prefix if self.public_prefix is None else self.public_prefix

    @property
    def quarantine(self) -> tuple[str, str] | None:
        """The bucket and prefix that ``quarantine`` copies to."""
        return None if self.quarantine_bucket is None else (self.quarantine_bucket, self.quarantine_prefix)

    def effects(self, verdict: Verdict) -> tuple[Effect, ...]:
        """What a verdict asks for, in order."""
        kept = self.quarantine is not None
        match verdict:
            case Verdict.ALLOW:
                return self.allow if self.allow is not None else (("promote",) if self.public is not None else ("tag",))
            case Verdict.NOT_SCANNED:
                return self.not_scanned
            case Verdict.QUEUE:
                return self.queue if self.queue is not None else (("tag", "quarantine") if kept else ("tag",))
            case Verdict.BLOCK:
                return self.block if self.block is not None else (("quarantine", "delete") if kept else ("tag",))

    def holds(self, bucket: str, key: str) -> bool:
        """Whether an object lies where this route's uploads do."""
        return bucket == self.bucket and key.startswith(self.prefix)

    def takes(self, key: str) -> bool:
        """Whether a key is one of those to be checked: by its end, and if it names one object in every service.

        Some services take keys for paths, so that ``..`` leads out of the prefix.
        """
        if key.endswith("/") or not {".", ".."}.isdisjoint(key.split("/")):
            return False
        name = key.lower()
        return not name.endswith(self.skip_suffixes) and (not self.only_suffixes or name.endswith(self.only_suffixes))


class S3Options(Section):
    """All settings of the plugin."""

    client: ClientOptions = Field(default_factory=ClientOptions)
    state: StateOptions = Field(default_factory=StateOptions)
    limits: LimitOptions = Field(default_factory=LimitOptions)
    queue: QueueOptions = Field(default_factory=QueueOptions)
    vocabulary: Vocabulary = Field(
        default="none", description="Whether tags as GuardDuty's or clamscan's scanners set them are set too."
    )
    routes: Annotated[Frozen[RouteOptions], Key("route", "photos")] = NO_KEYS

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a TOML file. Raises :class:`~uploadguard.errors.ConfigError` with every problem and its line."""
        file = read_file(Path(path), cls)
        return cls._made(file.values, Origin(file=file))

    @classmethod
    def of(cls, **tables: Any) -> Self:
        """The settings in code: ``S3Options.of(routes={"photos": {"bucket": "uploads"}})``. Raises as :meth:`load`."""
        return cls._made(tables, Origin(overrides=tables))

    @classmethod
    def _made(cls, values: Mapping[str, Any], origin: Origin) -> Self:
        try:
            made = cls.model_validate(dict(values))
        except ValidationError as error:
            problems = problems_of(error, cls, origin)
        else:
            problems = [origin.problem(path, text) for path, text in made._problems()]
            if not problems:
                return made
        raise config_error(problems, origin)

    def route(self, bucket: str, key: str) -> RouteOptions | None:
        """The route of an object; None where it is not to be checked."""
        found = [route for route in self.routes.values() if route.holds(bucket, key)]
        return max(found, key=lambda route: len(route.prefix), default=None)

    def _problems(self) -> Iterator[tuple[KeyPath, str]]:
        """What is wrong between settings."""
        if not self.routes:
            yield ("routes",), "is missing: nothing would be checked; give a table [routes.NAME] with a bucket"
        places: dict[tuple[str, str], str] = {}
        for name, route in self.routes.items():
            yield from ((("routes", name, key), text) for key, text in _route_problems(route))
            for key, place in (("public_prefix", route.public), ("quarantine_bucket", route.quarantine)):
                if place is not None and any(_overlap(place, (r.bucket, r.prefix)) for r in self.routes.values()):
                    yield ("routes", name, key), "lies where uploads are checked, or they there: copies would come back"
            if route.public is not None and places.setdefault(route.public, name) != name:
                yield ("routes", name, "public_prefix"), "another route publishes to the same place"


def _route_problems(route: RouteOptions) -> Iterator[tuple[str, str]]:
    for verdict in Verdict:
        effects = route.effects(verdict)
        if "promote" in effects and verdict in (Verdict.QUEUE, Verdict.BLOCK):
            yield verdict.label, "must not promote: it would be published"
        if "promote" in effects and "delete" in effects:
            yield verdict.label, "needs no delete beside promote, which moves"
        if "promote" in effects and route.public is None:
            yield verdict.label, "promote needs public_bucket or public_prefix"
        if "quarantine" in effects and route.quarantine is None:
            yield verdict.label, "quarantine needs quarantine_bucket"
    if route.quarantine is None and (route.legal_hold or route.retain_days):
        yield "quarantine_bucket", "is missing: legal_hold and retain_days are for copies there"


def _overlap(one: tuple[str, str], other: tuple[str, str]) -> bool:
    return one[0] == other[0] and (one[1].startswith(other[1]) or other[1].startswith(one[1]))
