"""Another user of this host: a process of nobody's, and what belongs to nobody."""

import contextlib
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import benchbox
from tests.foreign import STRANGER

_DROP: Final = ("setpriv", f"--reuid={STRANGER}", f"--regid={STRANGER}", "--clear-groups", "--")
#: ``$1`` is closed to others: for this command alone it is another folder, with only the next ``$2`` words in it.
_OPEN: Final = """
set -e
mount --make-rprivate /
closed=$1 count=$2 aside=$(mktemp -d); shift 2
mount -t tmpfs none "$aside"
number=0
for path; do
    [ $number -lt $count ] || break
    mkdir "$aside/$number"
    mount --rbind "$path" "$aside/$number"
    number=$((number + 1))
done
mount -t tmpfs -o mode=755 none "$closed"
number=0
while [ $number -lt $count ]; do
    mkdir -p "$1"
    mount --rbind "$aside/$number" "$1"
    number=$((number + 1)); shift
done
umount -l "$aside"
rmdir "$aside"
exec "$@"
"""


def give(*paths: Path) -> None:
    """Let nobody own ``paths`` and all that is in them."""
    for path in paths:
        for each in (path, *path.rglob("*")):
            os.chown(each, STRANGER, STRANGER, follow_symlinks=False)


@contextlib.contextmanager
def home() -> Iterator[Path]:
    """Yield a folder of nobody's, with a cache and a state in it."""
    with tempfile.TemporaryDirectory(prefix="stranger-", dir="/tmp") as name:
        for sub in ("cache", "state"):
            Path(name, sub).mkdir(mode=0o700)
        give(Path(name))
        yield Path(name)


def benchbox_as_nobody(folder: Path, *words: str | Path, state: str | None = "state") -> tuple[int, str, str]:
    """Run ``benchbox`` as nobody in ``folder``, which is as ``home`` makes it; without ``state`` none is named."""
    env = {"PATH": os.environ["PATH"], "BENCHBOX_CACHE": str(folder / "cache")}
    env |= {"BENCHBOX_STATE": str(folder / state)} if state else {}
    argv = as_nobody(sys.executable, "-m", "benchbox.cli", *map(str, words))
    done = subprocess.run(argv, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=120)
    return done.returncode, done.stdout, done.stderr


def as_nobody(*argv: str) -> list[str]:
    """Return a command that runs ``argv`` as nobody, who can reach this Python and the package wherever they are."""
    needed: dict[Path, list[str]] = {}
    for path in {Path(sys.prefix), Path(sys.base_prefix).resolve(), Path(benchbox.__file__).parent}:
        if closed := next((each for each in reversed(path.parents) if not each.stat().st_mode & 0o001), None):
            needed.setdefault(closed, []).append(str(path))
    words = [
        ("unshare", "--mount", "sh", "-c", _OPEN, "sh", str(closed), str(len(inside)), *inside)
        for closed, inside in needed.items()
    ]
    return [*itertools.chain(*words), *_DROP, *argv]


def missing() -> str | None:
    """Return what this host lacks for all that, None for nothing."""
    if os.geteuid() != 0:
        return "only root can make files of others"
    return next((f"no {name}" for name in ("setpriv", "unshare") if not shutil.which(name)), None)
