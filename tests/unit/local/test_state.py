"""Whose a state folder is, and whether its cluster lives."""

from pathlib import Path

import pytest

from rectrain_local import background, state
from rectrain_local.errors import ClusterBusy, NotRunning, UsageError
from rectrain_local.files import private_dir

RECORD = state.Record(phase="ready", pid=1, nodes=1, gpus=0, images={})


def test_a_folder_lives_as_long_as_it_is_held(tmp_path: Path) -> None:
    folder = tmp_path / "cluster"
    assert not state.is_live(folder)
    with state.hold(folder):
        assert state.is_live(folder)
    assert not state.is_live(folder)


def test_only_one_holds_it(tmp_path: Path) -> None:
    with state.hold(tmp_path), pytest.raises(ClusterBusy, match=str(tmp_path)), state.hold(tmp_path):
        pass


def test_a_dead_clusters_files_are_cleaned(tmp_path: Path) -> None:
    with state.hold(tmp_path):
        (tmp_path / "pki").mkdir()
        (tmp_path / "pki" / "ca.key").write_text("old")
        state.write_record(tmp_path, RECORD)
    with state.hold(tmp_path):
        assert not (tmp_path / "pki").exists()
        assert state.read_record(tmp_path) is None


def test_a_folder_of_others_is_never_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis").write_text("work")
    with pytest.raises(UsageError), state.hold(tmp_path):
        pass
    state.remove(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis"]
    with pytest.raises(UsageError, match="not a folder"):
        state.check_ours(tmp_path / "thesis")


def test_folders_that_were_there_keep_their_mode(tmp_path: Path) -> None:
    """A state folder under /tmp doesn't close /tmp to everybody else."""
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o755)
    assert private_dir(shared) == shared
    assert shared.stat().st_mode & 0o777 == 0o755
    with state.hold(shared / "cluster"):
        assert (shared / "cluster").stat().st_mode & 0o777 == 0o700
    assert shared.stat().st_mode & 0o777 == 0o755


def test_an_empty_state_folder_is_closed_to_others(tmp_path: Path) -> None:
    folder = tmp_path / "cluster"
    folder.mkdir(mode=0o755)
    with state.hold(folder):
        assert folder.stat().st_mode & 0o777 == 0o700


def test_dead_runs_are_removed_and_live_ones_kept(tmp_path: Path) -> None:
    dead, live, other = (tmp_path / name for name in ("exec-dead", "exec-live", "exec-other"))
    other.mkdir()
    with state.hold(dead):
        pass
    with state.hold(live):
        state.remove_dead_runs(tmp_path)
        assert sorted(p.name for p in tmp_path.iterdir()) == ["exec-live", "exec-other"]


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (None, "no cluster is running"),
        (RECORD, "was killed"),
        (RECORD.model_copy(update={"phase": "failed", "message": "etcd ended"}), "etcd ended"),
    ],
)
def test_a_cluster_that_does_not_run_is_explained(
    tmp_path: Path, record: state.Record | None, said: str
) -> None:
    if record is not None:
        state.write_record(tmp_path, record)
    with pytest.raises(NotRunning, match=said):
        background.running(tmp_path)


def test_down_leaves_a_run_of_another_command_alone(tmp_path: Path) -> None:
    with state.hold(tmp_path), pytest.raises(ClusterBusy):
        background.stop(tmp_path)
