"""What a run leaves on disk: written safely, read strictly, found by name."""

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from benchbox.errors import RecordError, TrustError
from benchbox.record import (
    FORMAT_VERSION,
    AbandonedCell,
    CellRecord,
    EnvironmentRecord,
    Instance,
    Manifest,
    MetricValue,
    RunFolder,
    Sample,
    SampleWriter,
    check_writable,
    create,
    drop_after_round,
    find_run,
    format_pairs,
    last_whole_round,
    list_runs,
    new_run_id,
    open_interrupted,
    read_manifest,
    read_samples,
    write_manifest,
)
from tests.foreign import STRANGER, seems

RUN = "startup-20260102T030405Z-0a1b"


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def manifest(run_id: str = RUN, **changes: Any) -> Manifest:
    given: dict[str, Any] = {
        "run_id": run_id, "created_at": "2026-01-02T03:04:05Z", "scenario": {"name": "startup"}, "seed": 1, "rounds": 2,
        "baseline": "a", "order": [["a/w", "b/w"], ["b/w", "a/w"], ["a/w", "b/w"]], "host": {}, "host_digest": "d",
        "boot_id": "b",
        "cells": [CellRecord(id=f"{label}/w", environment=label, workload="w") for label in "ab"],
        "environments": [EnvironmentRecord(label=label, kind="native", state="measured") for label in "ab"],
    }  # fmt: skip
    return Manifest(**{**given, **changes})


def sample(cell: str = "a/w", round: int = 1, **changes: Any) -> Sample:
    given: dict[str, Any] = {
        "cell": cell, "environment": cell[0], "workload": "w", "round": round, "position": 0, "predecessor": None,
        "started_at": "2026-01-02T03:04:05Z", "status": "ok", "requested_ns": 1, "stages": {"ready": 5},
        "metrics": {"startup.ready": MetricValue(value=5e-9, unit="s")},
    }  # fmt: skip
    return Sample(**{**given, **changes})


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return create(tmp_path / "results", manifest())


def write(folder: RunFolder, *samples: Sample) -> None:
    with SampleWriter(folder) as writer:
        for each in samples:
            writer.append(each)


# --- writing ---------------------------------------------------------------------------------------------------------


def test_a_run_id_is_scenario_time_and_token() -> None:
    """The time is UTC whatever zone it comes in."""
    now = datetime(2026, 1, 2, 4, 4, 5, tzinfo=timezone(timedelta(hours=1)))
    assert new_run_id("startup", now, "0a1b") == RUN
    assert new_run_id("a-b", now.astimezone(UTC), "ffff") == "a-b-20260102T030405Z-ffff"


@pytest.mark.parametrize(("name", "token"), [("../x", "0a1b"), ("x", "0A1B"), ("x", "../.."), ("", "0a1b")])
def test_a_run_id_never_leaves_its_folder(name: str, token: str) -> None:
    """Only slugs and hex digits go into it."""
    with pytest.raises(ValueError, match="is no run id"):
        new_run_id(name, datetime(2026, 1, 2, tzinfo=UTC), token)


def test_a_new_run_has_a_manifest_and_no_samples(folder: RunFolder) -> None:
    """Both files exist from the first instant, so that a run that is ended at once can be read."""
    assert sorted(path.name for path in folder.path.iterdir()) == ["manifest.json", "samples.jsonl"]
    assert read_manifest(folder) == manifest()
    assert read_samples(folder) == ([], [])


def test_a_run_is_never_written_over_another(tmp_path: Path, folder: RunFolder) -> None:
    """The same id twice is refused."""
    with pytest.raises(RecordError, match="cannot be written: File exists"):
        create(tmp_path / "results", manifest())


def test_a_results_folder_that_cannot_be_written_is_refused_with_a_remedy(tmp_path: Path) -> None:
    """Before anything starts: it is a file, or in a place where nobody can write."""
    (tmp_path / "file").write_text("")
    for results in (tmp_path / "file", tmp_path / "file/below", Path("/proc/benchbox")):
        with pytest.raises(RecordError, match=rf"^{results}: cannot be written: ") as caught:
            check_writable(results)
        assert caught.value.hint == "choose another folder with --results DIR"


def test_a_results_folder_is_made_and_left_empty(tmp_path: Path) -> None:
    """The proof leaves nothing."""
    check_writable(tmp_path / "a/b")
    assert list((tmp_path / "a/b").iterdir()) == []


def test_a_manifest_is_replaced_as_a_whole(folder: RunFolder) -> None:
    """Whoever has the old one open still reads it, and nothing else is left in the folder."""
    with folder.manifest.open() as old:
        write_manifest(folder, manifest(exit_state="done"))
        assert '"running"' in old.read()
    assert read_manifest(folder.path).exit_state == "done"
    assert len(list(folder.path.iterdir())) == 2


def test_samples_come_back_as_they_were_written(folder: RunFolder) -> None:
    """Unicode, failures and numbers of any size included."""
    written = [
        sample(),
        sample("b/w", status="failed", reason="exit status 7", exit_code=7, metrics={}, output_tail="é\n\u2028\x00"),
        sample("b/w", 2, requested_ns=2**62, flags={"accelerator": "tcg"}, params={"a": 1, "b": 0.5, "c": "x"}),
    ]
    write(folder, *written)
    assert read_samples(folder) == (written, [])
    assert len(folder.samples.read_bytes().splitlines()) == 3


def test_a_sample_is_on_its_way_the_moment_it_is_appended(folder: RunFolder) -> None:
    """No buffer in this process holds it back."""
    writer = SampleWriter(folder)
    try:
        writer.append(sample())
        assert read_samples(folder)[0] == [sample()]
        writer.sync()
    finally:
        writer.close()
        writer.close()


def test_a_writer_removes_a_torn_line_before_it_appends(folder: RunFolder) -> None:
    """Otherwise the next sample would be glued to it and both be lost."""
    write(folder, sample())
    with folder.samples.open("ab") as file:
        file.write(b'{"format":1,"cell":"b/')
    write(folder, sample("b/w"))
    assert read_samples(folder) == ([sample(), sample("b/w")], [])


def test_a_full_disk_is_said(folder: RunFolder) -> None:
    """/dev/full answers each write with ENOSPC."""
    folder.samples.unlink()
    folder.samples.symlink_to("/dev/full")
    writer = SampleWriter(folder)
    with pytest.raises(RecordError, match="cannot be written: No space left on device"):
        writer.append(sample())
    writer.close()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_json_does_not_have_is_refused_when_it_is_made(value: float) -> None:
    """Stored, it would make the record unreadable."""
    with pytest.raises(ValidationError):
        MetricValue(value=value, unit="s")
    with pytest.raises(ValidationError):
        sample(noise={"load1": value})


# --- reading ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "torn",
    [b'{"format":1,"cell":"b/w"', sample().model_dump_json().encode(), b"\x00\x00\x00", b"{\n", b"\x00\x00\n"],
)
def test_a_torn_last_line_is_left_out_and_said(folder: RunFolder, torn: bytes) -> None:
    """Cut short, without its line end, or full of zeros after a power cut."""
    write(folder, sample())
    with folder.samples.open("ab") as file:
        file.write(torn)
    samples, notes = read_samples(folder)
    assert samples == [sample()]
    assert notes == [
        f"{folder.samples}:2: the last line is torn (the run was ended while it was written); it is left out"
    ]


@pytest.mark.parametrize("broken", [b"{nonsense}", b"", b"[]", b'{"format":1}', b'{"format":true}'])
def test_a_broken_line_in_the_middle_is_an_error_with_its_number(folder: RunFolder, broken: bytes) -> None:
    """That was no power cut; nothing is guessed."""
    line = sample().model_dump_json().encode()
    folder.samples.write_bytes(b"\n".join([line, broken, line, b""]))
    with pytest.raises(RecordError, match=r"samples\.jsonl:2: ") as caught:
        read_samples(folder)
    assert caught.value.hint


def test_a_whole_last_line_that_is_no_sample_is_an_error(folder: RunFolder) -> None:
    """Only what cannot be JSON counts as torn: an unknown key is somebody's doing."""
    folder.samples.write_bytes(sample().model_dump_json().encode()[:-1] + b',"new":1}\n')
    with pytest.raises(RecordError, match=r"samples\.jsonl:1: new: Extra inputs"):
        read_samples(folder)


def test_a_record_of_the_first_format_is_read(folder: RunFolder) -> None:
    """It knew of no instances: every sample was one."""
    old = sample(format=1).model_dump(exclude={"instances"})
    folder.samples.write_text(json.dumps(old) + "\n")
    folder.manifest.write_text(manifest(format=1).model_dump_json())
    (found,), _ = read_samples(folder)
    assert (found.format, found.instances, read_manifest(folder).format) == (1, [], 1)


def test_every_one_of_several_at_once_comes_back(folder: RunFolder) -> None:
    """With its own request and stamps; one that never began has neither."""
    each = [Instance("ok", None, 70, {"ready": 5}), Instance("failed", "no cgroup", None, {})]
    write(folder, sample(instances=each))
    assert read_samples(folder)[0][0].instances == each


NEWER = "written by a newer benchbox: format 4, this one reads up to 3"


@pytest.mark.parametrize("extra", ["", ',"of_the_future":[]'])
def test_samples_of_a_newer_format_are_refused(folder: RunFolder, extra: str) -> None:
    """Whether or not they look the same; also in the last line."""
    line = sample(format=FORMAT_VERSION + 1).model_dump_json()
    folder.samples.write_text(f"{line[:-1]}{extra}}}\n")
    with pytest.raises(RecordError, match=NEWER) as caught:
        read_samples(folder)
    assert "install the newer benchbox" in str(caught.value.hint)


@pytest.mark.parametrize("extra", ["", ',"of_the_future":[]'])
def test_a_manifest_of_a_newer_format_is_refused(folder: RunFolder, extra: str) -> None:
    """With the remedy, not with a list of keys it does not know."""
    text = manifest(format=FORMAT_VERSION + 1).model_dump_json()
    folder.manifest.write_text(f"{text[:-1]}{extra}}}")
    with pytest.raises(RecordError, match=NEWER):
        read_manifest(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "\x00", '{"format": "new"}', "[" * 100_000])
def test_a_broken_manifest_is_an_error_with_its_path(folder: RunFolder, text: str) -> None:
    """Never anything but a RecordError."""
    folder.manifest.write_text(text)
    with pytest.raises(RecordError, match=r"manifest\.json: "):
        read_manifest(folder)


@pytest.mark.parametrize("read", [read_manifest, read_samples])
def test_a_missing_file_is_an_error_with_a_remedy(tmp_path: Path, read: Callable[[Path], object]) -> None:
    """It says what would show the runs that are there."""
    with pytest.raises(RecordError, match="no such file") as caught:
        read(tmp_path)
    assert "benchbox list" in str(caught.value.hint)


# --- resuming --------------------------------------------------------------------------------------------------------


def test_the_last_whole_round_has_every_cell() -> None:
    """The priming round is round 0; a hole in the middle ends it."""
    whole = [sample("a/w", 0), sample("b/w", 0), sample("b/w", 1), sample("a/w", 1)]
    assert last_whole_round(manifest(), []) == -1
    assert last_whole_round(manifest(), whole[:1]) == -1
    assert last_whole_round(manifest(), whole[:3]) == 0
    assert last_whole_round(manifest(), whole) == 1
    assert last_whole_round(manifest(), [*whole, sample("a/w", 2)]) == 1
    assert last_whole_round(manifest(), [sample("a/w", 2), sample("b/w", 2)]) == -1
    assert last_whole_round(manifest(), [*whole, sample("a/w", 2), sample("b/w", 2)]) == 2


def test_what_was_not_to_be_measured_is_not_missed() -> None:
    """Neither a skipped environment nor an abandoned cell."""
    only_a = [sample("a/w", number) for number in range(3)]
    skipped = [EnvironmentRecord(label="b", kind="vm", state="skipped", reason="no QEMU")]
    assert last_whole_round(manifest(environments=skipped), only_a) == 2
    given_up = [AbandonedCell(cell="b/w", reason="timed out", after_round=0)]
    assert last_whole_round(manifest(abandoned=given_up), only_a) == -1
    assert last_whole_round(manifest(abandoned=given_up), [*only_a, sample("b/w", 0)]) == 2


def test_the_broken_round_is_dropped_entirely(folder: RunFolder) -> None:
    """With a torn line behind it; what stays is as it was, and can be appended to."""
    kept = [sample("a/w", 0), sample("b/w", 0), sample("b/w", 1), sample("a/w", 1)]
    write(folder, *kept, sample("a/w", 2))
    with folder.samples.open("ab") as file:
        file.write(b"{")
    assert drop_after_round(folder, 1) == kept
    assert read_samples(folder) == (kept, [])
    write(folder, sample("a/w", 2))
    assert read_samples(folder)[0] == [*kept, sample("a/w", 2)]


# --- finding ---------------------------------------------------------------------------------------------------------

OLD, NEW, OTHER = "startup-20260101T000000Z-aaaa", "startup-20260102T000000Z-bbbb", "disk-20260101T120000Z-cccc"


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for run_id in (NEW, OTHER, OLD):
        create(tmp_path, manifest(run_id))
    (tmp_path / "README.md").write_text("")
    (tmp_path / "startup-20260103T000000Z-dddd").mkdir()
    return tmp_path


def test_runs_are_listed_by_time(results: Path) -> None:
    """Whatever their scenario is called; folders without a manifest are none."""
    assert [path.name for path in list_runs(results)] == [OLD, OTHER, NEW]
    assert list_runs(results / "missing") == ()


@pytest.mark.parametrize(
    ("name", "expected"),
    [(OLD, OLD), ("disk", OTHER), ("startup-20260102", NEW), ("latest", NEW)],
)
def test_a_run_is_found_by_id_unique_prefix_or_latest(results: Path, name: str, expected: str) -> None:
    """All of them in the results folder."""
    assert find_run(results, name) == results / expected


def test_a_run_is_found_by_path(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it is, and also by the bare name of a folder here."""
    assert find_run(Path("/nowhere"), str(results / OLD)) == results / OLD
    monkeypatch.chdir(results)
    assert find_run(Path("elsewhere"), OLD) == Path(OLD)
    assert find_run(Path("elsewhere"), f"./{OLD}") == Path(OLD)


def test_an_ambiguous_prefix_lists_the_candidates(results: Path) -> None:
    """The newest first."""
    with pytest.raises(RecordError, match=rf"'startup' means 2 runs: {NEW}, {OLD}$"):
        find_run(results, "startup")


@pytest.mark.parametrize("name", ["nothing", "", "..", "../..", "/etc", "*"])
def test_a_run_that_is_not_there_is_an_error_with_a_remedy(results: Path, name: str) -> None:
    """Nothing outside is taken for one."""
    with pytest.raises(RecordError) as caught:
        find_run(results, name)
    assert "benchbox list" in str(caught.value.hint)


def test_there_is_no_latest_of_nothing(tmp_path: Path) -> None:
    """It says where it looked."""
    with pytest.raises(RecordError, match=rf"no run in {tmp_path}"):
        find_run(tmp_path, "latest")


def test_pairs_keep_their_separators_apart() -> None:
    """A value may hold anything and still be told from the next pair."""
    assert format_pairs({"a": 1, "b": "x;y=100%\n"}) == "a=1;b=x%3By=100%25%0A"
    assert format_pairs({}) == ""


def test_what_stays_of_a_large_run_is_written_line_by_line(folder: RunFolder) -> None:
    """To go on with a run takes the memory of its samples, not also that of its whole text, twice."""
    import tracemalloc

    write(folder, *(sample(round=number, output_tail="x" * 20_000) for number in range(200)))
    tracemalloc.start()
    try:
        kept = drop_after_round(folder, 200)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(kept) == 200
    assert peak_bytes < 1.5 * folder.samples.stat().st_size


def test_samples_share_what_their_lines_have_in_common(folder: RunFolder) -> None:
    """Which fields a line has is kept once; a line with others is told apart, and none is changed."""
    write(folder, sample(), sample())
    lines = folder.samples.read_text().splitlines(keepends=True)
    short = lines[0].replace('"console_tail":"",', "")
    folder.samples.write_text("".join([*lines, short]))
    first, second, third = read_samples(folder)[0]
    assert first.model_fields_set is second.model_fields_set
    assert first.model_fields_set - third.model_fields_set == {"console_tail"}
    assert f"{second.model_dump_json()}\n" == lines[1]


def test_reading_leaves_the_collector_as_it_was(folder: RunFolder) -> None:
    """Also when it fails."""
    import gc

    folder.samples.write_text("{}\n{}\n")
    with pytest.raises(RecordError):
        read_samples(folder)
    assert gc.isenabled()


def test_writing_leaks_no_descriptor(folder: RunFolder) -> None:
    """Hundreds of runs in one process."""
    before = open_descriptors()
    for _ in range(10):
        write(folder, sample())
        write_manifest(folder, manifest())
        read_samples(folder)
    assert open_descriptors() == before


# --- going on with a run ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["", "link", "up"])
def test_a_run_is_gone_on_with_in_its_own_folder(given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However its path is written."""
    folder = create(tmp_path / "results", manifest()).path
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.chdir(folder)
    found, read = open_interrupted({"": folder, "link": tmp_path / "link", "up": Path("../.", RUN)}[given])
    assert (found, read.run_id) == (RunFolder(folder, RUN), RUN)


@pytest.mark.parametrize("name", ["manifest.json", "samples.jsonl", "."])
@pytest.mark.parametrize("mark", [{"owner": STRANGER}, {"mode": 0o777}])
def test_a_run_that_another_user_could_have_written_is_not_gone_on_with(
    name: str, mark: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its commands would run with the rights of who goes on with it. It may be shown."""
    folder = create(tmp_path / "results", manifest()).path
    seems(monkeypatch, folder / name, **mark)
    with pytest.raises(TrustError, match=r"the record .* is not to be trusted"):
        open_interrupted(folder)
    assert read_manifest(folder).run_id == RUN


@pytest.mark.parametrize("run_id", ["../startup-20260102T030405Z-0a1b", "startup-20260102T030405Z-ffff", "/etc", ""])
def test_a_run_that_says_it_is_another_is_not_gone_on_with(run_id: str, tmp_path: Path) -> None:
    """Its samples would go where that name leads."""
    folder = create(tmp_path, manifest()).path
    write_manifest(RunFolder(folder, RUN), manifest(run_id))
    with pytest.raises(RecordError, match="its folder is called"):
        open_interrupted(folder)


def test_a_folder_that_is_not_called_as_runs_are_is_not_gone_on_with(tmp_path: Path) -> None:
    """Though its manifest says the same."""
    (tmp_path / "x").mkdir()
    write_manifest(RunFolder(tmp_path / "x", "x"), manifest("x"))
    with pytest.raises(RecordError, match="its folder is called"):
        open_interrupted(tmp_path / "x")


@pytest.mark.parametrize("mark", [{"owner": STRANGER}, {"mode": 0o777}])
@pytest.mark.parametrize("place", ["results", "."])
def test_no_run_is_written_where_another_user_could_redirect_it(
    place: str, mark: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Into a folder of somebody else, or below one; another folder is the remedy."""
    (tmp_path / "results").mkdir()
    seems(monkeypatch, tmp_path / place, **mark)
    with pytest.raises(TrustError) as caught:
        check_writable(tmp_path / "results")
    assert "--results" in str(caught.value.hint)
    assert list((tmp_path / "results").iterdir()) == []


def test_a_run_may_lie_in_a_sticky_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As /tmp: others can add to it, not take a run's place."""
    seems(monkeypatch, tmp_path, mode=0o1777)
    check_writable(tmp_path)


def test_what_a_run_writes_is_not_opened_to_others_by_the_umask(tmp_path: Path) -> None:
    """Neither its folder nor the files in it: they could not be gone on with."""
    before = os.umask(0)
    try:
        folder = create(tmp_path / "a/results", manifest())
        with SampleWriter(folder) as writer:
            writer.append(sample())
        drop_after_round(folder, 1)
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o022 for path in (tmp_path / "a").rglob("*")} == {0}
    assert open_interrupted(folder.path)[0] == folder
