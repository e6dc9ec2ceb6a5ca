"""What the integration tests share."""

import os
from collections.abc import Iterator

import pytest

from tests.integration import dockerd
from tests.integration.leftovers import Snapshot, alone, nothing_left


@pytest.fixture(autouse=True)
def before() -> Iterator[Snapshot]:
    """Hold every integration test to leaving nothing behind; its value is the state before the test."""
    with alone(), nothing_left() as state:
        yield state


@pytest.fixture(scope="session", autouse=True)
def docker_host() -> Iterator[None]:
    """Have a Docker Engine of the tests' own for as long as they run, where BENCHBOX_START_DOCKERD asks for it."""
    if os.environ.get("BENCHBOX_START_DOCKERD") != "yes" or os.environ.get("DOCKER_HOST"):
        yield
        return
    with pytest.MonkeyPatch.context() as changed, dockerd.running() as socket:
        changed.setenv("DOCKER_HOST", f"unix://{socket}")
        yield
