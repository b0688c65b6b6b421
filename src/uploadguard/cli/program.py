"""The program: its options, its commands, and how every way of ending becomes an exit code and a line of text."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import click

from uploadguard.cli.audit import audit
from uploadguard.cli.bench import bench
from uploadguard.cli.breaker import reset
from uploadguard.cli.cases import cases
from uploadguard.cli.check import check
from uploadguard.cli.config import config
from uploadguard.cli.console import console
from uploadguard.cli.demo import demo, testpicture
from uploadguard.cli.evidence import evidence
from uploadguard.cli.exits import EXIT_HELP, Exit
from uploadguard.cli.hash import hash_files
from uploadguard.cli.hashset import hashset
from uploadguard.cli.init import init
from uploadguard.cli.ledger import ledger
from uploadguard.cli.lists import lists
from uploadguard.cli.outbox import outbox
from uploadguard.cli.output import print_json, problems_of, report_error, report_warning
from uploadguard.cli.plugin_commands import load_command, packages_by_command
from uploadguard.cli.sample import sample
from uploadguard.cli.serve import serve
from uploadguard.cli.staged import activate, discard, rollback, try_lists
from uploadguard.cli.state import State
from uploadguard.cli.status import status
from uploadguard.cli.update import update
from uploadguard.errors import UploadguardError

__all__ = ["main", "program"]

_OWN_OPTIONS = {
    "--config": "uploadguard --config FILE COMMAND ...",
    "--debug": "uploadguard --debug COMMAND ...",
    "--version": "uploadguard --version",
}


class _Program(click.Group):
    """The group of all commands. No exception gets past it as a traceback, unless ``--debug`` asks for one.

    ``commands`` are the built-in ones; those of plugins come after them, and take no name from them.
    """

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """The command of that name. Raises :class:`~uploadguard.errors.PluginError` for a plugin's that is broken."""
        return super().get_command(context, name) or load_command(name)

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands, those of plugins with their package alone: their texts would have to be imported."""
        super().format_commands(context, formatter)
        rows = [(name, package) for name, package in packages_by_command().items() if name not in self.commands]
        if rows:
            with formatter.section("Commands of plugins"):
                formatter.write_dl(rows)

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run; exits the process, or returns the exit code if not ``standalone_mode``."""
        state = State()
        handler = _Warnings(state)
        log = logging.getLogger("uploadguard")
        log.addHandler(handler)
        propagate, log.propagate = log.propagate, False
        try:
            result = super().main(args, prog_name, complete_var, False, obj=state, **extra)
            code = int(result) if isinstance(result, int) else Exit.OK
        except (click.Abort, KeyboardInterrupt) as error:
            code = Exit.ERROR if isinstance(error.__context__, EOFError) else Exit.INTERRUPTED
            report_error("nobody answered the question: --yes does" if code is Exit.ERROR else "interrupted")
        except click.ClickException as error:
            error.show()
            if isinstance(error, click.NoSuchOption) and error.option_name in _OWN_OPTIONS:
                click.echo(
                    f"{error.option_name} stands before the command: {_OWN_OPTIONS[error.option_name]}", err=True
                )
            code = error.exit_code
        except Exception as error:  # noqa: BLE001 - the last line of defence: a name instead of a traceback
            code = _failed(error, state)
        finally:
            log.removeHandler(handler)
            log.propagate = propagate
        if standalone_mode:
            sys.exit(code)
        return code


def _failed(error: Exception, state: State) -> Exit:
    """Say what went wrong."""
    if state.debug:
        traceback.print_exception(error)
    problems = _problems_of(error, state)
    for problem in problems:
        report_error(problem)
    try:
        if state.error_record is not None:
            print_json({**state.error_record, "error": "; ".join(problems)})
    except OSError:  # standard output is what failed
        pass
    if isinstance(error, OSError):
        _give_up_stdout()
    return Exit.ERROR


def _problems_of(error: Exception, state: State) -> list[str]:
    if isinstance(error, UploadguardError):
        return problems_of(error)
    if isinstance(error, OSError):
        where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
        return [f"{where}{error.strerror or type(error).__name__}"]
    if isinstance(error, MemoryError):
        return ["out of memory"]
    # Its text may quote what it worked on.
    hint = "" if state.debug else "; `uploadguard --debug ...` shows where"
    return [f"unexpected {type(error).__name__}{hint}"]


def _give_up_stdout() -> None:
    """If standard output is what failed, keep the interpreter from trying, and complaining, once more at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


class _Warnings(logging.Handler):
    """The library's warnings, as lines on standard error; without those that the command says by itself."""

    def __init__(self, state: State) -> None:
        super().__init__(logging.WARNING)
        self._state = state

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if not message.startswith(self._state.said):
            report_warning(message)


def _print_version(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not context.resilient_parsing:
        from uploadguard.versions import versions

        for name, version in versions().items():
            click.echo(f"{name} {version}")
        context.exit()


@click.group(
    cls=_Program,
    name="uploadguard",
    epilog=EXIT_HELP,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "--config",
    "config_path",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="The configuration. Otherwise the file that UPLOADGUARD_CONFIG names, or ./uploadguard.toml.",
)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the versions of uploadguard and of its codecs.",
)
@click.pass_obj
def program(state: State, config_path: Path | None, debug: bool) -> None:
    """Check image uploads against hash lists of known abuse material."""
    state.config_path = config_path
    state.debug = debug


for _command in (update, reset, try_lists, activate, discard, rollback, sample):
    lists.add_command(_command)
for _command in (
    *(init, lists, hashset, check, hash_files, config, status),
    *(cases, outbox, evidence, audit, ledger, console, serve),
    *(bench, demo, testpicture),
):
    program.add_command(_command)


def main() -> NoReturn:
    """The entry point of the ``uploadguard`` script."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    program.main(prog_name="uploadguard")
    raise AssertionError("the program exits")
