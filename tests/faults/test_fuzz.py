"""A short run of what ``python -m tests.faults.fuzz`` does for as long as wanted: mutants into our own parsers."""

from __future__ import annotations

import pytest

from tests.faults.mutants import mutants
from tests.faults.targets import TARGETS, seeds


@pytest.mark.parametrize("name", TARGETS)
def test_a_parser_raises_nothing_but_its_own_errors(name: str) -> None:
    good = seeds(name)
    for data in good.values():
        TARGETS[name](data)
    for how, data in mutants(good, 1500, seed=7):
        try:
            TARGETS[name](data)
        except Exception as error:
            error.add_note(f"{name}: {how}, {len(data)} bytes")
            raise


@pytest.mark.parametrize("name", TARGETS)
def test_the_seeds_of_a_target_are_sound(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise all that is fuzzed is the first check."""
    import tests.faults.targets as module

    class Refuses:
        def __init__(self, *_: object) -> None: ...
        def __enter__(self) -> None: ...
        def __exit__(self, *_: object) -> bool:
            return False

    monkeypatch.setattr(module, "suppress", Refuses)
    for data in seeds(name).values():
        TARGETS[name](data)
