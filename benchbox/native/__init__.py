"""The static programs that are built with the package (see ``hatch_build.py``)."""

import os
from pathlib import Path
from typing import Final

from benchbox.errors import UnavailableError

_FOLDER: Final = Path(__file__).parent / "bin"


def program(name: str) -> Path:
    """Return the path of the built program ``name``: ``launch``, ``agent`` or ``ready``.

    Raises UnavailableError where it was not built.
    """
    path = _FOLDER / name
    if not (path.is_file() and os.access(path, os.X_OK)):
        raise UnavailableError(
            f"the program {name!r} is not part of this installation (looked for {path})",
            hint="run ./benchboxw setup in a checkout, or install a wheel that was built for this platform",
        )
    return path
