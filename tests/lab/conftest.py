"""The lab takes minutes: its tests run only where they are asked for, by ``-m lab``."""

import re

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the lab unless the marker expression asks for it."""
    if re.search(r"(?<!not )\blab\b", config.option.markexpr or ""):
        return
    lab = [item for item in items if item.get_closest_marker("lab")]
    if lab:
        config.hook.pytest_deselected(items=lab)
        items[:] = [item for item in items if item not in lab]
