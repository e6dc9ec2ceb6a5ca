"""The outcome that follows from what was seen of a guest."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchbox.linux.cgroups import CgroupPlan, Group
from benchbox.model import DEVICE_STAT, Command, Outcome
from benchbox.virt import verdict
from benchbox.virt.channels import Console, Control, Tail
from benchbox.virt.domain import TAP
from benchbox.virt.messages import GuestOrder
from tests.virt.observations import FACTS, LIVE, ORDER, STAGES, observed

NO_GROUPS = CgroupPlan(())


def judge(**changes: Any) -> Outcome:
    return verdict.outcome(ORDER, observed(**changes), NO_GROUPS)


def test_a_good_guest_is_ok() -> None:
    """All there, all as asked for: no reason, durations of the guest without their unit, the median latency."""
    outcome = judge()

    assert (outcome.status, outcome.reason, outcome.exit_code) == ("ok", None, 0)
    assert list(outcome.stages) == list(STAGES)
    assert outcome.guest == {"boot": 9}
    assert outcome.applied["channel_latency_ns"] == 1
    assert outcome.applied["guest"] == {
        "memory_bytes": 228999168, "cpus_online": "0", "clocksource": "tsc", "hypervisor": "TCGTCGTCGTCG",
        "cpu_flags": None, "mitigations": None, "huge_pages": None,
    }  # fmt: skip
    assert outcome.flags == {"accelerator": "tcg"}


def ended(**fields: int) -> Control:
    return Control(executed=True, ended=fields, facts=dict(FACTS))


@pytest.mark.parametrize(
    ("changes", "status", "reason"),
    [
        ({"control": ended(exit_code=7)}, "failed", "exit status 7"),
        ({"control": ended(signal=9)}, "failed", "killed by SIGKILL"),
        ({"failure": "the guest vanished"}, "failed", "the guest vanished"),
        ({"stages": {**STAGES, "agent": 9}}, "invalid", "stages out of order: exec came before agent"),
        ({"requested_ns": 2}, "invalid", "stages out of order: cgroups came before requested"),
        ({"live": {}}, "invalid", "what the guest ran on could not be read back from libvirt"),
        ({"live": {**LIVE, "memory_bytes": 1}}, "invalid", "guest memory: asked for 268435456, in force 1"),
        ({"live": {**LIVE, "vcpus": 2}}, "invalid", "virtual CPUs: asked for 1, in force 2"),
        ({"live": {**LIVE, "kernel": "/other"}}, "invalid", "kernel: asked for /kernel, in force /other"),
        ({"live": {**LIVE, "firmware": "/fw"}}, "invalid", "firmware: asked for None, in force /fw"),
        ({"live": {**LIVE, "machine": "pc-i440fx-7.2"}}, "invalid", "machine: asked for q35, in force pc-i440fx-7.2"),
        ({"live": {**LIVE, "nics": ["x"]}}, "invalid", "network cards: asked for [], in force ['x']"),
        ({"live": {**LIVE, "extra_disks": ["x"]}}, "invalid", "disks: asked for [], in force ['x']"),
        ({"live": {**LIVE, "root_disk": "x"}}, "invalid", "root disk: asked for None, in force x"),
        ({"live": {**LIVE, "root_disk_file": "/x"}}, "invalid", "file of the root disk: asked for None, in force /x"),
        ({"live": {**LIVE, "data_disk": "x"}}, "invalid", "disk of /data: asked for None, in force x"),
        ({"kvm_enabled": True}, "invalid", "KVM in use: asked for False, in force True"),
    ],
)
def test_what_is_wrong_is_the_reason(changes: dict[str, Any], status: str, reason: str) -> None:
    """Each way to be wrong has its status and its reason."""
    outcome = judge(**changes)

    assert outcome.status == status
    assert (outcome.reason or "").endswith(reason)


def test_no_ready_byte_is_invalid_only_where_one_was_promised() -> None:
    """A workload that knows nothing of benchbox writes none."""
    stages = {name: at_ns for name, at_ns in STAGES.items() if name != "ready"}
    assert judge(stages=stages).status == "invalid"

    assert ORDER.command is not None
    silent = replace(ORDER, command=replace(ORDER.command, signals_ready=False))
    assert verdict.outcome(silent, observed(stages=stages), NO_GROUPS).status == "ok"


def test_out_of_memory_is_said_before_the_status_it_caused() -> None:
    """The guest's kernel counts; 137 alone would be a guess."""
    control = Control(executed=True, ended={"signal": 9}, facts={**FACTS, "oom_kills": "1"})

    assert judge(control=control).reason == "out of memory: the guest's kernel killed 1 process(es)"
    counters = {counter.name: counter for counter in judge(control=control).counters}
    assert counters["guest.memory.oom_kills"].value == 1


def test_kvm_is_said_only_where_libvirt_and_qemu_both_say_it() -> None:
    """A domain of type kvm without KVM in QEMU is no KVM, and no valid sample."""
    order = replace(ORDER, spec=replace(ORDER.spec, domain_type="kvm"))
    live = {**LIVE, "domain_type": "kvm"}
    control = Control(executed=True, ended={"exit_code": 0}, facts={**FACTS, "hypervisor": "KVMKVMKVM"})

    proven = verdict.outcome(order, observed(live=live, kvm_enabled=True, control=control), NO_GROUPS)
    assert (proven.status, proven.flags["accelerator"]) == ("ok", "kvm")
    for kvm_enabled in (False, None):
        pretended = verdict.outcome(order, observed(live=live, kvm_enabled=kvm_enabled), NO_GROUPS)
        assert (pretended.status, pretended.flags["accelerator"]) == ("invalid", "tcg")


def test_the_guest_s_own_word_on_who_runs_it_must_agree() -> None:
    """A guest that finds KVM in its CPUID is no emulated one, and the other way round; an old agent says nothing."""
    order = replace(ORDER, spec=replace(ORDER.spec, domain_type="kvm"))
    live = {**LIVE, "domain_type": "kvm"}

    def status(name: str) -> tuple[str, str | None]:
        control = Control(executed=True, ended={"exit_code": 0}, facts={**FACTS, "hypervisor": name})
        found = verdict.outcome(order, observed(live=live, kvm_enabled=True, control=control), NO_GROUPS)
        return found.status, found.reason

    assert status("KVMKVMKVM") == status("") == ("ok", None)
    state, reason = status("TCGTCGTCGTCG")
    assert state == "invalid"
    assert (reason or "").endswith("KVM in the guest's CPUID: asked for True, in force False")


def test_a_cpuset_changed_behind_our_back_is_seen() -> None:
    """The cpuset in force is read from the cgroup and compared."""
    plan = CgroupPlan((Group(Path("/cg/vm-1"), 2, reads=("cpuset.cpus",)),))
    outcome = verdict.outcome(ORDER, observed(cgroup_texts={"/cg/vm-1/cpuset.cpus": "0-1\n"}), plan)

    assert outcome.status == "invalid"
    assert outcome.applied["cpus"] == "0-1"
    assert "cpus: asked for 1, in force 0-1" in (outcome.reason or "")


def test_console_and_output_are_kept() -> None:
    """Both tails are part of every outcome."""
    outcome = judge(output=Tail(kept=b"out\xff"), console=Console(Tail(kept=b"\1line\xff\r\n")))

    assert (outcome.output_tail, outcome.console_tail) == (b"out\xff", "line\ufffd\n")


@pytest.mark.parametrize(
    ("stages", "words"),
    [
        ((), "before it was started"),
        (("started",), "before the agent's first byte"),
        (("started", "agent"), "between the agent's first byte and the command"),
        (("started", "agent", "exec", "ready"), "while the command ran"),
        (("started", "agent", "exec", "ready", "exited"), "after the command's end"),
    ],
)
def test_progress_says_how_far_a_guest_came(stages: tuple[str, ...], words: str) -> None:
    """A guest that fails is told by the last stage that it reached."""
    assert verdict.progress(observed(stages=dict.fromkeys(stages, 1))) == words


def test_a_refusal_is_one_line_with_what_qemu_says() -> None:
    """libvirt wraps QEMU's own message, a time stamp and a core dump's assertion around it."""
    error = """internal error: qemu closed the monitor: 2026-11-24T03:14:03Z qemu-system-x86_64: error: failed to
qemu-system-x86_64: ../../kvm.c:3183: kvm_buf_set_msrs: Assertion `ret == cpu' failed."""

    assert verdict.refusal(error) == "QEMU gave up: error: failed to"
    assert verdict.refusal("XML error:\n no name") == "libvirt could not start the guest: XML error: no name"


def test_qemus_messages_are_found_in_libvirts_log() -> None:
    """Command line and libvirt's remarks are left out; what QEMU printed is on one line."""
    log = """ice '{"driver":"virtserialport"}' \\
-audiodev '{"id":"audio1","driver":"none"}' \\
-msg timestamp=on
2026-11-24 03:14:03.182+0000: Domain id=1 is tainted: high-privileges
KVM internal error. Suberror: 1
2026-11-24T03:14:03.224739Z qemu-system-x86_64: emulation failure
EAX=00000000 EBX=00000000
ESI=00000000 EDI=00000000
2026-11-24 03:14:03.226+0000: shutting down, reason=failed
"""
    expected = "KVM internal error. Suberror: 1; qemu-system-x86_64: emulation failure"
    assert verdict.log_messages(log, limit=2) == expected
    assert verdict.log_messages("") == ""


def test_another_cache_mode_than_asked_for_is_invalid() -> None:
    """Sabotage: libvirt or a hook of the host's makes the disk of /data one that drops flushes."""
    order = replace(ORDER, spec=replace(ORDER.spec, data_disk="/x.raw"))
    modes = {
        mode: {**LIVE, "data_disk": f"virtio, raw, cache {mode}"} for mode in ("none, io native", "unsafe, io threads")
    }
    found = {mode: verdict.outcome(order, observed(live=live), NO_GROUPS) for mode, live in modes.items()}
    assert found["none, io native"].status == "ok"
    assert found["unsafe, io threads"].status == "invalid"
    assert "cache unsafe" in str(found["unsafe, io threads"].reason)


def test_the_device_is_handed_on_as_it_was_at_the_command_s_end() -> None:
    """Under a key that whoever made /data takes out again."""
    assert judge(device_stat="1 2 3").applied[DEVICE_STAT] == "1 2 3"
    assert DEVICE_STAT not in judge().applied


STAYING = replace(ORDER, command=Command(("/bin/serve",), stays=True))
RUNNING = {name: at_ns for name, at_ns in STAGES.items() if name != "exited"}


def test_a_server_that_was_ended_after_it_was_ready_ended_well() -> None:
    """That is what was to become of it; what it ran on was read back before."""
    seen = observed(stages=RUNNING, control=Control(executed=True), failure=verdict.ENDED_BY_US)
    outcome = verdict.outcome(STAYING, seen, NO_GROUPS)
    assert (outcome.status, outcome.exit_code) == ("ok", None)


@pytest.mark.parametrize(
    ("order", "changes"),
    [
        (ORDER, {"stages": RUNNING}),
        (STAYING, {"stages": {name: at for name, at in RUNNING.items() if name != "ready"}}),
        (STAYING, {}),
    ],
    ids=["one that was to end", "one that was not ready", "one that had ended"],
)
def test_every_other_guest_that_was_ended_failed(order: GuestOrder, changes: dict[str, Any]) -> None:
    """Only a server that serves is ended well."""
    seen = observed(**{"failure": verdict.ENDED_BY_US, "control": Control(executed=True), **changes})
    assert verdict.outcome(order, seen, NO_GROUPS).reason == verdict.ENDED_BY_US


def test_a_tap_that_is_not_on_the_domain_is_seen() -> None:
    """The guest's card is the one that leads to the bridge."""
    order = replace(ORDER, spec=replace(ORDER.spec, tap="tap3"))
    assert "network cards" in str(verdict.outcome(order, observed(), NO_GROUPS).reason)
    live = {**LIVE, "nics": [TAP]}
    assert verdict.outcome(order, observed(live=live), NO_GROUPS).status == "ok"


def test_what_a_guest_says_of_its_host_s_settings_is_on_record() -> None:
    """By its own kernel: what is done about weaknesses, what programs may compute with, who had its time."""
    facts = {
        **FACTS, "cpu_flags": "sse2 avx aes", "mitigation.meltdown": "Mitigation: PTI", "steal_ms": "1500",
        "huge_pages": "always [madvise] never", "program": "/bin/ready", "sha256": "a" * 64,
    }  # fmt: skip
    outcome = judge(control=Control(executed=True, ended={"exit_code": 0}, facts=facts), process_io="read_bytes: 4096")
    guest = outcome.applied["guest"]
    assert (guest["cpu_flags"], guest["huge_pages"]) == ("aes avx sse2", "madvise")
    assert guest["mitigations"] == {"meltdown": "Mitigation: PTI"}
    assert outcome.applied["program"] == {"path": "/bin/ready", "sha256": "a" * 64}
    counters = {counter.name: counter.value for counter in outcome.counters}
    assert (counters["guest.cpu.steal"], counters["process.read"]) == (1.5, 4096)


@pytest.mark.parametrize("thread_cpus", [("0-1", "1"), ("0",), ()])
def test_a_thread_of_qemu_that_may_run_elsewhere_makes_the_sample_invalid(thread_cpus: tuple[str, ...]) -> None:
    """Sabotage: an affinity changed behind our back; with none at all QEMU is not where it is accounted."""
    outcome = judge(thread_cpus=thread_cpus)
    assert outcome.status == "invalid"
    assert f"CPUs of QEMU's threads: asked for ['1'], in force {list(thread_cpus)}" in str(outcome.reason)


def test_a_balloon_makes_the_sample_invalid() -> None:
    """Sabotage: libvirt's default. The host could take memory from a guest with one."""
    outcome = judge(live={**LIVE, "balloon": "virtio"})
    assert (outcome.status, "memory balloon" in str(outcome.reason)) == ("invalid", True)


def test_a_guest_s_clock_moves_no_stage() -> None:
    """Sabotage: a clock that is a year ahead, or stands still. Its durations are kept, beside those of the host."""
    honest = judge()
    for wrong_ns in (-1, 0, 365 * 24 * 3600 * 10**9):
        control = Control(executed=True, ended={"exit_code": 0, "boot_ns": wrong_ns, "run_ns": wrong_ns}, facts=FACTS)
        outcome = judge(control=control)
        assert (outcome.status, outcome.stages, outcome.requested_ns) == ("ok", honest.stages, honest.requested_ns)
        assert outcome.guest == {"boot": wrong_ns, "run": wrong_ns}
