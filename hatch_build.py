"""Build hook: compiles benchbox's own programs statically and ships them in the wheel.

The programs run before and inside root file systems that have no libraries, so they are static; being no Python
extensions, one wheel serves every Python version of a platform (``py3-none-<platform>``). Editable installs get them
too, below ``benchbox/native/bin``, and compile again only what is older than its source.
"""

import os
import shlex
import shutil
import subprocess
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

NATIVE: Final = Path("benchbox/native")
#: What is left to the compiler by default differs between distributions; these make the outcome the same.
REPRODUCIBLE: Final = ("-s", "-Wl,--build-id=none")
HOSTED: Final = ("-O2", "-static", "-std=gnu11", "-Wall", "-Wextra", "-Werror", *REPRODUCIBLE)
FREESTANDING: Final = (
    "-O2", "-static", "-nostdlib", "-ffreestanding", "-fno-stack-protector",
    "-Wl,-z,noseparate-code", *REPRODUCIBLE,
)  # fmt: skip

#: Program (compiled from the source of the same name) -> flags.
PROGRAMS: Final[dict[str, Sequence[str]]] = {
    "launch": HOSTED,
    "agent": HOSTED,
    "ready": FREESTANDING,
}

INSTALL_HINT: Final = "Debian, Ubuntu: apt install musl-tools gcc libc6-dev linux-libc-dev; Fedora: gcc glibc-static"


class NativeBuildError(RuntimeError):
    """A program cannot be compiled; the message says what to install."""


@dataclass(frozen=True)
class Compiler:
    """A C compiler that can link statically: its command and what it always gets."""

    command: tuple[str, ...]
    flags: tuple[str, ...] = ()


def compilers() -> list[Compiler]:
    """Return the compilers to try, best first: ``$CC`` alone where set, else musl's, else the system's."""
    if chosen := os.environ.get("CC"):
        return [Compiler(tuple(shlex.split(chosen)))]
    found: list[Compiler] = []
    if shutil.which("musl-gcc"):
        found.append(Compiler(("musl-gcc",), kernel_headers()))
    for name in ("cc", "gcc", "clang"):
        if shutil.which(name):
            found.append(Compiler((name,)))
            break
    return found


def kernel_headers() -> tuple[str, ...]:
    """Return the flags by which musl-gcc finds ``<linux/...>``: it looks into no system folder by itself."""
    multiarch = sysconfig.get_config_var("MULTIARCH")
    folders = ["/usr/include", *([f"/usr/include/{multiarch}"] if multiarch else [])]
    return tuple(part for folder in folders for part in ("-idirafter", folder))


def outdated(program: Path, sources: Sequence[Path]) -> bool:
    """Say whether ``program`` is missing or older than one of ``sources``."""
    return not program.exists() or any(source.stat().st_mtime > program.stat().st_mtime for source in sources)


def compile_program(source: Path, target: Path, flags: Sequence[str], candidates: Sequence[Compiler]) -> None:
    """Compile ``source`` with the first of ``candidates`` that can; ``target`` appears whole or not at all.

    Raises NativeBuildError with the complaint of each compiler.
    """
    complaints: list[str] = []
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    for compiler in candidates:
        argv = [*compiler.command, *flags, *compiler.flags, "-o", str(partial), str(source)]
        try:
            done = subprocess.run(argv, capture_output=True, text=True, errors="replace", check=False)
        except OSError as error:
            complaints.append(f"{compiler.command[0]}: {error.strerror}")
            continue
        if done.returncode == 0:
            partial.replace(target)
            return
        complaints.append(f"$ {shlex.join(argv)}\n{done.stderr.strip()}")
    partial.unlink(missing_ok=True)
    if not complaints:
        raise NativeBuildError(f"benchbox: no C compiler found (tried musl-gcc, cc, gcc, clang). {INSTALL_HINT}")
    raise NativeBuildError("\n".join([f"benchbox: {source} does not compile. {INSTALL_HINT}", *complaints]))


def build_programs(root: Path) -> list[Path]:
    """Compile every program that is out of date below ``root``; return all of them, relative to ``root``."""
    native = root / NATIVE
    missing = [str(NATIVE / f"{name}.c") for name in PROGRAMS if not (native / f"{name}.c").is_file()]
    if missing:
        raise NativeBuildError(f"benchbox: the source of a program is missing: {', '.join(missing)}")
    (native / "bin").mkdir(exist_ok=True)
    shared = [Path(__file__), *native.glob("*.h")]
    candidates = compilers()
    for name, flags in PROGRAMS.items():
        source, target = native / f"{name}.c", native / "bin" / name
        if outdated(target, [source, *shared]):
            compile_program(source, target, flags, candidates)
    return [NATIVE / "bin" / name for name in PROGRAMS]


class NativeBuildHook(BuildHookInterface[Any]):
    """Adds the programs to wheels and editable installs; the sdist carries their sources only."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and mark the wheel as one for this platform and any Python 3."""
        if self.target_name != "wheel":
            return
        programs = build_programs(Path(self.root))
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform}"
        build_data["artifacts"].extend(str(program) for program in programs)
