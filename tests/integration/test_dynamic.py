"""Dynamic programs of the distribution, in every environment, from the image ``debian-start``."""

import os
import signal
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from benchbox import images, native
from benchbox.environments import environment, vm
from benchbox.errors import EnvironmentFailure, ImageError
from benchbox.images import distribution, inventory, tree
from benchbox.linux import processes
from benchbox.model import Availability, Command, EnvironmentSpec, Image, Outcome, Resources
from benchbox.workloads import workload
from tests.conftest import skip_unless_available
from tests.integration import runs
from tests.integration.guests import reaping
from tests.integration.sessions import run, session

pytestmark = pytest.mark.integration

#: Environments by a name: the feature of this host that it needs, its kind and its options.
ENVIRONMENTS: Final[dict[str, tuple[str, str, dict[str, Any]]]] = {
    "native": ("container", "native", {}),
    "container": ("container", "container", {}),
    "user-namespace": ("container", "container", {"user_namespace": True}),
    "read-only": ("container", "container", {"root": "bind"}),
    "vm": ("vm", "vm", {"accelerator": "tcg"}),
}
RESOURCES: Final = Resources(cpus=1, memory_bytes=256 << 20, pids=64)


@pytest.fixture(scope="module")
def image() -> Image:
    """The image, from the cache or made now; skipped where there is no mmdebstrap, no root or no mirror."""
    return opened()


def opened(progress: Callable[[str], None] | None = None) -> Image:
    skip_unless_available("image", distribution.availability())
    try:
        return images.open_image("debian-start", progress)
    except ImageError as error:
        skip_unless_available("image", Availability.no(error.message, str(error.hint)))
        raise


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path: sockets of guests lie below it."""
    with tempfile.TemporaryDirectory(prefix="bb-") as path:
        yield Path(path)


@pytest.fixture(params=ENVIRONMENTS)
def start(
    request: pytest.FixtureRequest, image: Image, folder: Path, need: Callable[[str, Availability], None]
) -> Iterator[Callable[[Command], Outcome]]:
    """Runs a command in each environment."""
    feature, kind, options = ENVIRONMENTS[request.param]
    need(feature, environment(kind).check(EnvironmentSpec(kind, kind, options)))
    with reaping(), session(kind, folder, RESOURCES, image, **options) as found:
        yield lambda command: run(found, command)


@pytest.mark.parametrize("name", ["startup", "python", "redis"])
def test_each_workload_runs_in_each_environment(name: str, start: Callable[[Command], Outcome]) -> None:
    """It ends well, its output is what it should be, and its byte comes after exec and before its end."""
    outcome = start(workload(name).command({}))
    assert (outcome.status, outcome.reason, outcome.exit_code) == ("ok", None, 0), outcome.output_tail.decode()
    assert workload(name).parse(outcome) == ()
    assert outcome.stages["exec"] <= outcome.stages["ready"] <= outcome.stages["exited"]


def test_a_server_that_cannot_start_fails_with_its_own_words(start: Callable[[Command], Outcome]) -> None:
    """Not at the deadline, and no byte came."""
    command = workload("redis").command({})
    outcome = start(Command((*command.argv, "--no-such-option", "1"), signals="served"))
    assert (outcome.status, outcome.reason) == ("failed", "exit status 1")
    assert b"no-such-option" in outcome.output_tail
    assert b"first_answer: the server ended with status 1 before it answered" in outcome.output_tail
    assert "ready" not in outcome.stages


def test_python_loads_compiled_modules(image: Image, tmp_path: Path) -> None:
    """With time stamps it would compile them anew at each start: every file of an image has the same."""
    skip_unless_available("container", environment("native").check(EnvironmentSpec("native", "native")))
    with session("native", tmp_path, RESOURCES, image) as found:
        outcome = run(found, Command(("/usr/bin/python3", "-v", "-c", "import email"), signals_ready=False))
    said = outcome.output_tail.decode()
    assert outcome.status == "ok"
    assert "__init__.cpython" in said and "# code object from '/usr/lib/python3" in said
    from_source = [line for line in said.splitlines() if "code object from" in line and line.endswith(".py'")]
    assert from_source == []
    assert "# wrote" not in said


def test_the_image_holds_files_folders_and_links_and_nothing_of_this_host(image: Image) -> None:
    """No devices, no other user's rights, no name, no apt; small enough for a guest's memory."""
    found = {entry.path: entry for entry in tree.scan(image.root)}
    assert {stat.S_IFMT(entry.mode) for entry in found.values()} == {stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK}
    assert not [path for path, entry in found.items() if entry.mode & (stat.S_ISUID | stat.S_ISGID)]
    assert not {"etc/apt", "etc/machine-id", "etc/resolv.conf", "var/lib/dpkg", "usr/share/doc", "packages"} & set(
        found
    )
    assert (image.root / "etc/hostname").read_text() == "benchbox\n"
    assert {(image.root / name).readlink() for name in ("bin", "sbin", "lib")} == {
        Path("usr/bin"), Path("usr/sbin"), Path("usr/lib"),
    }  # fmt: skip
    assert sum(path.stat().st_size for path in image.root.rglob("*") if path.is_file()) < 64 << 20


def test_the_same_packages_give_the_same_image(image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made once more from nothing, by somebody whose Python is told something else, it has the same digest, unless the
    distribution has newer packages by now."""
    before = packages()
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "" if os.environ.get("PYTHONDONTWRITEBYTECODE") else "1")
    monkeypatch.setenv("BENCHBOX_CACHE", str(tmp_path / "cache"))
    said: list[str] = []
    begun = time.monotonic()
    again = opened(said.append)
    assert said[0] == "image debian-start: reading what the distribution has" and len(said) == 4
    assert time.monotonic() - begun < 120
    if packages() == before:
        assert again.digest == image.digest
    else:
        monkeypatch.setenv("BENCHBOX_CACHE", str(tmp_path / "third"))
        assert opened().digest == again.digest
    assert {path.name for path in (tmp_path / "cache").iterdir()} == {"distribution", "store"}
    assert not [path for path in (tmp_path / "cache/distribution").iterdir() if path.name.startswith(".")]


def packages() -> object:
    entries = [entry for entry in inventory.find(["debian-start"]) if entry.kind == "distribution"]
    entry = max(entries, key=lambda each: each.path.stat().st_mtime_ns)  # an earlier recipe's may be there as well
    return {name: value for name, value in inventory.details(entry)["facts"].items() if name != "digest"}


def test_a_mirror_that_does_not_answer_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By mmdebstrap's own last words; nothing half-made stays."""
    skip_unless_available("image", distribution.availability())
    mirror = tmp_path / "broken.list"
    mirror.write_text("deb [trusted=yes] http://127.0.0.1:9/debian bookworm main\n")
    monkeypatch.setattr(distribution, "source_files", lambda folder: (mirror,))
    monkeypatch.setenv("BENCHBOX_CACHE", str(tmp_path / "cache"))
    with pytest.raises(ImageError, match="mmdebstrap could not make it") as error:
        images.open_image("debian-start")
    assert "127.0.0.1:9" in error.value.message
    assert list((tmp_path / "cache/distribution").iterdir()) == []


@pytest.mark.parametrize("with_what", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_ended_while_its_image_is_made_leaves_nothing(
    with_what: signal.Signals, image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No mmdebstrap, no mount; what is half-made is swept by the next maker, which makes the image."""
    monkeypatch.setenv("BENCHBOX_CACHE", str(tmp_path / "cache"))
    process = runs.start(tmp_path, "run", runs.scenario(tmp_path, image="debian-start"))
    made = tmp_path / "cache/distribution"
    runs.eventually(lambda: list(made.glob(".making-*/made/usr/bin/*")))
    process.send_signal(with_what)
    status, _, err = runs.finish(process)
    assert status == (130 if with_what == signal.SIGINT else -signal.SIGKILL), err
    runs.eventually(lambda: not processes.with_argument(f"{made}/"), timeout_s=10)
    assert runs.benchbox(tmp_path, "clean")[0] == 0
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()
    assert opened().digest
    assert [path.name for path in made.iterdir() if path.name.startswith(".")] == []


def test_a_guest_with_too_little_memory_is_told_how_much_it_needs(image: Image, folder: Path) -> None:
    """Before it is started: its kernel would panic for want of a root."""
    skip_unless_available("vm", environment("vm").check(EnvironmentSpec("vm", "vm")))
    resources = Resources(memory_bytes=128 << 20)
    said = r"debian-start takes 4\d.* MiB, three times that .* is 128 MiB"
    with pytest.raises(EnvironmentFailure, match=said) as error, session("vm", folder, resources, image):
        pass
    assert error.value.hint == "set resources.memory to 192 MiB or more, or root: disk"


def test_what_is_advised_is_enough(image: Image, folder: Path) -> None:
    """A guest boots and serves in it."""
    skip_unless_available("vm", environment("vm").check(EnvironmentSpec("vm", "vm")))
    kernel = images.find_kernel(None)
    initramfs = images.derive_initramfs(image, kernel, native.program("agent"))
    needed_bytes = vm.least_memory_bytes(kernel.path.stat().st_size, initramfs.stat().st_size)
    resources = Resources(memory_bytes=vm.enough_memory_bytes(needed_bytes))
    with reaping(), session("vm", folder, resources, image, accelerator="tcg") as found:
        outcome = run(found, workload("redis").command({}))
    assert outcome.status == "ok", outcome.reason


def test_a_run_compares_first_answers_and_first_lines(
    image: Image, tmp_path: Path, need: Callable[[str, Availability], None]
) -> None:
    """Each workload by its own metric, in record, table and page."""
    need("container", environment("container").check(EnvironmentSpec("container", "container")))
    file = runs.scenario(tmp_path, image="debian-start", workloads=["startup", "python", "redis"], rounds=2)
    status, out, err = runs.benchbox(tmp_path, "run", file)
    assert status == 0, err
    manifest, samples = runs.read(tmp_path)
    assert (manifest.image and manifest.image.digest) == image.digest
    assert {sample.status for sample in samples} == {"ok"}
    for sample in samples:
        mine, other = ("served", "ready") if sample.workload == "redis" else ("ready", "served")
        assert sample.metrics[f"startup.{mine}"].value == sample.metrics[f"startup.stage.{mine}"].value
        assert f"startup.{other}" not in sample.metrics and other not in sample.stages
    headings = ("startup: startup.ready", "python: startup.ready", "redis: startup.served")
    assert all(heading in out for heading in headings)
    (page,) = (tmp_path / "reports").glob("*.html")
    assert "redis: startup.served" in page.read_text()
