"""Many at once, looked at while they live: real containers and guests."""

from collections.abc import Callable
from pathlib import Path

import pytest

from benchbox.environments import environment
from benchbox.linux import processes
from benchbox.model import Availability, EnvironmentSpec
from benchbox.together import LEFT, Sight, Together
from tests.integration import runs, sessions

pytestmark = pytest.mark.integration
Need = Callable[[str, Availability], None]
MIB = 1 << 20


@pytest.fixture(autouse=True)
def container(need: Need) -> None:
    need("container", environment("container").check(EnvironmentSpec("container", "container")))


def test_memory_grows_with_the_number_of_containers(tmp_path: Path) -> None:
    """One and four are measured, 32 are left out and named; slope and both sections of the page are there."""
    runs.scenario(
        tmp_path, ["native", "container"], workloads=["idle"], rounds=3, parallel=[1, 4, 32],
        memory_budget="1GiB", resources={"memory": "64MiB"}, timeout_s=60,
    )  # fmt: skip
    status, out, err = runs.benchbox(tmp_path, "run", tmp_path / "test.yaml")
    assert status == 0, err
    _, samples = runs.read(tmp_path)
    measured = [sample for sample in samples if sample.round and sample.status == "ok"]
    assert {sample.params["parallel"] for sample in measured} == {1, 4}
    for sample in measured:
        assert {"density.cgroup", "density.available", "density.pss", "parallel.all_ready"} <= set(sample.metrics)
        assert sample.applied["memory_sharing"]["processes"] >= sample.params["parallel"]
        assert sample.applied["memory_bytes"] == 64 * MIB
    skipped = [sample for sample in samples if sample.status == "skipped"]
    assert {sample.params["parallel"] for sample in skipped} == {32}
    words = " ".join(out.split())
    assert "container/idle[parallel=32] was left out: 32 x 64 MiB need 2 GiB, the memory budget is 1 GiB." in words
    assert "memory of one more (charged to its control groups):" in words
    manifest, _ = runs.read(tmp_path)
    page = (tmp_path / "reports" / f"{manifest.run_id}.html").read_text()
    assert "Density: idle" in page and "At once: idle" in page


@pytest.mark.parametrize(
    "kind",
    ["native", "container", *(pytest.param(kind, marks=pytest.mark.peers) for kind in ("oci", "docker"))],
)
def test_what_an_instance_touches_is_what_one_more_takes(kind: str, tmp_path: Path, need: Need) -> None:
    """Four that hold 4 MiB each live when they are looked at, and are charged four times that."""
    need(kind, environment(kind).check(EnvironmentSpec(kind, kind)))
    script = "busybox dd if=/dev/zero of=/tmp/held bs=4M count=1 2>/dev/null; /bin/ready; exec busybox sleep 100"
    held = sessions.shell(script.replace("/tmp/held", "/tmp/held-$$"), signals_ready=True, stays=True, hold_s=0.2)
    seen: list[int] = []
    with sessions.session(kind, tmp_path) as opened:

        def look() -> Sight:
            seen.append(len(processes.with_argument("sleep\x00100")))
            return Sight()

        outcome = Together(opened, held, 4, look).wait()
    assert outcome.status == "ok", outcome.reason
    assert seen == [4]
    peak = next(counter for counter in outcome.counters if counter.name == "memory.peak")
    assert peak.value is None or peak.value >= 16 * MIB


def test_one_that_ends_by_itself_fails_the_sample(tmp_path: Path) -> None:
    """However well: it may have been gone when the host was looked at."""
    with sessions.session("container", tmp_path) as opened:
        brief = sessions.shell("/bin/ready; busybox sleep 0.05", signals_ready=True, stays=True, hold_s=0.5)
        together = Together(opened, brief, 2)
        outcome = together.wait()
    assert (outcome.status, LEFT in (outcome.reason or "")) == ("failed", True)


def test_two_guests_take_what_two_guests_take(tmp_path: Path, need: Need) -> None:
    """Memory grows by the number of guests; each is asked what it runs on before it is ended; nothing is left."""
    need("vm", environment("vm").check(EnvironmentSpec("vm", "vm", {})))
    guest = {"kind": "vm", "accelerator": "tcg", "boot_timeout_s": 120}
    runs.scenario(
        tmp_path, [guest], workloads=["idle"], rounds=1, parallel=[1, 2],
        resources={"memory": "128MiB"}, timeout_s=120,
    )  # fmt: skip
    status, out, err = runs.benchbox(tmp_path, "run", tmp_path / "test.yaml")
    assert status == 0, err
    _, samples = runs.read(tmp_path)
    taken = {
        sample.params["parallel"]: sample.metrics["density.cgroup"].value
        for sample in samples
        if sample.round and sample.status == "ok"
    }
    assert taken[1] > 64 * MIB
    assert 1.6 * taken[1] < taken[2] < 2.4 * taken[1]
    assert all(sample.applied["domain"]["domain_type"] == "qemu" for sample in samples)
    assert "vm (emulated, TCG) is no measure of a VM with KVM" in " ".join(out.split())
