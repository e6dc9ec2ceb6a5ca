"""Root file systems of the host's own distribution: a list of packages in, a tree out, by mmdebstrap.

The packages and what they need are unpacked, not installed: no package runs a script, so no log, no key, no
identifier and no cache comes to be, and the same packages give the same bytes. What their scripts would have done and
a program's start depends on is done here: /bin is a link to /usr/bin, the dynamic linker gets its cache, Python's
modules are compiled (for good: with time stamps they would be compiled anew at each start), /etc gets its users.

Kept are files, folders and symbolic links; everything belongs to whoever made the store and to root in an environment.
Devices, set-user-id bits, capabilities of files and hard links (which become files) are not kept, nor is what nobody
reads in a benchmark (``LEFT_OUT``).
"""

import hashlib
import json
import os
import platform
import re
import shutil
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from benchbox import remedies
from benchbox.errors import EnvironmentFailure, ImageError
from benchbox.images import inventory, store, tree
from benchbox.images.store import Progress
from benchbox.images.tree import MTIME_S, Entry, file, folder
from benchbox.linux import processes, removal
from benchbox.model import Availability
from benchbox.native import program

#: benchbox's own programs that workloads run.
PROGRAMS: Final = ("files", "first_answer", "micro", "pingpong", "ready", "steady")
#: Paths that are not kept: what nobody reads in a benchmark, what belongs to this host, what is mounted over.
LEFT_OUT: Final = (
    "boot/*", "dev/*", "etc/apt", "etc/hostname", "etc/machine-id", "etc/resolv.conf", "packages", "proc/*", "run/*",
    "sys/*", "tmp/*", "usr/include", "usr/lib/*/gconv", "usr/share/bash-completion", "usr/share/bug", "usr/share/doc",
    "usr/share/info", "usr/share/lintian", "usr/share/locale", "usr/share/man", "var/cache/*", "var/lib/apt",
    "var/lib/dpkg", "var/log/*",
)  # fmt: skip
#: Packages that only the scripts of others need. They count as there, and so does nothing that they would bring.
SCRIPTS_ONLY: Final = (
    "adduser", "debconf", "dpkg", "init-system-helpers", "lsb-base", "perl-base", "sysvinit-utils", "usr-is-merged",
)  # fmt: skip
#: Where /etc/os-release names no release that apt's sources could have: what mmdebstrap's own mirror has.
FALLBACK_SUITE: Final = "bookworm"

#: Raise it when the same packages would give another tree.
_RECIPE_VERSION: Final = 2
_KIND: Final = "distribution"
_TIMEOUT_S: Final = 900.0
_APT_TIMEOUT_S: Final = 30.0
_TOLD_LINES: Final = 12
_SUITE: Final = re.compile(r"^VERSION_CODENAME=[\"']?([a-z0-9][a-z0-9-]*)[\"']?$", re.MULTILINE)
_PACKAGE_FILE: Final = re.compile(r"([a-z0-9][a-z0-9.+-]*)_([^_/]+)_[a-z0-9-]+\.deb")
#: What of apt's configuration says how to reach its sources: mmdebstrap does not read the host's.
_ACQUIRE: Final = re.compile(r"^Acquire::(?:https?::.*|Check-Date|Check-Valid-Until|Retries|ForceIPv[46]) \".*\";$")
#: What mmdebstrap says that it does -> what that is in benchbox's words.
_STEPS: Final = {
    "running apt-get update": "reading what the distribution has",
    "downloading packages": "downloading",
    "extracting archives": "unpacking",
    "running --extract-hook": "compiling Python's modules",
}
_PASSWD: Final = b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
_GROUP: Final = b"root:x:0:\nnogroup:x:65534:\n"

_BEFORE: Final = r"""set -e
for name in bin lib lib64 sbin; do mkdir -p "$1/usr/$name"; ln -s "usr/$name" "$1/$name"; done
for name in {names}; do
    printf 'Package: %s\nStatus: install ok installed\nVersion: 999\nArchitecture: all\n' "$name"
    printf 'Maintainer: none\nDescription: none\n\n'
done >>"$1/var/lib/dpkg/status"
"""
_AFTER: Final = r"""set -e
ls "$1/var/cache/apt/archives" >"$1/packages"
[ ! -e "$1/sbin/ldconfig" ] || chroot "$1" /sbin/ldconfig
[ -e "$1/usr/bin/python3" ] || exit 0
# Of what the caller has set for Python nothing may count. Modules that the compiler itself imports would be written
# with a time stamp, and then be left as they are.
told="PYTHONHASHSEED=0 PYTHONDONTWRITEBYTECODE=1"
for path in "$1"/usr/lib/python3*; do
    env -i PATH="$PATH" LC_ALL=C $told \
        chroot "$1" /usr/bin/python3 -m compileall -q --invalidation-mode unchecked-hash "/usr/lib/${path##*/}" || :
done
"""


@dataclass(frozen=True)
class Source:
    """Where packages come from: the release, files of apt's sources, apt's settings for reaching them."""

    suite: str
    files: tuple[Path, ...] = ()
    options: tuple[str, ...] = ()


def availability() -> Availability:
    """Say, without asking any server, whether packages can be made into a tree here."""
    if os.geteuid() != 0:
        return Availability.no("unpacking a distribution needs root", "run benchbox as root")
    if shutil.which("mmdebstrap") is None:
        return remedies.lacking("mmdebstrap is not installed", ["mmdebstrap"])
    return Availability.yes()


def offered(packages: Sequence[str]) -> Availability:
    """Say whether the tree of ``packages`` is in the cache or can be made here. Raises ImageError without a cache."""
    made = store.entry_path(_KIND, key(packages, _host_suite(), platform.machine()))
    return Availability.yes() if made.is_dir() else availability()


def _host_suite() -> str:
    release = Path("/etc/os-release")
    return suite_of(release.read_text() if release.exists() else "")


def entries(name: str, packages: Sequence[str], progress: Progress | None = None) -> list[Entry]:
    """Return the tree of ``packages`` and all that they need, for the image ``name``; from the cache where it is there.

    What the cache has is kept even when the distribution has newer packages: runs stay comparable. Raises ImageError
    where the packages cannot be had.
    """
    suite = _host_suite()
    entry = store.find_or_make(
        _KIND,
        key(packages, suite, platform.machine()),
        lambda made: _make(made, name, packages, suite, progress),
        valid=_is_whole,
    )
    return tree.scan(entry / "root")


def with_programs(name: str, packages: Sequence[str], progress: Progress | None = None) -> list[Entry]:
    """Return the tree of ``entries`` with benchbox's own programs in /usr/bin, to which /bin leads."""
    own = [file(f"usr/bin/{each}", program(each), 0o755) for each in PROGRAMS]
    return [*entries(name, packages, progress), *own]


def _is_whole(entry: Path) -> bool:
    """Say whether the tree in ``entry`` is still what was made: all of it is read."""
    try:
        facts = store.unseal(entry, inventory.NAME_FILE) or {}
        return facts.get("digest") == _digest(tree.scan(entry / "root"))
    except (OSError, ImageError):
        return False


def _digest(found: Sequence[Entry]) -> str:
    return tree.digest(found, tree.file_sums(found))


def key(packages: Iterable[str], suite: str, machine: str) -> str:
    """Return what a tree of ``packages`` is kept under: all that decides it but the versions of that day."""
    inputs = (_RECIPE_VERSION, sorted(packages), suite, machine, LEFT_OUT, SCRIPTS_ONLY, _BEFORE, _AFTER)
    return hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:32]


def suite_of(os_release: str) -> str:
    """Return the release that /etc/os-release names, FALLBACK_SUITE where it names none."""
    found = _SUITE.search(os_release)
    return found[1] if found else FALLBACK_SUITE


def source_files(apt: Path) -> tuple[Path, ...]:
    """Return the files in which apt's folder ``apt`` lists its sources, none where it has no such folder."""
    found = (apt / "sources.list", *sorted((apt / "sources.list.d").glob("*")))
    return tuple(path for path in found if path.suffix in (".list", ".sources") and path.is_file())


def acquire_options(dump: str) -> tuple[str, ...]:
    """Return what of ``apt-config dump`` says how to reach the sources: proxies, dates."""
    return tuple(line for line in dump.splitlines() if _ACQUIRE.match(line))


def words(packages: Sequence[str], source: Source, target: Path) -> list[str]:
    """Return the command that makes the folder ``target`` of ``packages``."""
    return [
        "mmdebstrap",
        "--variant=extract",
        "--mode=root",
        "--format=directory",
        f"--include={','.join(packages)}",
        *(f"--aptopt={option}" for option in source.options),
        f"--setup-hook={_BEFORE.format(names=' '.join(SCRIPTS_ONLY))}",
        f"--extract-hook={_AFTER}",
        source.suite,
        str(target),
        *map(str, source.files),
    ]


def kept(found: Iterable[Entry]) -> list[Entry]:
    """Return what an image keeps of the tree that mmdebstrap made; see the module. Pure."""
    chosen = [tree.plain(entry) for entry in found if _is_kept(entry)]
    there = {entry.path for entry in chosen}
    added = (
        *map(folder, ("data", "dev", "etc", "proc", "root", "sys")),
        folder("tmp", 0o1777),
        file("etc/group", _GROUP),
        file("etc/hostname", b"benchbox\n"),
        file("etc/passwd", _PASSWD),
    )
    return tree.ordered([*chosen, *(entry for entry in added if entry.path not in there)])


def _is_kept(entry: Entry) -> bool:
    if stat.S_IFMT(entry.mode) not in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK):
        return False
    parts = entry.path.split("/")
    above = ["/".join(parts[:length]) for length in range(1, len(parts) + 1)]
    return not any(fnmatchcase(path, pattern) for path in above for pattern in LEFT_OUT)


def versions(listing: str) -> dict[str, str]:
    """Return {package: version} of the names of package files, one a line; other lines are passed over."""
    found = (_PACKAGE_FILE.fullmatch(line.strip()) for line in listing.splitlines())
    return {match[1]: match[2].replace("%3a", ":") for match in found if match}


def step(line: str) -> str | None:
    """Return what a line of mmdebstrap says that it does, None where that is worth no word."""
    text = line.removeprefix("I: ")
    return next((said for begin, said in _STEPS.items() if text != line and text.startswith(begin)), None)


def _make(entry: Path, name: str, packages: Sequence[str], suite: str, progress: Progress | None) -> None:
    lacking = availability()
    if not lacking.available:
        raise ImageError(f"image {name}: {lacking.reason}", hint=lacking.fix)
    made = entry / "made"
    _bootstrap(words(packages, _source(suite), made), entry, name, progress)
    listing = (made / "packages").read_text()
    tree.write(kept(tree.scan(made)), entry / "root")
    removal.remove(made)
    (entry / inventory.NAME_FILE).write_text(name)
    digest = _digest(tree.scan(entry / "root"))
    store.seal(entry, inventory.NAME_FILE, {"digest": digest, "suite": suite, **versions(listing)})


def _source(suite: str) -> Source:
    files = source_files(Path("/etc/apt"))
    if not files or shutil.which("apt-config") is None:
        return Source(suite, files)
    dump = processes.run(["apt-config", "dump"], timeout_s=_APT_TIMEOUT_S, env={"LC_ALL": "C"}).stdout
    return Source(suite, files, acquire_options(dump))


def _bootstrap(argv: Sequence[str], work: Path, name: str, progress: Progress | None) -> None:
    """Run mmdebstrap, its temporary files in ``work``. Raises ImageError with the end of what it said."""

    def tell(line: str) -> None:
        if progress is not None and (said := step(line)):
            progress(f"image {name}: {said}")

    environment: Mapping[str, str] = {
        "LC_ALL": "C",
        "SOURCE_DATE_EPOCH": str(MTIME_S),
        "TMPDIR": str(work),
    }
    try:
        done = processes.follow(argv, tell, timeout_s=_TIMEOUT_S, env=environment)
    except EnvironmentFailure as error:
        raise ImageError(f"image {name}: {error.message}", hint=error.hint) from error
    if done.status != 0:
        tail = "\n".join(line for line in done.stderr.strip().splitlines()[-_TOLD_LINES:])
        raise ImageError(
            f"image {name}: mmdebstrap could not make it ({processes.describe_status(done.status)}):\n{tail}",
            hint="check that `apt-get update` works here: the same mirrors and proxies are used",
        )
