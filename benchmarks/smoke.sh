#!/usr/bin/env bash
# Runs every benchmark once, at sizes that tell nothing of speed, to see that it still runs.
#
#   benchmarks/smoke.sh [PYTHON]     PYTHON has uploadguard[bench]; by default python3
set -euo pipefail
cd "$(dirname "$0")/.."

python="${1:-python3}"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
unset "${!UPLOADGUARD_@}"

"$python" - "$work" <<'PHOTO'
import pathlib
import sys

from uploadguard.testing import media

pathlib.Path(sys.argv[1], "photo.jpg").write_bytes(media.encode(media.make_photo(640, 480), quality=90))
PHOTO

"$python" -m pytest -q -n 0 -p no:cacheprovider --benchmark-disable benchmarks -k "1MP"
"$python" -m benchmarks.photos "$work" --min-mp 0 --runs 2
"$python" -m benchmarks.drift "$work"
"$python" -m benchmarks.decode_formats "$work" --rounds 1
"$python" -m benchmarks.hamming_index --rows 20000 --rows-64 20000 --queries 40 --slow-queries 16 --recall-queries 16
"$python" -m benchmarks.exact_index --rows 10000 --keys 1000 --rounds 2
"$python" -m benchmarks.shared_memory --rows 10000 --processes 1 2 --queries 50
"$python" -m benchmarks.swap_under_load --entries 2000 --changed 50 --seconds 1
"$python" -m benchmarks.isolation --rounds 2
"$python" -m benchmarks.adapters --framework starlette --rounds 2
"$python" -m uploadguard bench "$work/photo.jpg" --entries 1000 --seconds 2 --plot "$work/plot.png"
test -s "$work/plot.png"
