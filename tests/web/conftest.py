"""A Guard over the test list."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.web.wsgi import write_config
from uploadguard import Guard


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_config(tmp_path_factory.mktemp("guard"))


@pytest.fixture
def guard(config: Path) -> Iterator[Guard]:
    with Guard.open(config) as guard:
        yield guard
