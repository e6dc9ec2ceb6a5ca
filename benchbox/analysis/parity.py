"""Like for like? What differs between the environments beside their isolation, and what that voids.

Read from what was read back (``applied`` of environments and samples), from the host's fingerprint and from the image,
never from what a scenario asks for. What the record does not say is unknown, which is not the same as equal.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from benchbox.record import EnvironmentRecord, Manifest, Sample
from benchbox.scenario import FORMAT
from benchbox.units import format_size, parse_cpu_list

#: ``by design``: the difference is the isolation that is compared. ``differs``: it is not.
State = Literal["same", "by design", "differs", "unknown"]

#: What a metric depends on, and so which differences void a verdict on it.
Scope = Literal["everything", "kernel", "cpu", "memory", "files", "network", "occupancy", "nothing"]

UNKNOWN: Final = "unknown"
#: How many programs of an image are named; all of them are compared.
_SHOWN_BINARIES: Final = 12
_SAME_TREE: Final = "Like for like: every format was made of the same tree."

#: How the metrics begin that a client outside of the environment measures.
_SEEN_BY_A_CLIENT: Final = ("network.", "redis.", "nginx.")

#: Flags of what programs compute with, on x86 and ARM; a library chooses its code by them.
_COMPUTES: Final = re.compile(
    r"(sse|ssse|avx|aes|vaes|pclmul|vpclmul|sha|bmi|fma|f16c|popcnt|movbe|adx|abm|gfni|asimd|sve|pmull|crc32|atomics)"
)

_VOIDS: Final[Mapping[Scope, str]] = {
    "everything": "every verdict",
    "kernel": "verdicts on kernel-bound metrics: what differs may be the kernel, not the isolation",
    "cpu": "verdicts on CPU-bound metrics: what differs may be the processor",
    "memory": "verdicts on memory-bound metrics: what differs may be the size of the pages",
    "network": "verdicts on what a client saw: what differs may be the way to the server, not the isolation",
    "occupancy": "verdicts on the memory of what lives at once: what differs may be what is counted",
    "files": "verdicts on file-bound metrics: what differs may be the file system",
    "nothing": "nothing: it is a part of what is compared",
}


@dataclass(frozen=True)
class Entry:
    """One environment in one respect: what was found, and how that compares with the baseline."""

    label: str
    value: str
    state: State


@dataclass(frozen=True)
class Aspect:
    """One respect in which environments may differ.

    ``voids`` says what a difference makes void, empty where there is none; ``scope`` is the same for programs.
    """

    name: str
    scope: Scope
    entries: tuple[Entry, ...]
    voids: str


@dataclass(frozen=True)
class Parity:
    """Every respect, with every measured environment. ``alike`` is False where something differs but the isolation.

    ``headline`` is one sentence that begins with "Like for like".
    """

    baseline: str
    alike: bool
    headline: str
    aspects: tuple[Aspect, ...]

    def voided(self, label: str, metric: str) -> tuple[str, ...]:
        """Return the names of the aspects that void a verdict on ``metric`` of the environment ``label``."""
        bound = {"everything", *metric_scopes(metric)}
        return tuple(
            aspect.name
            for aspect in self.aspects
            if aspect.scope in bound and any(e.label == label and e.state == "differs" for e in aspect.entries)
        )


def metric_scopes(metric: str) -> tuple[Scope, ...]:
    """Return what ``metric`` depends on. A start is the kernel's work; of metrics that are not known all of it counts.

    ``per_cpu_s`` and ``elapsed`` have a start in them as well, and so the kernel.
    """
    if metric.startswith(_SEEN_BY_A_CLIENT):
        return ("kernel", "cpu", "memory", "network")
    family, _, name = metric.partition(".")
    scopes = _SCOPES.get(family, ("kernel", "cpu", "memory", "files"))
    return tuple(dict.fromkeys(("kernel", *scopes))) if name in ("per_cpu_s", "elapsed") else scopes


#: The first part of a metric's name -> what it depends on.
_SCOPES: Final[Mapping[str, tuple[Scope, ...]]] = {
    "startup": ("kernel",),
    "floor": ("kernel",),
    "density": ("kernel", "cpu", "memory", "files", "occupancy"),
    "cpu": ("cpu",),
    "memory": ("kernel", "cpu", "memory"),
    "kernel": ("kernel", "cpu"),
}


def parity(manifest: Manifest, by_cell: Mapping[str, Sequence[Sample]]) -> Parity:
    """Return how the measured environments compare with the baseline.

    Where the baseline was not measured, the first environment that was stands in for it.
    """
    samples: dict[str, list[Sample]] = {}
    for group in by_cell.values():
        for sample in group:
            samples.setdefault(sample.environment, []).append(sample)
    facts = [
        _Facts(manifest, record, _applied_values(samples.get(record.label, ())))
        for record in manifest.environments
        if record.state == "measured" and record.kind != FORMAT
    ]
    base = next((each for each in facts if each.label == manifest.baseline), facts[0] if facts else None)
    asked = [question for question in _QUESTIONS if not question.optional or any(map(question.ask, facts))]
    aspects = tuple(_aspect(question, facts, base) for question in asked) if base else ()
    if base is None and any(record.kind == FORMAT for record in manifest.environments):
        return Parity(manifest.baseline, True, _SAME_TREE, ())
    alike = not any(entry.state == "differs" for aspect in aspects for entry in aspect.entries)
    return Parity(base.label if base else manifest.baseline, alike, _headline(aspects, alike), aspects)


@dataclass(frozen=True)
class _Value:
    """What an environment has in one respect: ``key`` is compared, ``text`` is shown.

    ``grave``: where it differs, that is no matter of design. ``chosen``: an option of this one environment says so;
    beside one of its kind that difference is what is compared.
    """

    text: str
    key: object
    grave: bool = False
    chosen: bool = False


@dataclass(frozen=True)
class _Facts:
    """What the record says of one environment; ``samples`` maps a key to each of its values in the samples."""

    manifest: Manifest
    record: EnvironmentRecord
    samples: Mapping[str, tuple[Any, ...]]

    @property
    def label(self) -> str:
        return self.record.label

    @property
    def is_guest(self) -> bool:
        return self.record.kind == "vm"

    def chose(self, option: str) -> bool:
        """Say whether this environment alone was given ``option``."""
        return self.record.options.get(option) is not None

    def left_out(self, part: str) -> bool:
        """Say whether this environment alone is without ``part``."""
        return part in (self.applied("left_out") or {})

    def host(self, *path: str) -> Any:
        return _at(self.manifest.host, path)

    def applied(self, *path: str) -> Any:
        return _at(self.record.applied, path)

    def seen(self, *path: str) -> tuple[Any, ...]:
        """Return each value at ``path`` that the samples have, None (no limit) included; empty: they say nothing.

        Where another program makes the container, what was read back once for all samples of the session stands in.
        """
        outer, *inner = path
        found: dict[str, Any] = {}
        for value in self.samples.get(outer, ()):
            if inner and not (isinstance(value, Mapping) and inner[0] in value):
                continue
            one = _at(value, inner) if inner else value
            found.setdefault(repr(one), one)
        once = _at(self.record.applied, ("read_back", *path))
        return tuple(found.values()) or (() if once is None else (once,))

    @property
    def accelerator(self) -> str | None:
        found = self.applied("accelerator")
        return found if isinstance(found, str) else None


@dataclass(frozen=True)
class _Question:
    """``by_design`` says that a difference is the isolation itself; ``ask`` returns None where nothing is known.

    An ``optional`` one is left out where nothing is known of any environment.
    """

    name: str
    scope: Scope
    ask: Callable[[_Facts], _Value | None]
    by_design: bool = False
    optional: bool = False


def _applied_values(samples: Iterable[Sample]) -> dict[str, tuple[Any, ...]]:
    """Return each value of each key of ``applied`` in the samples that count; latencies differ always and are not."""
    found: dict[str, dict[str, Any]] = {}
    for sample in samples:
        if sample.status == "ok":
            for key, value in sample.applied.items():
                if key != "channel_latency_ns":
                    found.setdefault(key, {}).setdefault(repr(value), value)
    return {key: tuple(values.values()) for key, values in found.items()}


def _at(value: Any, path: Iterable[str]) -> Any:
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _aspect(question: _Question, facts: Sequence[_Facts], base: _Facts) -> Aspect:
    reference = question.ask(base)
    entries = tuple(_entry(question, each, question.ask(each), base, reference) for each in facts)
    states = {entry.state for entry in entries}
    scope = question.scope if "differs" in states or question.scope == "files" else "nothing"
    return Aspect(question.name, question.scope, entries, _VOIDS[scope] if states & {"differs", "by design"} else "")


def _entry(question: _Question, facts: _Facts, value: _Value | None, base: _Facts, reference: _Value | None) -> Entry:
    label = facts.label
    if value is None:
        return Entry(label, UNKNOWN, "unknown")
    if isinstance(value.key, _Varies):
        return Entry(label, value.text, "differs")
    if reference is None:
        return Entry(label, value.text, "unknown")
    if value.key == reference.key:
        return Entry(label, value.text, "same")
    chosen = (value.chosen or reference.chosen) and facts.record.kind == base.record.kind
    meant = chosen or (question.by_design and not value.grave)
    return Entry(label, value.text, "by design" if meant else "differs")


def _headline(aspects: Sequence[Aspect], alike: bool) -> str:
    """Return what to say in one line: who differs in what, and of whom what is not known."""
    if not aspects:
        return "Like for like: nothing was measured."
    first = "yes, but for the isolation itself" if alike else f"no: {_named(aspects, 'differs')}"
    unknown = _named(aspects, "unknown")
    return f"Like for like: {first}{f'. Not known: {unknown}' if unknown else ''}."


def _named(aspects: Sequence[Aspect], state: State) -> str:
    """Return by environment the aspects in ``state``: ``vm in kernel, CPU``; those of all are said once."""
    labels = [entry.label for entry in aspects[0].entries]
    found = {label: [a.name for a, e in _pairs(aspects) if e.label == label and e.state == state] for label in labels}
    common = [name for name in found[labels[0]] if all(name in names for names in found.values())]
    parts = [
        f"{label} in {', '.join(own)}"
        for label, names in found.items()
        if (own := [n for n in names if n not in common])
    ]
    return "; ".join([*parts, *([f"all in {', '.join(common)}"] if common else [])])


def _pairs(aspects: Iterable[Aspect]) -> Iterator[tuple[Aspect, Entry]]:
    return ((aspect, entry) for aspect in aspects for entry in aspect.entries)


# --- the questions ---------------------------------------------------------------------------------------------------


class _Varies(str):
    """The key of what was not the same in all samples of an environment: equal to nothing."""

    __slots__ = ()


def _one(values: Sequence[Any], text: Callable[[Any], str]) -> _Value | None:
    """Return what all samples agree on; more than one value is a difference in itself."""
    if not values:
        return None
    if len(values) == 1:
        return _Value(text(values[0]), values[0])
    return _Value("differs between samples: " + ", ".join(map(text, values[:4])), _Varies(repr(values)))


def _execution(facts: _Facts) -> _Value | None:
    if not facts.is_guest:
        return _Value("on the processor itself", "direct")
    words = {"kvm": "on the processor, by KVM", "tcg": "emulated in software (TCG)"}
    found = facts.accelerator
    return _Value(words.get(found, found), found, grave=found == "tcg") if found else None


def _kernel(facts: _Facts) -> _Value | None:
    release = facts.applied("kernel", "release") if facts.is_guest else facts.host("kernel", "release")
    if not isinstance(release, str):
        return None
    build = facts.applied("kernel", "version") if facts.is_guest else facts.host("kernel", "version")
    text = f"{release}, {build.removeprefix(f'{release} ')}" if isinstance(build, str) else release
    if facts.is_guest and facts.applied("kernel", "same_as_host") is True:
        return _Value(f"{release}, the host's own", ("host", facts.host("kernel", "release")))
    return _Value(text, ("guest", release, build) if facts.is_guest else ("host", release))


def _mitigations(facts: _Facts) -> _Value | None:
    found = facts.host("mitigations")
    if facts.is_guest:
        inside = facts.seen("guest", "mitigations")
        known = [each for each in inside if isinstance(each, Mapping)]
        if not known:
            return _asked_mitigations(facts)
        value = _one(known, _mitigations_text)
        return value if value is None or isinstance(value.key, _Varies) else replace(value, key=_in_force(known[0]))
    return _Value(_mitigations_text(found), _in_force(found)) if isinstance(found, Mapping) and found else None


def _in_force(found: Any) -> object:
    """Return what is compared: of each known weakness whether it is open and what is done, without remarks. What a host
    does for guests of its own, and where nothing is to be done, is no difference."""
    texts = found.items() if isinstance(found, Mapping) else ()
    states = ((name, str(text).partition(";")[0].strip()) for name, text in texts)
    return frozenset((name, text) for name, text in states if not text.startswith(("Not affected", "KVM:")))


def _asked_mitigations(facts: _Facts) -> _Value | None:
    """A guest says nothing of itself; what its command line switches is known all the same."""
    for line in facts.seen("domain", "cmdline"):
        for word in str(line).split():
            if word.startswith("mitigations=") and word != "mitigations=auto":
                return _Value(f"{word} on its command line", word)
    return None


def _mitigations_text(found: Any) -> str:
    if not isinstance(found, Mapping):
        return str(found)
    active = [name for name, text in found.items() if str(text).startswith("Mitigation")]
    open_ = [name for name, text in found.items() if str(text).startswith("Vulnerable")]
    parts = [f"on: {', '.join(active)}"] if active else ["none needed"]
    return "; ".join([*parts, *([f"vulnerable: {', '.join(open_)}"] if open_ else [])])


def _cpu_model(facts: _Facts) -> _Value | None:
    model = facts.host("cpu", "model")
    if not facts.is_guest:
        return _Value(str(model), "host") if model else None
    (mode, *others) = facts.seen("domain", "cpu_mode") or (None,)
    if mode is None or others:
        return None
    if mode == "host-passthrough":
        return _Value(f"{model}, passed through", "host", chosen=facts.chose("cpu_model"))
    (name,) = facts.seen("domain", "cpu_model") or (None,)
    if name is not None:
        return _Value(str(name), name, chosen=facts.chose("cpu_model"))
    return _Value("everything QEMU can emulate (maximum)" if mode == "maximum" else str(mode), mode)


def _cpu_flags(facts: _Facts) -> _Value | None:
    digest = facts.host("cpu", "flags_digest")
    if not facts.is_guest:
        return (
            _Value(f"flags sha256 {str(digest)[:12]}", _host_flags(facts.host("cpu", "flags") or ()))
            if digest
            else None
        )
    inside = [flags for flags in facts.seen("guest", "cpu_flags") if flags]
    if inside and facts.host("cpu", "flags"):
        return _guest_flags(inside, set(facts.host("cpu", "flags")), chosen=facts.chose("cpu_model"))
    hidden = facts.applied("accelerator_proof", "disabled_features")
    return _Value(f"without {', '.join(map(str, hidden))}", tuple(hidden)) if hidden else None


def _guest_flags(inside: Sequence[str], host: set[str], *, chosen: bool) -> _Value | None:
    """Compare what programs compute with. Other flags say what a kernel may do, and that this is a guest."""
    if len(inside) > 1:
        return _one(inside, lambda flags: f"{len(flags.split())} flags")
    own, whole = (set(filter(_COMPUTES.match, flags)) for flags in (inside[0].split(), host))
    if own == whole:
        return _Value("all of the host's that programs compute with", _host_flags(host), chosen=chosen)
    differences = {"without": whole - own, "besides": own - whole}
    text = "; ".join(f"{word} {', '.join(sorted(flags))}" for word, flags in differences.items() if flags)
    return _Value(text, tuple(sorted(own)), chosen=chosen)


def _host_flags(flags: Iterable[str]) -> object:
    return tuple(sorted(filter(_COMPUTES.match, flags)))


def _cpus(facts: _Facts) -> _Value | None:
    named = facts.seen("cpus") or facts.seen("affinity") or facts.seen("domain", "vcpu_cpus")
    found = _one(named, lambda value: f"CPU {value}")
    virtual = facts.seen("domain", "vcpus")
    if found is None or len(named) > 1 or len(virtual) != 1 or virtual[0] == _how_many(named[0]):
        return found
    return _Value(f"{found.text}, as {virtual[0]} virtual", (found.key, virtual[0]), chosen=facts.chose("vcpus"))


def _how_many(cpus: object) -> int | None:
    """Return how many CPUs a list names; None for what is no list, in a record that somebody else wrote."""
    try:
        return len(parse_cpu_list(str(cpus)))
    except ValueError:
        return None


def _quota(facts: _Facts) -> _Value | None:
    found = _one(facts.seen("cpu_quota"), lambda value: "no quota" if value is None else f"{value} CPUs")
    return found and replace(found, chosen=facts.left_out("limits"))


def _memory(facts: _Facts) -> _Value | None:
    limits = facts.seen("domain", "memory_bytes") if facts.is_guest else facts.seen("memory_bytes")
    found = _one(limits, lambda value: "no limit" if value is None else _bytes(value))
    if found is None or not facts.is_guest:
        return found and _limit(found, facts)
    inside = facts.seen("guest", "memory_bytes")
    usable = f", {_bytes(inside[0])} of it usable" if len(inside) == 1 and inside[0] else ""
    return _Value(f"RAM {found.text}{usable}", found.key, chosen=facts.chose("memory"))


def _limit(found: _Value, facts: _Facts) -> _Value:
    text = found.text if isinstance(found.key, _Varies) or found.key is None else f"limit {found.text}"
    return _Value(text, found.key, chosen=facts.left_out("limits"))


def _bytes(value: Any) -> str:
    return format_size(value) if isinstance(value, int) else str(value)


def _huge_pages(facts: _Facts) -> _Value | None:
    """What the kernel gives to a program that asks for nothing: in a guest, the guest's own kernel."""
    if facts.is_guest:
        return _one([found for found in facts.seen("guest", "huge_pages") if found], str)
    found = facts.host("memory", "transparent_huge_pages")
    return _Value(str(found), found) if found else None


def _usable_memory(facts: _Facts) -> _Value | None:
    """What the kernel of a guest keeps for itself the workload cannot use."""
    found = facts.seen("guest", "memory_bytes") if facts.is_guest else facts.seen("memory_bytes")
    return _one(found, lambda value: "all there is" if value is None else f"up to {_bytes(value)}")


def _processes(facts: _Facts) -> _Value | None:
    return _one(facts.seen("pids"), lambda value: "no limit" if value is None else f"at most {value}")


def _hardware(facts: _Facts) -> _Value | None:
    """What a guest is made of beside what the other questions ask; the others have the host's."""
    if not facts.is_guest:
        return _Value("the host's", "host")
    found = facts.applied("hardware")
    return _Value(found, found) if isinstance(found, str) else None


def _namespaces(facts: _Facts) -> _Value | None:
    """What is told apart from the host's; a guest has a kernel of its own for that."""
    if facts.is_guest:
        return _Value("a kernel of its own", "guest")
    return _one(facts.seen("namespaces"), lambda names: ", ".join(map(str, names)) or "the host's")


def _hidden_paths(facts: _Facts) -> _Value | None:
    found = facts.applied("hidden_paths")
    if isinstance(found, str):
        return _Value(found, found)
    if facts.is_guest:
        return _Value("its own kernel's", "guest")
    return _Value("none", "none") if facts.record.kind == "native" else None


def _seccomp(facts: _Facts) -> _Value | None:
    return _one(facts.seen("seccomp"), str)


def _capabilities(facts: _Facts) -> _Value | None:
    return _one(facts.seen("capabilities"), lambda value: f"mask {value}")


def _privileges(facts: _Facts) -> _Value | None:
    return _one(facts.seen("no_new_privs"), lambda value: "cannot be gained" if value else "can be gained")


def _user(facts: _Facts) -> _Value | None:
    return _one(facts.seen("user") or facts.seen("guest", "user"), str)


def _image(facts: _Facts) -> _Value | None:
    image = facts.manifest.image
    digest = facts.applied("image_digest") or (image.digest if image else None)
    return _Value(f"sha256 {str(digest)[:12]}", digest) if digest else None


def _binaries(facts: _Facts) -> _Value | None:
    image = facts.manifest.image
    found = facts.applied("executables") or (image.executables if image else None)
    if not isinstance(found, Mapping) or not found:
        return None
    shown = [f"{path} {str(digest)[:8]}" for path, digest in found.items()][:_SHOWN_BINARIES]
    more = f" and {len(found) - len(shown)} more" if len(found) > len(shown) else ""
    return _Value(", ".join(shown) + more, dict(found))


def _root(facts: _Facts) -> _Value | None:
    found = facts.applied("root")
    if isinstance(found, str):
        return _Value(found, found)
    if facts.is_guest and "prepare.initramfs" in facts.record.account:
        return _Value("initramfs, in the guest's memory", "initramfs")
    return None


def _cache(facts: _Facts) -> _Value | None:
    """Where what is read comes from. Every cell was primed once, so the host's page cache holds the image."""
    stated = facts.applied("cache") or next(iter(facts.seen("cache")), None)
    if stated:
        return _Value(str(stated), stated)
    if not facts.is_guest:
        return _Value("host's page cache", "host")
    if any(facts.seen("domain", "root_disk")):
        return _Value("the host's disk, then the guest's page cache: nothing of the host's (cache none)", "disk")
    return _Value("the guest's own memory", "guest") if _root(facts) else None


def _data(facts: _Facts) -> _Value | None:
    """What a workload writes to. A disk whose flushes are dropped is no disk."""
    found = facts.seen("data")
    if not found:
        return _Value("none", "none")
    disks = [disk for disk in facts.seen("domain", "data_disk") if disk]
    text = ": ".join(" or ".join(map(str, part)) for part in (found, disks) if part)
    return _Value(text, text, grave="cache unsafe" in text)


def _network(facts: _Facts) -> _Value | None:
    found = facts.applied("network")
    if isinstance(found, str):
        return _Value(found, found)
    return _Value("the host's", "the host's") if facts.record.kind == "native" else None


def _link(facts: _Facts) -> _Value | None:
    path, end = facts.applied("link", "path"), facts.applied("link", "end")
    words = {"bridge": f"a bridge of benchbox's own, by {end}", "host": "loopback in the host's own network"}
    return _Value(words.get(path, path), path) if isinstance(path, str) else None


def _account_of_memory(facts: _Facts) -> _Value | None:
    """What of an instance's memory its control groups have; asked of instances that were looked at alive."""
    if not facts.seen("memory_sharing"):
        return None
    outside = facts.applied("memory_outside")
    return _Value(f"without {outside}" if outside else "all that lives with an instance", outside)


def _clock(facts: _Facts) -> _Value | None:
    latencies = [facts.applied("channel_latency_ns")]
    late = f", at most {latencies[0] / 1000:.3g} µs late" if isinstance(latencies[0], int | float) else ""
    return _Value(f"host's CLOCK_MONOTONIC{late}", "host")


def _cgroups(facts: _Facts) -> _Value | None:
    found = facts.applied("cgroups")
    return _Value(str(found), found) if found else None


_QUESTIONS: Final = (
    _Question("execution", "everything", _execution, by_design=True),
    _Question("kernel", "kernel", _kernel),
    _Question("mitigations", "kernel", _mitigations),
    _Question("CPU", "cpu", _cpu_model),
    _Question("CPU flags", "cpu", _cpu_flags),
    _Question("CPUs used", "everything", _cpus),
    _Question("CPU quota", "everything", _quota),
    _Question("memory", "everything", _memory),
    _Question("huge pages", "memory", _huge_pages, optional=True),
    _Question("usable memory", "nothing", _usable_memory, by_design=True),
    _Question("processes", "nothing", _processes, by_design=True),
    _Question("virtual hardware", "nothing", _hardware, by_design=True),
    _Question("root by digest", "everything", _image),
    _Question("binaries by digest", "everything", _binaries),
    _Question("root file system", "files", _root, by_design=True),
    _Question("cache", "files", _cache, by_design=True),
    _Question("data folder", "files", _data, by_design=True),
    _Question("namespaces", "nothing", _namespaces, by_design=True),
    _Question("hidden paths", "nothing", _hidden_paths, by_design=True),
    _Question("system call filter", "nothing", _seccomp, by_design=True),
    _Question("capabilities", "nothing", _capabilities, by_design=True),
    _Question("new privileges", "nothing", _privileges, by_design=True),
    _Question("user", "nothing", _user, by_design=True),
    _Question("network", "nothing", _network, by_design=True),
    _Question("way to the client", "network", _link, optional=True),
    _Question("account of memory", "occupancy", _account_of_memory, optional=True),
    _Question("clock", "everything", _clock),
    _Question("cgroups", "everything", _cgroups),
)
