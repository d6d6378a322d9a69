"""Chooses who supervises a run: one process alone, or the ranks of a pod. Called by the command line."""

from collections.abc import Mapping, Sequence

from rectrain_api.errors import UsageError
from rectrain_api.plan import PlanFrame
from rectrain_api.report import TerminationResult
from rectrain_trainer.flight import FlightRecorder
from rectrain_trainer.gang import supervise_pod
from rectrain_trainer.meeting import ONE_POD, Seat
from rectrain_trainer.outcome import Until
from rectrain_trainer.placement import GLOO, NCCL
from rectrain_trainer.supervisor import supervise, trainer_command


def launch(
    plan: PlanFrame,
    seat: Seat | None,
    arguments: Sequence[str],
    until: Until,
    variables: Mapping[str, str],
    ranks_per_pod: int | None = None,
) -> TerminationResult:
    """Run this pod's part of a plan to its end. Call `block_signals` first.

    `arguments` are the training process's own. `ranks_per_pod` is the plan's, unless said: several of them
    may train on CPUs.
    """

    def command_for(recorder: FlightRecorder, until: Until) -> list[str]:
        return trainer_command([*arguments, "--until", until], recorder)

    in_pod = ranks_per_pod or plan.ranks_per_pod
    grace_s, stall_s = plan.termination_grace_seconds, plan.stall_timeout_seconds
    if plan.nodes * in_pod == 1 or until != "end":
        recorder = FlightRecorder.new()
        return supervise(
            command_for(recorder, until),
            recorder,
            grace_s=grace_s,
            stall_timeout_s=stall_s,
            variables=variables,
        )
    if plan.nodes > 1 and seat is None:
        raise UsageError(
            f"This run wants {plan.nodes} pods that train together (replicas.nodes), which takes a cluster: "
            "set it to 1 to train on one machine."
        )
    return supervise_pod(
        command_for,
        seat if plan.nodes > 1 and seat is not None else ONE_POD,
        ranks=in_pod,
        backend=NCCL if plan.gpus else GLOO,
        grace_s=grace_s,
        stall_timeout_s=stall_s,
        variables=variables,
    )
