"""Scenario files: what they mean, and every way in which they can be wrong."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from benchbox import environments, images, workloads
from benchbox.document import MAX_BYTES
from benchbox.environments.container import PARTS
from benchbox.errors import RecordError, ScenarioError, UsageError
from benchbox.images import OwnImage
from benchbox.model import EnvironmentSpec, Resources
from benchbox.scenario import (
    PARALLEL,
    Cell,
    Scenario,
    cells,
    from_resolved,
    json_schema,
    left_out,
    load,
    loads,
    planned_order,
    resolved,
    select,
    too_large,
    with_overrides,
)

FILE = "scenarios/x.yaml"
NAME, ENVIRONMENTS, WORKLOADS = "name: x\n", "environments: [native, container]\n", "workloads: [startup]\n"
WHOLE = NAME + ENVIRONMENTS + WORKLOADS
KINDS = "native, container, vm, oci, docker, format"
KERNEL = "expected host, distribution or the path of a kernel that is there"


def refusal(text: str) -> ScenarioError:
    with pytest.raises(ScenarioError) as caught:
        loads(text, FILE)
    return caught.value


def with_environments(text: str) -> str:
    return NAME + f"environments: {text}\n" + WORKLOADS


def with_workloads(text: str) -> str:
    return NAME + ENVIRONMENTS + f"workloads: {text}\n"


# --- what is right ---------------------------------------------------------------------------------------------------


def test_three_keys_are_enough() -> None:
    """Everything else has a default; the baseline is the first environment."""
    scenario = loads(WHOLE, FILE)
    assert (scenario.name, scenario.description, scenario.image) == ("x", "", "minimal")
    assert (scenario.rounds, scenario.settle_ms, scenario.timeout_s) == (20, 5.0, 60.0)
    assert scenario.resources == Resources()
    assert scenario.baseline == "native"
    assert [spec.label for spec in scenario.environments] == ["native", "container"]


def test_everything_can_be_said() -> None:
    """Sizes in words, numbers as they are, one kind twice under labels of its own."""
    scenario = loads(
        """
name: everything
description: |
  Two lines
  of text
image: minimal
baseline: plain
rounds: 7
seed: 0
settle_ms: 0
timeout_s: 1.5
resources: {cpus: 2, memory: 1.5GiB, pids: 64, cpu_quota: 0.5, disk: 1GiB}
environments:
  - {kind: container, label: plain, root: bind}
  - kind: container
    label: no
  - kind: vm
    accelerator: tcg
workloads:
  - name: command
    argv: [/bin/busybox, sh, -c, "exit 7"]
    signals_ready: false
""",
        FILE,
    )
    assert scenario.resources == Resources(2, 3 << 29, 64, 0.5, 1 << 30)
    assert [spec.label for spec in scenario.environments] == ["plain", "no", "vm"]
    assert scenario.environments[0].options["root"] == "bind"
    assert scenario.environments[2].options["accelerator"] == "tcg"
    assert (scenario.seed, scenario.settle_ms, scenario.baseline) == (0, 0.0, "plain")
    assert scenario.workloads[0].params == {"argv": "/bin/busybox sh -c 'exit 7'", "signals_ready": False}


def test_the_shipped_scenarios_are_right() -> None:
    """Each file in scenarios/ loads and is named after its file."""
    files = sorted((Path(__file__).parents[1] / "scenarios").glob("*.yaml"))
    assert files
    for file in files:
        assert load(file).name == file.stem


def test_the_anatomy_of_a_container_changes_one_thing_at_a_time() -> None:
    """Each container but the bare one differs from the whole in one part, each part has its cell; noise has too."""
    anatomy = load(Path(__file__).parents[1] / "scenarios" / "container-anatomy.yaml")
    containers = {spec.label: dict(spec.options) for spec in anatomy.environments if spec.kind == "container"}
    whole, control = containers.pop("container"), containers.pop("container-control")
    assert control == whole
    assert anatomy.control and anatomy.baseline == "container"
    changed = {label: {key for key in whole if whole[key] != own[key]} for label, own in containers.items()}
    assert changed.pop("bare") == {"root", "network", "seccomp", "without"}
    assert set(containers.pop("bare")["without"]) == set(PARTS)
    assert all(len(keys) == 1 for keys in changed.values())
    assert {key for keys in changed.values() for key in keys} == set(whole) - {"hostname", "link"}
    left_out = [own["without"] for own in containers.values() if own["without"]]
    assert sorted(left_out) == sorted([part] for part in PARTS)


def test_the_anatomy_of_a_guest_changes_one_thing_at_a_time() -> None:
    """Each guest differs from the default one in one option, each option has its cell; noise has too."""
    anatomy = load(Path(__file__).parents[1] / "scenarios" / "vm-anatomy.yaml")
    guests = {spec.label: dict(spec.options) for spec in anatomy.environments}
    whole, control = guests.pop("vm"), guests.pop("vm-control")
    assert control == whole
    assert anatomy.control and anatomy.baseline == "vm"
    changed = [{key for key in whole if whole[key] != own[key]} for own in guests.values()]
    assert all(len(keys) == 1 for keys in changed)
    others = {
        "link",
        "accelerator",
        "uri",
        "kernel",
        "kernel_modules",
        "cmdline",
        "boot_timeout_s",
        "proof_timeout_s",
        "disk_cache",
    }
    assert {key for keys in changed for key in keys} == set(whole) - others


def test_a_resolved_scenario_comes_back_the_same() -> None:
    """Through JSON, as in a manifest, and through YAML, as a file of its own."""
    scenario = loads(
        with_environments("[{kind: vm, label: v}, native]").replace("startup", "{name: command, argv: /x a}"), FILE
    )
    stored = json.loads(json.dumps(resolved(scenario)))
    assert from_resolved(stored) == scenario
    assert loads(yaml.safe_dump(stored), FILE) == scenario


def test_a_resolved_scenario_that_cannot_be_read_is_the_records_fault() -> None:
    """A record of another version may name what this one does not have."""
    stored = resolved(loads(WHOLE, FILE)) | {"future": 1}
    with pytest.raises(RecordError, match=r"future: unknown key"):
        from_resolved(stored)


def test_cells_are_environments_times_workloads_in_the_order_of_the_file() -> None:
    """An id shows the parameters, in a form without separators of its own."""
    scenario = loads(with_workloads("[startup, {name: command, argv: [/bin/sh, -c, 'a; b']}]"), FILE)
    params = {"argv": "/bin/sh -c 'a; b'", "signals_ready": "true"}
    command = "command[argv=/bin/sh -c 'a%3B b';signals_ready=true]"
    assert cells(scenario) == (
        Cell("native/startup", "native", "startup"),
        Cell(f"native/{command}", "native", "command", params),
        Cell("container/startup", "container", "startup"),
        Cell(f"container/{command}", "container", "command", params),
    )


def test_the_parameters_of_a_cell_make_a_command() -> None:
    """What a record holds is enough to run it again."""
    scenario = loads(with_workloads("[{name: command, argv: [/bin/sh, -c, 'a b'], signals_ready: false}]"), FILE)
    cell = cells(scenario)[0]
    command, _ = workloads.bound(cell.workload, cell.params)
    assert command.argv == ("/bin/sh", "-c", "a b")
    assert command.signals_ready is False


# --- narrowing and overriding ----------------------------------------------------------------------------------------


def test_only_narrows_environments_and_workloads() -> None:
    """Several of one kind add up; what is not named is kept whole."""
    scenario = loads(with_environments("[native, container, vm]"), FILE)
    assert select(scenario, None) == scenario
    assert [e.label for e in select(scenario, "env:vm").environments] == ["vm"]
    assert [e.label for e in select(scenario, "env:vm, env:native,workload:startup").environments] == ["native", "vm"]


def test_a_baseline_that_is_not_selected_is_replaced() -> None:
    """The first environment that is left takes its place, and the result is a scenario still."""
    narrowed = select(loads(with_environments("[native, container, vm]"), FILE), "env:container,env:vm")
    assert narrowed.baseline == "container"
    assert from_resolved(resolved(narrowed)) == narrowed


@pytest.mark.parametrize(
    ("only", "message", "hint"),
    [
        ("env:contaner", "--only: env: expected one of native, container; got 'contaner'", "did you mean 'container'?"),
        ("workload:x", "--only: workload: expected one of startup; got 'x'", None),
        (
            "contaner",
            "--only: expected env:LABEL, workload:NAME or parallel:N; got 'contaner'",
            "did you mean 'env:container'?",
        ),
        ("envv:vm", "--only: expected env:LABEL, workload:NAME or parallel:N; got 'envv:vm'", "did you mean 'env'?"),
        ("", "--only: expected env:LABEL, workload:NAME or parallel:N; got ''", None),
        ("env:native,", "--only: expected env:LABEL, workload:NAME or parallel:N; got ''", None),
    ],
)
def test_only_names_what_there_is(only: str, message: str, hint: str | None) -> None:
    """A typo selects nothing and says what it could have been."""
    with pytest.raises(UsageError) as caught:
        select(loads(WHOLE, FILE), only)
    assert (caught.value.message, caught.value.hint) == (message, hint)


# --- start modes -----------------------------------------------------------------------------------------------------


def test_a_start_is_warm_and_alone_unless_the_file_says_otherwise() -> None:
    """Its cells then have no parameter that says so."""
    scenario = loads(WHOLE, FILE)
    assert (scenario.cache, scenario.parallel) == ("warm", (1,))
    assert [cell.params for cell in cells(scenario)] == [{}, {}]


def test_each_number_at_once_is_a_cell_of_its_own() -> None:
    """With the number among its parameters, also where it is 1; a single number needs no list."""
    several = cells(loads(WHOLE + "parallel: [1, 4]\n", FILE))
    assert [cell.id for cell in several] == [
        "native/startup[parallel=1]", "native/startup[parallel=4]",
        "container/startup[parallel=1]", "container/startup[parallel=4]",
    ]  # fmt: skip
    assert several[1].params == {"parallel": 4}
    assert cells(loads(WHOLE + "parallel: 2\n", FILE))[0].id == "native/startup[parallel=2]"


def test_cold_and_at_once_come_back_the_same() -> None:
    """From the record's JSON, so that a run can be resumed with its file."""
    scenario = loads(WHOLE + "cache: cold\nparallel: [2, 4]\n", FILE)
    stored = resolved(scenario)
    assert json.loads(json.dumps(stored)) == stored
    assert from_resolved(stored) == scenario


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cache: hot\n", "cache: expected one of warm, cold; got 'hot'"),
        ("parallel: 0\n", "parallel: expected whole numbers from 1 to 64, such as [1, 2, 4]"),
        ("parallel: [1, 65]\n", "parallel: expected whole numbers from 1 to 64, such as [1, 2, 4]"),
        ("parallel: []\n", "parallel: expected whole numbers from 1 to 64, such as [1, 2, 4]"),
        ("parallel: [1, true]\n", "parallel: expected whole numbers from 1 to 64, such as [1, 2, 4]"),
        ("parallel: many\n", "parallel: expected whole numbers from 1 to 64, such as [1, 2, 4]"),
        ("parallel: [2, 1]\n", "parallel: expected each number once, the smallest first"),
        ("parallel: [2, 2]\n", "parallel: expected each number once, the smallest first"),
    ],
)
def test_a_start_mode_that_does_not_exist_is_refused(text: str, message: str) -> None:
    """With file, line and key."""
    assert f"{FILE}:4: {message}" in refusal(WHOLE + text).message


def test_only_takes_numbers_at_once() -> None:
    """Those that the file has."""
    scenario = loads(WHOLE + "parallel: [1, 2, 4]\n", FILE)
    assert select(scenario, "parallel:2,parallel:4").parallel == (2, 4)
    assert select(scenario, "env:native").parallel == (1, 2, 4)
    with pytest.raises(UsageError, match="--only: parallel: expected one of 1, 2, 4; got '8'"):
        select(scenario, "parallel:8")


def test_guests_at_once_must_fit_into_memory() -> None:
    """Together; what is no guest takes only what it touches, and one alone is the host's to judge."""
    several = loads(WHOLE + "parallel: [1, 4]\n", FILE)
    assert too_large(several, "vm", 4 * (256 << 20)) is None
    assert too_large(several, "vm", 4 * (256 << 20) - 1) == (
        "4 guests at once of 256 MiB need 1 GiB, this host has 1024 MiB available"
    )
    assert too_large(several, "container", 1) is None
    assert too_large(several, "vm", None) is None
    assert too_large(loads(WHOLE, FILE), "vm", 1) is None


def test_no_workload_has_a_parameter_that_says_how_many_at_once() -> None:
    """That key belongs to the scenario."""
    assert [name for name in workloads.NAMES if PARALLEL in workloads.params_model(name).model_fields] == []


def test_the_command_line_overrides_rounds_and_seed() -> None:
    """What is not given stays; zero is a seed."""
    scenario = loads(WHOLE, FILE)
    assert with_overrides(scenario) == scenario
    assert (with_overrides(scenario, rounds=3).rounds, with_overrides(scenario, seed=0).seed) == (3, 0)


@pytest.mark.parametrize("wrong", [{"rounds": 0}, {"rounds": -1}, {"rounds": 10_001}, {"seed": -1}, {"seed": 1 << 63}])
def test_an_override_out_of_range_is_refused(wrong: dict[str, int]) -> None:
    """The same bounds hold as in a file."""
    with pytest.raises(UsageError, match=rf"--{next(iter(wrong))}: expected a whole number from"):
        with_overrides(loads(WHOLE, FILE), **wrong)


# --- what is wrong ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        (WHOLE + "rouns: 3\n", ":4: rouns: unknown key; expected one of name, description, image, baseline, rounds, "
            "seed, resources, control, cache, parallel, memory_budget, settle_ms, timeout_s, environments, workloads",
            "did you mean 'rounds'?"),
        (WHOLE + "resources:\n  cpu: 1\n",
            ":5: resources.cpu: unknown key; expected one of cpus, memory, pids, cpu_quota, disk",
            "did you mean 'cpus'?"),
        ("name: x\nenvironments: [native]\nworkloads: [{name: []}]\n",
            ":3: workloads[0].name: expected one of {names}; got '[]'", None),
        (WHOLE + "name: y\n", ":4: name: duplicate key; it is on line 1 already", "keep one of them"),
        (with_environments("[nativ]"),
            f":2: environments[0]: expected one of {KINDS}; got 'nativ'", "did you mean 'native'?"),
        (with_environments("[{kind: Container}]"),
            f":2: environments[0].kind: expected one of {KINDS}; got 'Container'", "did you mean 'container'?"),
        (with_environments("[{label: x}]"),
            ":2: environments[0]: expected text or a mapping with 'kind'; got a mapping", None),
        (with_environments("[3]"), ":2: environments[0]: expected a mapping; got 3", None),
        (with_environments("\n  - native\n  - kind: vm\n    accelerator: kwm"),
            ":5: environments[1].accelerator: expected one of auto, kvm, tcg; got 'kwm'", "did you mean 'kvm'?"),
        (with_environments("[{kind: container, network: yes}]"),
            ":2: environments[0].network: expected true or false; got 'yes'", "write true"),
        (with_environments("[{kind: vm, kernel: /no/vmlinuz}]"),
            f":2: environments[0].kernel: {KERNEL}; got '/no/vmlinuz'",
            None),
        (with_environments("[{kind: vm, kernel: hots}]"),
            f":2: environments[0].kernel: {KERNEL}; got 'hots'",
            "did you mean 'host'?"),
        (with_environments("[{kind: vm, kernel_modules: /no}]"),
            ":2: environments[0].kernel_modules: expected a folder of kernel modules that is there; got '/no'", None),
        (with_environments("[vm, vm]"),
            ":2: environments[1]: a second environment is called 'vm'", "give it a label of its own"),
        (with_environments("[{kind: native, label: A b}]"), ":2: environments[0].label: expected up to 64 lower-case "
            "letters, digits and dashes, no dash first; got 'A b'", None),
        (with_environments("[]"), ":2: environments: expected a list of at least 1; got an empty list", None),
        (with_environments(""), ":2: environments: expected a list; got nothing", None),
        (with_environments("native"), ":2: environments: expected a list; got 'native'", None),
        (with_workloads("[]"), ":3: workloads: expected a list of at least 1; got an empty list", None),
        (with_workloads("[statrup]"),
            ":3: workloads[0]: expected one of {names}; got 'statrup'",
            "did you mean 'startup'?"),
        (with_workloads("[{name: startup, delay_ms: 3}]"),
            ":3: workloads[0].delay_ms: unknown key; expected one of name", None),
        (with_workloads("[command]"), ":3: workloads[0].argv: this key is missing", "add 'argv: ...'"),
        (with_workloads("[startup, startup]"),
            ":3: workloads[1]: the same as one above it", "remove it, or change a parameter"),
        (NAME + ENVIRONMENTS, ":1: workloads: this key is missing", "add 'workloads: ...'"),
        (ENVIRONMENTS + WORKLOADS, ":1: name: this key is missing", "add 'name: ...'"),
        (WHOLE.replace("x", "../x", 1),
            ":1: name: expected up to 64 lower-case letters, digits and dashes, no dash first; got '../x'", None),
        (WHOLE.replace("x", "7", 1), ":1: name: expected text; got 7", None),
        (WHOLE + "rounds: 0\n", ":4: rounds: expected a number of at least 1; got 0", None),
        (WHOLE + "rounds: -3\n", ":4: rounds: expected a number of at least 1; got -3", None),
        (WHOLE + "rounds: 10001\n", ":4: rounds: expected a number of at most 10000; got 10001", None),
        (WHOLE + "rounds: true\n", ":4: rounds: expected a whole number; got true", None),
        (WHOLE + "rounds: 2.0\n", ":4: rounds: expected a whole number; got 2.0", None),
        (WHOLE + "rounds: many\n", ":4: rounds: expected a whole number; got 'many'", None),
        (WHOLE + 'rounds: "20"\n', ":4: rounds: expected a whole number; got '20'", "write it without quotes"),
        (WHOLE + "seed: -1\n", ":4: seed: expected a number of at least 0; got -1", None),
        (WHOLE + "settle_ms: -0.5\n", ":4: settle_ms: expected a number of at least 0; got -0.5", None),
        (WHOLE + "timeout_s: 0\n", ":4: timeout_s: expected a number above 0; got 0", None),
        (WHOLE + "timeout_s: .inf\n", ":4: timeout_s: expected a number; got '.inf'", None),
        (WHOLE + "resources: 3\n", ":4: resources: expected a mapping; got 3", None),
        (WHOLE + "resources: {memory: 12 potatoes}\n",
            ":4: resources.memory: expected a size of at least 1MiB, such as 256MiB; got '12 potatoes'", None),
        (WHOLE + "resources: {memory: 256}\n",
            ":4: resources.memory: expected a size of at least 1MiB, such as 256MiB; got 256", None),
        (WHOLE + "resources: {memory: -1GiB}\n",
            ":4: resources.memory: expected a size of at least 1MiB, such as 256MiB; got '-1GiB'", None),
        (WHOLE + "resources: {memory: true}\n",
            ":4: resources.memory: expected a size of at least 1MiB, such as 256MiB; got true", None),
        (WHOLE + "resources: {cpus: 0}\n", ":4: resources.cpus: expected a number of at least 1; got 0", None),
        (WHOLE + "resources: {cpu_quota: 0}\n", ":4: resources.cpu_quota: expected a number above 0; got 0", None),
        (WHOLE + "baseline: contaner\n", ":4: baseline: no such environment; expected one of native, container; got "
            "'contaner'", "did you mean 'container'?"),
        (WHOLE + "image: minimall\n",
            ":4: image: no such image; expected one of {images}; got 'minimall'", "did you mean 'minimal'?"),
        (WHOLE + "description: !!python/name:os.system\n",
            ":4: description: tag !!python/name:os.system is not allowed", "write plain YAML"),
        (WHOLE + "---\n", ":4: a second document starts here; expected one", None),
        ("", ":1: the file is empty", "see scenarios/startup.yaml for an example"),
        ("# nothing\n", ":1: the file is empty", "see scenarios/startup.yaml for an example"),
        ("- native\n", ":1: expected keys and values, such as 'name: startup'", None),
        ("startup\n", ":1: expected keys and values, such as 'name: startup'", None),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_file_line_key_and_remedy(text: str, message: str, hint: str | None) -> None:
    """What was found, what is expected, and the nearest right spelling."""
    error = refusal(text)
    assert error.message == FILE + message.format(images=", ".join(images.TABLE), names=", ".join(workloads.NAMES))
    assert error.hint == hint


@pytest.mark.parametrize("name", ["python", "redis"])
def test_a_workload_of_the_distribution_needs_an_image_that_has_it(name: str) -> None:
    """It would fail in every sample."""
    text = f"name: x\nenvironments: [native]\nworkloads:\n  - startup\n  - {name}\n"
    error = refusal(text)
    package = workloads.PACKAGES[name]
    assert error.message == f"{FILE}:5: workloads[1]: the image 'minimal' has no {package}, which '{name}' runs"
    assert error.hint == "set image: debian-start or debian"
    assert loads(f"{text}image: debian-start\n", FILE).image == "debian-start"


def own_image(text: str) -> str:
    return f"{ENVIRONMENTS}{WORKLOADS}name: x\nimage:\n  {text}\n"


def test_an_image_may_be_the_user_s_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder, an archive, an OCI image, packages: paths are those of whoever runs it, and come back from a record."""
    (tmp_path / "root").mkdir()
    (tmp_path / "x.tar").touch()
    monkeypatch.chdir(tmp_path)
    given = {
        "directory: root": OwnImage("directory", tmp_path / "root"),
        f"tar: {tmp_path}/x.tar": OwnImage("tar", tmp_path / "x.tar"),
        "oci: x.tar": OwnImage("oci", tmp_path / "x.tar"),
        "oci: ./root": OwnImage("oci", tmp_path / "root"),
        "packages: [fio, zstd]": OwnImage("packages", packages=("fio", "zstd")),
    }
    for text, image in given.items():
        scenario = loads(own_image(text), FILE)
        assert scenario.image == image
        assert from_resolved(json.loads(json.dumps(resolved(scenario)))) == scenario


def test_a_record_is_read_when_its_image_has_gone(tmp_path: Path) -> None:
    """A new run of it is not possible."""
    (tmp_path / "x.tar").touch()
    scenario = loads(own_image(f"tar: {tmp_path}/x.tar"), FILE)
    (tmp_path / "x.tar").unlink()
    assert from_resolved(resolved(scenario)).image == scenario.image
    assert refusal(own_image(f"tar: {tmp_path}/x.tar")).message.startswith(
        f"{FILE}:5: image.tar: expected a tar archive"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tar: /nowhere.tar", "5: image.tar: expected a tar archive that is there; got '/nowhere.tar'"),
        ("oci: /nowhere", "5: image.oci: expected an OCI archive or layout that is there; got '/nowhere'"),
        ("directory: /dev/null", "5: image.directory: expected a folder that is there; got '/dev/null'"),
        ("tar: /", "5: image.tar: expected a folder of its own; this is the root of this host; got '/'"),
        (
            "directory: /usr/..",
            "5: image.directory: expected a folder of its own; this is the root of this host; got '/usr/..'",
        ),
        ("tar: 7", "5: image.tar: expected text; got 7"),
        ("tar: ''", "5: image.tar: expected text that is not empty; got ''"),
        ("tar: /a\n  oci: /b", "4: image: expected exactly one of directory, tar, oci, packages; got a mapping"),
        ("tarr: /a", "5: image.tarr: unknown key; expected one of directory, tar, oci, packages"),
        ("- minimal", "4: image: expected text; got a list"),
        ("packages: []", "5: image.packages: expected a list of at least 1; got an empty list"),
        (
            "packages: [fio,\n    --include=x]",
            "6: image.packages[1]: expected names of packages of the distribution; got '--include=x'",
        ),
    ],
)
def test_an_image_that_cannot_be_is_refused_with_its_line(text: str, message: str) -> None:
    """Before anything is started."""
    assert refusal(own_image(text)).message == f"{FILE}:{message}"


def test_a_workload_needs_its_package_among_those_of_the_list() -> None:
    """Of an archive nobody knows before it is run."""
    text = f"name: x\n{ENVIRONMENTS}workloads: [redis]\nimage:\n  packages: [{{}}]\n"
    assert "this list of packages has no redis-server, which 'redis' runs" in refusal(text.format("fio")).message
    assert loads(text.format("redis-server"), FILE)


def test_an_option_of_another_environment_says_whose_it_is() -> None:
    """``accelerator`` is right, but not there."""
    error = refusal(with_environments("[{kind: container, accelerator: kvm}]"))
    assert error.message.startswith(f"{FILE}:2: environments[0].accelerator: unknown key; expected one of kind, label")
    assert error.hint == "it is an option of vm"


def test_all_errors_of_a_file_are_said_at_once_in_their_order() -> None:
    """One line each, hints in their lines."""
    error = refusal(
        "rounds: 0\nname: x\nenvironments:\n  - nativ\n  - vm\nworkloads: [startup]\nbaseline: vn\nseeed: 1\n"
    )
    assert error.message.splitlines() == [
        f"{FILE}:1: rounds: expected a number of at least 1; got 0",
        f"{FILE}:4: environments[0]: expected one of {KINDS}; got 'nativ' (did you mean 'native'?)",
        f"{FILE}:7: baseline: no such environment; expected one of nativ, vm; got 'vn' (did you mean 'vm'?)",
        f"{FILE}:8: seeed: unknown key; expected one of name, description, image, baseline, rounds, seed, resources, "
        "control, cache, parallel, memory_budget, settle_ms, timeout_s, environments, workloads (did you mean 'seed'?)",
    ]
    assert error.hint is None


def test_what_an_alias_stands_for_is_not_an_error_of_its_own() -> None:
    """The alias is what is wrong, not the value that it leaves open."""
    error = refusal("name: &n x\nimage: *n\n" + ENVIRONMENTS + WORKLOADS)
    assert error.message.splitlines() == [
        f"{FILE}:1: name: anchor &n is not allowed (write the value out)",
        f"{FILE}:2: image: alias *n is not allowed (write the value out)",
    ]


def test_long_values_are_shown_short() -> None:
    """A message stays readable whatever a file holds."""
    assert len(refusal(WHOLE + f"rounds: {'x' * 5000}\n").message) < 200


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"name: \xff\n", ":1: not UTF-8 text (byte 6)"),
        (b"#" * (MAX_BYTES + 1), ":1: longer than 256 KiB"),
        (b"name: x\nenvironments: [\n", ":3: not YAML: did not find expected node content"),
        (b"\x00\x01", ":1: not YAML: control characters are not allowed"),
    ],
)
def test_a_file_that_is_no_text_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    """With the name that the user gave it."""
    file = tmp_path / "x.yaml"
    file.write_bytes(data)
    with pytest.raises(ScenarioError) as caught:
        load(file)
    assert caught.value.message == f"{file}{message}"


def test_a_missing_file_names_the_one_that_was_meant(tmp_path: Path) -> None:
    """Nearest by name in the same folder."""
    (tmp_path / "startup.yaml").write_text(WHOLE)
    with pytest.raises(ScenarioError, match=r"startupp\.yaml: no such file") as caught:
        load(tmp_path / "startupp.yaml")
    assert caught.value.hint == "did you mean 'startup.yaml'?"


def test_a_folder_is_no_scenario(tmp_path: Path) -> None:
    """It cannot be read as one."""
    with pytest.raises(ScenarioError, match=r"cannot be read: Is a directory"):
        load(tmp_path)


@given(
    st.dictionaries(
        st.sampled_from(["name", "image", "baseline", "rounds", "resources", "environments", "workloads", "x", "seed"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["native", "vm", "startup", ""]),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.sampled_from(["kind", "name", "label", "memory", "argv", "vm"]), inner, max_size=3)
            ),
            max_leaves=6,
        ),
    )
)
def test_any_yaml_is_either_a_scenario_or_refused_with_a_place(value: dict[str, object]) -> None:
    """Nothing else is ever raised, and each line of a message begins with file and line."""
    try:
        scenario = loads(yaml.safe_dump(value), FILE)
    except ScenarioError as error:
        assert all(line.startswith(f"{FILE}:") for line in error.message.splitlines())
    else:
        assert isinstance(scenario, Scenario)


# --- for editors -----------------------------------------------------------------------------------------------------


def test_the_schema_knows_each_environment_and_workload_with_its_options() -> None:
    """An editor completes and checks what ``load`` accepts."""
    schema = json_schema()
    definitions = schema["$defs"]
    for kind in environments.KINDS:
        options = environments.options_model(kind).model_fields
        assert set(definitions[f"{kind}-environment"]["properties"]) == {"kind", "label", *options}
    for name in workloads.NAMES:
        assert definitions[f"{name}-workload"]["additionalProperties"] is False
    assert schema["properties"]["environments"]["items"]["anyOf"][0] == {"enum": list(environments.KINDS)}
    assert schema["properties"]["workloads"]["items"]["anyOf"][0] == {
        "enum": [name for name in workloads.TABLE if name not in ("command", "disk", "copy-up")]
    }
    assert schema["required"] == ["name", "environments", "workloads"]


def test_a_scenario_holds_plain_frozen_values() -> None:
    """Options are complete: nobody below has to know a default."""
    scenario = loads(WHOLE, FILE)
    assert isinstance(scenario.environments[1], EnvironmentSpec)
    assert set(scenario.environments[1].options) == set(environments.options_model("container").model_fields)
    with pytest.raises(AttributeError):
        scenario.rounds = 3  # type: ignore[misc]


# --- the A/A control -------------------------------------------------------------------------------------------------

CONTROLLED = "name: x\ncontrol: true\nenvironments: [native, {kind: container, root: bind}]\nworkloads: [startup]\n"


def test_a_control_is_the_baseline_once_more_right_behind_it() -> None:
    """Same kind, same options, a label of its own; plan and record know it like any other."""
    scenario = loads(CONTROLLED + "baseline: container\n", FILE)
    assert [spec.label for spec in scenario.environments] == ["native", "container", "container-control"]
    first, again = scenario.environments[1:]
    assert (again.kind, again.options) == (first.kind, first.options)
    assert [cell.id for cell in cells(scenario)][-1] == "container-control/startup"


def test_without_control_there_is_none() -> None:
    """Nobody measures twice unasked."""
    assert [spec.label for spec in loads(CONTROLLED.replace("true", "false"), FILE).environments] == [
        "native",
        "container",
    ]


def test_a_resolved_scenario_has_its_control_once() -> None:
    """Reading the record gives the same scenario again, however often."""
    scenario = loads(CONTROLLED, FILE)
    assert from_resolved(resolved(scenario)) == scenario
    assert resolved(scenario)["control"] is True


@pytest.mark.parametrize(
    ("only", "labels", "control"),
    [
        ("env:native", ["native", "native-control"], True),
        ("env:container", ["container"], False),
        ("env:native-control", ["native-control"], False),
        ("workload:startup", ["native", "native-control", "container"], True),
    ],
)
def test_the_control_stays_with_its_baseline(only: str, labels: list[str], control: bool) -> None:
    """A selection without the baseline has no control; it is another environment then."""
    narrowed = select(loads(CONTROLLED, FILE), only)
    assert [spec.label for spec in narrowed.environments] == labels
    assert narrowed.control is control
    assert from_resolved(resolved(narrowed)) == narrowed


def test_a_taken_label_of_the_control_is_refused() -> None:
    """Unless it is the control itself, written out."""
    taken = CONTROLLED.replace("kind: container,", "kind: container, label: native-control,")
    error = refusal(taken)
    assert error.message == f"{FILE}:2: control: another environment is called 'native-control'"
    written = (
        "name: x\ncontrol: true\nenvironments: [native, {kind: native, label: native-control}]\nworkloads: [startup]\n"
    )
    assert len(loads(written, FILE).environments) == 2


def test_a_label_that_leaves_no_room_for_the_controls_is_refused() -> None:
    """Before the control's label would be one that no reader accepts."""
    text = f"name: x\ncontrol: true\nenvironments: [{{kind: native, label: {'a' * 60}}}]\nworkloads: [startup]\n"
    assert "which is too long" in refusal(text).message


# --- memory budget ---


def budgeted(**keys: Any) -> Scenario:
    data = {"name": "x", "environments": ["native", "vm"], "workloads": ["idle"], "parallel": [1, 2, 4], **keys}
    return loads(json.dumps(data), "x.yaml")


def test_numbers_whose_memory_is_more_than_the_budget_are_left_out() -> None:
    """In every environment alike, with both sums; what just fits is measured."""
    found = budgeted(memory_budget="512MiB", resources={"memory": "256MiB"})
    assert left_out(found, 2, 8 << 30) is None
    assert left_out(found, 4, 8 << 30) == "left out: 4 x 256 MiB need 1 GiB, the memory budget is 512 MiB"
    assert left_out(found, 2, 300 << 20) == ("left out: 2 x 256 MiB need 512 MiB, this host has 300 MiB available")
    assert left_out(found, 2, None) is None
    assert left_out(budgeted(), 64, 1) is None


def test_with_a_budget_guests_fail_only_where_the_fewest_do_not_fit() -> None:
    """The larger numbers are left out instead."""
    found = budgeted(memory_budget="4GiB", parallel=[2, 16])
    assert too_large(found, "vm", 1 << 30) is None
    assert "2 guests at once" in (too_large(found, "vm", 300 << 20) or "")
    assert "16 guests at once" in (too_large(budgeted(parallel=[2, 16]), "vm", 1 << 30) or "")


def test_a_budget_survives_the_record() -> None:
    """As bytes."""
    found = budgeted(memory_budget="512MiB")
    assert resolved(found)["memory_budget"] == 512 << 20
    assert from_resolved(resolved(found)) == found


def test_the_priming_round_has_the_smallest_number_only() -> None:
    """All others have each cell once."""
    order = planned_order(budgeted(rounds=2))
    assert sorted(order[0]) == ["native/idle[parallel=1]", "vm/idle[parallel=1]"]
    assert [len(set(names)) for names in order[1:]] == [6, 6]
    plain = loads(json.dumps({"name": "x", "environments": ["native"], "workloads": ["idle", "light"]}), "x")
    assert len(planned_order(plain)[0]) == 2


def test_what_is_counted_is_not_primed() -> None:
    """A format is weighed in each round, and not once more before them."""
    text = json.dumps({"name": "x", "environments": [{"kind": "format"}], "workloads": ["image-size"], "rounds": 1})
    assert planned_order(loads(text, "x")) == ((), ("format/image-size",))


# --- formats ---


@pytest.mark.parametrize(
    ("environments", "workloads", "message"),
    [
        ("[native, {kind: format}]", "[image-size]", "environments[0]: native cannot be weighed by image-size"),
        ("[{kind: format}]", "[startup]", "workloads[0]: startup cannot run in a format"),
        ("[native]", "[startup, image-size]", "environments[0]: native cannot be weighed by image-size"),
        ("[{kind: format, format: installed}]", "[image-size]", "expected packages beside format: installed"),
    ],
)
def test_formats_are_weighed_and_nothing_else_is(environments: str, workloads: str, message: str) -> None:
    """Neither goes with another: nothing runs in a format, and what runs has no weight."""
    assert message in refusal(f"{NAME}environments: {environments}\nworkloads: {workloads}\n").message
    whole = loads(
        f"{NAME}environments: [format, {{kind: format, label: x, format: oci}}]\nworkloads: [image-size]\n", "x"
    )
    assert [spec.options["format"] for spec in whole.environments] == ["directory", "oci"]


@pytest.mark.parametrize(
    ("entry", "hint"),
    [
        ("native", "write it as {kind: native, link: bridge}"),
        ("vm", "write it as {kind: vm, link: bridge}"),
        ("oci", "write it as {kind: oci, link: bridge}"),
        ("docker", "write it as {kind: docker, link: bridge}"),
    ],
)
def test_a_workload_with_a_client_needs_a_link(entry: str, hint: str) -> None:
    """It would fail in every sample."""
    text = f"name: x\nenvironments:\n  - {{kind: container, link: bridge}}\n  - {entry}\nworkloads: [network-latency]\n"
    error = refusal(text)
    assert error.message == (
        f"{FILE}:4: environments[1]: 'network-latency' has a client, to which this environment has no link"
    )
    assert error.hint == hint
    assert loads(text.replace("network-latency", "startup"), FILE)


def test_what_can_have_no_link_is_not_told_to_have_one() -> None:
    """A format runs nothing that a client could ask."""
    message = refusal("name: x\nenvironments: [format]\nworkloads: [network-latency]\n").message
    assert "no link (measure it in a scenario without it)" in message and "link: bridge" not in message


def test_a_workload_with_a_client_is_measured_alone() -> None:
    """Its client asks one server."""
    text = "name: x\nparallel: [1, 2]\nenvironments: [{kind: native, link: bridge}]\nworkloads: [network-latency]\n"
    assert "parallel: 'network-latency' has a client, which asks one server alone" in refusal(text).message
