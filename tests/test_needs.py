"""What a scenario lacks on this host, and who is asked to install it."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchbox import needs, remedies
from benchbox.cli import commands
from benchbox.environments import oci, vm
from benchbox.images import OwnImage, distribution
from benchbox.model import Availability
from benchbox.scenario import Scenario, load, loads, select
from benchbox.supervisor.supervise import Ending

SCENARIOS = Path(__file__).parents[1] / "scenarios"
SHIPPED = sorted(SCENARIOS.glob("*.yaml"))


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Debian host that has no program but apt's and dpkg's, no libvirt and no cache; its user is root."""
    monkeypatch.setenv("BENCHBOX_CACHE", str(tmp_path / "cache"))
    found = {"apt-get": "/usr/bin/apt-get", "dpkg-query": "/usr/bin/dpkg-query"}
    monkeypatch.setattr(shutil, "which", lambda name, **_: found.get(name))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr("benchbox.environments.format._installed", dict)
    monkeypatch.setattr("benchbox.virt.firmware.find", lambda *_: None)
    monkeypatch.setattr(vm, "python_package", Availability.yes)
    monkeypatch.setattr(vm, "_has_driver", lambda: False)


def lacking(scenario: Scenario) -> dict[str, str]:
    return {need.package.debian: need.purpose for need in needs.missing(scenario)}


def scenario(environments: str, extra: str = "") -> Scenario:
    return loads(f"name: x\nenvironments: [{environments}]\nworkloads: [startup]\n{extra}", "x.yaml")


@pytest.mark.usefixtures("bare")
def test_the_sizes_of_an_image_need_what_makes_the_formats() -> None:
    """Each package with the formats that it is for; Docker is not among them, though its size is asked for."""
    found = lacking(load(SCENARIOS / "image-size.yaml"))
    assert found["squashfs-tools"] == "squashfs"
    assert found["erofs-utils"] == "erofs"
    assert found["qemu-utils"] == "qcow2, qcow2-compressed, qcow2-overlay"
    assert found["runc"] == "needs-oci"
    assert found["zstd"] == "directory, oci, squashfs and 7 more"
    assert "docker.io" not in found


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_package_that_a_skip_of_a_shipped_scenario_names_is_installed(path: Path) -> None:
    """Whatever an environment lacks on a bare host has a package or belongs to an engine; its fix names both families.

    The image of packages has its program as well.
    """
    from benchbox.environments import environment

    found = load(path)
    for spec in found.environments:
        offer = environment(spec.kind).check(spec)
        if not offer.available and ("install" in str(offer.reason) or spec.kind == "oci"):
            assert "apt install" in str(offer.fix)
            assert offer.packages or "docker.io" in str(offer.fix)
            assert "Fedora: dnf install" in str(offer.fix) or spec.options.get("format") == "installed"
    assert ("mmdebstrap" in lacking(found)) == (str(found.image) in ("debian", "debian-start"))


@pytest.mark.usefixtures("bare")
def test_what_is_left_out_needs_nothing() -> None:
    """--only native asks for no runtime."""
    assert lacking(select(load(SCENARIOS / "ladder.yaml"), "env:native,env:container")) == {}
    assert lacking(select(load(SCENARIOS / "ladder.yaml"), "env:oci")) == {"runc": "oci"}


@pytest.mark.usefixtures("bare")
def test_a_runtime_is_the_one_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that no package is known for is not installed, and no name of the file becomes one of apt's."""
    found = scenario(
        "{kind: oci, runtime: crun}, {kind: oci, label: y, runtime: youki}, {kind: oci, label: z, runtime: vim}"
    )
    assert lacking(found) == {"crun": "oci"}
    monkeypatch.setattr(oci, "find_runtime", lambda name: Path("/usr/bin/runc"))
    assert lacking(found) == {}


@pytest.mark.usefixtures("bare")
def test_packages_of_a_file_are_installed_only_if_they_are_in_the_table() -> None:
    """A scenario may ask for the size of any package; that is no way to have it installed."""
    found = "{kind: format, format: installed, packages: [runc, openssh-server]}"
    text = f"name: x\nenvironments: [{found}]\nworkloads: [image-size]\n"
    assert lacking(loads(text, "x.yaml")) == {"runc": "format"}


@pytest.mark.usefixtures("bare")
def test_a_guest_with_uefi_needs_its_firmware(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once QEMU and libvirt are there: what is in the way first is said first."""
    found = scenario("{kind: vm, firmware: uefi}")
    assert set(lacking(found)) == {remedies.PACKAGES[vm.qemu_name()].debian}
    monkeypatch.setattr(vm, "emulator_program", Availability.yes)
    assert set(lacking(found)) == {"libvirt-daemon-driver-qemu", "libvirt-daemon-system"}
    monkeypatch.setattr(vm, "_has_driver", lambda: True)
    assert set(lacking(found)) == {remedies.PACKAGES[f"UEFI for {os.uname().machine}"].debian}


def test_who_may_not_use_it_has_nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """An ordinary user who could sudo is told that it takes root, before a package is asked for."""
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert lacking(scenario("oci", "image: debian")) == {}


def test_an_image_of_packages_needs_mmdebstrap_until_it_is_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of the user's own as well; a folder never does."""
    from benchbox import images

    monkeypatch.setenv("BENCHBOX_CACHE", str(tmp_path))
    monkeypatch.setattr(distribution, "availability", lambda: Availability(False, "no"))
    assert not images.availability(OwnImage("packages", packages=("bash",))).available
    assert not images.availability("debian").available
    assert images.availability("minimal").available
    assert images.availability(OwnImage("directory", Path("/srv"))).available
    release = distribution._host_suite()
    kept = distribution.key(images.PACKAGES["debian"], release, os.uname().machine)
    (tmp_path / "distribution" / kept).mkdir(parents=True)
    assert images.availability("debian").available


# ---- asking the wrapper ----------------------------------------------------------------------------------------------


@pytest.fixture
def wrapper(tmp_path: Path) -> Callable[[str], Path]:
    """Return a function that makes a wrapper of a last line of shell; it writes down how it was called."""

    def make(last: str = "") -> Path:
        path = tmp_path / "benchboxw"
        path.write_text(f'#!/bin/sh\nprintf "%s|" "$@" >>{tmp_path}/asked\necho >>{tmp_path}/asked\n{last}\n')
        path.chmod(0o755)
        return path

    return make


def asked(tmp_path: Path) -> list[str]:
    log = tmp_path / "asked"
    return log.read_text().splitlines() if log.exists() else []


def play_runtime(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    """Let the OCI runtime be what is at ``path``."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(oci, "find_runtime", lambda name: path if path.exists() else None)


def test_the_wrapper_is_asked_once_for_all_that_is_missing(
    wrapper: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what each is for; what it has installed is missing no longer."""
    play_runtime(monkeypatch, tmp_path / "runc")
    script = wrapper(f"touch {tmp_path}/runc")
    assert needs.provide(scenario("oci"), str(script)) == ()
    assert asked(tmp_path) == ["packages|runc|oci|"]
    assert needs.provide(scenario("oci"), str(script)) == ()
    assert len(asked(tmp_path)) == 1


@pytest.mark.parametrize("last", ["exit 0", "exit 3", None])
def test_a_wrapper_that_cannot_is_no_error(
    last: str | None, wrapper: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused, failed or not there: what is still missing is returned, and the run goes on."""
    play_runtime(monkeypatch, tmp_path / "runc")
    script = "/no/such/benchboxw" if last is None else str(wrapper(last))
    (left,) = needs.provide(scenario("oci"), script)
    assert (left.package.debian, left.purpose) == ("runc", "oci")


def test_without_the_wrapper_nothing_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed benchbox changes nothing on its host."""
    play_runtime(monkeypatch, tmp_path / "runc")
    monkeypatch.setattr(subprocess, "Popen", None)
    assert len(needs.provide(scenario("oci"), None)) == 1


@pytest.mark.parametrize(
    ("program", "command"), [("apt-get", "apt-get install qemu-utils"), ("dnf", "dnf install qemu-img")]
)
def test_the_command_is_that_of_this_host(program: str, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its names of the packages."""
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}" if name == program else None)
    found = [needs.Need(remedies.PACKAGES["qemu-img"], ("qcow2",))]
    assert needs.command(found) == command
    assert needs.told(found) == f"{command.split()[-1]} (qcow2)"


# ---- benchbox run ----------------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str]]:
    """Return a function that is ``benchbox run`` of a scenario with ``oci``, up to where it would measure."""
    (tmp_path / "x.yaml").write_text("name: x\nenvironments: [native, oci]\nworkloads: [startup]\n")
    monkeypatch.chdir(tmp_path)
    play_runtime(monkeypatch, tmp_path / "runc")
    monkeypatch.setattr(shutil, "which", lambda name, **_: f"/usr/bin/{name}" if name == "apt-get" else None)
    monkeypatch.setattr("benchbox.supervisor.supervise", lambda *_: Ending("done", None, None, ()))

    def invoke(*words: str) -> tuple[int, str]:
        done = CliRunner().invoke(commands, ["run", *words], standalone_mode=False)
        return done.return_value, done.stderr

    return invoke


def test_a_run_without_the_wrapper_says_the_command(run: Callable[..., tuple[int, str]]) -> None:
    """What is missing, for what, and how to have it; --quiet leaves it to the table."""
    status, said = run("x.yaml")
    assert status == 0
    assert "missing on this host: runc (oci)\nnext: as root, apt-get install runc;" in said
    assert "missing" not in run("x.yaml", "--quiet")[1]
    assert "missing" not in run("x.yaml", "--only", "env:native")[1]


def test_a_run_by_the_wrapper_asks_it(
    run: Callable[..., tuple[int, str]], wrapper: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once; what the workloads inherit no longer says where it is."""
    monkeypatch.setenv(needs.WRAPPER, str(wrapper(f"touch {tmp_path}/runc")))
    assert "missing" not in run("x.yaml", "--json-events")[1]
    assert asked(tmp_path) == ["packages|runc|oci|"]
    assert needs.WRAPPER not in os.environ


def test_a_wrong_scenario_has_nothing_installed(
    run: Callable[..., tuple[int, str]], wrapper: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor has a file that is not there, or a requirement that the scenario does not have."""
    monkeypatch.setenv(needs.WRAPPER, str(wrapper("")))
    (tmp_path / "bad.yaml").write_text("name: x\nenvironments: [oci]\nworkloads: [nonsense]\n")
    for words in (["bad.yaml"], ["nowhere.yaml"], ["x.yaml", "--require", "lxc"], ["x.yaml", "--only", "env:lxc"]):
        with pytest.raises(Exception, match=r"nonsense|nowhere|lxc"):
            CliRunner().invoke(commands, ["run", *words], standalone_mode=False, catch_exceptions=False)
    assert asked(tmp_path) == []


def test_a_run_that_goes_on_has_nothing_installed(
    run: Callable[..., tuple[int, str]], wrapper: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--resume measures what the run began with."""
    monkeypatch.setenv(needs.WRAPPER, str(wrapper("")))
    job = {"run_id": "x", "results": "results", "scenario": {"environments": []}}
    monkeypatch.setattr("benchbox.cli._resumed_job", lambda *_: job)
    monkeypatch.setattr("benchbox.cli._watcher", lambda *_, **__: contextlib.nullcontext(_Watcher()))
    assert run("--resume", "latest")[0] == 0
    assert asked(tmp_path) == []


class _Watcher:
    def on_event(self, event: object) -> None: ...
