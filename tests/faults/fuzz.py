"""Coverage-guided fuzzing of our own parsers, with atheris (``pip install -e '.[test,fuzz]'``).

Run: ``python -m tests.faults.fuzz TARGET [--corpus DIR] [libFuzzer options]``, for instance
``python -m tests.faults.fuzz media --corpus /tmp/media -max_total_time=600``. Targets: media, lists, segment,
manifest, answer. It stops at the first exception that the parser's docstring does not name, and writes the input to
the working directory.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path


def main() -> None:
    """Seed the corpus and fuzz."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=["media", "lists", "segment", "manifest", "answer"])
    parser.add_argument("--corpus", type=Path, help="kept for the next run; a temporary folder by default")
    arguments, options = parser.parse_known_args()
    import atheris

    with atheris.instrument_imports(include=["uploadguard"]):
        from tests.faults.targets import TARGETS, seeds
    with tempfile.TemporaryDirectory() as directory:
        corpus = arguments.corpus or Path(directory)
        corpus.mkdir(parents=True, exist_ok=True)
        for name, data in seeds(arguments.target).items():
            (corpus / f"seed-{name}").write_bytes(data)
        atheris.Setup([sys.argv[0], str(corpus), "-max_len=65536", *options], TARGETS[arguments.target])
        atheris.Fuzz()


if __name__ == "__main__":
    main()
