"""Cold and warm starts, and several at once: real files on a real disk, real containers and guests."""

import json
import mmap
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from benchbox import images, record
from benchbox.caches import ColdCache, WarmCache
from benchbox.environments import environment
from benchbox.linux import mounts
from benchbox.linux.pagecache import Files, page_bytes
from benchbox.model import Availability, Command, EnvironmentSpec
from benchbox.record import Sample
from benchbox.together import Together
from tests.integration import runs, sessions

pytestmark = pytest.mark.integration
Need = Callable[[str, Availability], None]

KINDS = ("native", "container")
GUEST = {"kind": "vm", "accelerator": "tcg"}
READY = Command(("/bin/ready",), timeout_s=30)


@pytest.fixture(autouse=True)
def container(need: Need) -> None:
    need("container", environment("container").check(EnvironmentSpec("container", "container")))


@pytest.fixture
def guest(need: Need) -> dict[str, str]:
    need("vm", environment("vm").check(EnvironmentSpec("vm", "vm", {})))
    return GUEST


@pytest.fixture
def on_disk(tmp_path: Path) -> Path:
    """Return a folder whose files can leave memory."""
    for folder in (tmp_path, images.open_image("minimal").root):
        if (name := mounts.file_system(folder)) in ("tmpfs", "ramfs", "zfs"):
            pytest.skip(f"{folder} lies on {name}, which cannot be dropped from memory")
    return tmp_path


def counted(sample: Sample) -> tuple[float | None, float | None]:
    """Return how much was in memory before a sample, and how much it read."""
    return sample.counters["cache.resident_before"].value, sample.counters["cache.read"].value


def measured(folder: Path, *words: str) -> list[Sample]:
    """Run the scenario in ``folder``; it must go well. Return its samples, the priming round left out."""
    status, _, err = runs.benchbox(folder, "run", folder / "test.yaml", *words)
    assert status == 0, err
    return [sample for sample in runs.read(folder)[1] if sample.round]


# --- cold and warm ---


def test_a_cold_start_reads_its_program_from_the_disk(on_disk: Path) -> None:
    """Nothing of the image is in memory before, the program's pages are read; each sample and row says that."""
    runs.scenario(on_disk, KINDS, rounds=4, cache="cold")
    samples = measured(on_disk)
    assert len(samples) == 8
    for sample in samples:
        resident, read = counted(sample)
        assert (sample.status, resident, sample.flags["cache"]) == ("ok", 0, "cold")
        assert read and page_bytes() <= read < 1 << 20
    manifest, _ = runs.read(on_disk)
    assert [item.applied["page_cache"]["state"] for item in manifest.environments] == ["cold", "cold"]
    _, out, _ = runs.benchbox(on_disk, "show", "latest")
    assert "startup.ready, cold" in out and "dropped from the host's page cache" in " ".join(out.split())
    _, rows, _ = runs.benchbox(on_disk, "export", "latest")
    assert all("cache=cold" in row for row in rows.splitlines()[1:])


def test_a_warm_start_reads_nothing_from_the_disk(on_disk: Path) -> None:
    """All of the image is in memory before, also right after a cold run."""
    files = Files([images.open_image("minimal").root])
    files.drop()
    runs.scenario(on_disk, KINDS, rounds=4)
    for sample in measured(on_disk):
        assert (sample.status, counted(sample)) == ("ok", (files.size_bytes, 0))
        assert "cache" not in sample.flags
    files.close()


def test_a_cold_guest_reads_kernel_and_initramfs_from_the_disk(on_disk: Path, guest: dict[str, str]) -> None:
    """Most of both; a process of the host that has one of them mapped would spoil that, and would be named."""
    runs.scenario(on_disk, [guest], rounds=1, cache="cold", settle_ms=50)
    (sample,) = measured(on_disk)
    manifest, _ = runs.read(on_disk)
    size_bytes = manifest.environments[0].applied["page_cache"]["bytes"]
    resident, read = counted(sample)
    assert resident == 0
    assert read and size_bytes / 2 < read <= size_bytes


def test_a_program_that_somebody_runs_cannot_be_cold(on_disk: Path) -> None:
    """The sample is invalid and says who holds it."""
    program = images.open_image("minimal").root / "bin" / "ready"
    runs.scenario(on_disk, ("container",), rounds=2, cache="cold")
    with program.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as held:
        assert held[0]
        status, _, err = runs.benchbox(on_disk, "run", on_disk / "test.yaml")
    assert status == 2
    assert "abandoned" in err
    _, samples = runs.read(on_disk)
    for sample in samples:
        assert (sample.status, sample.metrics) == ("invalid", {})
        assert sample.reason and sample.reason.startswith("not cold: 4 KiB stayed in the page cache")
        assert f"in use by {Path('/proc/self/comm').read_text().strip()} ({os.getpid()})" in sample.reason


def test_an_image_on_a_tmpfs_cannot_be_cold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no other place than memory; the sample says that."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK) or mounts.file_system(memory) != "tmpfs":
        pytest.skip("/dev/shm is no tmpfs here")
    place = memory / f"benchbox-test-{os.getpid()}"
    monkeypatch.setenv("BENCHBOX_CACHE", str(place))
    runs.scenario(tmp_path, ("container",), rounds=1, cache="cold")
    try:
        status, _, _ = runs.benchbox(tmp_path, "run", tmp_path / "test.yaml")
    finally:
        shutil.rmtree(place, ignore_errors=True)
    assert status == 2
    reasons = {sample.reason or "" for sample in runs.read(tmp_path)[1]}
    assert all("on tmpfs: memory is the only place where they are" in reason for reason in reasons)


def test_what_is_not_in_memory_is_read_before_a_warm_sample(on_disk: Path) -> None:
    """A host that did not keep it makes the sample invalid: warm and cold share no number."""

    class Forgetful(Files):
        def load(self) -> None: ...

    (on_disk / "file").write_bytes(b"x" * (8 * page_bytes()))
    for kind, objection in ((Files, None), (Forgetful, "not warm: the page cache did not hold ")):
        files = kind([on_disk / "file"])
        files.drop()
        end = WarmCache(files).watch()
        (on_disk / "file").read_bytes()
        assert (end().objection or "").startswith(objection or "not") is (objection is not None)
        files.close()


def test_what_is_not_on_the_disk_yet_is_written_and_dropped(on_disk: Path) -> None:
    """A dirty page stays in memory until it is clean."""
    (on_disk / "file").write_bytes(b"x" * (64 * page_bytes()))
    files = Files([on_disk])
    end = ColdCache(files).watch()
    assert end().objection == "not cold: nothing was read from the disk"
    (on_disk / "file").read_bytes()
    assert end().objection is None
    files.close()


# --- several at once ---


@pytest.mark.parametrize("kind", KINDS)
def test_four_at_once_begin_together(kind: str, tmp_path: Path) -> None:
    """Each has its own stamps, account and cgroups; their requests lie close together."""
    with sessions.session(kind, tmp_path) as opened:
        for _ in range(5):
            together = Together(opened, READY, 4)
            outcome = together.wait()
            assert outcome.status == "ok", outcome.reason
            assert [each.status for each in together.outcomes] == ["ok"] * 4
            requested = [each.requested_ns for each in together.outcomes]
            assert len(set(requested)) == 4
            assert max(requested) - min(requested) < 100_000_000
            assert outcome.stages["ready"] == max(each.stages["ready"] for each in together.outcomes)


def test_a_run_of_several_at_once_has_a_table_each(tmp_path: Path) -> None:
    """With the metrics of all of them, every stamp of each, and a figure on the page."""
    runs.scenario(tmp_path, KINDS, rounds=3, parallel=[1, 4])
    samples = measured(tmp_path)
    assert {(sample.status, sample.params["parallel"], len(sample.instances)) for sample in samples} == {
        ("ok", 1, 1), ("ok", 4, 4),
    }  # fmt: skip
    for sample in samples:
        assert sample.metrics["parallel.all_ready"].value >= sample.metrics["parallel.each_ready"].value > 0
        assert sample.applied["memory_bytes"] == 256 << 20
        assert min(each.requested_ns or 0 for each in sample.instances) == 0
        assert "sum of" in sample.counters["cpu.usage"].source
    manifest, _ = runs.read(tmp_path)
    _, out, _ = runs.benchbox(tmp_path, "show", "latest")
    assert "startup[parallel=4]: parallel.all_ready" in out and "share the same CPU;" in " ".join(out.split())
    page = (tmp_path / "reports" / f"{manifest.run_id}.html").read_text()
    assert 'id="figure-at-once"' in page and "4 at once" in page


def test_one_of_several_that_fails_fails_the_sample(tmp_path: Path) -> None:
    """It is named; nothing of the others is left. Native commands that run at once share /tmp: the first one fails."""
    with sessions.session("native", tmp_path) as opened:
        script = "busybox mkdir /tmp/first 2>/dev/null && exit 7; exec /bin/ready"
        together = Together(opened, sessions.shell(script, signals_ready=True), 3)
        outcome = together.wait()
        assert outcome.status == "failed"
        assert (outcome.reason or "").endswith("of 3: exit status 7")
        assert sorted(each.status for each in together.outcomes) == ["failed", "ok", "ok"]


def test_one_of_several_that_hangs_ends_at_its_deadline(tmp_path: Path) -> None:
    """And with it the sample."""
    with sessions.session("native", tmp_path) as opened:
        script = "busybox mkdir /tmp/first 2>/dev/null && busybox sleep 100; exec /bin/ready"
        together = Together(opened, sessions.shell(script, signals_ready=True, timeout_s=1), 3)
        outcome = together.wait()
        assert (outcome.reason or "").endswith("of 3: not done after 1 s, killed")
        assert sorted(each.status for each in together.outcomes) == ["failed", "ok", "ok"]


def test_all_that_run_at_once_end_with_the_run(tmp_path: Path) -> None:
    """Ctrl-C ends each of them."""
    runs.scenario(tmp_path, ("container",), command=runs.STAYS, parallel=[4])
    process = runs.start(tmp_path, "run", tmp_path / "test.yaml")
    runs.eventually(lambda: len(runs.below(process, "sleep")) >= 4)
    process.send_signal(2)
    assert runs.finish(process)[0] == 130
    assert runs.read(tmp_path)[1] == []


def test_a_run_of_several_at_once_can_be_resumed(tmp_path: Path) -> None:
    """With its file or without; the rounds are then whole."""
    runs.scenario(tmp_path, KINDS, rounds=6, settle_ms=100, parallel=[1, 2], cache="warm")
    process = runs.start(tmp_path, "run", tmp_path / "test.yaml")
    worker = runs.worker_of(process)
    runs.eventually(lambda: runs.samples_so_far(tmp_path) >= 10)
    runs.kill(worker)
    runs.finish(process)
    status, _, err = runs.benchbox(tmp_path, "run", tmp_path / "test.yaml", "--resume", "latest")
    assert status == 0, err
    manifest, samples = runs.read(tmp_path)
    counted = sorted((sample.round, sample.cell) for sample in samples if sample.round)
    assert counted == sorted((number, cell.id) for number in range(1, 7) for cell in manifest.cells)


def test_two_guests_at_once(tmp_path: Path, guest: dict[str, str]) -> None:
    """Each boots, is accounted and gone; their requests lie close together."""
    runs.scenario(tmp_path, [{**guest, "boot_timeout_s": 120}], rounds=1, parallel=[2])
    (sample,) = measured(tmp_path)
    assert (sample.status, sample.flags, len(sample.instances)) == ("ok", {"accelerator": "tcg"}, 2)
    assert sample.metrics["parallel.spread"].value < 0.5
    first, second = sample.instances
    assert first.stages["agent"] < first.stages["ready"] and second.stages["agent"] < second.stages["ready"]
    assert sample.applied["domain"]["memory_bytes"] == 256 << 20
    assert len(sample.applied["domain"]["cmdline"]) > 20 and "sum of 2" in sample.counters["cpu.usage"].source


def test_guests_that_do_not_fit_into_memory_are_not_started(tmp_path: Path, guest: dict[str, str]) -> None:
    """The environment fails with the sum before any sample, the others are measured; plan says it, too."""
    runs.scenario(tmp_path, ["native", guest], rounds=1, parallel=[64], resources={"memory": "64GiB"})
    _, out, _ = runs.benchbox(tmp_path, "plan", tmp_path / "test.yaml")
    assert "64 guests at once of 64 GiB need 4 TiB" in out
    status, _, err = runs.benchbox(tmp_path, "run", tmp_path / "test.yaml", "--only", "env:vm")
    assert status == 2
    assert "64 guests at once of 64 GiB need 4 TiB, this host has" in err
    manifest, samples = runs.read(tmp_path)
    assert (samples, manifest.environments[0].state) == ([], "failed")
    assert manifest.environments[0].fix == "lower parallel or resources.memory"


def test_plan_knows_both_and_starts_nothing(tmp_path: Path) -> None:
    """State of the cache, numbers at once, their cells and how long it takes."""
    runs.scenario(tmp_path, KINDS, cache="cold", parallel=[1, 8])
    status, out, _ = runs.benchbox(tmp_path, "plan", tmp_path / "test.yaml", "--only", "parallel:8")
    assert status == 0
    assert "cold: what it reads is dropped" in out and "at once: 8" in out
    assert "container/startup[parallel=8]" in out and "parallel=1]" not in out
    assert record.list_runs(tmp_path / "results") == ()
    status, out, _ = runs.benchbox(tmp_path, "plan", tmp_path / "test.yaml", "--json")
    assert json.loads(out)["parallel"] == [1, 8]
