"""What else the host did around a sample."""

import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from benchbox.noise import (
    NoiseMeter,
    Snapshot,
    between,
    own_cgroup_files,
    parse_loadavg,
    parse_pressure,
    parse_stat,
    parse_throttled,
)

PRESSURE = "some avg10=0.42 avg60=0.12 avg300=0.25 total={}\nfull avg10=0.42 avg60=0.12 avg300=0.24 total=1\n"
HYBRID_MOUNTS = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
34 31 0:31 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""
HYBRID_GROUPS = "3:cpuset:/\n1:cpu,cpuacct:/user.slice\n0::/user.slice/session\n"


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def tree(root: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def host_files(ticks: str = "cpu  100 0 50 800 10 0 5 35 7 0", waited_us: int = 1000) -> dict[str, str]:
    return {
        "proc/loadavg": "1.35 0.81 0.30 3/167 6722\n",
        "proc/stat": f"{ticks}\ncpu0 1 2 3\nintr 5 6 7\n",
        "proc/pressure/cpu": PRESSURE.format(waited_us),
        "proc/pressure/io": PRESSURE.format(77),
        "proc/pressure/memory": PRESSURE.format(5),
        "proc/self/mountinfo": "41 31 0:38 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
        "proc/self/cgroup": "0::/work\n",
        "sys/fs/cgroup/work/cpu.stat": "usage_usec 5\nnr_periods 1\nnr_throttled 1\nthrottled_usec 400\n",
        "sys/devices/system/cpu/cpu0/thermal_throttle/package_throttle_count": "3\n",
        "sys/devices/system/cpu/cpu0/topology/physical_package_id": "0\n",
        "sys/devices/system/cpu/cpu1/thermal_throttle/package_throttle_count": "3\n",
        "sys/devices/system/cpu/cpu1/topology/physical_package_id": "0\n",
        "sys/devices/system/cpu/cpu2/thermal_throttle/package_throttle_count": "4\n",
        "sys/devices/system/cpu/cpu2/topology/physical_package_id": "1\n",
    }


def test_a_snapshot_reads_every_source(tmp_path: Path) -> None:
    """Guest ticks are part of user ticks and not counted twice; a package's heat is counted once, not per CPU."""
    with NoiseMeter(tree(tmp_path, host_files())) as meter:
        found = meter.snapshot()
    assert found.load1 == 1.35
    assert found.pressure_us == {"cpu": 1000, "io": 77, "memory": 5}
    assert (found.steal_ticks, found.total_ticks) == (35, 1000)
    assert found.thermal_events == 7
    assert found.quota_us == 400


def test_a_snapshot_sees_what_changed_through_open_descriptors(tmp_path: Path) -> None:
    """Files are opened once and read anew each time."""
    with NoiseMeter(tree(tmp_path, host_files())) as meter:
        before = meter.snapshot()
        tree(tmp_path, host_files("cpu  110 0 50 880 10 0 5 45 7 0", waited_us=4000))
        after = meter.snapshot()
    noise = between(before, after)
    assert noise["steal_share"] == pytest.approx(0.1)
    assert noise["psi.cpu.some_share"] == pytest.approx(3_000_000 / (after.taken_ns - before.taken_ns))
    assert noise["psi.io.some_share"] == 0
    assert noise["load1"] == 1.35


def test_shares_are_of_the_time_between() -> None:
    """One second: a quarter of it waiting for CPU, half of all ticks stolen."""
    before = Snapshot(10**9, 0.5, {"cpu": 1_000_000}, 10, 100, 1, 2_000_000.0)
    after = Snapshot(2 * 10**9, 0.9, {"cpu": 1_250_000}, 110, 300, 3, 2_100_000.0)
    assert between(before, after) == {
        "load1": 0.5,
        "psi.cpu.some_share": pytest.approx(0.25),
        "steal_share": pytest.approx(0.5),
        "throttled.thermal": 2,
        "throttled.quota_share": pytest.approx(0.1),
    }


def test_what_a_host_does_not_say_has_no_key(tmp_path: Path) -> None:
    """A kernel without PSI, without steal, without anything."""
    with NoiseMeter(tmp_path) as meter:
        before, after = meter.snapshot(), meter.snapshot()
    assert between(before, after) == {}


def test_a_sample_shorter_than_a_tick_has_no_steal_share() -> None:
    """No tick has passed: nothing can be said, least of all zero."""
    before = Snapshot(1, steal_ticks=5, total_ticks=100)
    assert "steal_share" not in between(before, Snapshot(2, steal_ticks=5, total_ticks=100))


def test_a_pressure_file_that_refuses_to_be_read_has_no_key(tmp_path: Path) -> None:
    """With psi=0 the files exist and reading them fails; here one is a folder, which fails as well."""
    (tmp_path / "proc/pressure/cpu").mkdir(parents=True)
    with NoiseMeter(tmp_path) as meter:
        assert meter.snapshot().pressure_us == {}


def test_closing_leaves_no_descriptor_open(tmp_path: Path) -> None:
    """Neither the first nor the second close."""
    before = open_descriptors()
    meter = NoiseMeter(tree(tmp_path, host_files()))
    meter.close()
    meter.close()
    assert open_descriptors() == before


def test_a_snapshot_of_this_host_is_cheap() -> None:
    """It is taken around each sample: a fraction of a millisecond of CPU time."""
    with NoiseMeter() as meter:
        began = time.process_time()
        for _ in range(100):
            meter.snapshot()
        assert (time.process_time() - began) / 100 < 0.002


@pytest.mark.parametrize(
    ("groups", "mounts", "expected"),
    [
        (HYBRID_GROUPS, HYBRID_MOUNTS, ["sys/fs/cgroup/unified/user.slice/session/cpu.stat",
                                        "sys/fs/cgroup/cpu,cpuacct/user.slice/cpu.stat"]),
        ("0::/\n", "41 31 0:38 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", ["sys/fs/cgroup/cpu.stat"]),
        ("0::/a/b\n", "41 31 0:38 /a /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", ["sys/fs/cgroup/b/cpu.stat"]),
        ("0::/other\n", "41 31 0:38 /a /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", []),
        ("", "", []),
    ],
)  # fmt: skip
def test_the_own_group_is_found_below_its_mount(groups: str, mounts: str, expected: list[str]) -> None:
    """On v1, v2 and hybrid hosts, and in a container that sees only a part of the tree."""
    assert [str(path) for path in own_cgroup_files(mounts, groups, "cpu.stat")] == expected


def test_parsers_read_what_kernels_write() -> None:
    """Old and new forms, and nothing at all."""
    assert parse_loadavg("0.20 0.18 0.12 1/80 11206\n") == 0.2
    assert parse_loadavg("") is None
    assert parse_pressure("some avg10=0.00 avg60=0.00 avg300=0.00 total=3849588\n") == 3849588
    assert parse_pressure("") is None
    assert parse_stat("cpu  1 2 3 4\n") == (None, 10)
    assert parse_stat("intr 1\n") == (None, None)
    assert parse_throttled("nr_throttled 1\nthrottled_time 5000\n") == 5.0
    assert parse_throttled("usage_usec 1\n") is None
