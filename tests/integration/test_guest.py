"""Real guests, emulated: what a sample is made of, and every way in which a guest can go wrong."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchbox.environments import vm
from benchbox.errors import EnvironmentFailure
from benchbox.linux import cgroups, processes
from benchbox.model import STAGES, Availability, Command, EnvironmentSpec, Outcome, Session
from benchbox.units import parse_cpu_list
from benchbox.virt import accelerator, client
from tests.conftest import skip_unless_available
from tests.integration.guests import CGROUP, Ledger, qemus, reaping, session, shell, took_s

pytestmark = pytest.mark.integration

READY = Command(("/bin/ready",))
STAYS = Command(shell("/bin/ready; sleep 300"), timeout_s=300.0)
#: Long enough for an emulated guest on a busy machine.
PATIENT = 120.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("vm")


@pytest.fixture(scope="module", autouse=True)
def above() -> Iterator[None]:
    skip_unless_available("vm", vm.ENVIRONMENT.check(EnvironmentSpec("vm", "vm")))
    with reaping():
        yield


@pytest.fixture(scope="module")
def guests(folder: Path, above: None) -> Iterator[Session]:
    """One session for all tests that leave it as it was."""
    with session(folder, boot_timeout_s=PATIENT) as opened:
        yield opened


@pytest.fixture(autouse=True)
def nothing_of_the_guest_left(folder: Path) -> Iterator[None]:
    """Hold every test to leaving no QEMU, no cgroup and no socket."""
    yield
    assert qemus(folder) == []
    assert [path for root in cgroups.detect().roots() for path in root.glob(f"{CGROUP}-*/*/")] == []
    assert list(folder.glob("benchbox/*/s*/*.sock")) == []


def run(guests: Session, command: Command) -> Outcome:
    return guests.start(command).wait()


def once_ready(guests: Session, act: Callable[[], object], timeout_s: float = 60.0) -> Outcome:
    """Run a command that stays, do ``act`` when it is ready, and return what came of it."""
    running = guests.start(Command(STAYS.argv, timeout_s=timeout_s))
    assert running.ready()
    act()
    return running.wait()


def test_a_guest_runs_the_command_and_every_stage_is_stamped_in_order(guests: Session) -> None:
    """A good sample has all stages of a guest in order, durations by the guest's own clock, the channel's latency."""
    outcome = run(guests, READY)

    assert (outcome.status, outcome.reason, outcome.exit_code) == ("ok", None, 0)
    assert list(outcome.stages) == [stage for stage in STAGES if stage not in ("isolated", "served")]
    stamps = [outcome.requested_ns, *outcome.stages.values()]
    assert stamps == sorted(stamps)
    assert {"boot", "modules", "root", "ports", "request", "exec", "run"} == set(outcome.guest)
    assert 0 < outcome.applied["channel_latency_ns"] < 1e9


def test_what_a_guest_got_is_read_back(guests: Session) -> None:
    """Accelerator, memory and CPUs are what libvirt, QEMU, the cgroup and the guest's own kernel say."""
    outcome = run(guests, READY)

    assert outcome.flags["accelerator"] == "tcg"
    domain, guest = outcome.applied["domain"], outcome.applied["guest"]
    assert (domain["domain_type"], domain["query_kvm_enabled"]) == ("qemu", False)
    assert (domain["memory_bytes"], domain["vcpus"]) == (256 << 20, 1)
    assert (200 << 20) < guest["memory_bytes"] <= (256 << 20)
    assert parse_cpu_list(guest["cpus_online"]) == (0,)
    assert guest["hypervisor"] in ("TCGTCGTCGTCG", None)
    assert guest["clocksource"]
    assert outcome.applied.get("cpus") in (None, guests.applied()["cpus"])


def test_the_whole_qemu_process_is_accounted(guests: Session) -> None:
    """CPU time and memory come from QEMU's cgroup, the command's own use from the guest's kernel."""
    counters = {counter.name: counter.value for counter in run(guests, READY).counters}

    assert (counters["cpu.usage"] or 0) > 0.1
    assert (counters["memory.peak"] or 0) > 32 << 20
    assert "guest.cpu.user" in counters
    assert counters["guest.memory.oom_kills"] == 0


def test_the_session_says_what_its_guests_run_on(guests: Session) -> None:
    """Kernel, versions and accelerator with its proof are part of what was applied."""
    applied = guests.applied()

    assert applied["accelerator"] == "tcg"
    assert len(applied["kernel"]["sha256"]) == 64
    assert isinstance(applied["kernel"]["same_as_host"], bool)
    assert set(applied["versions"]) == {"qemu", "libvirt"}
    assert {"prepare.kernel", "prepare.initramfs", "prepare.libvirt"} <= {item.name for item in guests.account()}


def test_a_command_sees_a_read_only_root_and_its_output_arrives(guests: Session) -> None:
    """The guest's root is the image, read-only, with a fresh /tmp; output and environment are handed through."""
    script = "/bin/ready; touch /file || echo refused; echo $WORD >/tmp/word; cat /tmp/word; pwd"
    outcome = run(guests, Command(shell(script), env={"WORD": "a\nb & <c>"}, cwd="/tmp"))

    assert outcome.status == "ok"
    assert outcome.output_tail.decode().splitlines()[-3:] == ["refused", "a b & <c>", "/tmp"]


def test_a_command_that_exits_7_is_a_failed_sample_with_7(guests: Session) -> None:
    """The exit status is passed on exactly."""
    outcome = run(guests, Command(shell("/bin/ready; exit 7")))

    assert (outcome.status, outcome.reason, outcome.exit_code) == ("failed", "exit status 7", 7)


def test_a_command_that_is_killed_is_a_failed_sample_with_its_signal(guests: Session) -> None:
    """A signal is told apart from an exit status."""
    outcome = run(guests, Command(shell("/bin/ready; kill -9 $$")))

    assert (outcome.status, outcome.signal, outcome.exit_code) == ("failed", signal.SIGKILL, None)
    assert outcome.reason == "killed by SIGKILL"


def test_a_program_that_is_not_there_is_named(guests: Session) -> None:
    """What cannot be executed is a failed sample that says which program and why."""
    outcome = run(guests, Command(("/bin/nothing",)))

    assert (outcome.status, outcome.reason) == ("failed", "cannot execute /bin/nothing: No such file or directory")
    assert "exec" not in outcome.stages


def test_a_command_that_never_says_it_is_ready_is_invalid(guests: Session) -> None:
    """Without the ready byte there is nothing to compare."""
    running = guests.start(Command(("/bin/busybox", "true")))

    assert not running.ready()
    assert running.wait().status == "invalid"


def test_a_command_out_of_memory_is_reported_from_the_guests_kernel(guests: Session) -> None:
    """The guest's kernel counts whom it killed for memory; nobody guesses from a status."""
    outcome = run(guests, Command(shell("/bin/ready; tail /dev/zero")))

    assert outcome.status == "failed"
    assert (outcome.reason or "").startswith("out of memory")


def test_a_command_that_does_not_end_is_killed_at_its_deadline(guests: Session) -> None:
    """The deadline of a command counts from its start in the guest."""
    outcome = run(guests, Command(STAYS.argv, timeout_s=1.5))

    assert (outcome.status, outcome.reason) == ("failed", "not done after 1.5 s, killed")
    assert (outcome.stages["cleaned"] - outcome.stages["exec"]) / 1e9 < 6


def test_a_guest_that_is_killed_by_its_user_says_so(guests: Session) -> None:
    """``kill`` ends a guest while it boots; ``wait`` still returns the outcome."""
    running = guests.start(READY)
    time.sleep(0.8)
    running.kill()

    outcome = running.wait()
    assert (outcome.status, outcome.reason) == ("failed", "ended by benchbox")


def test_a_panic_is_noticed_at_once(guests: Session) -> None:
    """A panicking kernel ends the sample with its own words, long before any deadline."""
    outcome = run(guests, Command(shell("/bin/ready; echo c >/proc/sysrq-trigger; sleep 300"), timeout_s=300.0))

    assert outcome.status == "failed"
    assert outcome.reason == "the guest's kernel panicked: Kernel panic - not syncing: sysrq triggered crash"
    assert "Kernel panic" in outcome.console_tail
    assert (outcome.stages["cleaned"] - outcome.stages["ready"]) / 1e9 < 15


def test_a_stopped_qemu_is_a_failed_sample_in_time(guests: Session, folder: Path) -> None:
    """A guest that stands still is killed at the command's deadline, though libvirt could not end it so soon."""
    started_s = time.monotonic()
    outcome = once_ready(guests, lambda: os.kill(qemus(folder)[0], signal.SIGSTOP), timeout_s=4.0)

    assert (outcome.status, outcome.reason) == ("failed", "not done after 4 s, killed")
    assert time.monotonic() - started_s < took_s(outcome) + 2
    assert (outcome.stages["cleaned"] - outcome.stages["exec"]) / 1e9 < 8


def test_a_vanished_qemu_is_noticed_at_once(guests: Session, folder: Path) -> None:
    """A killed QEMU ends the sample when it goes, not at a deadline."""
    outcome = once_ready(guests, lambda: os.kill(qemus(folder)[0], signal.SIGKILL))

    assert outcome.status == "failed"
    assert (outcome.reason or "").startswith("the guest vanished while the command ran")
    assert (outcome.stages["cleaned"] - outcome.stages["ready"]) / 1e9 < 5


def test_a_flooded_console_neither_grows_nor_hangs(guests: Session) -> None:
    """A guest that writes to its console without end is a failed sample in time; the end of it is kept."""
    flood = "busybox mknod /dev/line c 4 64; /bin/ready; busybox yes flood >/dev/line"
    outcome = run(guests, Command(shell(flood), timeout_s=5.0))

    assert (outcome.status, outcome.reason) == ("failed", "not done after 5 s, killed")
    assert "flood" in outcome.console_tail
    assert len(outcome.console_tail) <= 64 << 10
    assert (outcome.stages["cleaned"] - outcome.stages["exec"]) / 1e9 < 10


def test_endless_output_neither_grows_nor_hangs(guests: Session) -> None:
    """The end of the output is kept, however much there is."""
    outcome = run(guests, Command(shell("/bin/ready; busybox yes"), timeout_s=4.0))

    assert outcome.status == "failed"
    assert len(outcome.output_tail) == 64 << 10


def test_two_guests_run_at_once(guests: Session) -> None:
    """Guests of one session do not meet: each has its own domain, sockets and cgroup."""
    running = [guests.start(Command(shell(f"/bin/ready; echo {number}"))) for number in range(2)]
    outcomes = [guest.wait() for guest in running]

    assert [outcome.status for outcome in outcomes] == ["ok", "ok"]
    assert [outcome.output_tail for outcome in outcomes] == [b"0\n", b"1\n"]


def test_a_kernel_that_panics_while_it_boots_is_a_failed_sample(folder: Path) -> None:
    """A guest without a first process fails with the kernel's words, before its deadline."""
    with session(folder, cmdline="rdinit=/nothing root=/dev/nothing", boot_timeout_s=PATIENT) as guests:
        outcome = run(guests, READY)

    assert outcome.status == "failed"
    assert "Kernel panic - not syncing: VFS" in (outcome.reason or "")
    assert took_s(outcome) < PATIENT / 2


def test_a_guest_that_does_not_come_up_is_killed_at_its_deadline(folder: Path) -> None:
    """The deadline of a boot counts from the request."""
    with session(folder, boot_timeout_s=0.8) as guests:
        outcome = run(guests, READY)

    assert outcome.status == "failed"
    assert "killed after 0.8 s" in (outcome.reason or "")
    assert took_s(outcome) < 6


def test_a_domain_that_libvirt_refuses_is_a_failed_sample_with_its_words(folder: Path) -> None:
    """What libvirt says against a domain is the reason."""
    with pytest.raises(EnvironmentFailure, match="nothing"), session(folder, machine="nothing"):
        pass


def test_everything_of_a_session_is_in_the_ledger_while_it_exists(folder: Path) -> None:
    """The private root is recorded before it is made and released after it is gone."""
    ledger = Ledger()
    with session(folder, ledger):
        recorded = list(ledger.open)

    assert [kind for kind, _ in recorded] == ["libvirt"]
    assert ledger.open == []
    assert not Path(recorded[0][1]).exists()


def test_a_killed_libvirt_worker_is_a_failed_sample_and_the_next_one_is_good(folder: Path) -> None:
    """What a killed worker leaves is ended and removed, and the session goes on with a new worker."""
    with session(folder, boot_timeout_s=PATIENT) as guests:
        running = guests.start(STAYS)
        assert running.ready()
        os.kill(_libvirt_worker(), signal.SIGKILL)
        outcome = running.wait()
        assert qemus(folder) == []
        after = run(guests, READY)

    assert outcome.status == "failed"
    assert "the libvirt worker ended (killed by SIGKILL)" in (outcome.reason or "")
    assert after.status == "ok"


def test_a_hanging_libvirt_worker_is_killed_by_the_deadline(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that does not answer is a failed sample in time, with nothing left running."""
    monkeypatch.setattr(client, "SLACK_S", 1.0)
    with session(folder, boot_timeout_s=4.0) as guests:
        running = guests.start(Command(STAYS.argv, timeout_s=1.0))
        os.kill(_libvirt_worker(), signal.SIGSTOP)
        started_s = time.monotonic()
        outcome = running.wait()

    assert outcome.status == "failed"
    assert "did not end a guest by its deadline" in (outcome.reason or "")
    assert time.monotonic() - started_s < 20


def _libvirt_worker() -> int:
    """Return the youngest of our libvirt workers: the session of the whole file has one as well."""
    below = set(processes.descendants(os.getpid())) & set(processes.with_argument("benchbox.virt.worker"))
    return max(below, key=lambda pid: processes.start_time(pid) or 0)


def test_kvm_is_proven_by_a_guest_or_fails_with_what_was_tried(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``accelerator: kvm`` is a proven KVM, or an error within the proof's deadline that says what happened."""
    monkeypatch.setattr(accelerator, "remembered", lambda folder, facts, make: make())
    started_s = time.monotonic()
    try:
        with session(folder, accelerator="kvm") as guests:
            assert guests.applied()["accelerator"] == "kvm"
            assert run(guests, READY).flags["accelerator"] == "kvm"
    except EnvironmentFailure as error:
        assert error.message.startswith("accelerator: kvm was asked for and cannot be had: ")
        assert error.hint
        assert time.monotonic() - started_s < 2 * accelerator.PROOF_TIMEOUT_S + 15
        with session(folder, accelerator="auto") as guests:
            assert guests.applied()["accelerator"] == "tcg"


def test_a_missing_kvm_device_is_said_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a device nothing is booted to find out."""
    absent = Availability.no("/dev/kvm does not exist", "load kvm_intel")
    monkeypatch.setattr(accelerator, "device_availability", lambda: absent)
    with (
        pytest.raises(EnvironmentFailure, match="/dev/kvm does not exist") as caught,
        session(folder, accelerator="kvm"),
    ):
        pass
    assert caught.value.hint == "load kvm_intel"
