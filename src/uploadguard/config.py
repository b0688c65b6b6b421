"""The configuration: one frozen model, read from a TOML file, the environment and keyword arguments.

Every setting is described in docs/configuration.md, which is checked against this model. Keyword arguments go before
environment variables, those before the file, the file before the defaults; key by key, not table by table.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import Field, PrivateAttr, Strict, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from uploadguard.config_hosts import SafetySettings, ServeSettings, WebSettings
from uploadguard.config_ledger import ConsoleSettings, EvidenceSettings, LedgerSettings, OutboxSettings
from uploadguard.config_problems import config_error, cross_checks, problems_of, rule_problems
from uploadguard.config_schema import Key, Shown
from uploadguard.config_sources import ENV_CONFIG, Origin, StoredSource, read_environment, read_file
from uploadguard.config_toml import KeyPath
from uploadguard.config_types import NO_KEYS, Flag, Frozen, LimitBits, Section, UniqueNames, Whole
from uploadguard.errors import ConfigError
from uploadguard.matchers import Matcher
from uploadguard.models import FailureCode, Verdict
from uploadguard.policy import Policy, Rule, Rules, SignalDefaults
from uploadguard.testing.names import TEST_LIST_NAME

__all__ = [
    "EncryptionSettings",
    "FailureSettings",
    "HashsetSettings",
    "ListRuleSettings",
    "MediaSettings",
    "PdqSettings",
    "PolicySettings",
    "RuleSettings",
    "SandboxSettings",
    "Settings",
    "SignalsSettings",
    "TelemetrySettings",
    "TenantPolicySettings",
    "TenantSettings",
    "ThreadsSettings",
]

MatchVerdict: TypeAlias = Literal["allow", "queue", "block"]
FailureVerdict: TypeAlias = Literal["allow", "not_scanned", "queue", "block"]

_SIGNAL = Key("signal type", "pdq")
_LIST = Key("list", "my-list")
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
    refresh_s: Annotated[float, Strict()] = Field(
        default=1.0,
        ge=0,
        allow_inf_nan=False,
        description="How often to look for a new generation, in seconds; 0 is never.",
    )
    verify: Flag = Field(default=True, description="Whether to check the hash set's checksums when it is opened.")
    keep_previous: Whole = Field(
        default=3,
        ge=0,
        description="How many previous generations a change leaves to roll back to, with all their files.",
    )
    max_shrink_percent: Whole = Field(
        default=50,
        ge=0,
        le=100,
        description="How much smaller a file may be than the list it replaces; 100 switches this off. For lists of 100 "
        "entries and more.",
    )
    warn_after_h: Annotated[float, Strict()] = Field(
        default=24.0,
        ge=0,
        allow_inf_nan=False,
        description="Warn when no list was imported or updated for so many hours; 0 is never.",
    )
    stale_after_h: Annotated[float, Strict()] = Field(
        default=72.0,
        ge=0,
        allow_inf_nan=False,
        description="After so many hours without an update every check fails as hash_set_stale; 0 is never.",
    )
    encryption: EncryptionSettings = Field(default_factory=EncryptionSettings)


class MediaSettings(Section):
    """Limits, checked before anything is decoded, and how pictures are laid out for hashing."""

    max_file_bytes: Whole = Field(
        default=104_857_600,
        ge=1,
        description="Largest upload to decode, in bytes. Digests are looked up for larger ones too.",
    )
    max_pixels: Whole = Field(
        default=100_000_000, ge=1, description="Largest picture to decode: width x height of one frame, in pixels."
    )
    max_frames_hashed: Whole = Field(
        default=64,
        ge=1,
        description="Most frames or pages of one file to hash: the first, the last, and those that differ from others.",
    )
    max_decoded_pixels: Whole = Field(
        default=400_000_000,
        ge=1,
        description="Most pixels to decode for one upload: all frames on the way to the last hashed one.",
    )
    max_side_pixels: Whole = Field(default=65_535, ge=1, description="Longest side of a picture to decode, in pixels.")
    max_bands: Whole = Field(default=5, ge=1, description="Most samples of one pixel: 5 is four inks and alpha.")
    max_frames: Whole = Field(
        default=10_000, ge=1, description="Most frames of an animation, or pages, in a file to decode."
    )
    max_metadata_bytes: Whole = Field(
        default=67_108_864, ge=1, description="Most bytes of a file that are not its pixels, unpacked where packed."
    )
    max_metadata_parts: Whole = Field(
        default=20_000, ge=1, description="Most segments, chunks, boxes and directory entries besides pixels."
    )
    max_metadata_depth: Whole = Field(default=12, ge=1, description="Deepest nesting of boxes and directories.")
    allow_codecs: UniqueNames = Field(
        default=(),
        description="Codecs to decode with although their version has known holes, by the name in the refusal.",
    )
    background: Annotated[str, Shown('a colour as "#rrggbb"')] = Field(
        default="#ffffff", pattern=r"^#[0-9a-fA-F]{6}$", description="The colour that lies under transparent pixels."
    )

    @property
    def background_rgb(self) -> tuple[int, int, int]:
        """``background`` as red, green and blue, 0 to 255 each."""
        red, green, blue = bytes.fromhex(self.background[1:])
        return red, green, blue


class PdqSettings(Section):
    """PDQ, the perceptual hash."""

    mode: Literal["auto", "exact"] = Field(
        default="auto",
        description="auto decodes to luma, as fast as can be; exact decodes to RGB and hashes bit by bit as the "
        "reference does.",
    )
    jpeg_scale: Literal["auto", 1, 2, 4, 8] = Field(
        default="auto",
        description="Fraction to decode JPEG at: 4 is a quarter of each side; auto chooses by size. No effect in mode "
        "exact.",
    )
    min_quality: Whole = Field(
        default=50,
        ge=0,
        le=100,
        description="A hash of lower quality is not matched; the upload counts as low_quality.",
    )
    variants: Flag = Field(
        default=True, description="Whether mirrored and turned forms of a picture are looked up too."
    )


class SignalsSettings(Section):
    """The kinds of hash to compute and look up."""

    enabled: UniqueNames = Field(
        default=("md5", "sha1", "sha256", "pdq"),
        min_length=1,
        description="The signal types to use. phash, dhash and whash need the imagehash extra; plugins add more.",
    )
    pdq: PdqSettings = Field(default_factory=PdqSettings)


class RuleSettings(Section):
    """What a match means. What is left out here is taken from a less specific rule."""

    verdict: MatchVerdict | None = Field(
        default=None, examples=["queue"], description="What a match calls for; allow means: note it only."
    )
    max_distance_bits: LimitBits | None = Field(
        default=None, examples=[31], description="Widest Hamming distance that is a match, inclusive, in bits."
    )
    report: Flag | None = Field(default=None, examples=[False], description="Whether a match makes a report due.")
    shadow: Flag | None = Field(
        default=None,
        examples=[True],
        description="Whether a match is only recorded: what it would call for is in the decision's shadow verdict.",
    )


class ListRuleSettings(RuleSettings):
    """What a match of one list means, of any signal type or of one."""

    signals: Annotated[Frozen[RuleSettings], _SIGNAL] = NO_KEYS


class FailureSettings(Section):
    """The verdict where something could not be inspected. "allow" fails open: start-up logs it."""

    empty_file: FailureVerdict = Field(default="not_scanned", description="The upload has no bytes.")
    too_large: FailureVerdict = Field(default="queue", description="More bytes than media.max_file_bytes.")
    too_many_pixels: FailureVerdict = Field(default="queue", description="More pixels than media.max_pixels.")
    unsupported_format: FailureVerdict = Field(
        default="not_scanned", description="Not a media type that a decoder reads."
    )
    codec_refused: FailureVerdict = Field(
        default="queue", description="The codec for this media type has a known hole; see media.allow_codecs."
    )
    decode_failed: FailureVerdict = Field(default="queue", description="The decoder gave up.")
    timeout: FailureVerdict = Field(default="queue", description="sandbox.deadline_s was over.")
    out_of_memory: FailureVerdict = Field(
        default="queue", description="Decoding took more memory than sandbox.max_memory_bytes, or than there is."
    )
    decoder_crashed: FailureVerdict = Field(
        default="queue", description="The worker process died or broke its protocol, and a second one too."
    )
    sandbox_violation: FailureVerdict = Field(
        default="queue", description="The worker process was killed for a call that only an exploit makes."
    )
    sandbox_failed: FailureVerdict = Field(default="queue", description="No worker process could be started.")
    hash_set_stale: FailureVerdict = Field(
        default="queue", description="No list was updated for hashset.stale_after_h hours."
    )
    overloaded: FailureVerdict = Field(
        default="queue", description="More than sandbox.max_waiting checks were waiting for a worker."
    )
    truncated: FailureVerdict = Field(
        default="queue", description="The file ends early; what could be decoded was hashed."
    )
    too_complex: FailureVerdict = Field(
        default="queue", description="More metadata, nesting, bands or frames than the limits in media."
    )
    appended_content: FailureVerdict = Field(
        default="queue", description="Another file follows the picture: an archive, a script, a program, a document."
    )
    polyglot: FailureVerdict = Field(default="queue", description="The file is of another kind as well.")
    shown_otherwise: FailureVerdict = Field(
        default="queue", description="Viewers may show a picture other than those that were hashed."
    )
    pictures_unhashed: FailureVerdict = Field(
        default="not_scanned", description="The file holds further pictures that were not hashed."
    )
    low_quality: FailureVerdict = Field(
        default="not_scanned", description="Too flat or too small for a perceptual hash."
    )
    frames_over_budget: FailureVerdict = Field(
        default="not_scanned", description="media.max_decoded_pixels did not reach all of an animation."
    )
    frames_sampled: FailureVerdict = Field(
        default="not_scanned",
        description="More frames than media.max_frames_hashed that differ from each other; some were not hashed.",
    )
    signal_failed: FailureVerdict = Field(default="queue", description="A signal type raised while hashing.")
    plugin_failed: FailureVerdict = Field(default="queue", description="A plugin raised, or broke its contract.")
    matcher_failed: FailureVerdict = Field(
        default="queue", description="A match service gave no answer that can be relied on; see on_failure in matchers."
    )
    content_unseen: FailureVerdict = Field(
        default="not_scanned", description="Only hashes that the host sent were looked up; the file was not there."
    )


class TenantPolicySettings(Section):
    """Rules for matches, by signal type and by list, and verdicts for failures."""

    signals: Annotated[Frozen[RuleSettings], _SIGNAL] = NO_KEYS
    lists: Annotated[Frozen[ListRuleSettings], _LIST] = NO_KEYS
    failures: FailureSettings = Field(default_factory=FailureSettings)

    def rules(self) -> Rules:
        """The rules as :mod:`uploadguard.policy` takes them. Of ``failures``, only what was set."""
        return Rules(
            signals={name: _rule(rule) for name, rule in self.signals.items()},
            lists={name: _rule(rule) for name, rule in self.lists.items()},
            list_signals={
                (name, signal): _rule(rule)
                for name, list_rule in self.lists.items()
                for signal, rule in list_rule.signals.items()
            },
            failures={
                FailureCode(code): Verdict.from_label(getattr(self.failures, code))
                for code in self.failures.model_fields_set
            },
        )


class PolicySettings(TenantPolicySettings):
    """What matches and failures mean."""

    may_lower: UniqueNames = Field(
        default=(), description="Plugins whose answer may lower a verdict; each must be in plugins."
    )
    allow_digests: UniqueNames = Field(
        default=("sha256",),
        description="Digests whose match on an allow-list clears an upload. Leave out md5 and sha1: two different "
        "files can be made with one value.",
    )
    shadow: Flag = Field(
        default=False,
        description="Whether to act on nothing: every upload is allowed, and the decision's shadow verdict says what "
        "it would have been. For trying a deployment out.",
    )


class TenantSettings(Section):
    """One tenant's overrides."""

    policy: TenantPolicySettings = Field(default_factory=TenantPolicySettings)


class ThreadsSettings(Section):
    """How much runs side by side."""

    digest_overlap: Literal["auto", True, False] = Field(
        default="auto",
        description="Whether digests are hashed on a second thread beside decoding; auto: where the process has more "
        "than one CPU.",
    )
    workers: Whole = Field(default=0, ge=0, description="Threads for asynchronous checks; 0 is the number of CPUs.")


class SandboxSettings(Section):
    """Where uploads are decoded: in worker processes that can do nothing else."""

    isolation: Literal["sandbox", "process", "none"] = Field(
        default="sandbox",
        description="sandbox refuses to start where the system cannot enforce it; process takes what layers the system "
        "has; none decodes in the host's own process, for trusted input only.",
    )
    workers: Whole = Field(default=0, ge=0, description="Most uploads to decode at once; 0 is the number of CPUs.")
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
    max_waiting: Whole = Field(
        default=64, ge=0, description="Most checks that may wait for a worker; the next one fails as overloaded."
    )
    max_memory_bytes: Whole = Field(
        default=1_073_741_824, ge=268_435_456, description="Most memory for one worker, in bytes."
    )
    max_files: Whole = Field(default=1000, ge=1, description="After how many uploads a worker is replaced.")
    idle_s: Annotated[float, Strict()] = Field(
        default=60.0,
        ge=0,
        allow_inf_nan=False,
        description="After how long without work workers end, in seconds; one stays.",
    )
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
            rules=_without_test_reports(self.policy.rules()),
            tenants={name: tenant.policy.rules() for name, tenant in self.tenants.items()},
            may_lower=frozenset(self.policy.may_lower),
            allow_digests=frozenset(self.policy.allow_digests),
            matcher_failures={one.name: one.on_failure for one in matchers if one.on_failure is not None},
            shadow=self.policy.shadow,
        )


def _without_test_reports(rules: Rules) -> Rules:
    """Rules by which a match of the test list makes no report due, unless a rule for that list says that it does."""
    rule = rules.lists.get(TEST_LIST_NAME, Rule())
    if rule.report is not None:
        return rules
    return replace(rules, lists={**rules.lists, TEST_LIST_NAME: replace(rule, report=False)})


def _rule(settings: RuleSettings) -> Rule:
    verdict = Verdict.from_label(settings.verdict) if settings.verdict is not None else None
    return Rule(verdict, settings.max_distance_bits, settings.report, settings.shadow)
