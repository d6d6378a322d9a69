"""The processes of one pod's ranks during a round, a device each. Called by `gang`.

What befalls one of them befalls all: gradients are averaged over all at every step. So when one ends before
its time the others are ended at once, but for rank 0's, which may have something to commit.
"""

import logging
import os
import signal
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from rectrain_api.errors import PeerLost
from rectrain_api.exit_codes import EX_OK, outcome_of
from rectrain_api.report import TerminationResult
from rectrain_trainer.flight import FlightRecorder
from rectrain_trainer.stall import STACKS_S, Stall
from rectrain_trainer.supervisor import Child, reap

log = logging.getLogger(__name__)

PEER_LOST: Final = outcome_of(PeerLost()).reason
_BY_SIGNAL: Final = 128
_DUMP_S: Final = 0.2
"""For one to write its stacks to stderr before the next one does."""


@dataclass
class Member:
    """One rank's process."""

    rank: int
    child: Child
    result: TerminationResult | None = None
    """How it ended, once it has."""
    ended_by_us: bool = False

    @property
    def end(self) -> TerminationResult:
        """How it ended; it has."""
        assert self.result is not None
        return self.result

    @property
    def failed(self) -> bool:
        """Of itself."""
        return self.result is not None and self.result.exit_code != EX_OK and not self.ended_by_us

    @property
    def crashed(self) -> bool:
        """Killed by something, or by itself."""
        return self.failed and self.end.exit_code > _BY_SIGNAL

    def kill(self) -> None:
        """End it now, without a word."""
        if self.result is None:
            self.ended_by_us = True
            os.kill(self.child.pid, signal.SIGKILL)


@dataclass
class Crew:
    """The members, in the order of their ranks. `reap` until all have ended, then `verdict`."""

    members: list[Member]
    of_rank_0: bool
    """Whether the first member is rank 0: it is the run."""

    @classmethod
    def start(
        cls,
        ranks: Iterable[int],
        command_for: Callable[[FlightRecorder], Sequence[str]],
        variables_of: Callable[[int], Mapping[str, str]],
    ) -> "Crew":
        """A process for each rank."""
        members = []
        for rank in ranks:
            recorder = FlightRecorder.new()
            members.append(Member(rank, Child.start(command_for(recorder), recorder, variables_of(rank))))
        return cls(members, of_rank_0=members[0].rank == 0)

    @property
    def lead(self) -> Member:
        return self.members[0]

    def reap(self, *, told_to_stop: bool) -> bool:
        """Take note of who has ended. True when all have."""
        here = {m.child.pid: m for m in self.members if m.result is None}
        for pid, status in reap(here).items():
            member = here[pid]
            member.result = member.child.conclude(status, told_to_stop=told_to_stop)
        if self.broken or (self.of_rank_0 and self.lead.result is not None):
            self.end_others()
        return all(m.result is not None for m in self.members)

    @property
    def broken(self) -> bool:
        """Whether a process failed of itself: the round can't go on."""
        return any(m.failed for m in self.members)

    @property
    def finished(self) -> bool:
        """Whether each has trained its part to the end."""
        return all(m.result is not None and m.result.exit_code == EX_OK for m in self.members)

    def end_others(self) -> None:
        """All of the pod but rank 0's process, which keeps its time."""
        for member in self.members:
            if not (self.of_rank_0 and member is self.lead):
                member.kill()

    def kill(self) -> None:
        """All that are left."""
        for member in self.members:
            member.kill()

    def save(self) -> None:
        """Have rank 0's process save and end; the others take part until it has."""
        if self.lead.result is None:
            os.kill(self.lead.child.pid, signal.SIGTERM)

    def end_stalled(self, stall: Stall) -> float:
        """Ask all where they stand, rank 0 last, which tells the run's log of all. Seconds until they are to
        be killed.
        """
        for member in reversed(self.members):
            if member.result is None:
                log.error("%s: the stacks of rank %d follow.", stall.sentence, member.rank)
                member.child.end_stalled(stall)
                if member is not self.lead:
                    time.sleep(_DUMP_S)
        return STACKS_S

    def dump_stacks(self, why: str) -> None:
        """Ask all where they stand: another pod's rank doesn't get on."""
        for member in self.members:
            if member.result is None:
                member.child.dump_stacks(why)

    def verdict(self) -> TerminationResult:
        """How the pod's part of the round ended, once all have. It is rank 0's result that tells of the run;
        but when that merely lost another one, it is the other one's fault that counts.
        """
        own, culprit = self.lead.end, self._culprit()
        lost_another = self.lead.ended_by_us or own.reason == PEER_LOST
        if culprit is self.lead or (self.of_rank_0 and not lost_another):
            return own
        fault = culprit.end
        said = {
            "exit_code": fault.exit_code,
            "reason": fault.reason,
            "message": f"Rank {culprit.rank}: {fault.message}",
        }
        return (own if self.of_rank_0 else fault).model_copy(update=said)

    def _culprit(self) -> Member:
        """Who failed first of all, as far as can be told: a process that lost another one didn't."""
        failed = [m for m in self.members if m.failed]
        return next(iter([m for m in failed if m.end.reason != PEER_LOST] or failed), self.lead)

    @property
    def crashed(self) -> bool:
        """Whether one of several was killed: a new round can begin in this pod, with all that it has."""
        return len(self.members) > 1 and any(m.crashed for m in self.members)

    def close(self) -> None:
        """What its end was read from is no longer needed."""
        for member in self.members:
            os.close(member.child.recorder.fd)
