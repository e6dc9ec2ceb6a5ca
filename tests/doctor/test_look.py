"""What is read of a host, from recorded trees."""

import threading
from collections.abc import Mapping
from pathlib import Path

import pytest

from benchbox.doctor import look
from benchbox.doctor.facts import Settings
from benchbox.errors import UnavailableError
from benchbox.model import Availability

CPU = "sys/devices/system/cpu"
UBUNTU = {
    "proc/meminfo": "MemTotal: 16000000 kB\nMemAvailable: 8000000 kB\nSwapTotal: 2000000 kB\nSwapFree: 1500000 kB\n",
    "proc/cmdline": "root=/dev/sda1 quiet mitigations=off\n",
    "proc/sys/user/max_user_namespaces": "62000\n",
    "proc/sys/kernel/unprivileged_userns_clone": "1\n",
    "proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1\n",
    "proc/sys/kernel/randomize_va_space": "2\n",
    "proc/sys/kernel/random/entropy_avail": "256\n",
    "sys/devices/system/clocksource/clocksource0/available_clocksource": "tsc hpet acpi_pm \n",
    f"{CPU}/cpu2/topology/thread_siblings_list": "2,6\n",
    f"{CPU}/cpu3/topology/thread_siblings_list": "3,7\n",
}


def tree(root: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_the_kernel_s_settings_are_read(tmp_path: Path) -> None:
    """Each from its file; the mates of several CPUs are those that are not among these CPUs themselves."""
    assert look.settings(tree(tmp_path, UBUNTU), (2, 3, 6)) == Settings(
        userns_max=62000,
        userns_clone=1,
        userns_apparmor=1,
        aslr=2,
        entropy_bits=256,
        clocks=("tsc", "hpet", "acpi_pm"),
        boot_options=("root=/dev/sda1", "quiet", "mitigations=off"),
        core_mates=(7,),
        memory_available_bytes=8000000 << 10,
        swap_used_bytes=500000 << 10,
    )


def test_what_a_kernel_does_not_say_is_not_known(tmp_path: Path) -> None:
    """No file, a folder in its place, and nonsense in it are all the same."""
    assert look.settings(tmp_path, (0,)) == Settings()
    tree(tmp_path, {"proc/sys/kernel/randomize_va_space": "nonsense\n"})
    (tmp_path / "proc/sys/user/max_user_namespaces").mkdir(parents=True)
    assert look.settings(tmp_path, (0,)) == Settings()


def test_what_fails_or_hangs_is_not_available() -> None:
    """The others' answers come all the same, and nobody waits longer than was agreed."""
    hangs = threading.Event()

    def hang() -> Availability:
        hangs.wait()
        return Availability.yes()

    def fail() -> Availability:
        raise UnavailableError("no daemon", hint="start it")

    def refuse() -> Availability:
        raise PermissionError(13, "Permission denied", "/proc/x")

    try:
        found = look.answers({"good": Availability.yes, "hangs": hang, "fails": fail, "refuses": refuse}, 0.05)
    finally:
        hangs.set()
    assert found["good"] == Availability.yes()
    assert found["fails"] == Availability(False, "no daemon", "start it")
    assert (found["refuses"].available, "/proc/x" in str(found["refuses"].reason)) == (False, True)
    assert (found["hangs"].available, "0.05 s" in str(found["hangs"].reason)) == (False, True)


def test_processes_are_ranked_by_what_they_took() -> None:
    """Of one CPU, the greatest first. What is small, has gone, has just come or only has the same pid is left out."""
    before = {(1, 0.0): 10.0, (2, 0.0): 5.0, (3, 0.0): 1.0, (4, 0.0): 7.0, (5, 1.0): 0.0}
    after = {(1, 0.0): 10.2, (2, 0.0): 5.4, (3, 0.0): 1.001, (5, 2.0): 9.0, (6, 0.0): 3.0}
    assert look.shares(before, after, 0.4) == {2: pytest.approx(1.0), 1: pytest.approx(0.5)}
    assert list(look.shares(before, after, 0.4)) == [2, 1]


def test_noise_is_that_of_a_run(tmp_path: Path) -> None:
    """From the same files, by the same names; stolen time also since boot."""
    files = {"proc/loadavg": "0.52 0.3 0.2 1/200 999\n", "proc/stat": "cpu 10 0 10 60 0 0 0 20 0 0\n"}
    found = look.watch((0,), 0.0, tree(tmp_path, files))
    assert found.noise == {"load1": 0.52}
    assert found.steal_share_since_boot == pytest.approx(0.2)


def test_a_folder_that_is_not_there_yet_is_judged_by_its_parent(tmp_path: Path) -> None:
    """It is not made."""
    found = look.place(tmp_path / "a/b/c")
    assert (found.writable, found.problem) == (True, None)
    assert found.fs_type and found.free_bytes
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_place_of_a_folder_cannot_be_written_to(tmp_path: Path) -> None:
    """Nothing can be made below it."""
    (tmp_path / "file").touch()
    found = look.place(tmp_path / "file" / "results")
    assert not found.writable or found.problem
