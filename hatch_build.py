"""Build hook: compiles benchbox's own programs statically and ships them in the wheel.

The programs run before and inside root file systems that have no libraries, so they are static; being no Python
extensions, one wheel serves every Python version of a platform (``py3-none-<platform>``). Editable installs get them
too, below ``benchbox/native/bin``, and compile again only what is older than its source.
"""

import json
import os
import re
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
    "first_answer": HOSTED,
    "micro": HOSTED,
    "steady": HOSTED,
    "files": HOSTED,
    "pingpong": HOSTED,
}

#: The numbers of the system calls, by architecture and name, for the seccomp filter (``benchbox/linux/seccomp.py``).
SYSCALLS: Final = "syscalls.json"
#: What is asked of the preprocessor: the architecture that it compiles for, and the names of its kernel headers.
SYSCALLS_SOURCE: Final = """\
#include <asm/unistd.h>
#if defined(__x86_64__) && !defined(__ILP32__)
#define BENCHBOX_MACHINE x86_64
#elif defined(__aarch64__)
#define BENCHBOX_MACHINE aarch64
#endif
"""
_DEFINE: Final = re.compile(r"^#define (\w+) (\w+)$", re.MULTILINE)
#: Macros that look like a system call and are none.
_NO_SYSCALLS: Final = frozenset({"syscalls", "arch_specific_syscall", "Linux"})

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


def syscall_numbers(macros: str) -> dict[str, dict[str, int]]:
    """Return {architecture: {name: number}} from what ``cc -E -dM`` printed; {} for an architecture without a filter.

    A macro may stand for another one (``__NR_fcntl`` is ``__NR3264_fcntl`` in the generic headers).
    """
    found = dict(_DEFINE.findall(macros))
    numbers: dict[str, int] = {}
    for macro, value in found.items():
        while value in found:
            value = found[value]
        name = macro.removeprefix("__NR_")
        if macro != name and name not in _NO_SYSCALLS and value.isdecimal():
            numbers[name] = int(value)
    machine = found.get("BENCHBOX_MACHINE")
    return {machine: dict(sorted(numbers.items(), key=lambda item: item[1]))} if machine else {}


def preprocess(source: str, candidates: Sequence[Compiler], flags: Sequence[str] = ()) -> str:
    """Return the macros that hold at the end of ``source``, by the first of ``candidates`` that can.

    Raises NativeBuildError with the complaint of each compiler.
    """
    complaints: list[str] = []
    for compiler in candidates:
        argv = [*compiler.command, "-E", "-dM", *flags, *compiler.flags, "-x", "c", "-"]
        try:
            done = subprocess.run(argv, input=source, capture_output=True, text=True, errors="replace", check=False)
        except OSError as error:
            complaints.append(f"{compiler.command[0]}: {error.strerror}")
            continue
        if done.returncode == 0:
            return done.stdout
        complaints.append(f"$ {shlex.join(argv)}\n{done.stderr.strip()}")
    raise NativeBuildError("\n".join([f"benchbox: no kernel headers (asm/unistd.h). {INSTALL_HINT}", *complaints]))


def build_syscalls(root: Path) -> Path:
    """Write the numbers of the system calls below ``root`` if they are out of date; return the file, relative to it."""
    target = root / NATIVE / "bin" / SYSCALLS
    if outdated(target, [Path(__file__)]):
        target.parent.mkdir(exist_ok=True)
        partial = target.with_name(f".{target.name}.{os.getpid()}")
        partial.write_text(json.dumps(syscall_numbers(preprocess(SYSCALLS_SOURCE, compilers())), indent=0) + "\n")
        partial.replace(target)
    return NATIVE / "bin" / SYSCALLS


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
    """Adds the programs and the table of system calls to wheels and editable installs; the sdist has their sources."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and mark the wheel as one for this platform and any Python 3."""
        if self.target_name != "wheel":
            return
        built = [*build_programs(Path(self.root)), build_syscalls(Path(self.root))]
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform}"
        build_data["artifacts"].extend(str(path) for path in built)
