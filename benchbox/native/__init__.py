"""The static programs that are built with the package (see ``hatch_build.py``)."""

import json
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final

from benchbox.errors import UnavailableError

_FOLDER: Final = Path(__file__).parent / "bin"


def program(name: str) -> Path:
    """Return the path of the built program ``name``: ``launch``, ``agent``, ``ready``, ``first_answer`` or ``steady``.

    Raises UnavailableError where it was not built.
    """
    path = _FOLDER / name
    if not (path.is_file() and os.access(path, os.X_OK)):
        raise UnavailableError(
            f"the program {name!r} is not part of this installation (looked for {path})",
            hint="run ./benchboxw setup in a checkout, or install a wheel that was built for this platform",
        )
    return path


@cache
def syscalls() -> Mapping[str, Mapping[str, int]]:
    """Return the numbers of the system calls, {machine: {name: number}}, as in the kernel headers of the build.

    Raises UnavailableError where they were not written down.
    """
    path = _FOLDER / "syscalls.json"
    try:
        found: Mapping[str, Mapping[str, int]] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UnavailableError(
            f"the table of system calls is not part of this installation ({path}: {error})",
            hint="run ./benchboxw setup in a checkout, or install a wheel that was built for this platform",
        ) from error
    return found
