"""The configuration: one frozen model, read from a TOML file, the environment and keyword arguments.

Every setting is described in docs/configuration.md, which is checked against this model. Keyword arguments go before
environment variables, those before the file, the file before the defaults; key by key, not table by table.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PrivateAttr, Strict, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from uploadguard.config_hosts import SafetySettings, ServeSettings, WebSettings
from uploadguard.config_ledger import ConsoleSettings, EvidenceSettings, LedgerSettings, OutboxSettings
from uploadguard.config_media import MediaSettings, SignalsSettings
from uploadguard.config_policy import PolicySettings, TenantSettings
from uploadguard.config_problems import config_error, cross_checks, problems_of, rule_problems
from uploadguard.config_schema import Key
from uploadguard.config_sources import ENV_CONFIG, Origin, StoredSource, read_environment, read_file
from uploadguard.config_toml import KeyPath
from uploadguard.config_types import NO_KEYS, Count, Flag, Frozen, Section, Span, UniqueNames, Whole
from uploadguard.errors import ConfigError
from uploadguard.matchers import Matcher
from uploadguard.policy import Policy, SignalDefaults

__all__ = [
    "EncryptionSettings",
    "HashsetSettings",
    "SandboxSettings",
    "Settings",
    "TelemetrySettings",
    "ThreadsSettings",
]

_TENANT = Key("tenant", "example")
_ACTION = Key("action", "example")
_MATCHER = Key("matcher", "example")


class EncryptionSettings(Section):
    """Encryption of the hash set's files (extra: encryption). Without a key they are plain."""

    key_file: Path | None = Field(
        default=None,
        examples=[Path("hashset.key")],
        description="The file with the key, as `uploadguard hashset newkey` makes it. New files are encrypted with its "
        "first key; those of its other keys are read too. Relative as hashset.path is.",
    )
    key_env: Annotated[str, Field(min_length=1)] | None = Field(
        default=None,
        examples=["HASHSET_KEY"],
        description="In place of key_file: the name of the environment variable that holds what the file would.",
    )
    write: Flag = Field(
        default=True,
        description="Whether new files are encrypted; false: they are plain, and the keys are for reading the others.",
    )


class HashsetSettings(Section):
    """The compiled hash lists that uploads are looked up in."""

    path: Path = Field(
        default=Path("hashset"),
        description="The hash set's directory. In a file, relative to the file; elsewhere, to the working directory.",
    )
    allow_empty: Flag = Field(
        default=False, description="Whether to open with a hash set without any entry, which can match nothing."
    )
    test_list: Flag = Field(
        default=False,
        description="Whether to load the built-in list of harmless test pictures, to try out a deployment.",
    )
    refresh_s: Span = Field(default=1.0, description="How often to look for a new generation, in seconds; 0 is never.")
    verify: Flag = Field(default=True, description="Whether to check the hash set's checksums when it is opened.")
    keep_previous: Count = Field(
        default=3, description="How many previous generations a change leaves to roll back to, with all their files."
    )
    max_shrink_percent: Whole = Field(
        default=50,
        ge=0,
        le=100,
        description="How much smaller a file may be than the list it replaces; 100 switches this off. For lists of 100 "
        "entries and more.",
    )
    warn_after_h: Span = Field(
        default=24.0, description="Warn when no list was imported or updated for so many hours; 0 is never."
    )
    stale_after_h: Span = Field(
        default=72.0,
        description="After so many hours without an update every check fails as hash_set_stale; 0 is never.",
    )
    encryption: EncryptionSettings = Field(default_factory=EncryptionSettings)


class ThreadsSettings(Section):
    """How much runs side by side."""

    digest_overlap: Literal["auto", True, False] = Field(
        default="auto",
        description="Whether digests are hashed on a second thread beside decoding; auto: where the process has more "
        "than one CPU.",
    )
    workers: Count = Field(default=0, description="Threads for asynchronous checks; 0 is the number of CPUs.")


class SandboxSettings(Section):
    """Where uploads are decoded: in worker processes that can do nothing else."""

    isolation: Literal["sandbox", "process", "none"] = Field(
        default="sandbox",
        description="sandbox refuses to start where the system cannot enforce it; process takes what layers the system "
        "has; none decodes in the host's own process, for trusted input only.",
    )
    workers: Count = Field(default=0, description="Most uploads to decode at once; 0 is the number of CPUs.")
    prewarm: Flag = Field(
        default=False,
        description="Whether to start a worker when the Guard opens, and wait for it, instead of at the first check.",
    )
    deadline_s: Annotated[float, Strict()] = Field(
        default=2.0,
        ge=0.01,
        allow_inf_nan=False,
        description="How long a check may take once its upload is read, in seconds.",
    )
    max_waiting: Count = Field(
        default=64, description="Most checks that may wait for a worker; the next one fails as overloaded."
    )
    max_memory_bytes: Whole = Field(
        default=1_073_741_824, ge=268_435_456, description="Most memory for one worker, in bytes."
    )
    max_files: Whole = Field(default=1000, ge=1, description="After how many uploads a worker is replaced.")
    idle_s: Span = Field(default=60.0, description="After how long without work workers end, in seconds; one stays.")
    python: str = Field(
        default="", description="The Python interpreter for workers; empty is the one that runs the host."
    )


class TelemetrySettings(Section):
    """What operators see from outside."""

    metrics: Flag = Field(
        default=False,
        description="Whether to keep Prometheus metrics in prometheus-client's own registry (extra: metrics).",
    )
    traces: Flag = Field(
        default=False, description="Whether to make an OpenTelemetry span of each check (extra: traces)."
    )


_ORIGIN: ContextVar[Origin] = ContextVar("_ORIGIN")


class Settings(BaseSettings):
    """All settings. :meth:`load` reads them; ``Settings()`` holds the defaults and looks at nothing else."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", case_sensitive=True)

    plugins: UniqueNames = Field(
        default=(), description="The plugins to load, by entry-point name. No others are loaded."
    )
    hashset: HashsetSettings = Field(default_factory=HashsetSettings)
    media: MediaSettings = Field(default_factory=MediaSettings)
    signals: SignalsSettings = Field(default_factory=SignalsSettings)
    policy: PolicySettings = Field(default_factory=PolicySettings)
    tenants: Annotated[Frozen[TenantSettings], _TENANT] = NO_KEYS
    threads: ThreadsSettings = Field(default_factory=ThreadsSettings)
    sandbox: SandboxSettings = Field(default_factory=SandboxSettings)
    telemetry: TelemetrySettings = Field(default_factory=TelemetrySettings)
    ledger: LedgerSettings = Field(default_factory=LedgerSettings)
    outbox: OutboxSettings = Field(default_factory=OutboxSettings)
    actions: Annotated[Frozen[Frozen[Any]], _ACTION] = NO_KEYS
    evidence: EvidenceSettings = Field(default_factory=EvidenceSettings)
    console: ConsoleSettings = Field(default_factory=ConsoleSettings)
    matchers: Annotated[Frozen[Frozen[Any]], _MATCHER] = NO_KEYS
    safety: SafetySettings = Field(default_factory=SafetySettings)
    web: WebSettings = Field(default_factory=WebSettings)
    serve: ServeSettings = Field(default_factory=ServeSettings)

    _origin: Origin = PrivateAttr(default_factory=Origin)

    @classmethod
    def load(cls, path: str | os.PathLike[str] | None = None, **overrides: Any) -> Self:
        """Read the configuration.

        ``path`` is a TOML file; None means the file that the environment variable ``UPLOADGUARD_CONFIG`` names, or
        no file. ``overrides`` are top-level settings, tables as mappings: ``load(media={"max_pixels": 10_000_000})``.
        Raises :class:`~uploadguard.errors.ConfigError` with every problem of every source.
        """
        found = path if path is not None else os.environ.get(ENV_CONFIG) or None
        origin = Origin(
            overrides=overrides,
            environment=read_environment(cls, os.environ),
            file=read_file(Path(found), cls) if found is not None else None,
        )
        token = _ORIGIN.set(origin)
        try:
            settings = cls(**overrides)
        except ValidationError as error:
            raise config_error([*origin.environment.problems, *problems_of(error, cls, origin)], origin) from None
        finally:
            _ORIGIN.reset(token)
        settings._origin = origin
        problems = [*origin.environment.problems, *cross_checks(settings, origin)]
        if problems:
            raise config_error(problems, origin)
        return settings

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What pydantic-settings merges: keyword arguments, environment, file; in that order of precedence."""
        origin = _ORIGIN.get(Origin())
        return (
            init_settings,
            StoredSource(settings_cls, origin.environment.values),
            StoredSource(settings_cls, origin.file.values if origin.file is not None else {}),
        )

    def __repr__(self) -> str:
        return f"Settings(path={str(self.path) if self.path is not None else None!r})"

    __str__ = __repr__

    @property
    def path(self) -> Path | None:
        """The file that was read."""
        return self._origin.file.path if self._origin.file is not None else None

    def error(self, problems: Iterable[tuple[KeyPath, str]]) -> ConfigError:
        """The error for what turned out to be wrong with settings: their places, each with a sentence."""
        return config_error([self._origin.problem(path, text) for path, text in problems], self._origin)

    def decision_policy(
        self, signal_types: Mapping[str, SignalDefaults], *, matchers: Iterable[Matcher] = ()
    ) -> Policy:
        """The policy for these signal types, those that uploads are matched by, keyed by name; and these matchers.

        Raises :class:`~uploadguard.errors.ConfigError` where a rule names another signal type or has a limit that
        its signal type cannot have.
        """
        if problems := list(rule_problems(self, signal_types, self._origin)):
            raise config_error(problems, self._origin)
        return Policy(
            signal_types=signal_types,
            rules=self.policy.rules(),
            tenants={name: tenant.policy.rules() for name, tenant in self.tenants.items()},
            may_lower=frozenset(self.policy.may_lower),
            allow_digests=frozenset(self.policy.allow_digests),
            matcher_failures={one.name: one.on_failure for one in matchers if one.on_failure is not None},
            shadow=self.policy.shadow,
        )
