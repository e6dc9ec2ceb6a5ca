"""What every name on a page means: stages, metrics, counters, noise. docs/measuring.md says more of each."""

from collections.abc import Iterable
from typing import Final

from benchbox.analysis.percentiles import rung_of

#: What a metric measures, as the beginning of a sentence.
METRICS: Final = {
    "startup.ready": "From the request to the workload's first own instruction",
    "startup.served": "From the request to the server's first right answer",
    "startup.cleaned": "From the request until everything of it is gone again",
    "startup.spawn": "From asking for the launcher to its first instruction",
    "parallel.all_ready": "From the first of several requests at once to the last workload's first own instruction",
    "parallel.each_ready": "From its own request to the workload's first own instruction, the median of all at once",
    "parallel.slowest_ready": "From its own request to the workload's first own instruction, the slowest at once",
    "parallel.rate": "How many of those that started at once became ready in a second",
    "parallel.spread": "From the first of several requests at once to the last",
    "size.stored": "What the image takes on the disk as the environment runs it, a guest's kernel apart",
    "size.allocated": "What it takes on the disk: the blocks behind its files",
    "size.apparent": "The length of its files",
    "size.gzip": "What is sent where it is sent, by gzip -6",
    "size.zstd": "What is sent where it is sent, by zstd -3",
    "size.incremental": "What a second image with one more file takes on the disk beside it",
    "size.build": "From the image's tree to this format",
    "size.convert": "From the raw disk to this format",
    "size.with_shared": "The packages with all that they depend on",
    "size.part.base": "Of what is on the disk: what it shares with others",
    "size.part.format": "Of what is on the disk: what it takes with all files empty",
    "size.part.content": "Of what is on the disk: what the content adds to that",
    "density.cgroup": "Memory charged to the control groups of all that live at once",
    "density.available": "Memory that the host has less of while all live at once (MemAvailable)",
    "density.rss": "Memory that the processes of all have mapped, a shared page once for each",
    "density.pss": "Memory that the processes of all have mapped, a shared page once",
    "disk.read.bandwidth": "Bytes read in a second",
    "disk.read.iops": "Reads in a second",
    "disk.read.on_device": "At most this share of the bytes read came from the device",
    "disk.write.bandwidth": "Bytes written in a second",
    "disk.write.iops": "Writes in a second",
    "disk.write.on_device": "At most this share of the bytes written reached the device",
    "network.throughput": "Bytes a second that arrived over TCP, at the receiver",
    "network.retransmits": "TCP segments a second that were sent again",
    "network.late": "How late the client sent its messages, the median: its own part of the latency",
    "network.lost": "Share of the messages without an answer",
    "redis.rate": "Requests a second that one Redis answered",
    "nginx.rate": "Requests a second that one nginx answered",
    "sqlite.rate": "Transactions a second, counted in the table afterwards",
    "metadata.create": "To make an empty file, of many in one folder",
    "metadata.stat": "To look at a file",
    "metadata.unlink": "To remove an empty file",
    "metadata.sync": "To bring the folder with all its new files to the device",
    "copy_up.first_write": "To open a file and write its first byte, with the copy of the file from the lower layer",
    "copy_up.second_write": "The same once more, when the file is in the writable layer",
    "copy_up.size": "How much was copied from the lower layer",
    "parallel.cleaned": "From the first of several requests at once until everything of all is gone again",
    "floor.elapsed": "From the request to the end of a program that does nothing: the harness's floor",
    "command.elapsed": "From the request to the command's end",
    "cpu.sysbench": "How often in a second sysbench finds the primes up to 10,000",
    "cpu.sha256": "How much openssl hashes in a second with SHA-256, in blocks of 16 KiB",
    "cpu.aes": "How much openssl encrypts in a second with AES-128-GCM, in blocks of 16 KiB",
    "cpu.zstd": "How much text zstd compresses in a second at level 3",
    "cpu.zstd_decompress": "How much text zstd decompresses in a second",
    "cpu.python": "How many passes of a loop of arithmetic Python does in a second",
    "memory.bandwidth": "How much is read and written in a second by a = b + s c over three arrays",
    "memory.latency": "One load from a line in random order, which depends on the load before",
    "memory.touch": "The first write to 4 KiB of memory, giving it back included",
    "kernel.null_call": "A system call that does nothing (getpid)",
    "kernel.switch": "One of the two switches of a byte's round trip over pipes to another process on the same CPU",
    "kernel.fork_exec": "A fork, the execution of a small static program, and its end",
    "kernel.map": "mmap and munmap of 64 KiB of which one page is touched",
    "kernel.futex": "One of the two hand-overs of a round trip by futex to another process on the same CPU",
}

#: What a workload is about, in a word or two.
ASPECTS: Final = {
    "startup": "Startup",
    "python": "Startup",
    "redis": "Startup",
    "cpu": "CPU",
    "memory": "Memory",
    "kernel": "Kernel",
    "disk": "Disk",
    "metadata": "Disk",
    "copy-up": "Disk",
    "network-throughput": "Network",
    "network-latency": "Network",
    "redis-requests": "Application",
    "nginx-requests": "Application",
    "sqlite": "Application",
    "idle": "Memory of an instance",
    "light": "Memory of an instance",
    "floor": "Floor",
    "command": "Command",
    "image": "Image on the disk",
}

#: The same by the last part of the name, of what several workloads have.
_OF_ANY: Final = {
    "elapsed": "From the request to the workload's end",
    "work": "How much was done while it was measured",
    "per_cpu_s": "Work by the second of host CPU time that the whole environment used, start and end included",
}

#: What a latency is of which a workload reports several percentiles, each as a metric of its own.
LATENCIES: Final = {
    "disk.read.latency": "From giving a read to the kernel to its completion",
    "disk.write.latency": "From giving a write to the kernel to its completion",
    "disk.write.flush_latency": "How long the flush after each write took",
    "network.latency": "From when a message was due until its answer was there",
    "redis.latency": "From a request to Redis's answer",
    "nginx.latency": "From a request to nginx's whole answer",
}

_SHARES: Final = {"p50": "the median", "max": "the longest"}

#: What is over when a stage is over.
STAGES: Final = {
    "cgroups": "the control groups of this one instance exist and are set",
    "started": "the child runs its first instruction (guest: libvirt says that the domain runs)",
    "isolated": "namespaces, mounts, capabilities and filters are in place, just before the program is executed",
    "agent": "firmware, guest kernel and init are done: the first byte of the guest's agent",
    "exec": "the workload's program has been executed",
    "ready": "the first byte that the workload itself writes",
    "served": "the server has answered its first request",
    "exited": "the workload has ended",
    "cleaned": "processes, mounts, control groups and domain are gone",
}

COUNTERS: Final = {
    "image.stored": "what the image takes on the disk in the form that the environment runs it from",
    "kernel.stored": "what the guest's kernel takes on the disk",
    "cpu.usage": "CPU time of everything in the sample's control groups, for a guest all of QEMU",
    "cpu.user": "the part of it outside of the host's kernel",
    "cpu.system": "the part of it in the host's kernel",
    "cpu.throttled": "how long it was held up by its CPU quota",
    "memory.peak": "the most memory that it held at once; the kernel charges in batches",
    "memory.oom_kills": "processes that the kernel killed at the memory limit",
    "io.read": "bytes read from block devices",
    "io.write": "bytes written to block devices",
    "cache.resident_before": "how much of the files that a start reads was in the page cache just before it",
    "cache.read": "how much of these files came from the disk into the page cache meanwhile",
    "device.read": "what the device below /data read meanwhile, for whomever",
    "device.written": "what the device below /data wrote meanwhile, for whomever",
    "process.read": "bytes that its own processes had read from block devices",
    "process.switches.voluntary": "how often its processes gave up the CPU, to wait for something",
    "process.switches.involuntary": "how often the CPU was taken from its processes",
    "pressure.cpu": "how long some task of it waited for a CPU",
    "pressure.io": "how long some task of it waited for I/O",
    "pressure.memory": "how long some task of it waited for memory",
    "guest.cpu.user": "CPU time of the command outside of the kernel, as the guest's kernel counts it",
    "guest.cpu.system": "CPU time of the command in the guest's kernel, as that counts it",
    "guest.memory.peak_rss": "the most memory of the command in the guest",
    "guest.memory.oom_kills": "processes that the guest's kernel killed for want of memory",
}

NOISE: Final = {
    "load1": "load average of the last minute when the sample began",
    "psi.cpu.some_share": "share of the time in which some task of the host waited for a CPU",
    "psi.io.some_share": "share of the time in which some task of the host waited for I/O",
    "psi.memory.some_share": "share of the time in which some task of the host waited for memory",
    "steal_share": "share of all CPU time that a hypervisor took",
    "throttled.thermal": "how often a package was slowed down for heat",
    "throttled.quota_share": "time that benchbox's own control group waited for its quota, in CPUs",
}


def metric(name: str) -> str:
    """Return what the metric ``name`` measures, empty where only its workload knows."""
    stage = name.removeprefix("startup.stage.")
    if stage != name and stage in STAGES:
        return f"From the request until {STAGES[stage]}"
    return METRICS.get(name) or _percentile(name) or _OF_ANY.get(name.rpartition(".")[2], "")


def _percentile(name: str) -> str:
    found = rung_of(name)
    if found is None or found[0] not in LATENCIES:
        return ""
    family, rung, _ = found
    share = _SHARES.get(rung) or f"{rung.removeprefix('p')}% are as fast or faster"
    return f"{LATENCIES[family]}, {share}"


def aspect(workload: str) -> str:
    """Return what ``workload`` is about."""
    return ASPECTS.get(workload, workload)


def stages_in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Return each of ``names`` once, in the order in which stages end; those that nobody knows come last."""
    known = list(STAGES)
    return tuple(sorted(dict.fromkeys(names), key=lambda name: known.index(name) if name in known else len(known)))
