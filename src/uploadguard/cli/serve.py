"""``uploadguard serve``: the service for hosts in other languages."""

from __future__ import annotations

from pathlib import Path

import click

from uploadguard.cli.exits import Exit
from uploadguard.cli.output import echo, report_warning
from uploadguard.cli.state import State

__all__ = ["serve"]


@click.command()
@click.option("--host", metavar="ADDRESS", help="The address to listen on, in place of serve.host.")
@click.option("--port", type=click.IntRange(0, 65535), help="The port, in place of serve.port; 0 takes a free one.")
@click.option(
    "--socket",
    "path",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="The Unix socket to listen on, in place of serve.socket or an address.",
)
@click.option("--workers", type=click.IntRange(1, 64), default=1, show_default=True, help="How many processes serve.")
@click.option("--without-token", is_flag=True, help="Let every program on this machine use it: no token is needed.")
@click.option("--access-log", is_flag=True, help="Log every request.")
@click.pass_obj
def serve(
    state: State,
    host: str | None,
    port: int | None,
    path: Path | None,
    workers: int,
    without_token: bool,
    access_log: bool,
) -> Exit:
    """Check uploads over HTTP, for hosts in other languages.

    It needs tokens (serve.token_file) or a Unix socket, and is meant for the host's own programs, not for uploaders. On
    SIGTERM it finishes what is under way.
    """
    if path is not None and (host is not None or port is not None):
        raise click.UsageError("--socket goes without --host and --port")
    from uploadguard.errors import ConfigError

    try:
        from uploadguard.web.service import server
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in ("uvicorn", "starlette", "h11"):
            raise
        raise ConfigError(f"the service needs the package {missing}: pip install 'uploadguard[serve]'") from error
    settings = state.load_settings()
    state.said = ()  # It serves long after its start: whatever the library warns of belongs in its log.
    with server.service_server(
        settings,
        host=host,
        port=port,
        path=path,
        workers=workers,
        without_token=without_token,
        access_log=access_log,
    ) as service:
        if without_token:
            report_warning("no token is needed: every program on this machine can use the service")
        echo(f"The service is at {service.where}")
        service.run()
    return Exit.OK
