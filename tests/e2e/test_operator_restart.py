"""An operator that is killed and started again loses nothing and doubles nothing."""

import os
import signal

from examples import demo
from tests.support.processes import mentioning
from tests.support.rig import Rig


def test_killed_in_mid_run_and_away_at_the_end(rig: Rig) -> None:
    """Killed while the pod runs, and away while it ends: the next one reports it right, and runs it once."""
    rig.apply("orphan", **{"training.epochs": 10})
    rig.wait_committed("orphan")
    pids = mentioning(f"--certificate-secret={demo.OPERATOR_NAMESPACE}/")
    assert pids, "the operator's processes can't be seen"
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    before = rig.status("orphan")["progress"]["step"]
    rig.wait_status("orphan", "reports to go on", lambda s: s["progress"]["step"] > before)
    rig.scale_operator(0)
    rig.wait_job_complete("orphan")
    assert rig.status("orphan")["phase"] != "Succeeded", "nobody was there to say so"
    rig.scale_operator(1)
    status = rig.wait_phase("orphan", "Succeeded")
    assert status["progress"]["percent"] == 100
    assert status["attempt"] == 1
    assert [r["kind"] for r in rig.records("orphan")].count("attempt-start") == 1
