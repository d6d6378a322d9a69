"""A memory limit that is too small is named as such, counted, and given up."""

from tests.support.rig import Rig, failed_reason


def test_out_of_memory_is_named_counted_and_given_up(rig: Rig) -> None:
    limit = {"requests": {"memory": "64Mi"}, "limits": {"memory": "160Mi"}}
    rig.apply("tight", **{"replicas.resources": limit, "runPolicy.maxRestarts": 1})
    status = rig.wait_status("tight", "the first end", lambda s: s.get("restarts", {}).get("oom") == 1, 120)
    assert status["lastInterruption"]["reason"] == "OutOfMemory"
    assert "memory" in status["lastInterruption"]["message"]
    status = rig.wait_phase("tight", "Failed", 180)
    assert failed_reason(status) == "RestartsExhausted"
    assert "maxRestarts" in status["message"]
    assert "memory" in status["message"]
