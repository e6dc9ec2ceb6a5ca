"""What all tests share.

Helpers of the tests are importable as ``tests.<folder>.<module>``: the project's folder goes to the *end* of the
search path, so that the package under test stays the installed one.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

import benchbox
from benchbox.model import Availability

PROJECT = Path(__file__).parents[1]
sys.path.append(str(PROJECT))

# A unit test has no clock: how long an example takes says something of the host's other work only.
settings.register_profile("benchbox", deadline=None)
settings.load_profile("benchbox")

#: What this host must offer: its absence fails a test instead of skipping it.
REQUIRED = frozenset(os.environ.get("BENCHBOX_REQUIRE", "").replace(",", " ").split())


def pytest_report_header() -> list[str]:
    """Say which benchbox is under test and what may not be skipped."""
    return [
        f"benchbox: {benchbox.__version__} in {Path(benchbox.__file__).parent}",
        f"required of this host: {', '.join(sorted(REQUIRED)) or 'nothing'}",
    ]


@pytest.fixture
def need() -> Callable[[str, Availability], None]:
    """Return ``need(feature, availability)``: it skips the test where this host does not offer the feature.

    It fails instead where the environment variable BENCHBOX_REQUIRE (``container,vm``) demands the feature.
    """
    return skip_unless_available


def skip_unless_available(feature: str, availability: Availability) -> None:
    """Skip, or fail where ``feature`` is required, unless ``availability`` says that it is there."""
    if availability.available:
        return
    message = f"{feature}: {availability.reason} ({availability.fix})"
    if feature in REQUIRED:
        pytest.fail(f"required by BENCHBOX_REQUIRE: {message}", pytrace=False)
    pytest.skip(message)
