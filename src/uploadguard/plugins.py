"""Plugins: finding them, loading only those allowed, and collecting what they hand over.

One manager for each Guard. The built-in parts register through the same hooks as outsiders (:class:`Builtins`). Hooks
are called plugin by plugin, so that one that raises is named and never takes another's answer with it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from typing import Any, NamedTuple, TypeVar

import pluggy

from uploadguard import hookspecs
from uploadguard.actions import Action
from uploadguard.alarms import Alarm, log_alarm
from uploadguard.config import Settings
from uploadguard.config_schema import closest
from uploadguard.destinations import builtin_actions
from uploadguard.errors import ConfigError, PluginError
from uploadguard.hookspecs import PROJECT, hookimpl
from uploadguard.lists import BUILTIN_READERS
from uploadguard.lists.base import ListReader
from uploadguard.matchers import Matcher
from uploadguard.media import BUILTIN_DECODERS
from uploadguard.media.base import Decoder
from uploadguard.signals.base import SignalType
from uploadguard.signals.digests import DIGESTS
from uploadguard.signals.imagehashes import IMAGE_HASHES, ImageHashSignal
from uploadguard.signals.pdq import Pdq
from uploadguard.storage.keys import KEY_BYTES
from uploadguard.telemetry.metrics import Metrics
from uploadguard.telemetry.traces import Traces

__all__ = ["ENTRY_POINT_GROUP", "Builtins", "Origin", "Plugins"]

ENTRY_POINT_GROUP = "uploadguard"

_BUILT_IN = frozenset({"builtin", "metrics", "traces"})

T = TypeVar("T")


class Origin(NamedTuple):
    """Where a part came from: the plugin, the hook, and its place in the hook's answer.

    ``installed``: another process finds the plugin by its name.
    """

    plugin: str
    hook: str
    place: int
    installed: bool


class Builtins:
    """The built-in signal types, decoders, list readers and kinds of actions, as a plugin."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @hookimpl
    def uploadguard_signal_types(self) -> Sequence[SignalType]:
        """The three digests, PDQ, and the imagehash package's hashes."""
        pdq = self._settings.signals.pdq
        return [
            *DIGESTS,
            Pdq(mode=pdq.mode, min_quality=pdq.min_quality, variants=pdq.variants),
            *(ImageHashSignal(name) for name in IMAGE_HASHES),
        ]

    @hookimpl
    def uploadguard_decoders(self) -> Sequence[Decoder]:
        """Pillow, libvips and libheif."""
        return BUILTIN_DECODERS

    @hookimpl
    def uploadguard_list_readers(self) -> Sequence[ListReader]:
        """TXT, CSV, JSON lines, VICS and ICSE."""
        return BUILTIN_READERS

    @hookimpl
    def uploadguard_actions(self, tables: Mapping[str, Mapping[str, Any]]) -> Sequence[Action]:
        """Files, webhooks and XARF reports."""
        return builtin_actions(tables, self._settings.error)


class Plugins:
    """The plugins of one Guard, and the objects they registered.

    ``extra`` are plugin objects that the host hands over in code, by name. Raises
    :class:`~uploadguard.errors.ConfigError` for a plugin that is not installed, and
    :class:`~uploadguard.errors.PluginError` for one that raises or hands over what its hook does not take.
    """

    def __init__(self, settings: Settings, extra: Sequence[tuple[str, object]] = ()) -> None:
        self._settings = settings
        self._origins: dict[int, Origin] = {}
        self._manager = pluggy.PluginManager(PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self._register("builtin", Builtins(settings))
        if settings.telemetry.metrics:
            self._register("metrics", Metrics())
        if settings.telemetry.traces:
            self._register("traces", Traces())
        for name, point in _entry_points(settings).items():
            self._register(name, _load(name, point))
        for name, plugin in extra:
            self._register(name, plugin)

        self.signal_types = self._collect_named("uploadguard_signal_types", SignalType)  # type: ignore[type-abstract]
        self.list_readers = self._collect_named("uploadguard_list_readers", ListReader)  # type: ignore[type-abstract]
        self.actions: dict[str, Action] = self._collect_named(
            "uploadguard_actions",
            Action,  # type: ignore[type-abstract]
            tables=settings.actions,
        )
        self.matchers: dict[str, Matcher] = self._collect_named(
            "uploadguard_matchers",
            Matcher,  # type: ignore[type-abstract]
            tables=settings.matchers,
        )
        self._require_made(
            "actions", self.actions, "built in are file, webhook and xarf, and a plugin's must be in plugins"
        )
        self._require_made("matchers", self.matchers, "the plugin that makes them must be in plugins")
        by_plugin = list(self._collect("uploadguard_decoders", Decoder))  # type: ignore[type-abstract]
        builtin = [decoder for plugin, decoder in by_plugin if plugin == "builtin"]
        self.decoders: tuple[Decoder, ...] = (
            *(decoder for plugin, decoder in by_plugin if plugin != "builtin"),
            *builtin,
        )

    @property
    def names(self) -> tuple[str, ...]:
        """The loaded plugins, without those built in."""
        return tuple(name for name, _ in self._manager.list_name_plugin() if name not in _BUILT_IN)

    def origin(self, part: object) -> Origin:
        """Where one of the objects that the plugins handed over came from. Raises ``KeyError`` for any other."""
        return self._origins[id(part)]

    @property
    def settings(self) -> Settings:
        """The configuration that these plugins are for."""
        return self._settings

    def enabled_signals(self) -> list[SignalType]:
        """The signal types that the configuration enables, in its order.

        Raises :class:`~uploadguard.errors.ConfigError` for one that is not registered or whose package is missing.
        """
        enabled = self._settings.signals.enabled
        if any(name not in self.signal_types for name in enabled):
            raise self._settings.error(
                (("signals", "enabled", index), f"no signal type named {name!r}; {_hint(name, self.signal_types)}")
                for index, name in enumerate(enabled)
                if name not in self.signal_types
            )
        signals = [self.signal_types[name] for name in enabled]
        for signal in signals:
            if isinstance(signal, ImageHashSignal):
                signal.require_package()
        return signals

    def evidence_key(self) -> bytes | None:
        """The key that a plugin gives for preserved files; None where none does.

        Raises :class:`~uploadguard.errors.PluginError` for one that raises, that gives what is no key, and for a second
        one.
        """
        found: bytes | None = None
        for plugin, answer in self.call_each("uploadguard_evidence_key"):
            if isinstance(answer, PluginError):
                raise answer
            if answer is None:
                continue
            if not isinstance(answer, bytes) or len(answer) != KEY_BYTES:
                raise PluginError(plugin, f"uploadguard_evidence_key must give {KEY_BYTES} bytes, or None")
            if found is not None:
                raise PluginError(plugin, "uploadguard_evidence_key gave a key, and another plugin gave one before")
            found = answer
        return found

    def has(self, hook: str) -> bool:
        """Whether any plugin implements the hook: lets the check path skip those that none does."""
        return bool(getattr(self._manager.hook, hook).get_hookimpls())

    def call_each(self, hook: str, **arguments: Any) -> Iterator[tuple[str, Any | PluginError]]:
        """Call the hook plugin by plugin, in order of registration: the plugin's name with its answer or its error."""
        for implementation in getattr(self._manager.hook, hook).get_hookimpls():
            name = implementation.plugin_name
            function: Callable[..., Any] = implementation.function
            try:
                answer = function(**{key: arguments[key] for key in implementation.argnames})
            except Exception as error:  # noqa: BLE001 - a plugin's fault must not become the host's
                answer = PluginError(name, f"{hook} raised {type(error).__name__}")
                answer.__cause__ = error
            yield name, answer

    def raise_alarm(self, alarm: Alarm) -> list[PluginError]:
        """Log an alarm and tell every plugin; returns what those raised."""
        log_alarm(alarm)
        answers = [answer for _, answer in self.call_each("uploadguard_alarm", alarm=alarm)]
        return [answer for answer in answers if isinstance(answer, PluginError)]

    def _register(self, name: str, plugin: object) -> None:
        try:
            self._manager.register(plugin, name)
            self._manager.check_pending()
        except (pluggy.PluginValidationError, ValueError) as error:
            raise PluginError(name, str(error)) from error
        unknown = [
            attribute
            for attribute in dir(plugin)
            if attribute.startswith(f"{PROJECT}_") and not hasattr(hookspecs, attribute)
        ]
        if unknown:
            raise PluginError(name, f"implements {unknown[0]}, which is not a hook of this version")

    def _require_made(self, section: str, made: Collection[str], where: str) -> None:
        """Refuse a free table that no plugin made anything of."""
        tables = getattr(self._settings, section)
        unmade = [name for name in tables if name not in made]
        if unmade:
            raise self._settings.error(
                (
                    (section, name, "kind"),
                    f"no plugin makes {section} of this kind; {where}"
                    if "kind" in tables[name]
                    else f"is missing: what kind of {section[:-1]} is it?",
                )
                for name in unmade
            )

    def _collect(self, hook: str, kind: type[T], **arguments: Any) -> Iterator[tuple[str, T]]:
        for plugin, answer in self.call_each(hook, **arguments):
            if isinstance(answer, PluginError):
                raise answer.__cause__ if isinstance(answer.__cause__, ConfigError) else answer
            if not isinstance(answer, Sequence):
                raise PluginError(plugin, f"{hook} must return a sequence, not {type(answer).__name__}")
            for place, part in enumerate(answer):
                if not isinstance(part, kind):
                    raise PluginError(plugin, f"{hook} gave a {type(part).__name__}, which is not a {kind.__name__}")
                self._origins[id(part)] = Origin(plugin, hook, place, plugin in self._settings.plugins)
                yield plugin, part

    def _collect_named(self, hook: str, kind: type[T], **arguments: Any) -> dict[str, T]:
        found: dict[str, T] = {}
        for plugin, part in self._collect(hook, kind, **arguments):
            name: str = part.name  # type: ignore[attr-defined]
            if name in found:
                raise PluginError(plugin, f"{hook} gave a second {kind.__name__} named {name!r}")
            found[name] = part
        return found


def _entry_points(settings: Settings) -> dict[str, metadata.EntryPoint]:
    """Where the plugins that the configuration names are to be imported from, by name."""
    installed = {point.name: point for point in metadata.entry_points(group=ENTRY_POINT_GROUP)}
    if any(name not in installed for name in settings.plugins):
        raise settings.error(
            (("plugins", index), f"no plugin named {name!r} is installed; {_hint(name, installed)}")
            for index, name in enumerate(settings.plugins)
            if name not in installed
        )
    return {name: installed[name] for name in settings.plugins}


def _hint(name: str, candidates: Iterable[str]) -> str:
    guess = closest(name, candidates)
    return f"did you mean {guess!r}?" if guess is not None else f"there are: {', '.join(sorted(candidates)) or 'none'}"


def _load(name: str, point: metadata.EntryPoint) -> object:
    try:
        return point.load()
    except Exception as error:
        raise PluginError(name, f"could not be imported: {type(error).__name__}: {error}") from error
