"""Turns what is wrong with a configuration into sentences: the place, what is wrong, what is allowed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from uploadguard.config_schema import Node, child, closest, root, toml_value, walk
from uploadguard.config_sources import Origin, Problem, key_text
from uploadguard.config_toml import KeyPath
from uploadguard.errors import ConfigError

if TYPE_CHECKING:
    from uploadguard.config import Settings
    from uploadguard.config_policy import TenantPolicySettings
    from uploadguard.policy import SignalDefaults

__all__ = ["config_error", "cross_checks", "problems_of", "rule_problems", "sentences_of"]

_LONGEST_SHOWN = 40


def config_error(problems: Sequence[Problem], origin: Origin) -> ConfigError:
    """One error for all problems: those in the file by line, then the others."""
    ordered = sorted(problems, key=lambda problem: (not problem.in_file, problem.line or 0))
    texts = [f"line {problem.line}: {problem.text}" if problem.line else problem.text for problem in ordered]
    path = origin.file.path if origin.file is not None else None
    if all(problem.in_file for problem in ordered):
        return ConfigError(texts, path=path)
    prefixed = [f"{path}: {text}" if ordered[i].in_file else text for i, text in enumerate(texts)]
    error = ConfigError(prefixed)
    error.path = path
    return error


def problems_of(error: ValidationError, model: type[BaseModel], origin: Origin) -> list[Problem]:
    """A validation error's problems, each placed where its value came from."""
    return [origin.problem(path, text) for path, text in sentences_of(error, model)]


def sentences_of(error: ValidationError, model: type[BaseModel]) -> Iterator[tuple[KeyPath, str]]:
    """A validation error's problems: below ``model``, where, and what is wrong there."""
    for detail in error.errors(include_url=False):
        path: KeyPath = detail["loc"]
        node, parent = root(model), root(model)
        for part in path:
            parent, node = node, child(node, part) or Node(Any)
        yield path, _sentence(detail, path, node, parent, model)


def _sentence(detail: Mapping[str, Any], path: KeyPath, node: Node, parent: Node, model: type[BaseModel]) -> str:
    kind, value = detail["type"], detail["input"]
    if kind == "extra_forbidden":
        return _unknown_key(str(path[-1]), parent, model)
    if kind == "missing":
        return "is missing"
    if kind == "value_error":
        return str(detail["ctx"]["error"])
    if kind in ("too_short", "string_too_short"):
        return "must not be empty"
    guess = closest(value, node.choices()) if isinstance(value, str) else None
    hint = f"; did you mean {toml_value(guess)}?" if guess is not None else ""
    return f"must be {node.type_text()}, not {_shown(value, node)}{hint}"


def _unknown_key(name: str, parent: Node, model: type[BaseModel]) -> str:
    keys = parent.key_names()
    guess = closest(name, keys)
    if guess is None:
        elsewhere = (s.shown for s in walk(model) if s.path[-1] == name and not s.shown.startswith("tenants."))
        guess = next(elsewhere, None)
    hint = f"did you mean {guess}? " if guess is not None else ""
    return f"unknown key; {hint}Allowed here: {', '.join(keys)}"


def _shown(value: object, node: Node) -> str:
    """A wrong value, where it can hold nothing that should not be shown; otherwise its kind."""
    if isinstance(value, bool | int | float):
        return toml_value(value)
    if isinstance(value, str):
        return toml_value(value) if node.choices() and len(value) <= _LONGEST_SHOWN else "text"
    if isinstance(value, Mapping):
        return "a table"
    return "a list" if isinstance(value, Sequence) else type(value).__name__


def cross_checks(settings: Settings, origin: Origin) -> Iterator[Problem]:
    """Problems between settings."""
    for item, name in enumerate(settings.policy.may_lower):
        if name not in settings.plugins:
            hint = _did_you_mean(name, settings.plugins)
            yield origin.problem(("policy", "may_lower", item), f"names a plugin that is not in plugins{hint}")


def rule_problems(settings: Settings, types: Mapping[str, SignalDefaults], origin: Origin) -> Iterator[Problem]:
    """Problems between rules and signal types: unknown ones, and limits that they cannot have."""
    for name in settings.policy.allow_digests:
        path: KeyPath = ("policy", "allow_digests")
        if name in types and not types[name].digest:
            yield origin.problem(path, f"{name} is not a digest; its matches never clear an upload")
    yield from _scope_problems(settings.policy, ("policy",), types, origin)
    for tenant, overrides in settings.tenants.items():
        yield from _scope_problems(overrides.policy, ("tenants", tenant, "policy"), types, origin)


def _scope_problems(
    scope: TenantPolicySettings, prefix: KeyPath, types: Mapping[str, SignalDefaults], origin: Origin
) -> Iterator[Problem]:
    by_signal = [((*prefix, "signals"), scope.signals)]
    narrowest = min((known.length_bits for known in types.values() if not known.digest), default=None)
    for list_name, rule in scope.lists.items():
        place: KeyPath = (*prefix, "lists", list_name)
        by_signal.append(((*place, "signals"), rule.signals))
        if rule.max_distance_bits is not None and narrowest is not None and rule.max_distance_bits * 2 >= narrowest:
            yield origin.problem(
                (*place, "max_distance_bits"),
                f"is too wide for a signal type of {narrowest} bits, where it would match unrelated pictures; "
                f"set it per signal type, as {key_text((*place, 'signals'))}.NAME.max_distance_bits",
            )
    for table, rules in by_signal:
        for name, signal_rule in rules.items():
            known, limit = types.get(name), signal_rule.max_distance_bits
            if known is None:
                yield origin.problem(
                    (*table, name),
                    f"not a signal type in use; those are {', '.join(sorted(types))}{_did_you_mean(name, types)}",
                )
            elif limit and known.digest:
                yield origin.problem(
                    (*table, name, "max_distance_bits"), "a digest only matches exactly; remove this, or set it to 0"
                )
            elif limit is not None and limit * 2 >= known.length_bits and not known.digest:
                yield origin.problem(
                    (*table, name, "max_distance_bits"),
                    f"must be below {known.length_bits // 2}, half the bits of the hash, not {limit}: "
                    "from there on it matches unrelated pictures",
                )


def _did_you_mean(name: str, candidates: Mapping[str, object] | Sequence[str]) -> str:
    guess = closest(name, candidates)
    return f"; did you mean {guess}?" if guess is not None else ""
