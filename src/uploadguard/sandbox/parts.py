"""How decoders and pixel signals get into a worker: by name where a plugin is installed, pickled otherwise.

Pickles go from the host to the worker only, and before the worker has seen an untrusted byte.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any

from uploadguard.errors import PluginError

if TYPE_CHECKING:
    from uploadguard.media.base import DecodeOptions, Decoder
    from uploadguard.media.inspect import Limits
    from uploadguard.plugins import Plugins
    from uploadguard.signals.base import PixelSignal

__all__ = ["Job", "dump_job", "load_job"]

_GROUP = "uploadguard"


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker works with. ``allow_codecs`` names codecs to decode with in spite of known holes."""

    decoders: Sequence[Decoder]
    signals: Sequence[PixelSignal]
    options: DecodeOptions
    limits: Limits
    allow_codecs: Sequence[str] = ()


def dump_job(job: Job, plugins: Plugins, extra: Mapping[str, Any]) -> bytes:
    """The job as bytes for a worker's start, with some more values.

    Raises :class:`~uploadguard.errors.PluginError` for a part that another process could not get at.
    """
    return pickle.dumps(
        {
            "decoders": [_reference(part, plugins) for part in job.decoders],
            "signals": [_reference(part, plugins) for part in job.signals],
            "options": job.options,
            "limits": job.limits,
            "allow_codecs": tuple(job.allow_codecs),
            **extra,
        }
    )


def load_job(payload: bytes) -> tuple[Job, dict[str, Any]]:
    """In the worker: the job, and the other values. Raises whatever importing the parts raises."""
    values: dict[str, Any] = pickle.loads(payload)  # noqa: S301 - from the host that started this process
    answers: dict[tuple[str, str], list[Any]] = {}

    def part_of(reference: bytes | tuple[str, str, int]) -> Any:
        if isinstance(reference, bytes):
            return pickle.loads(reference)  # noqa: S301 - as above
        plugin, hook, index = reference
        if (plugin, hook) not in answers:
            answers[plugin, hook] = _answer(plugin, hook)
        return answers[plugin, hook][index]

    job = Job(
        [part_of(reference) for reference in values.pop("decoders")],
        [part_of(reference) for reference in values.pop("signals")],
        values.pop("options"),
        values.pop("limits"),
        values.pop("allow_codecs"),
    )
    return job, values


def _reference(part: object, plugins: Plugins) -> bytes | tuple[str, str, int]:
    origin = plugins.origin(part)
    if origin.installed:
        return origin.plugin, origin.hook, origin.place
    try:
        pickled = pickle.dumps(part)
        reason = "is defined in the main program, which a worker does not run" if b"__main__" in pickled else None
    except Exception as error:  # noqa: BLE001 - pickling runs the plugin's code
        reason = f"cannot be pickled ({type(error).__name__})"
    if reason is None:
        return pickled
    raise PluginError(
        origin.plugin,
        f"its {type(part).__name__} {reason}, so it cannot be taken into the worker processes: install the plugin as "
        'an entry point, or set sandbox.isolation = "none"',
    )


def _answer(plugin: str, hook: str) -> list[Any]:
    """What an installed plugin answers to a hook, asked anew in this process."""
    import pluggy

    from uploadguard import hookspecs
    from uploadguard.hookspecs import PROJECT

    (point,) = metadata.entry_points(group=_GROUP, name=plugin)
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(hookspecs)
    manager.register(point.load(), plugin)
    (answer,) = getattr(manager.hook, hook)()
    return list(answer)
