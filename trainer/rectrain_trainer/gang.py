"""Supervises the ranks of one pod: starts their processes when all pods are there, again and again.

Called by the command line, for runs of several ranks, in place of `supervisor.supervise`. Rank 0's process
is the run as a pod alone would do it: it takes an attempt in the log, resumes, trains, publishes. The other
ranks' processes hold nothing that is worth keeping, so they are ended without a word.

    wait for all → round: rank 0's process and the others' → over → wait for all → …

A round is over for all when a pod is lost, when one is told to stop (rank 0 saves a last checkpoint first),
when a process of several in a pod is killed, or when rank 0's process ends. Only the pod at fault leaves; the
others stay and wait, since they hold staged data and devices, but not for ever (`PATIENCE_S`).
"""

import logging
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from rectrain_api.errors import Interrupted, PeerLost
from rectrain_api.exit_codes import EX_FENCED, EX_OK, EX_TEMPFAIL, codes_with, outcome_of
from rectrain_api.report import TerminationResult
from rectrain_api.run_state import ROLLED_BACK
from rectrain_api.status import Reason
from rectrain_trainer.crew import PEER_LOST, Crew
from rectrain_trainer.flight import FlightRecorder
from rectrain_trainer.meeting import Event, Seat, Word, meet
from rectrain_trainer.outcome import Until
from rectrain_trainer.placement import Placement
from rectrain_trainer.stall import Watch
from rectrain_trainer.supervisor import WATCHED, say_stopping, stop_margin_s

log = logging.getLogger(__name__)

PATIENCE_S: Final = 1800.0
"""How long the other pods are waited for."""
LAST_WORDS_S: Final = 30.0
"""For rank 0's process to commit what waits, after another rank was lost; in NCCL it may hang for ever."""
BLAME_S: Final = 5.0
"""A process that failed may have failed of another pod's loss: that is known within this time."""
FRUITLESS_ROUNDS: Final = 3
"""So many rounds in a row that broke with no newer checkpoint, though nobody left, end rank 0's pod."""
_ENDED: Final = (Word.OVER, Word.LOST, Word.BROKEN)
_OF_ITS_OWN: Final = {*codes_with("FailJob"), EX_FENCED}
"""Ends that no other pod can have brought about."""

CommandFor = Callable[[FlightRecorder, Until], Sequence[str]]


def supervise_pod(
    command_for: CommandFor,
    seat: Seat,
    *,
    ranks: int,
    backend: str,
    grace_s: float,
    stall_timeout_s: float,
    variables: Mapping[str, str],
    patience_s: float = PATIENCE_S,
) -> TerminationResult:
    """Run this pod's `ranks`, as many as every pod has, to the end of the run. Call `block_signals` first."""
    pod = _Pod(command_for, seat, ranks, backend, grace_s, stall_timeout_s, variables, patience_s)
    with pod.meeting:
        return pod.run()


class _Pod:
    def __init__(
        self,
        command_for: CommandFor,
        seat: Seat,
        ranks: int,
        backend: str,
        grace_s: float,
        stall_timeout_s: float,
        variables: Mapping[str, str],
        patience_s: float,
    ) -> None:
        self._command_for = command_for
        self._seat = seat
        self._ranks = range(seat.pod * ranks, (seat.pod + 1) * ranks)
        self._world = seat.pods * ranks
        self._first = seat.pod == 0
        self._grace_s, self._patience_s = grace_s, patience_s
        self._stall_timeout_s = stall_timeout_s
        self._backend, self._variables = backend, variables
        self._told: int | None = None
        """The signal that told this pod to stop."""
        self._hurry = False
        """Told so once more, at a terminal."""
        self._done = False
        self._over = ""
        """Why the round is over; empty while it isn't."""
        self._left = self._asked = self._killed = self._crashed = False
        """A pod left the round; one asked that rank 0 saves; a process was ended by us; one of several was
        killed by something else."""
        self._saved_step = -1
        me = threading.get_ident()  # a signal to the process might go to a library's thread, and kill it
        self.meeting = meet(seat, lambda: signal.pthread_kill(me, signal.SIGUSR1))

    def run(self) -> TerminationResult:
        """Round after round; the last words of this pod."""
        if self._first and self._seat.pods > 1 and (looked := self._look()) is not None:
            return looked
        fruitless = 0
        while True:
            self.meeting.ready()
            store = self._wait_for_round()
            if store is None:
                return self._without_round()
            result = self._round(store)
            last = self._last_words(result)
            if last is not None:
                return last
            saved = self._has_saved(result) or result.reason == ROLLED_BACK  # bounded by itself
            fruitless = 0 if self._left or self._asked or saved else fruitless + 1
            if self._first and fruitless >= FRUITLESS_ROUNDS:
                said = f"{result.message} So it was {fruitless} times, with no newer checkpoint."
                return (
                    result.model_copy(update={"message": said}) if self._crashed else _bad_end(PeerLost(said))
                )
            then = "Waiting for all pods" if self._seat.pods > 1 else "The next one begins"
            log.warning("The round is over (%s). %s.", self._over or result.message, then)

    def _has_saved(self, result: TerminationResult) -> bool:
        """Whether there is a newer checkpoint than after the round before."""
        latest = result.checkpoint.latest if result.checkpoint else None
        before, self._saved_step = self._saved_step, latest.step if latest else self._saved_step
        return self._saved_step > before

    # -- between rounds

    def _look(self) -> TerminationResult | None:
        """The end, if the run's place is another's, or the run finished: that needs no other pod."""
        looking = Crew.start(
            [0], lambda recorder: self._command_for(recorder, "looked"), lambda _: self._variables
        )
        result = self._watch(looking)
        return None if result.reason == Reason.CHECKED else result

    def _wait_for_round(self) -> str | None:
        """Address of the next round's store; None if there is to be none."""
        until = time.monotonic() + self._patience_s
        while self._told is None and not self._done:
            left = until - time.monotonic()
            if left <= 0:
                return None
            event = self._next(left)
            if event is not None and event.word is Word.GO:
                return event.store
        return None

    def _without_round(self) -> TerminationResult:
        if self._done:
            return self._good_end()
        if self._told is not None:
            return _bad_end(Interrupted("Told to stop while waiting for the other pods of the run."))
        minutes = self._patience_s / 60
        end = _bad_end(
            PeerLost(
                f"Not all {self._seat.pods} pods of the run came within {minutes:.0f} minutes: see what "
                "keeps the others (kubectl get pods), or set replicas.nodes to what the cluster has."
            )
        )
        # Of all pods that waited in vain one counts: the first, or the second when the first is missing.
        counts = self._first or (self._seat.pod == 1 and not self.meeting.hears_rank_0)
        return end if counts else end.model_copy(update={"exit_code": EX_TEMPFAIL})

    # -- a round

    def _round(self, store: str) -> TerminationResult:
        """Its processes, to their end."""
        self._over = ""
        self._left = self._asked = self._killed = self._crashed = False
        crew = Crew.start(
            self._ranks,
            lambda recorder: self._command_for(recorder, "end"),
            lambda rank: {**self._variables, **self._placement(store).environment(rank)},
        )
        result = self._watch(crew)
        self._crashed = crew.crashed
        if not self._first and crew.finished:
            self.meeting.tell(Word.FINISHED)
            self._wait_for_the_end()
        return result

    def _placement(self, store: str) -> Placement:
        return Placement(self._seat, len(self._ranks), self._backend, store)

    def _watch(self, crew: Crew) -> TerminationResult:
        """How they ended. They are ended when their time is up, or when rank 0's hangs: whichever rank is at
        fault, none gets on.
        """
        deadline: float | None = None
        watch = Watch(crew.lead.child.recorder, self._stall_timeout_s)
        broke = False
        while not crew.reap(told_to_stop=self._told is not None):
            saving = self._first and (self._asked or self._told is not None)
            if crew.broken and not broke:
                broke = True
                if not saving:
                    deadline = self._sooner(deadline, LAST_WORDS_S)
            watched = self._first and deadline is None
            if watched and (stall := watch.look()) is not None:
                deadline = time.monotonic() + crew.end_stalled(stall)
                self.meeting.tell(Word.STALLED, stall.sentence)
            idle = watch.every_s if watched else 3600.0
            left = idle if deadline is None else deadline - time.monotonic()
            if left <= 0 or self._hurry:
                self._killed = True
                crew.kill()
                left = 60.0
            told_before, ended_before = self._told, bool(self._over)
            event = self._next(left)
            if self._told is not None and told_before is None:
                deadline = time.monotonic() + self._grace_s - stop_margin_s(self._grace_s)
                self._stop(crew)
            if event is not None and event.word is Word.STALLED:
                crew.dump_stacks(event.why)
            if event is not None and event.word is Word.STOP and not self._asked:
                self._asked = True
                log.warning("%s: saving a last checkpoint.", event.why)
                if self._told is None:
                    deadline = time.monotonic() + self._grace_s - stop_margin_s(self._grace_s)
                crew.save()
            saving = self._first and (self._asked or self._told is not None)
            if self._done or (self._over and not ended_before and not saving):
                crew.end_others()
                deadline = self._sooner(deadline, LAST_WORDS_S if self._first else 0.0)
        crew.close()
        return crew.verdict()

    def _stop(self, crew: Crew) -> None:
        """This pod was told to stop: rank 0's process saves, the others take part until it has."""
        assert self._told is not None
        say_stopping(self._told, self._grace_s)
        if self._first:
            crew.save()
        else:
            self.meeting.tell(Word.STOP)

    def _wait_for_the_end(self) -> None:
        """Nothing is left to train for this rank; rank 0 evaluates and exports. It may fail, and need us."""
        while self._told is None and not self._done and not self._over:
            self._next(3600.0)

    # -- after a round

    def _last_words(self, result: TerminationResult) -> TerminationResult | None:
        """This pod's last words, or None when it stays for another round; the others are told."""
        return self._host_words(result) if self._first else self._guest_words(result)

    def _host_words(self, result: TerminationResult) -> TerminationResult | None:
        if result.reason == ROLLED_BACK:
            self.meeting.tell(Word.OVER, result.message, left=self._told is not None)
            return None if self._told is None else _bad_end(Interrupted(f"Told to stop. {result.message}"))
        if result.exit_code == EX_OK:
            self.meeting.tell(Word.DONE)
            return result
        ended = self._asked or (bool(self._over) and self._killed)
        own = result.exit_code in _OF_ITS_OWN
        others = ended or self._crashed or self._is_of_others(result)
        stays = self._told is None and not own and others
        self.meeting.tell(Word.OVER, f"rank 0 ended with {result.reason}", left=not stays)
        return None if stays else result

    def _guest_words(self, result: TerminationResult) -> TerminationResult | None:
        if self._done:
            return self._good_end()
        if self._told is not None:
            return _bad_end(Interrupted("Told to stop; the run goes on when all its pods are back."))
        if result.exit_code == EX_OK or (self._over and self._killed):
            return None
        if result.reason == PEER_LOST or self._crashed:
            self.meeting.tell(Word.BROKEN)
            return None
        return None if self._is_of_others(result) else result

    def _is_of_others(self, result: TerminationResult) -> bool:
        """Whether a process failed since another pod left: it says so, or that is heard soon after.

        That a round is over says nothing of the kind: it may be over since this process failed.
        """
        if result.exit_code in _OF_ITS_OWN:
            return False
        until = time.monotonic() + BLAME_S
        while not self._left and self._told is None and (left := until - time.monotonic()) > 0:
            self._next(left)
        return self._left or result.reason == PEER_LOST

    # -- events

    def _next(self, wait_s: float) -> Event | None:
        """The next event of the meeting, or None after any signal or when the time is up."""
        event = self.meeting.next_event()
        if event is None:
            got = signal.sigtimedwait(WATCHED, max(wait_s, 0.0))
            if got is not None and got.si_signo in (signal.SIGTERM, signal.SIGINT):
                self._hurry = self._told is not None and got.si_signo == signal.SIGINT
                self._told = self._told or got.si_signo
            event = self.meeting.next_event()
        if event is not None and event.word is Word.DONE:
            self._done = True
        elif event is not None and event.word in _ENDED:
            self._over = event.why or "rank 0's process has ended"
            self._left = self._left or event.left
        return event

    def _sooner(self, deadline: float | None, in_s: float) -> float:
        at = time.monotonic() + in_s
        return at if deadline is None else min(deadline, at)

    def _good_end(self) -> TerminationResult:
        which = f"Rank {self._ranks[0]}"
        if len(self._ranks) > 1:
            which = f"Ranks {self._ranks[0]} to {self._ranks[-1]}"
        message = f"{which} of {self._world}: the run is finished."
        return TerminationResult(exit_code=EX_OK, reason=Reason.COMPLETED, message=message)


def _bad_end(error: Interrupted | PeerLost) -> TerminationResult:
    row = outcome_of(error)
    return TerminationResult(exit_code=row.exit_code, reason=row.reason, message=str(error))
