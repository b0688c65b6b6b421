"""``uploadguard lists sample``: hashes of the host's own pictures, for lists to be tried on."""

from __future__ import annotations

from pathlib import Path

import click

from uploadguard.cli.exits import Exit
from uploadguard.cli.output import new_table, print_json, print_table, report_warning
from uploadguard.cli.progress import ProgressBar
from uploadguard.cli.state import State

__all__ = ["require_places", "sample"]


def require_places(places: tuple[Path, ...]) -> None:
    """Refuse files and directories that are not there, before any work is done."""
    for place in places:
        if not place.exists():
            raise click.BadParameter(f"{place}: there is no such file or directory")


@click.command()
@click.argument("places", metavar="DIR...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--output", required=True, metavar="FILE", type=click.Path(dir_okay=False, path_type=Path), help="The sample."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def sample(state: State, places: tuple[Path, ...], output: Path, as_json: bool) -> Exit:
    """Hash the pictures in directories to FILE, for safety.sample: lists are tried on them.

    Take pictures that are popular on this host and known to be harmless: what is served most, avatars, defaults of
    themes. FILE has their hashes only, and only this user can read it. An existing FILE is replaced.
    """
    require_places(places)
    from uploadguard.errors import ListError
    from uploadguard.hashing import MediaHasher
    from uploadguard.sampling import make_sample

    settings = state.load_settings(required=False)
    with ProgressBar(counted=True) as bar, MediaHasher(settings) as hasher:
        try:
            done = make_sample(hasher, places, output, lambda count: bar.show("hashing", count, None))
        except OSError as error:
            raise ListError(f"{output}: cannot be written ({error.strerror or error})") from error
    if as_json:
        print_json(
            {
                "output": str(output),
                "pictures": done.pictures,
                "other_files": done.others,
                "repeated": done.repeated,
                "unread": done.unread,
            }
        )
    else:
        rows = [
            ("pictures", f"{done.pictures:,}"),
            ("other files", f"{done.others:,}"),
            ("repeated", f"{done.repeated:,}"),
            ("not readable", f"{done.unread:,}"),
        ]
        print_table(new_table("Sample", str(output), fold=[str(output)]), rows)
    if settings.safety.sample is None or settings.safety.sample.absolute() != output.absolute():
        report_warning(f'lists are tried on it once the configuration says so: [safety] sample = "{output.absolute()}"')
    return Exit.OK if done.pictures else Exit.ERROR
