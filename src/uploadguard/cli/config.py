"""``uploadguard config``: whether a deployment is in order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import click

from uploadguard.cli.exits import Exit
from uploadguard.cli.output import (
    hash_counts,
    new_table,
    print_json,
    print_table,
    problems_of,
    report_error,
    report_warning,
)
from uploadguard.cli.services import service_records, service_text
from uploadguard.cli.state import NOTHING_LISTED, STALE, State
from uploadguard.cli.status import why_not_ready
from uploadguard.testing.testlist import TEST_LIST_NAME

if TYPE_CHECKING:
    from uploadguard.config import Settings
    from uploadguard.hashset import Generation
    from uploadguard.sandbox.inspector import SandboxStatus

__all__ = ["config"]


@dataclass(slots=True)
class _Findings:
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    plugins: tuple[str, ...] | None = None
    signals: tuple[str, ...] | None = None
    actions: dict[str, tuple[str, ...]] | None = None
    matchers: dict[str, dict[str, str]] = field(default_factory=dict)
    fail_open: tuple[str, ...] = ()
    sandbox: SandboxStatus | None = None
    generation: Generation | None = None
    ready: bool = False


@click.group()
def config() -> None:
    """Look after the configuration."""


@config.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def check(state: State, as_json: bool) -> Exit:
    """Load the configuration, its plugins and the hash set, and say what is there and what is wrong.

    Ends with 1 if anything is wrong, or if there is nothing to check uploads against.
    """
    from uploadguard.errors import ConfigError

    settings: Settings | None = None
    findings = _Findings()
    try:
        state.said = (*state.said, "fail-open settings", "policy rules name")
        settings = state.load_settings()
    except ConfigError as error:
        findings.problems += problems_of(error)
    else:
        _look(settings, findings)
    if as_json:
        print_json(_record(settings, findings))
    else:
        if settings is not None:
            print_table(new_table("Part", "Loaded", fold=["Loaded"]), _rows(settings, findings))
        for warning in findings.warnings:
            report_warning(warning)
        for problem in findings.problems:
            report_error(problem)
    return Exit.OK if findings.ready and not findings.problems else Exit.ERROR


def _look(settings: Settings, findings: _Findings) -> None:
    """Load each part by itself, so that one that is wrong does not hide what is wrong with the next."""
    from uploadguard.errors import UploadguardError
    from uploadguard.guard import Guard
    from uploadguard.opening import open_hashset

    _look_at_plugins(settings, findings)
    try:
        findings.generation = open_hashset(settings).load(verify=True, prepare=False)
    except UploadguardError as error:
        findings.problems += problems_of(error)
    if findings.signals is None:
        return
    try:
        with Guard(settings) as guard:
            findings.sandbox = guard.prewarm()
            status = guard.status()
    except UploadguardError as error:
        findings.problems += [problem for problem in problems_of(error) if problem not in findings.problems]
        return
    if findings.problems:
        return
    findings.ready, findings.fail_open = status.ready, status.fail_open
    findings.problems += why_not_ready(settings, status)
    if status.stale:
        findings.warnings.append(STALE)
    if status.ready and not status.entries and not findings.matchers:
        findings.warnings.append(NOTHING_LISTED)
    _look_at_actions(settings, findings)
    held = {info.name for info in findings.generation.lists} if findings.generation is not None else set()
    held |= findings.matchers.keys()
    if settings.hashset.test_list:
        held.add(TEST_LIST_NAME)
    for name in sorted(_named_lists(settings) - held):
        findings.warnings.append(f"a rule names the list {name!r}, which the hash set does not hold")


def _look_at_plugins(settings: Settings, findings: _Findings) -> None:
    from uploadguard.errors import ConfigError, UploadguardError
    from uploadguard.plugins import Plugins

    try:
        plugins = Plugins(settings)
        findings.plugins = plugins.names
        findings.actions = {
            name: tuple(sorted(occasion.value for occasion in action.occasions))
            for name, action in plugins.actions.items()
        }
        findings.matchers = service_records(settings, plugins)
        findings.signals = tuple(signal.name for signal in plugins.enabled_signals())
    except UploadguardError as error:
        findings.problems += problems_of(error)
        if findings.plugins is None:
            # Signal types that are missing may be a missing plugin's; slips for others are slips all the same.
            try:
                Plugins(settings.model_copy(update={"plugins": ()})).enabled_signals()
            except ConfigError as slips:
                slipped = [problem for problem in problems_of(slips) if "did you mean" in problem]
                findings.problems += [problem for problem in slipped if problem not in findings.problems]


def _look_at_actions(settings: Settings, findings: _Findings) -> None:
    """Warn of what is decided and goes nowhere."""
    actions = findings.actions or {}
    if settings.ledger.path is None:
        if actions:
            findings.warnings.append("nothing is reported: [actions] need a ledger, and ledger.path is not set")
    elif not any("report" in occasions for occasions in actions.values()):
        findings.warnings.append('nothing is reported: no table of [actions] has the occasion "report"')
    elif settings.hashset.test_list:
        rule = settings.policy.lists.get(TEST_LIST_NAME)
        if rule is not None and rule.report:
            findings.warnings.append(
                "whoever uploads the test picture makes a report: switch hashset.test_list off, "
                f"or take report = true out of [policy.lists.{TEST_LIST_NAME}]"
            )


def _named_lists(settings: Settings) -> set[str]:
    scopes = [settings.policy, *(tenant.policy for tenant in settings.tenants.values())]
    return {name for scope in scopes for name in scope.lists}


def _rows(settings: Settings, findings: _Findings) -> Iterator[tuple[str, str]]:
    yield "configuration", str(settings.path) if settings.path is not None else "the environment alone"
    if findings.plugins is not None:
        yield "plugins", ", ".join(findings.plugins) or "none"
    if findings.signals is not None:
        yield "signal types", ", ".join(findings.signals)
    yield "hash set", str(settings.hashset.path)
    yield "encryption", _encryption(settings)
    if findings.generation is not None:
        yield "generation", str(findings.generation.number)
        for info in findings.generation.lists:
            role = " (allow)" if info.role == "allow" else ""
            yield "list", f"{info.name}{role}: {info.entries:,} entries; {hash_counts(info.hashes)}"
    if settings.hashset.test_list:
        yield "list", "the built-in test list"
    yield "ledger", _ledger(settings)
    for name, matcher in findings.matchers.items():
        yield "match service", f"{name}: {service_text(matcher)}"
    for name, occasions in (findings.actions or {}).items():
        yield "action", f"{name}: {', '.join(occasions)}"
    if settings.tenants:
        yield "tenants", ", ".join(settings.tenants)
    if findings.sandbox is not None:
        yield "isolation", _isolation(findings.sandbox)
    yield "fail open", ", ".join(findings.fail_open) or "nothing"
    yield "ready", "yes" if findings.ready else "no"


def _isolation(sandbox: SandboxStatus) -> str:
    """The level, with what is in force in a worker that was started, and what is not."""
    if sandbox.pool is None:
        return "none: uploads are decoded in the host's own process, for trusted input only"
    layers = sandbox.layers.to_dict()
    missing = [name for name, value in layers.items() if not value]
    return f"{sandbox.isolation}: {', '.join(name for name in layers if name not in missing)}" + (
        f"; without {', '.join(missing)}" if missing else ""
    )


def _encryption(settings: Settings) -> str:
    """Where the key comes from; of an environment variable not even the name, which may be a key by mistake."""
    encryption = settings.hashset.encryption
    if encryption.key_file is None and encryption.key_env is None:
        return "none"
    source = f"the key of {encryption.key_file}" if encryption.key_file is not None else "a key in the environment"
    return source if encryption.write else f"{source}, for reading only"


def _ledger(settings: Settings) -> str:
    """Where decisions are kept; of the database's address nothing, since a password may be in it."""
    if settings.ledger.path is None:
        return "none: nothing is kept"
    shared = settings.ledger.url is not None or settings.ledger.url_env is not None
    return f"PostgreSQL, with a spool in {settings.ledger.path}" if shared else str(settings.ledger.path)


def _record(settings: Settings | None, findings: _Findings) -> dict[str, object]:
    generation = findings.generation
    return {
        "ready": findings.ready,
        "problems": findings.problems,
        "warnings": findings.warnings,
        "config": str(settings.path) if settings is not None and settings.path is not None else None,
        "plugins": list(findings.plugins or ()),
        "signal_types": list(findings.signals or ()),
        "hashset": str(settings.hashset.path) if settings is not None else None,
        "encryption": _encryption(settings) if settings is not None else None,
        "generation": generation.number if generation is not None else None,
        "lists": [
            {"name": info.name, "role": info.role, "entries": info.entries, "hashes": dict(info.hashes)}
            for info in (generation.lists if generation is not None else ())
        ],
        "ledger": _ledger(settings) if settings is not None else None,
        "matchers": findings.matchers,
        "actions": {name: list(occasions) for name, occasions in (findings.actions or {}).items()},
        "test_list": settings.hashset.test_list if settings is not None else None,
        "fail_open": list(findings.fail_open),
        "isolation": findings.sandbox.isolation if findings.sandbox is not None else None,
        "layers": findings.sandbox.layers.to_dict() if findings.sandbox is not None else None,
    }
