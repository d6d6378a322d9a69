"""An operator that is killed and started again loses nothing and doubles nothing."""

from examples import demo
from tests.e2e.conftest import Rig


def test_killed_in_mid_run_and_away_at_the_end(rig_files: Rig) -> None:
    """Killed while the pod runs, and away while it ends: the next one reports it right, and runs it once."""
    rig = rig_files
    port = demo.free_port()
    with demo.operator(rig.work, rig.kubeconfig, port) as first:
        rig.apply("orphan", **{"training.epochs": 10})
        rig.wait_committed("orphan")
        first.process.kill()
        first.process.wait()
    with demo.operator(rig.work, rig.kubeconfig, port):
        before = rig.status("orphan")["progress"]["step"]
        rig.wait_status("orphan", "reports to go on", lambda s: s["progress"]["step"] > before)
    rig.wait_job_complete("orphan")
    assert rig.status("orphan")["phase"] != "Succeeded", "nobody was there to say so"
    with demo.operator(rig.work, rig.kubeconfig, port):
        status = rig.wait_phase("orphan", "Succeeded")
    assert status["progress"]["percent"] == 100
    assert status["attempt"] == 1
    assert [r["kind"] for r in rig.records("orphan")].count("attempt-start") == 1
    demo.run("kubectl", "delete", "rectrainingjob", "orphan", "--wait=false")
