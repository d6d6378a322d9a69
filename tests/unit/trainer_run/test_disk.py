"""Room for what a run writes beside its data: the download leaves it, and the pod's limit has it."""

import os
from pathlib import Path

import pytest

from rectrain_api.errors import DiskTooSmall
from rectrain_api.plan import WORK_RESERVE_BYTES
from rectrain_trainer.disk import check_room


def test_what_the_pod_needs_beside_the_data_stays_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stat = os.statvfs(tmp_path)
    monkeypatch.setattr(os, "statvfs", lambda _: stat)
    free = stat.f_bavail * stat.f_frsize
    check_room(tmp_path, max(free - WORK_RESERVE_BYTES, 0), staged=0, limit=None)
    with pytest.raises(DiskTooSmall, match=f"the disk of {tmp_path} has"):
        check_room(tmp_path, max(free - WORK_RESERVE_BYTES, 0) + 1, staged=0, limit=None)
