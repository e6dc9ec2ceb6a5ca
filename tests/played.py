"""Stand-ins that several tests share."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchbox.model import Counter


class PlayedSession:
    """What a session says of itself when that is of no interest; whoever plays one adds ``start``."""

    def applied(self) -> Mapping[str, Any]:
        return {}

    def account(self) -> tuple[Counter, ...]:
        return ()

    def reads(self) -> tuple[Path, ...]:
        return ()
