#!/usr/bin/env bash
# Builds the kernel with AddressSanitizer and UndefinedBehaviorSanitizer, in a temporary directory, and runs the tests
# that reach it, those on damaged data above all. Any report of either fails, from child processes too.
#
#   tests/sanitize.sh [PYTHON] [PYTEST ARGUMENTS]     PYTHON has the test requirements; by default python3
set -euo pipefail
cd "$(dirname "$0")/.."

python="${1:-python3}"
if (($# > 1)); then
  tests=("${@:2}")
else
  tests=(
    tests/signals/test_pdq.py
    tests/hashset/test_kernel_search.py tests/hashset/test_mih.py tests/hashset/test_indexes.py
    tests/hashset/test_building.py
    tests/hashset/test_segment.py
  )
fi
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

# A copy, so that neither build finds the other's object files.
mkdir "$work/source" "$work/reports"
cp -r pyproject.toml setup.py README.md src "$work/source"
find "$work/source" -name '*.so' -delete
UPLOADGUARD_SANITIZE=1 "$python" -m pip install -q --no-deps --target "$work/site" "$work/source"

# The sanitizer's library must come first, and know of C++ exceptions from the start. Python's own allocator would hide
# the ends of its buffers.
export LD_PRELOAD="$(gcc -print-file-name=libasan.so) $(gcc -print-file-name=libstdc++.so.6)"
export ASAN_OPTIONS="detect_leaks=0:allocator_may_return_null=1:detect_stack_use_after_return=1:log_path=$work/reports/asan"
export UBSAN_OPTIONS="print_stacktrace=1"
export PYTHONMALLOC=malloc PYTHONPATH="$work/site"

"$python" - "$work/site" <<'CHECK'
import pathlib
import sys

from uploadguard._native import _kernel

library = pathlib.Path(_kernel.__file__)
assert library.is_relative_to(sys.argv[1]), f"the kernel under test is {library}"
assert b"__asan_report" in library.read_bytes(), "the kernel under test is not sanitized"
CHECK

status=0
# UBSan writes to standard error, which pytest must not keep to itself when it dies of it.
"$python" -m pytest -q -n 0 -p no:cacheprovider --capture=sys "${tests[@]}" || status=$?
if compgen -G "$work/reports/*" > /dev/null; then
  cat "$work"/reports/*
  status=1
fi
exit "$status"
