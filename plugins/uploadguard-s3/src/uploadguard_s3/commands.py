"""``uploadguard s3``: the worker, and what people and hosts do with single objects and whole buckets.

Like all commands it imports what it needs when it runs.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from uploadguard.cli.exits import EXIT_HELP, Exit, of_verdict
from uploadguard.cli.output import echo, print_json, report_warning
from uploadguard.cli.state import State

if TYPE_CHECKING:
    from uploadguard_s3.checker import ObjectChecker
    from uploadguard_s3.model import Checked
    from uploadguard_s3.options import S3Options

__all__ = ["s3"]

ENV_SETTINGS = "S3_UPLOADGUARD_CONFIG"
_SETTINGS = Path("uploadguard-s3.toml")
_WHY = {
    "gone": " (no such bucket, key or version)",
    "skipped": " (on no route of the settings, or left out by one)",
}


@dataclass(frozen=True)
class _Options:
    state: State
    path: Path | None

    def load(self) -> S3Options:
        """The plugin's settings. Raises :class:`~uploadguard.errors.ConfigError`."""
        from uploadguard.errors import ConfigError
        from uploadguard_s3.options import S3Options

        said = self.path or os.environ.get(ENV_SETTINGS)
        if not said and not _SETTINGS.is_file():
            raise ConfigError(f"no settings: there is no ./{_SETTINGS}; use --settings or {ENV_SETTINGS}")
        return S3Options.load(said or _SETTINGS)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[ObjectChecker]:
        """A Guard with its checker."""
        from uploadguard.guard import Guard
        from uploadguard_s3.checker import ObjectChecker

        options = self.load()
        with await asyncio.to_thread(Guard, self.state.load_settings()) as guard:
            async with ObjectChecker.open(guard, options) as checker:
                yield checker


@click.group()
@click.option(
    "--settings",
    "path",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help=f"The plugin's settings. Otherwise the file that {ENV_SETTINGS} names, or ./{_SETTINGS}.",
)
@click.pass_context
def s3(context: click.Context, path: Path | None) -> None:
    """Check uploads that go straight to S3."""
    context.obj = _Options(context.obj, path)


@s3.command()
@click.option("--metrics-port", type=click.IntRange(0, 65535), metavar="PORT", help="Serve Prometheus metrics there.")
@click.option("--metrics-host", default="127.0.0.1", show_default=True, metavar="HOST", help="At this address.")
@click.pass_obj
def worker(options: _Options, metrics_port: int | None, metrics_host: str) -> Exit:
    """Check what the queue's events tell of, until stopped. Several may run at once."""
    from uploadguard_s3.worker_program import run

    return run(options.state.load_settings(), options.load(), metrics_port, metrics_host)


@s3.command(epilog=EXIT_HELP)
@click.argument("bucket")
@click.argument("key")
@click.option("--version-id", metavar="ID", help="This version, in place of the latest.")
@click.option("--again", is_flag=True, help="Also if it was checked, but against an older hash set.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def check(options: _Options, bucket: str, key: str, version_id: str | None, again: bool, as_json: bool) -> Exit:
    """Check one object, and do with it what its verdict asks for."""
    from uploadguard_s3.model import ObjectRef

    async def run() -> Checked:
        async with options.opened() as checker:
            return await checker.check(ObjectRef(bucket, key, version_id), again=again)

    return _print(asyncio.run(run()), as_json)


@s3.command(epilog=EXIT_HELP)
@click.argument("bucket")
@click.argument("key")
@click.option("--version-id", metavar="ID", help="The version that was uploaded.")
@click.option("--etag", metavar="ETAG", help="The ETag of what was uploaded.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def confirm(options: _Options, bucket: str, key: str, version_id: str | None, etag: str | None, as_json: bool) -> Exit:
    """Check and publish what was uploaded through a presigned URL."""

    async def run() -> Checked:
        async with options.opened() as checker:
            return await checker.confirm(bucket, key, version_id=version_id, etag=etag)

    return _print(asyncio.run(run()), as_json)


@s3.command()
@click.option("--dry-run", is_flag=True, help="Only count what was missed.")
@click.option("--again", is_flag=True, help="Check also what was checked against an older hash set.")
@click.option(
    "--trust-tags", is_flag=True, help="What has a verdict's tag was checked; where nobody else can set tags."
)
@click.option(
    "--min-age", type=click.FloatRange(0), default=300.0, show_default=True, metavar="SECONDS",
    help="Leave younger objects to their events.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def reconcile(options: _Options, dry_run: bool, again: bool, trust_tags: bool, min_age: float, as_json: bool) -> Exit:
    """Find the objects that no event came for, and check them; ends with 4 if some could not be."""
    from uploadguard_s3.reconciling import reconcile as run

    async def inside() -> Any:
        async with options.opened() as checker:
            return await run(checker, dry_run=dry_run, again=again, trust_tags=trust_tags, min_age_s=min_age)

    found = asyncio.run(inside())
    if as_json:
        print_json(found.to_dict())
    else:
        echo(f"{found.listed:,} listed, {found.settled:,} settled, {found.fresh:,} too young, {found.missed:,} missed")
        for outcome, count in sorted(found.outcomes.items()):
            echo(f"  {count:,} {outcome.value}")
        for reason, count in sorted(found.failures.items()):
            report_warning(f"{count:,} could not be dealt with: {reason}")
    return Exit.OK if found.complete else Exit.ALARM


@s3.command()
@click.argument("bucket")
@click.option(
    "--checker", "checkers", multiple=True, required=True, metavar="ARN",
    help="The role or user that checks, repeatable; a name for SeaweedFS.",
)  # fmt: skip
@click.option("--prefix", default="", metavar="PREFIX", help="Only for keys that begin so.")
@click.option(
    "--verdict", "verdicts", multiple=True, type=click.Choice(["allow", "not_scanned"]), default=["allow"],
    show_default=True, help="What others may read, repeatable.",
)  # fmt: skip
@click.option(
    "--service", type=click.Choice(["aws", "seaweedfs"]), default="aws", show_default=True, help="For which service."
)
@click.option("--partition", default="aws", show_default=True, metavar="NAME", help="As in the bucket's ARN.")
def policy(
    bucket: str, checkers: tuple[str, ...], prefix: str, verdicts: tuple[str, ...], service: Any, partition: str
) -> None:
    """Print a bucket policy by which nobody else reads what was not checked, or sets its tags."""
    import json

    from uploadguard_s3.policy_json import bucket_policy

    try:
        found = bucket_policy(bucket, checkers, prefix=prefix, verdicts=verdicts, service=service, partition=partition)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    click.echo(json.dumps(found, indent=2))


def _print(checked: Checked, as_json: bool) -> Exit:
    published = checked.published
    if as_json:
        print_json(
            {
                "bucket": checked.ref.bucket,
                "key": checked.ref.key,
                "version_id": checked.ref.version_id,
                "etag": checked.ref.etag,
                "outcome": checked.outcome.value,
                "verdict": checked.verdict.label if checked.verdict is not None else None,
                "reference": checked.reference,
                "effects": list(checked.effects),
                "published": {"bucket": published.bucket, "key": published.key} if published is not None else None,
            }
        )
    else:
        words = [checked.outcome.value, *checked.effects]
        echo(f"{checked.ref.bucket}/{checked.ref.key}: {', '.join(words)}{_WHY.get(checked.outcome.value, '')}")
        if checked.reference is not None:
            echo(f"  reference {checked.reference}")
        if published is not None:
            echo(f"  published as {published.bucket}/{published.key}")
    # What was not looked at is not clean.
    return of_verdict(checked.verdict) if checked.verdict is not None else Exit.NOT_SCANNED
