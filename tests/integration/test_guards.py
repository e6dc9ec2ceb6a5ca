"""The guards of docs/measuring.md ("Mistakes that are guarded against") bite: each mistake is really made, on the real
kernel, with real guests. Those about what reaches a device are in test_data.py, about loopback in test_network.py."""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from benchbox import images, native
from benchbox.analysis.parity import Parity, parity
from benchbox.analysis.samples import take
from benchbox.caches import Seen, open_cache
from benchbox.engine import Engine, PlannedCell
from benchbox.environments import environment
from benchbox.images import programs
from benchbox.linux import cgroups, mounts
from benchbox.linux.pagecache import page_bytes
from benchbox.model import Availability, Command, EnvironmentSpec, Image, Outcome
from benchbox.record import Sample
from benchbox.together import Sight
from tests.integration import guests, runs, sessions

pytestmark = pytest.mark.integration
Need = Callable[[str, Availability], None]

READY: Final = Command(("/bin/ready",), timeout_s=60.0)
PATIENT: Final = 120.0


@pytest.fixture(autouse=True)
def container(need: Need) -> None:
    need("container", environment("container").check(EnvironmentSpec("container", "container")))


@pytest.fixture
def guest(need: Need) -> Iterator[dict[str, Any]]:
    need("vm", environment("vm").check(EnvironmentSpec("vm", "vm")))
    with guests.reaping():
        yield {"kind": "vm", "accelerator": "tcg"}


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a short name, for there are sockets in it."""
    return tmp_path_factory.mktemp("g")


def compared(folder: Path, vm: Mapping[str, Any], workload: Any, **more: Any) -> tuple[Parity, list[Sample]]:
    """Run native beside the guest ``vm`` and return what is said of their likeness, and the samples."""
    path = folder / "test.yaml"
    keys = {"name": "test", "rounds": 1, "environments": ["native", dict(vm)], "workloads": [workload]} | more
    path.write_text(json.dumps(keys))
    status, _, err = runs.benchbox(folder, "run", path)
    manifest, samples = runs.read(folder)
    assert status == 0, err
    return parity(manifest, take(samples).by_cell), samples


def found_of(alike: Parity, aspect: str, label: str = "vm") -> tuple[str, str]:
    (entry,) = [e for a in alike.aspects if a.name == aspect for e in a.entries if e.label == label]
    return entry.value, entry.state


# --- wrong CPU model ---


def test_a_wrong_cpu_model_is_named_with_what_it_lacks_and_voids_computing(folder: Path, guest: dict[str, Any]) -> None:
    """Sabotage: qemu64, which programs find without AVX and AES. Its own kernel says so, not libvirt alone."""
    alike, samples = compared(folder, {**guest, "cpu_model": "qemu64"}, "startup")
    assert {"CPU", "CPU flags"} <= set(alike.voided("vm", "cpu.sha256"))
    assert found_of(alike, "CPU") == ("qemu64", "differs")
    flags, state = found_of(alike, "CPU flags")
    assert state == "differs" and flags.startswith("without ")
    inside = next(s.applied["guest"]["cpu_flags"].split() for s in samples if s.environment == "vm")
    lacks = {"avx", "aes", "avx2"} & set(runs.read(folder)[0].host["cpu"]["flags"]) - set(inside)
    assert lacks <= set(flags.replace(",", "").split())


# --- cache=unsafe ---


def test_a_disk_that_drops_flushes_voids_what_is_said_of_files(folder: Path, guest: dict[str, Any]) -> None:
    """Sabotage: cache unsafe. Read back from the live domain, whatever the numbers look like; nothing is compared."""
    workload = {"name": "metadata", "files": 100}
    tree = folder / "tree"
    shutil.copytree(images.open_image("minimal").root, tree, symlinks=True)
    shutil.copy(native.program("files"), tree / "bin/files")
    image = {"directory": str(tree)}
    alike, _ = compared(folder, {**guest, "disk_cache": "unsafe"}, workload, image=image)
    text, state = found_of(alike, "data folder")
    assert state == "differs" and "cache unsafe" in text
    assert "data folder" in alike.voided("vm", "metadata.sync")
    _, out, _ = runs.benchbox(folder, "show", "latest", "--json")
    rows = [row for table in json.loads(out)["tables"] for row in table["rows"] if row["label"] == "vm"]
    assert rows and all(row["verdict"]["kind"] == "not judged" for row in rows)


# --- a different binary ---


def changed(image: Image, folder: Path) -> Image:
    """Return ``image`` with another /bin/ready, which does the same."""
    root = folder / "root"
    shutil.copytree(image.root, root, symlinks=True)
    with (root / "bin/ready").open("ab") as stream:
        stream.write(b"another")
    return replace(image, digest="0" * 63 + "1", root=root)


def test_a_program_that_was_replaced_while_a_run_lives_makes_its_samples_invalid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sabotage: a byte more in the store's /bin/ready, after the image was opened. What it does is the same."""
    monkeypatch.setenv("BENCHBOX_CACHE", str(tmp_path / "cache"))
    process = runs.start(tmp_path, "run", runs.scenario(tmp_path, rounds=60))
    runs.eventually(lambda: runs.samples_so_far(tmp_path) > 4)
    ready = images.open_image("minimal").root / "bin/ready"
    before = ready.read_bytes()
    ready.write_bytes(before + b"another")
    status, _, err = runs.finish(process)
    _, samples = runs.read(tmp_path)
    assert status == 2 and "abandoned" in err
    for kind in ("native", "container"):
        mine = [sample for sample in samples if sample.environment == kind]
        assert (mine[0].status, mine[-1].status) == ("ok", "invalid")
        assert str(mine[-1].reason).startswith("another program was executed: /bin/ready is sha256 ")
        assert mine[-1].metrics == {}


def test_each_environment_says_itself_which_program_it_executed(folder: Path, guest: dict[str, Any]) -> None:
    """Sabotage: a guest that was made from another tree. It reads the file's sum inside, through its own kernel."""
    image = images.open_image("minimal")
    own = {"path": "/bin/ready", "sha256": image.executables["/bin/ready"]}
    for kind in ("native", "container"):
        (folder / kind).mkdir()
        with sessions.session(kind, folder / kind, image=image) as session:
            assert sessions.run(session, READY).applied[programs.KEY] == own
    for tree, objects in ((image, False), (changed(image, folder), True)):
        with guests.session(folder, image=tree, boot_timeout_s=PATIENT) as session:
            outcome = session.start(READY).wait()
        assert outcome.status == "ok", outcome.reason
        assert (programs.objection(outcome.applied, image.executables) is not None) is objects


# --- an unpinned vCPU ---


def release(pid: int) -> None:
    """Let the thread of ``pid`` that is the guest's first CPU run everywhere, as somebody's tool might."""
    (thread,) = [task for task in Path(f"/proc/{pid}/task").iterdir() if "CPU 0" in (task / "comm").read_text()]
    for root in cgroups.detect().roots():
        threads = root / "tasks"
        (threads if threads.exists() else root / "cgroup.procs").write_text(
            thread.name if threads.exists() else str(pid)
        )
    os.sched_setaffinity(int(thread.name), range(os.cpu_count() or 1))


def test_a_vcpu_that_may_run_elsewhere_makes_the_sample_invalid(folder: Path, guest: dict[str, Any]) -> None:
    """Sabotage: its thread is taken out of its cgroup and put on all CPUs, while the command runs."""
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one CPU alone cannot be left")
    command = Command(guests.shell("/bin/ready; sleep 1"), timeout_s=60.0)
    with guests.session(folder, boot_timeout_s=PATIENT) as session:
        assert session.start(READY).wait().applied["thread_cpus"] == [session.applied()["cpus"]]
        running = session.start(command)
        assert running.ready()
        (qemu,) = guests.qemus(folder)
        release(qemu)
        outcome = running.wait()
    assert outcome.status == "invalid", outcome.reason
    assert "CPUs of QEMU's threads" in str(outcome.reason)


# --- emulated devices ---

#: What a hook of the host's, or a daemon's own idea of a default, may make of a domain.
HOOK: Final = """
import re
from benchbox.virt import domain
honest = domain.domain_xml
domain.domain_xml = lambda spec: re.sub({before!r}, {after!r}, honest(spec), flags=re.DOTALL)
"""


@pytest.mark.parametrize(
    ("options", "before", "after", "reason"),
    [
        ({"nic": True}, '<model type="virtio" />', '<model type="e1000" />', "network cards: asked for ['virtio, user"),
        (
            {"disk": 8 << 20},
            'dev="vda" bus="virtio".*?<address[^>]*>',
            'dev="hda" bus="ide" />',
            "disks: asked for ['virtio, raw",
        ),
    ],
    ids=["network", "disk"],
)
def test_an_emulated_device_makes_the_sample_invalid(
    options: dict[str, Any], before: str, after: str, reason: str,
    folder: Path, guest: dict[str, Any], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Sabotage: the domain is changed on its way to libvirt; what was asked for is held against the live one."""
    (folder / "sitecustomize.py").write_text(HOOK.format(before=before, after=after))
    monkeypatch.setenv("PYTHONPATH", f"{folder}:{os.environ.get('PYTHONPATH', '')}")
    with guests.session(folder, boot_timeout_s=PATIENT, machine="pc", **options) as session:
        outcome = session.start(READY).wait()
    assert outcome.status == "invalid", (outcome.reason, outcome.console_tail)
    assert reason in str(outcome.reason)


# --- a warm cache in a cold cell ---


class Conditions:
    """Those of a cold run; ``meanwhile`` is done after the cache was dropped and looked at, before the request."""

    def __init__(self, root: Path, meanwhile: Callable[[], object]) -> None:
        self._cache, self._meanwhile = open_cache("cold", (root,)), meanwhile

    def settle(self) -> None: ...

    def cache(self, environment: str) -> Callable[[], Seen]:
        return self._cache.watch()

    def noise(self) -> Callable[[], dict[str, float]]:
        self._meanwhile()
        return dict

    def occupancy(self) -> Callable[[], Sight]:
        return Sight


class Samples(list[Sample]):
    def sync(self) -> None: ...


def cold_sample(kind: str, folder: Path, meanwhile: Callable[[Path], object]) -> Sample:
    """Measure one cold start of ``kind``; ``meanwhile`` is given the image's root."""
    image, found = images.open_image("minimal"), Samples()
    cell = PlannedCell(f"{kind}/startup", kind, "startup", {}, READY, lambda outcome: ())
    with sessions.session(kind, folder, image=image) as session:
        conditions = Conditions(image.root, lambda: meanwhile(image.root))
        Engine([cell], [[cell.id]], {kind: session}, conditions, found, lambda event: None).run()
    (sample,) = found
    return sample


def read_all(root: Path) -> None:
    for path in root.rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.read_bytes()


@pytest.mark.parametrize("kind", ["native", "container"])
def test_pages_that_came_back_before_the_request_spoil_a_cold_sample(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sabotage: somebody reads the image between the drop and the start. All of it arrived, none of it by it."""
    monkeypatch.setenv("BENCHBOX_CACHE", str(tmp_path / "cache"))
    if mounts.file_system(images.open_image("minimal").root) not in ("ext4", "xfs"):
        pytest.skip("only of ext4 and xfs is it told who had something read")
    (tmp_path / "cold").mkdir()
    honest = cold_sample(kind, tmp_path / "cold", lambda root: None)
    assert honest.status == "ok", honest.reason
    assert float(honest.counters["process.read"].value or 0) >= page_bytes()
    (tmp_path / "warm").mkdir()
    spoilt = cold_sample(kind, tmp_path / "warm", read_all)
    assert (spoilt.status, spoilt.counters["process.read"].value) == ("invalid", 0)
    assert str(spoilt.reason).startswith("not cold: of ") and "somebody else" in str(spoilt.reason)


# --- the guest's own word is a cross-check ---


def test_what_a_guest_has_of_the_host_s_settings_is_read_inside_it(folder: Path, guest: dict[str, Any]) -> None:
    """Mitigations, huge pages, stolen time: by its own kernel, and another setting there is another value here."""

    def booted(cmdline: str) -> Outcome:
        with guests.session(folder, boot_timeout_s=PATIENT, cmdline=cmdline) as session:
            outcome = session.start(READY).wait()
        assert outcome.status == "ok", outcome.reason
        return outcome

    plain, other = booted(""), booted("mitigations=off transparent_hugepage=never").applied["guest"]
    inside = plain.applied["guest"]
    assert inside["mitigations"]["spectre_v2"].startswith("Mitigation")
    assert other["mitigations"]["spectre_v2"].startswith("Vulnerable")
    assert other["huge_pages"] in ("never", None)
    assert next(counter.value for counter in plain.counters if counter.name == "guest.cpu.steal") is not None
