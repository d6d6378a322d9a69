"""The pure decisions of a run: what is due, what a pod's end means, what may be deleted."""

import os
from pathlib import Path
from typing import Any

import pytest

from rectrain_api.errors import (
    DatasetInvalid,
    DiskTooSmall,
    Fenced,
    InputMissing,
    InvalidSpec,
    PermissionRefused,
    StoreUnavailable,
)
from rectrain_api.exit_codes import outcome_of
from rectrain_api.plan import CheckpointInterval, EvalInterval, RunPlan
from rectrain_api.records import (
    CheckpointRecord,
    Damage,
    checkpoint_prefix,
    record_key,
)
from rectrain_api.report import Stage, TerminationResult
from rectrain_api.run_state import RunState
from rectrain_trainer.board import Board
from rectrain_trainer.child import _meant
from rectrain_trainer.curves import merge, rows_of
from rectrain_trainer.disk import check_room, human
from rectrain_trainer.environment import PodEnvironment, ensure_home
from rectrain_trainer.flight import RUNNING, FlightRecorder
from rectrain_trainer.interrupt import Interrupt
from rectrain_trainer.loop import Position
from rectrain_trainer.manifest import read_manifest
from rectrain_trainer.pace import Pace, duration
from rectrain_trainer.place import Unfenced, leftovers
from rectrain_trainer.supervisor import ChildEnd, conclude, stop_margin_s
from rectrain_trainer.train import checkpoint_due, evaluation_due, progress_of
from rectrain_trainer.uris import UriMap
from tests.support.plans import make_manifest, make_plan


def at(step: int, *, epoch: int = 0, inside: int = 0) -> Position:
    """After so many steps: whole epochs, and steps of the one under way."""
    return Position(epoch, inside, step)


@pytest.mark.parametrize(
    ("every", "unit", "position", "expected"),
    [
        pytest.param(5, "steps", at(10), True, id="steps"),
        pytest.param(5, "steps", at(11), False, id="between"),
        pytest.param(2, "epochs", at(20, epoch=2), True, id="epochs"),
        pytest.param(2, "epochs", at(10, epoch=1), False, id="odd-epoch"),
        pytest.param(2, "epochs", at(25, epoch=2, inside=5), False, id="inside-an-epoch"),
        pytest.param(500, "steps", at(100), True, id="last-step-always"),
        pytest.param(5, "steps", at(0), False, id="before-the-first"),
    ],
)
def test_evaluation_due(every: int, unit: str, position: Position, expected: bool) -> None:
    interval = EvalInterval.model_validate({"every": every, "unit": unit})
    assert evaluation_due(interval, position, 100) is expected


@pytest.mark.parametrize(
    ("every", "unit", "at", "since", "expected"),
    [
        (50, "steps", 100, 0.0, True),
        (50, "steps", 101, 1e6, False),
        (300, "seconds", 7, 300.0, True),
        (300, "seconds", 7, 299.0, False),
    ],
)
def test_checkpoint_due(every: int, unit: str, at: int, since: float, expected: bool) -> None:
    interval = CheckpointInterval.model_validate({"every": every, "unit": unit})
    assert checkpoint_due(interval, at, since) is expected


def test_progress_never_says_more_than_everything() -> None:
    assert progress_of(3, 2, 9, 6, Stage.TRAINING, None).percent == 100


def said(code: int, reason: str) -> TerminationResult:
    return TerminationResult(exit_code=code, reason=reason, message="m", attempt=3)


@pytest.mark.parametrize(
    ("last", "end", "code", "reason"),
    [
        pytest.param(said(65, "DatasetInvalid"), ChildEnd(65), 65, "DatasetInvalid", id="said-so"),
        pytest.param(said(0, "Completed"), ChildEnd(None, 11), 0, "Completed", id="crash-at-the-very-end"),
        pytest.param(said(255, RUNNING), ChildEnd(None, 11), 139, "Crashed", id="segfault"),
        pytest.param(said(255, RUNNING), ChildEnd(None, 9), 137, "Crashed", id="killed"),
        pytest.param(said(255, RUNNING), ChildEnd(None, 9, out_of_memory=True), 137, "OutOfMemory", id="oom"),
        pytest.param(
            said(255, RUNNING), ChildEnd(None, 9, told_to_stop=True), 75, "Interrupted", id="grace-ran-out"
        ),
        pytest.param(
            said(255, RUNNING), ChildEnd(None, 15, told_to_stop=True), 75, "Interrupted", id="stop-at-start"
        ),
        pytest.param(None, ChildEnd(1), 70, "InternalError", id="never-spoke"),
        pytest.param(said(255, RUNNING), ChildEnd(0), 70, "InternalError", id="left-without-a-word"),
    ],
)
def test_conclude(last: TerminationResult | None, end: ChildEnd, code: int, reason: str) -> None:
    result = conclude(last, end)
    assert (result.exit_code, result.reason) == (code, reason)
    assert result.message
    assert result.attempt == (last.attempt if last else 0)


@pytest.mark.parametrize("grace_s", [5, 30, 100, 600])
def test_the_margin_leaves_most_of_the_grace_period(grace_s: float) -> None:
    assert 1 <= stop_margin_s(grace_s) <= max(1.5, grace_s / 3)


def test_flight_recorder_keeps_the_last_word() -> None:
    recorder = FlightRecorder.new()
    assert recorder.read() is None
    recorder.write(said(255, RUNNING).model_copy(update={"message": "ä" * 4000}))
    recorder.write(said(70, "Diverged"))
    assert recorder.read() == said(70, "Diverged")


def test_leftovers_are_older_attempts_uncommitted_checkpoints() -> None:
    state = RunState()
    state.apply(
        CheckpointRecord(attempt=1, time="t", prefix=checkpoint_prefix(1, 10), step=10, epoch=1, files=[])
    )
    keys = [
        "attempts/0001/step-000010/model.pdparams",
        "attempts/0001/step-000015/model.pdparams",
        "attempts/0001/metrics/000001.jsonl",
        "attempts/0001/export/inference.json",
        "attempts/0002/step-000015/model.pdparams",
        "attempts/readme.txt",
    ]
    assert leftovers(keys, state, attempt=2) == ["attempts/0001/step-000015/model.pdparams"]
    state.apply(Damage(record_key(2), "is missing"))
    assert leftovers(keys, state, attempt=2) == [], "the lost record may be theirs"


class TestDisk:
    def test_enough(self, tmp_path: Path) -> None:
        check_room(tmp_path, 1000, staged=0, limit=1000)

    def test_more_than_the_cache_allows(self, tmp_path: Path) -> None:
        with pytest.raises(DiskTooSmall) as refused:
            check_room(tmp_path, 2048, staged=100, limit=1000)
        assert str(refused.value) == (
            "The data needs 2048 bytes (2.0 KiB) and data.cache.size allows 900 bytes (900 B): raise "
            "data.cache.size, choose a node with a larger disk, or train on a smaller set."
        )

    def test_more_than_the_disk_has(self, tmp_path: Path) -> None:
        with pytest.raises(DiskTooSmall, match=f"the disk of {tmp_path} has"):
            check_room(tmp_path, 2**60, staged=0, limit=None)

    @pytest.mark.parametrize(("size", "text"), [(5, "5 B"), (2048, "2.0 KiB"), (3 * 2**30, "3.0 GiB")])
    def test_human(self, size: int, text: str) -> None:
        assert human(size) == text


def test_pace_counts_steps_and_not_pauses() -> None:
    now = [100.0]
    pace = Pace(lambda: now[0])
    assert pace.samples_per_second is None
    for _ in range(4):
        now[0] += 0.5
        pace.step(16, 0.1)
    now[0] += 60
    pace.pause()
    assert pace.samples_per_second == 32.0
    assert pace.wait_percent == 20.0
    assert pace.seconds_for(10) == 5.0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59.4, "59s"), (60, "1m"), (3599, "1h"), (12_000, "3h20m"), (200_000, "2d7h")],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


class TestEnvironment:
    def test_a_laptop(self) -> None:
        pod = PodEnvironment.read({})
        assert (pod.work_dir, pod.report, pod.termination_log, pod.in_pod) == (None, None, None, False)

    def test_a_pod(self) -> None:
        pod = PodEnvironment.read(
            {
                "RECTRAIN_POD_UID": "u",
                "RECTRAIN_REPORT_URL": "https://op:9443/",
                "RECTRAIN_REPORT_CA": "/ca/ca.crt",
                "RECTRAIN_TOKEN_FILE": "/t/token",
                "RECTRAIN_TERMINATION_LOG": "/tmp/t",
            }
        )
        assert pod.work_dir == Path("/var/lib/rectrain")
        assert pod.report is not None
        assert pod.report.url == "https://op:9443"
        assert pod.termination_log == Path("/tmp/t")


@pytest.mark.parametrize("home", ["", "/no/such/home"])
def test_a_user_without_a_home_gets_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str) -> None:
    monkeypatch.setenv("HOME", home)
    ensure_home(tmp_path)
    assert os.environ["HOME"] == str(tmp_path / "home")
    assert (tmp_path / "home").is_dir()


def test_a_home_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    ensure_home(tmp_path / "work")
    assert os.environ["HOME"] == str(tmp_path)


def rows(kind: str, *steps: int, **more: Any) -> list[dict[str, Any]]:
    return [{"kind": kind, "step": step, **more} for step in steps]


def test_a_curve_has_every_step_once() -> None:
    first = rows("train", 1, 2, 3, 4, 5, by=1) + rows("eval", 2, 4, by=1)
    second = rows("train", 3, 4, by=2) + rows("eval", 4, by=2)  # went on from step 2, and was killed
    third = rows("eval", 4, by=3) + rows("train", 5, by=3)  # from step 4, whose evaluation was cut off
    merged = [(r["step"], r["kind"], r["by"]) for r in merge([first, second, third])]
    assert merged == [
        (1, "train", 1),
        (2, "train", 1),
        (2, "eval", 1),
        (3, "train", 2),
        (4, "train", 2),
        (4, "eval", 3),
        (5, "train", 3),
    ]


def test_what_is_no_row_is_passed_over() -> None:
    chunk = b'{"kind":"train","step":1}\n[]\n{"kind":"eval","step":"5"}\n{"kind":"eval","step":5}\ncut off'
    assert rows_of(chunk) == [{"kind": "train", "step": 1}, {"kind": "eval", "step": 5}]


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b'{"kind":"eval","st', id="truncated"),
        pytest.param(b"\xff\x00", id="other-bytes"),
        pytest.param(b"[1, 2]", id="no-row"),
        pytest.param(b'{"kind":"eval","step":"3"}', id="edited"),
        pytest.param(b"[" * 100_000, id="nested"),
    ],
)
def test_damaged_metrics_lose_their_own_rows_only(damage: bytes) -> None:
    row = b'{"kind":"eval","step":5}'
    assert rows_of(b"\n".join([row, damage])) == [{"kind": "eval", "step": 5}]


@pytest.mark.parametrize(
    ("error", "told", "training", "code"),
    [
        pytest.param(ImportError("initialization failed"), True, False, 75, id="an-import-cut-short"),
        pytest.param(StoreUnavailable("gave up early"), True, True, 75, id="a-retry-given-up"),
        pytest.param(Fenced("taken over"), True, True, 76, id="fenced-all-the-same"),
        pytest.param(PermissionRefused("no"), False, True, 69, id="permission-lost-in-mid-run"),
        pytest.param(PermissionRefused("no"), False, False, 77, id="never-permitted"),
        pytest.param(ValueError("oops"), False, False, 70, id="ours"),
    ],
)
def test_what_an_error_is_taken_for(error: Exception, told: bool, training: bool, code: int) -> None:
    board, interrupt = Board("s3://b/run"), Interrupt(10)
    board.stage = Stage.EXPORTING if training else Stage.CHECKING
    with interrupt.deferred():
        if told:
            interrupt._on_signal(15, None)
    assert outcome_of(_meant(error, board, interrupt)).exit_code == code


class Plain:
    """A store without conditional writes."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.get = self.objects.get
        self.get_all = self.list_keys = lambda *_: []
        self.head = self.objects.get
        self.put_bytes = self.objects.__setitem__


def test_without_fencing_a_key_is_looked_for_first() -> None:
    store: Any = Plain()
    unfenced = Unfenced(store)
    assert unfenced.create("log/1", b"a")
    assert not unfenced.create("log/1", b"b")
    assert unfenced.get("log/1") == b"a"


def test_a_plan_reads_back_what_it_wrote() -> None:
    plan = make_plan()
    assert RunPlan.model_validate_json(plan.to_json()) == plan


class TestManifest:
    def write(self, folder: Path, text: str) -> Path:
        path = folder / "job.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    def test_other_objects_are_passed_over(self, tmp_path: Path) -> None:
        import yaml

        path = self.write(tmp_path, yaml.safe_dump_all([{"kind": "Secret"}, make_manifest()]))
        assert read_manifest(path).plan == make_plan()

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            pytest.param("kind: Secret", "holds 0 objects of kind RecTrainingJob", id="none"),
            pytest.param("a: [", "isn't YAML", id="no-yaml"),
            pytest.param(
                "apiVersion: rectrain.dev/v1alpha1\nkind: RecTrainingJob\nmetadata: {name: a}\nspec: {}",
                "spec.model: is required",
                id="incomplete",
            ),
        ],
    )
    def test_bad_ones(self, tmp_path: Path, text: str, expected: str) -> None:
        with pytest.raises(InvalidSpec, match=expected):
            read_manifest(self.write(tmp_path, text))

    def test_its_variables_but_not_those_that_are_ours(self, tmp_path: Path) -> None:
        import yaml

        env = [{"name": "OMP_NUM_THREADS", "value": "1"}, {"name": "RECTRAIN_POD_UID", "value": "u"}]
        path = self.write(tmp_path, yaml.safe_dump(make_manifest(replicas={"env": env})))
        assert read_manifest(path).environment == {"OMP_NUM_THREADS": "1"}

    def test_a_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(InputMissing, match=r"no\.yaml can't be read"):
            read_manifest(tmp_path / "no.yaml")


def test_errors_name_places_in_s3() -> None:
    uris = UriMap()
    uris.add(Path("/work/data/train"), "s3://b/set")
    with pytest.raises(DatasetInvalid, match=r"^s3://b/set/labels\.txt line 3 is bad$"), uris.translating():
        raise DatasetInvalid("/work/data/train/labels.txt line 3 is bad")
