"""What the integration tests share."""

from collections.abc import Iterator

import pytest

from tests.integration.leftovers import Snapshot, alone, nothing_left


@pytest.fixture(autouse=True)
def before() -> Iterator[Snapshot]:
    """Hold every integration test to leaving nothing behind; its value is the state before the test."""
    with alone(), nothing_left() as state:
        yield state
