"""The set-up: the wrapper ``benchboxw``, the build hook and what an installation carries.

The wrapper runs with a private PATH: the usual small tools, and stand-ins for Python, pip, apt-get and sudo that write
down how they were called.
"""

import configparser
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pytest

import benchbox
from benchbox import native
from benchbox.errors import UnavailableError
from benchbox.native import program

PROJECT: Final = Path(__file__).parents[1]
TOOLS: Final = (
    "cat", "chmod", "cksum", "cp", "dirname", "env", "flock", "grep", "head", "mkdir", "mktemp", "readlink", "rm",
    "rmdir", "sed", "sh", "sleep", "sort", "tail", "tee", "touch", "tr", "true",
)  # fmt: skip

#: Finds itself fit, makes environments with a copy of itself, "installs" a program that shows its arguments.
PYTHON: Final = r"""#!/bin/sh
echo "$1" >>"$STUBS/modes"
[ "$1" != -I ] || shift
case "$1 $2" in
    -c*ensurepip*) echo "$0" ;;
    -c*sysconfig*) echo "$STUBS/include" ;;
    -c*) ;;
    '-m venv')
        echo venv >>"$STUBS/calls"
        mkdir -p "$3/bin"
        cp "$0" "$3/bin/python"
        echo "home = $0" >"$3/pyvenv.cfg"
        ;;
    '-m pip')
        shift 2
        echo "pip $*" >>"$STUBS/calls"
        [ ! -e "$STUBS/slow" ] || { touch "$STUBS/installing"; sleep 30; }
        [ ! -e "$STUBS/broken" ] || { echo 'no such index' >&2; exit 1; }
        case "$*" in *'[vm]'*) [ ! -e "$STUBS/broken-libvirt" ] || exit 1 ;; esac
        for program in benchbox tox; do
            printf '%s\n' '#!/bin/sh' 'printf "%s|" "$PWD" "$@"' >"${0%/*}/$program"
            chmod +x "${0%/*}/$program"
        done
        ;;
esac
"""
LOGGING: Final = '#!/bin/sh\necho "${0##*/} $*" >>"$STUBS/calls"\n'
#: Runs what it is asked to, but never on a file of the system.
SUDO: Final = LOGGING + 'shift\ncase "$*" in *" /usr/"*) ;; *) exec "$@" ;; esac\n'


@dataclass(frozen=True)
class Checkout:
    """A copy of what the wrapper looks at, and the stand-ins it meets."""

    root: Path
    stubs: Path

    def environ(self, packages: str) -> dict[str, str]:
        stubs = str(self.stubs)
        return {"PATH": f"{stubs}/bin", "STUBS": stubs, "TMPDIR": stubs, "BENCHBOX_SYSTEM_PACKAGES": packages}

    def call(self, *arguments: str, cwd: Path | None = None, script: str | None = None, packages: str = "no") -> Any:
        """Run the wrapper to its end; system packages are left alone unless ``packages`` is "yes"."""
        argv = [script or str(self.root / "benchboxw"), *arguments]
        environ = self.environ(packages)
        return subprocess.run(argv, cwd=cwd or self.root, env=environ, capture_output=True, text=True, check=False)

    def start(self, *arguments: str) -> "subprocess.Popen[bytes]":
        """Start the wrapper in a process group of its own."""
        argv = [str(self.root / "benchboxw"), *arguments]
        return subprocess.Popen(argv, env=self.environ("no"), stderr=subprocess.DEVNULL, start_new_session=True)

    def calls(self, word: str = "") -> list[str]:
        """Return the calls of stand-ins so far that begin with ``word``."""
        log = self.stubs / "calls"
        return [line for line in log.read_text().splitlines() if line.startswith(word)] if log.exists() else []

    def stub(self, name: str, text: str = LOGGING) -> None:
        """Put the stand-in ``name`` on the PATH."""
        path = self.stubs / "bin" / name
        path.write_text(text)
        path.chmod(0o755)


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    """Return a fresh checkout (with a blank in its path) on a machine that has a Python."""
    made = Checkout(tmp_path / "check out", tmp_path / "stubs")
    (made.stubs / "bin").mkdir(parents=True)
    for tool in TOOLS:
        if found := shutil.which(tool):
            (made.stubs / "bin" / tool).symlink_to(found)
    made.stub("python3.12", PYTHON)
    (made.root / "benchbox/native").mkdir(parents=True)
    for name in ("benchboxw", "pyproject.toml", "hatch_build.py", "benchbox/__init__.py", "benchbox/native/ready.c"):
        shutil.copy(PROJECT / name, made.root / name)
    return made


def compile_vm(checkout: Checkout) -> None:
    """Give the machine all that libvirt-python needs to compile."""
    for name in ("gcc", "pkg-config"):
        checkout.stub(name, "#!/bin/sh\n")
    (checkout.stubs / "include").mkdir()
    (checkout.stubs / "include/Python.h").touch()


def test_the_first_call_sets_up_and_hands_every_argument_on(checkout: Checkout) -> None:
    """Arguments arrive unchanged; standard output is the program's alone."""
    done = checkout.call("run", "a b", "", "c'd\"$e")
    assert done.returncode == 0
    assert done.stdout == f"{checkout.root}|run|a b||c'd\"$e|"
    assert all(line.startswith(("benchboxw: ", "    ")) for line in done.stderr.splitlines())
    assert checkout.calls() == ["venv", f"pip install --disable-pip-version-check --no-input -e {checkout.root}"]


def test_nothing_is_imported_from_the_folder_it_is_called_in(checkout: Checkout) -> None:
    """Python looks there first (-c, -m) unless it is isolated: somebody's ``venv.py`` would run, as root perhaps."""
    compile_vm(checkout)
    checkout.call()
    assert set((checkout.stubs / "modes").read_text().split()) == {"-I"}


def test_the_second_call_only_hands_on(checkout: Checkout) -> None:
    """Nothing is said, installed or started by the wrapper when all is set up."""
    checkout.call("one")
    before = checkout.calls()
    done = checkout.call("two")
    assert (done.stdout, done.stderr) == (f"{checkout.root}|two|", "")
    assert checkout.calls() == before


def test_the_programs_exit_status_is_the_wrappers(checkout: Checkout) -> None:
    """A nightly job reads benchbox's exit code through the wrapper."""
    checkout.call()
    (checkout.root / ".venv/bin/benchbox").write_text("#!/bin/sh\nexit 3\n")
    assert checkout.call().returncode == 3


@pytest.mark.parametrize("changed", ["pyproject.toml", "hatch_build.py", "benchbox/native/ready.c", "benchboxw"])
def test_a_changed_source_is_installed_again_in_the_same_environment(checkout: Checkout, changed: str) -> None:
    """What the installation was made from is watched, and only that is done again."""
    checkout.call()
    with (checkout.root / changed).open("a") as file:
        file.write("\n")
    checkout.call()
    checkout.call()
    assert [call.split()[0] for call in checkout.calls()] == ["venv", "pip", "pip"]


def test_it_works_through_a_link_and_stays_in_the_callers_folder(checkout: Checkout, tmp_path: Path) -> None:
    """Paths of scenarios are relative to where the user stands."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "first").symlink_to("../check out/benchboxw")
    (elsewhere / "second").symlink_to("first")
    done = checkout.call("x.yaml", cwd=elsewhere, script="./second")
    assert done.stdout == f"{elsewhere}|x.yaml|"
    assert (checkout.root / ".venv/bin/benchbox").exists()


def test_tests_run_through_tox_in_the_checkout(checkout: Checkout, tmp_path: Path) -> None:
    """``test`` has an environment of its own and hands its arguments to tox, wherever it is called from."""
    done = checkout.call("test", "-e", "lint", cwd=tmp_path, script="check out/benchboxw")
    assert done.stdout == f"{checkout.root}|run|-e|lint|"
    assert not (checkout.root / ".venv").exists()


def test_the_lab_is_asked_for_by_name_and_is_not_among_the_tests_of_every_day(checkout: Checkout) -> None:
    """``test --lab`` is tox's environment of that name, which a plain ``test`` does not run."""
    done = checkout.call("test", "--lab", "--", "-k", "bare")
    assert done.stdout == f"{checkout.root}|run|-e|lab|--|-k|bare|"
    assert checkout.call("test").stdout == f"{checkout.root}|run|"
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(PROJECT / "tox.ini")
    assert "lab" in tox["testenv:lab"]["commands"] and "lab" not in tox["tox"]["env_list"]


def test_the_peers_are_asked_for_by_name_and_required_then(checkout: Checkout) -> None:
    """``test --peers`` is tox's environment of that name; elsewhere what is missing is skipped."""
    done = checkout.call("test", "--peers", "--", "-k", "oci")
    assert done.stdout == f"{checkout.root}|run|-e|peers|--|-k|oci|"
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(PROJECT / "tox.ini")
    assert "peers" in tox["testenv:peers"]["commands"] and "peers" not in tox["tox"]["env_list"]
    assert "oci,docker" in tox["testenv:peers"]["set_env"]
    assert "oci" not in (PROJECT / ".ci/run").read_text()


def test_a_failed_set_up_says_why_and_is_repaired_by_the_next_call(checkout: Checkout) -> None:
    """An installer's complaint is shown, the status is that of an infrastructure error, and nothing half stays."""
    (checkout.stubs / "broken").touch()
    failed = checkout.call()
    assert failed.returncode == 2
    assert "no such index" in failed.stderr
    (checkout.stubs / "broken").unlink()
    assert checkout.call("x").stdout.endswith("|x|")
    assert checkout.calls("venv") == ["venv", "venv"]


def test_a_set_up_that_was_killed_is_repaired_by_the_next_call(checkout: Checkout) -> None:
    """SIGKILL in the middle of an installation leaves no environment that looks complete, and no lock."""
    (checkout.stubs / "slow").touch()
    victim = checkout.start()
    await_file(checkout.stubs / "installing")
    os.killpg(victim.pid, signal.SIGKILL)
    victim.wait()
    (checkout.stubs / "slow").unlink()
    assert checkout.call("x").stdout.endswith("|x|")
    assert checkout.calls("venv") == ["venv", "venv"]


def await_file(path: Path) -> None:
    """Wait until ``path`` exists."""
    deadline = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.01)


@pytest.mark.skipif(shutil.which("flock") is None, reason="no flock on this machine")
def test_two_first_calls_at_once_set_up_once(checkout: Checkout) -> None:
    """The second waits for the first and uses what that has made."""
    both = [checkout.start("x"), checkout.start("y")]
    assert [process.wait() for process in both] == [0, 0]
    assert [call.split()[0] for call in checkout.calls()] == ["venv", "pip"]


def test_an_environment_of_somebody_else_is_not_touched(checkout: Checkout) -> None:
    """A ``.venv`` that the wrapper did not make is refused, not removed."""
    (checkout.root / ".venv/bin").mkdir(parents=True)
    (checkout.root / ".venv/bin/mine").touch()
    done = checkout.call()
    assert done.returncode == 2
    assert "was not made by benchboxw" in done.stderr
    assert (checkout.root / ".venv/bin/mine").exists()


def test_a_moved_checkout_is_set_up_anew(checkout: Checkout, tmp_path: Path) -> None:
    """Scripts of a virtual environment name its path, so a moved one is made again."""
    checkout.call()
    moved = Checkout(checkout.root.rename(tmp_path / "moved"), checkout.stubs)
    assert moved.call("x").stdout == f"{moved.root}|x|"
    assert checkout.calls("venv") == ["venv", "venv"]


def test_a_python_that_does_not_work_is_passed_over(checkout: Checkout) -> None:
    """A shim that only complains is not taken for the newest Python."""
    checkout.stub("python3.14", "#!/bin/sh\necho 'command not found' >&2\nexit 127\n")
    assert checkout.call("x").stdout.endswith("|x|")
    assert "python3.12" in (checkout.root / ".venv/pyvenv.cfg").read_text()


def test_without_a_python_the_remedy_is_named(checkout: Checkout) -> None:
    """No usable Python is an infrastructure error with the package to install."""
    (checkout.stubs / "bin/python3.12").unlink()
    done = checkout.call()
    assert done.returncode == 2
    assert "python3-venv" in done.stderr


def test_libvirt_python_is_installed_where_it_compiles(checkout: Checkout) -> None:
    """With headers, pkg-config and a compiler the extra ``vm`` is asked for."""
    compile_vm(checkout)
    checkout.call()
    assert [call.rpartition(" ")[2] for call in checkout.calls("pip")] == ["out[vm]"]


def test_libvirt_python_that_does_not_compile_costs_only_the_vm(checkout: Checkout) -> None:
    """The rest is installed, and it is said what will be skipped."""
    compile_vm(checkout)
    (checkout.stubs / "broken-libvirt").touch()
    done = checkout.call("x")
    assert done.stdout.endswith("|x|")
    assert "vm will be skipped" in done.stderr


def with_apt(checkout: Checkout, apt: str = LOGGING) -> Checkout:
    """Make the machine one that has apt-get and an ordinary user who may sudo."""
    checkout.stub("id", "#!/bin/sh\necho 1000\n")
    checkout.stub("sudo", SUDO)
    checkout.stub("apt-get", apt)
    return checkout


def test_missing_system_packages_are_installed_once(checkout: Checkout) -> None:
    """apt-get gets all missing packages in one call and removes nothing; what it could not give is not asked again."""
    with_apt(checkout)
    done = checkout.call("x", packages="yes")
    installs = [call for call in checkout.calls("apt-get") if " install " in call]
    assert len(installs) == 1
    assert {"--no-remove", "--no-install-recommends", "gcc", "qemu-system-x86"} <= set(installs[0].split())
    assert "gcc (compiling the launcher)" in done.stderr
    assert checkout.call("x", packages="yes").stderr == ""
    assert [call for call in checkout.calls("apt-get") if " install " in call] == installs


def test_setup_tries_again_what_could_not_be_installed(checkout: Checkout) -> None:
    """``benchboxw setup`` does not rely on what an earlier call found."""
    with_apt(checkout)
    checkout.call("x", packages="yes")
    before = len(checkout.calls("apt-get"))
    done = checkout.call("setup", packages="yes")
    assert (done.returncode, done.stdout) == (0, "")
    assert len(checkout.calls("apt-get")) == 2 * before


def test_one_package_that_cannot_be_installed_does_not_hinder_the_others(checkout: Checkout) -> None:
    """When the call for all fails, each is tried, and the ones that fail are named."""
    failing = LOGGING + 'case "$*" in *qemu-system-x86*) exit 100 ;; esac\n'
    done = with_apt(checkout, failing).call("x", packages="yes")
    assert "cannot be installed: qemu-system-x86" in done.stderr
    assert "cannot be installed: gcc" not in done.stderr
    assert done.stdout.endswith("|x|")


def test_libvirts_services_are_not_started_by_an_installation(checkout: Checkout) -> None:
    """While packages are installed Debian's policy file refuses libvirt's services and no others; then it is gone."""
    policy = move_policy(checkout)
    asking = LOGGING + "for unit in virtlogd.socket ssh.service; do\n"
    asking += f'    status=0; "{policy}" $unit start || status=$?; echo "policy $unit $status" >>"$STUBS/calls"\ndone\n'
    with_apt(checkout, asking).call("x", packages="yes")
    assert set(checkout.calls("policy")) == {"policy virtlogd.socket 101", "policy ssh.service 0"}
    assert not policy.exists()


def test_a_policy_that_a_killed_set_up_left_has_no_effect(checkout: Checkout) -> None:
    """The file itself asks whether its writer still lives."""
    policy = move_policy(checkout)
    with_apt(checkout, LOGGING + f'cp "{policy}" "$STUBS/left"\n').call("x", packages="yes")
    assert subprocess.run([checkout.stubs / "left", "libvirtd.service", "start"], check=False).returncode == 0


def test_a_policy_of_the_machines_owner_is_respected(checkout: Checkout) -> None:
    """A policy file that is there stays as it is."""
    policy = move_policy(checkout)
    policy.write_text("#!/bin/sh\nexit 101\n")
    with_apt(checkout).call("x", packages="yes")
    assert policy.read_text() == "#!/bin/sh\nexit 101\n"


def move_policy(checkout: Checkout) -> Path:
    """Let the copied wrapper write its policy below the stand-ins instead of /usr/sbin; return where."""
    policy, script = checkout.stubs / "policy-rc.d", checkout.root / "benchboxw"
    text = script.read_text()
    assert text.count("policy=/usr/sbin/policy-rc.d\n") == 1
    script.write_text(text.replace("policy=/usr/sbin/policy-rc.d\n", f"policy='{policy}'\n"))
    return policy


# ---- what the scenario at hand needs ---------------------------------------------------------------------------------

#: What benchbox asks for: two packages with what they are for.
NEEDED: Final = ("packages", "runc", "oci, needs-oci", "erofs-utils", "erofs")


def installs(checkout: Checkout) -> list[str]:
    return [call for call in checkout.calls("apt-get") if " install " in call]


def test_benchbox_is_told_where_the_wrapper_is(checkout: Checkout) -> None:
    """So that a run can ask for what its scenario lacks."""
    checkout.call()
    (checkout.root / ".venv/bin/benchbox").write_text('#!/bin/sh\necho "$BENCHBOX_WRAPPER"\n')
    assert checkout.call("run", "x.yaml").stdout == f"{checkout.root}/benchboxw\n"


def test_what_a_scenario_lacks_is_installed_in_one_call_and_said_in_one_line(checkout: Checkout) -> None:
    """Which packages, for what, and how to prevent it; standard output stays the program's."""
    done = with_apt(checkout).call(*NEEDED, packages="yes")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == (
        "benchboxw: installing system packages (BENCHBOX_SYSTEM_PACKAGES=no prevents it): "
        "runc (oci, needs-oci), erofs-utils (erofs)\n"
    )
    (install,) = installs(checkout)
    assert install.split()[-2:] == ["runc", "erofs-utils"]
    assert {"--no-remove", "--no-install-recommends"} <= set(install.split())


@pytest.mark.parametrize("hindrance", ["forbidden", "no apt-get", "no rights", "nothing to install"])
def test_where_nothing_may_be_installed_nothing_is_said(checkout: Checkout, hindrance: str) -> None:
    """The run says what is missing; the status is that of success."""
    with_apt(checkout)
    if hindrance == "no apt-get":
        (checkout.stubs / "bin/apt-get").unlink()
    if hindrance == "no rights":
        checkout.stub("sudo", "#!/bin/sh\nexit 1\n")
    words = ("packages",) if hindrance == "nothing to install" else NEEDED
    done = checkout.call(*words, packages="no" if hindrance == "forbidden" else "yes")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert checkout.calls("apt-get") == []


def test_a_package_that_apt_cannot_give_is_asked_for_once(checkout: Checkout) -> None:
    """It is named on one line, the other is installed; the next run does not wait for it again, until ``setup``."""
    with_apt(checkout, LOGGING + 'case "$*" in *erofs-utils*) exit 100 ;; esac\n')
    checkout.call()
    done = checkout.call(*NEEDED, packages="yes")
    assert done.returncode == 0
    (line,) = [line for line in done.stderr.splitlines() if "cannot be installed" in line]
    assert line.startswith("benchboxw: cannot be installed: erofs-utils (tried again after: ")
    before = checkout.calls("apt-get")
    assert any(call.endswith(" runc") for call in before)
    again = checkout.call("packages", "erofs-utils", "erofs", packages="yes")
    assert (again.stderr, checkout.calls("apt-get")) == ("", before)
    checkout.call("setup", packages="no")
    checkout.call("packages", "erofs-utils", "erofs", packages="yes")
    assert len(checkout.calls("apt-get")) > len(before)


def test_without_a_network_the_packages_are_named_and_the_status_is_well(checkout: Checkout) -> None:
    """apt-get fails in all that it is asked for."""
    done = with_apt(checkout, LOGGING + "exit 100\n").call(*NEEDED, packages="yes")
    assert done.returncode == 0
    assert "apt-get update failed" in done.stderr
    assert "cannot be installed: runc erofs-utils (" in done.stderr


def test_what_dpkg_has_is_not_installed_again(checkout: Checkout) -> None:
    """A program that is missing though its package is there is not mended by apt-get."""
    checkout.stub("dpkg-query", '#!/bin/sh\ncase "$*" in *runc) echo "ii " ;; *) exit 1 ;; esac\n')
    with_apt(checkout).call(*NEEDED, packages="yes")
    (install,) = installs(checkout)
    assert install.split()[-1:] == ["erofs-utils"] and "runc" not in install.split()


def test_an_installation_for_a_scenario_starts_no_service_and_leaves_no_policy(checkout: Checkout) -> None:
    """As in the set-up."""
    policy = move_policy(checkout)
    asking = (
        LOGGING + f'status=0; "{policy}" libvirtd.service start || status=$?; echo "policy $status" >>"$STUBS/calls"\n'
    )
    with_apt(checkout, asking).call(*NEEDED, packages="yes")
    assert set(checkout.calls("policy")) == {"policy 101"}
    assert not policy.exists()


def test_the_first_set_up_leaves_to_the_scenarios_what_only_some_of_them_need(checkout: Checkout) -> None:
    """Images of packages are made by few of them; the tests need all."""
    with_apt(checkout)
    checkout.call("run", "x.yaml", packages="yes")
    assert not {"mmdebstrap", "squashfs-tools", "runc"} & set(installs(checkout)[0].split())
    checkout.call("test", packages="yes")
    assert {"mmdebstrap", "squashfs-tools", "erofs-utils", "qemu-utils"} <= set(installs(checkout)[-1].split())


# ---- the build hook --------------------------------------------------------------------------------------------------


@pytest.fixture
def hook() -> ModuleType:
    """Return the build hook as a module."""
    pytest.importorskip("hatchling")
    spec = importlib.util.spec_from_file_location("hatch_build", PROJECT / "hatch_build.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def sources(tmp_path: Path, hook: ModuleType) -> Path:
    """Return a project folder that has a source for every program."""
    native = tmp_path / "project" / hook.NATIVE
    native.mkdir(parents=True)
    for name in hook.PROGRAMS:
        (native / f"{name}.c").write_text(f"/* {name} */\n")
        os.utime(native / f"{name}.c", (1, 1))
    return tmp_path / "project"


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Return a function that makes ``$CC`` a script with the given last line; the script logs each program it makes."""

    def install(last: str) -> Path:
        path, log = tmp_path / "cc", tmp_path / "compiled"
        find = 'while [ "$1" != -o ]; do shift; done\n'
        path.write_text(f'#!/bin/sh\n{find}echo "${{3##*/}}" >>"{log}"\necho binary >"$2"\n{last}\n')
        path.chmod(0o755)
        log.touch()
        monkeypatch.setenv("CC", str(path))
        return log

    return install


def test_the_hook_compiles_only_what_is_older_than_its_source(
    hook: ModuleType, sources: Path, compiler: Callable[[str], Path]
) -> None:
    """A second build compiles nothing; a touched source is compiled alone."""
    log = compiler("exit 0")
    built = hook.build_programs(sources)
    assert [path.name for path in built] == list(hook.PROGRAMS)
    assert hook.build_programs(sources) == built
    later = time.time() + 60
    os.utime(sources / hook.NATIVE / "agent.c", (later, later))
    hook.build_programs(sources)
    assert log.read_text().split() == [*(f"{name}.c" for name in hook.PROGRAMS), "agent.c"]


def test_a_source_that_does_not_compile_leaves_no_program(
    hook: ModuleType, sources: Path, compiler: Callable[[str], Path]
) -> None:
    """The error shows the compiler's words and the packages; the folder stays empty."""
    compiler("echo 'launch.c:1: what is this' >&2; exit 1")
    with pytest.raises(hook.NativeBuildError, match=r"apt install(.|\n)*what is this"):
        hook.build_programs(sources)
    assert list((sources / hook.NATIVE / "bin").iterdir()) == []


def test_a_machine_without_a_compiler_is_told_what_to_install(
    hook: ModuleType, sources: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No compiler is an error that names packages, not a traceback of a missing file."""
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(hook.NativeBuildError, match=r"no C compiler.*musl-tools"):
        hook.build_programs(sources)


def test_the_next_compiler_is_tried_when_one_cannot(hook: ModuleType, sources: Path, tmp_path: Path) -> None:
    """A program that musl's headers are not enough for is compiled by the system's compiler."""
    works = tmp_path / "works"
    works.write_text('#!/bin/sh\nwhile [ "$1" != -o ]; do shift; done\necho whole >"$2"\n')
    works.chmod(0o755)
    candidates = [
        hook.Compiler(("/bin/false",)),
        hook.Compiler((str(tmp_path / "absent"),)),
        hook.Compiler((str(works),)),
    ]
    hook.compile_program(sources / hook.NATIVE / "agent.c", tmp_path / "agent", hook.HOSTED, candidates)
    assert (tmp_path / "agent").read_text() == "whole\n"


def test_a_missing_source_is_named(hook: ModuleType, sources: Path) -> None:
    """A build without one of the programs fails; it makes no wheel that lacks it."""
    (sources / hook.NATIVE / "launch.c").unlink()
    with pytest.raises(hook.NativeBuildError, match=r"missing: benchbox/native/launch\.c"):
        hook.build_programs(sources)


MACROS = """\
#define BENCHBOX_MACHINE aarch64
#define __NR_read 63
#define __NR_fcntl __NR3264_fcntl
#define __NR3264_fcntl 25
#define __NR_syscalls 451
#define __NR_odd (1 + 2)
#define EPERM 1
"""


def test_the_numbers_of_system_calls_are_those_of_the_headers(hook: ModuleType) -> None:
    """A macro that stands for another is followed; what is no system call is left out."""
    assert hook.syscall_numbers(MACROS) == {"aarch64": {"fcntl": 25, "read": 63}}


def test_another_architecture_has_no_numbers(hook: ModuleType) -> None:
    """There is no filter for it, so nothing may look like one."""
    assert hook.syscall_numbers("#define __NR_read 63\n") == {}


def test_the_table_of_this_machine_is_the_compiler_s(hook: ModuleType, sources: Path) -> None:
    """Asked for once; what is built is what the package reads."""
    if not any(map(shutil.which, ("musl-gcc", "cc", "gcc", "clang"))):
        pytest.skip("no C compiler is installed")
    path = sources / hook.build_syscalls(sources)
    written = path.stat().st_mtime_ns
    table = json.loads(path.read_text())
    assert table == native.syscalls()
    if os.uname().machine == "x86_64":
        assert {name: table["x86_64"][name] for name in ("read", "execve", "clone3")} == {
            "read": 0, "execve": 59, "clone3": 435,
        }  # fmt: skip
    hook.build_syscalls(sources)
    assert path.stat().st_mtime_ns == written


def test_a_machine_without_kernel_headers_is_told_what_to_install(hook: ModuleType, sources: Path) -> None:
    """The compiler's words and the packages; no half of a table is left."""
    with pytest.raises(hook.NativeBuildError, match=r"kernel headers(.|\n)*apt install(.|\n)*cannot find asm"):
        hook.preprocess("", [hook.Compiler(("sh", "-c", "echo cannot find asm/unistd.h >&2; exit 1"))])
    assert not (sources / hook.NATIVE / "bin").exists()


# ---- what is installed -----------------------------------------------------------------------------------------------


def test_the_tests_run_against_the_installed_package() -> None:
    """Under tox it is the wheel that is tested, never the checkout that lies beside the tests."""
    if "BENCHBOX_TEST_INSTALLED" not in os.environ:
        pytest.skip("only where the wheel was installed for the tests")
    assert Path(benchbox.__file__).parents[1] != PROJECT
    assert "site-packages" in Path(benchbox.__file__).parts


@pytest.mark.parametrize("name", ["launch", "agent", "ready", "first_answer", "steady", "pingpong", "files"])
def test_each_program_is_installed_and_needs_no_library(name: str) -> None:
    """It is executable and static: it has no program header that asks for a dynamic loader (ELF, PT_INTERP)."""
    binary = program(name).read_bytes()
    assert binary[:5] == b"\x7fELF\x02"
    start, size, count = (int.from_bytes(binary[at : at + n], "little") for at, n in ((32, 8), (54, 2), (56, 2)))
    kinds = [int.from_bytes(binary[at : at + 4], "little") for at in range(start, start + size * count, size)]
    assert 1 in kinds
    assert 3 not in kinds


def test_the_startup_program_writes_one_byte_and_succeeds() -> None:
    """``ready`` as built here keeps its promise: one byte to the descriptor that BENCHBOX_READY names."""
    done = subprocess.run([program("ready")], env={"BENCHBOX_READY": "1"}, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"!", b"")


def test_a_program_that_was_not_built_is_unavailable_with_a_remedy() -> None:
    """A broken installation is told what to do, not shown a traceback."""
    with pytest.raises(UnavailableError, match="'absent'") as caught:
        program("absent")
    assert caught.value.hint is not None and "benchboxw" in caught.value.hint
