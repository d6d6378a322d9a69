"""Supervises one rank among the pods of a run: starts its process when all are there, again and again.

Called by the command line, for runs with several pods, in place of `supervisor.supervise`. Rank 0's process
is the run as a pod alone would do it: it takes an attempt in the log, resumes, trains, publishes. The other
ranks' processes hold nothing that is worth keeping, so they are ended without a word.

    wait for all → round: rank 0's process and the others' → over → wait for all → …

A round is over for all when a pod is lost, when one is told to stop (rank 0 saves a last checkpoint first),
or when rank 0's process ends. Only the pod at fault leaves; the others stay and wait, since they hold staged
data and devices, but not for ever (`PATIENCE_S`).
"""

import logging
import os
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
from rectrain_trainer.environment import RANK, WORLD
from rectrain_trainer.flight import FlightRecorder
from rectrain_trainer.meeting import Event, Seat, Word, meet
from rectrain_trainer.outcome import Until
from rectrain_trainer.stall import Watch
from rectrain_trainer.supervisor import WATCHED, Child, reap, say_stopping, stop_margin_s

log = logging.getLogger(__name__)

PATIENCE_S: Final = 1800.0
"""How long the other pods are waited for."""
LAST_WORDS_S: Final = 30.0
"""For rank 0's process to commit what waits, after another rank was lost; in NCCL it may hang for ever."""
BLAME_S: Final = 5.0
"""A process that failed may have failed of another pod's loss: that is known within this time."""
FRUITLESS_ROUNDS: Final = 3
"""So many rounds in a row that broke with no newer checkpoint, though nobody left, end rank 0's pod."""
PEER_LOST: Final = outcome_of(PeerLost()).reason
_ENDED: Final = (Word.OVER, Word.LOST, Word.BROKEN)
_OF_ITS_OWN: Final = {*codes_with("FailJob"), EX_FENCED}
"""Ends that no other pod can have brought about."""

CommandFor = Callable[[FlightRecorder, Until], Sequence[str]]


def supervise_rank(
    command_for: CommandFor,
    seat: Seat,
    *,
    grace_s: float,
    stall_timeout_s: float,
    gpus: int,
    variables: Mapping[str, str],
    patience_s: float = PATIENCE_S,
) -> TerminationResult:
    """Run this rank to the end of the run. Call `block_signals` first."""
    rank = _Rank(command_for, seat, grace_s, stall_timeout_s, gpus, variables, patience_s)
    with rank.meeting:
        return rank.run()


class _Rank:
    def __init__(
        self,
        command_for: CommandFor,
        seat: Seat,
        grace_s: float,
        stall_timeout_s: float,
        gpus: int,
        variables: Mapping[str, str],
        patience_s: float,
    ) -> None:
        self._command_for = command_for
        self._seat = seat
        self._first = seat.rank == 0
        self._grace_s, self._patience_s = grace_s, patience_s
        self._stall_timeout_s = stall_timeout_s
        self._gpus, self._variables = gpus, variables
        self._told: int | None = None
        """The signal that told this pod to stop."""
        self._done = False
        self._over = ""
        """Why the round is over; empty while it isn't."""
        self._left = self._asked = self._killed = False
        """A pod left the round; one asked that rank 0 saves; the process was ended by us."""
        self._saved_step = -1
        me = threading.get_ident()  # a signal to the process might go to a library's thread, and kill it
        self.meeting = meet(seat, lambda: signal.pthread_kill(me, signal.SIGUSR1))

    def run(self) -> TerminationResult:
        """Round after round; the last words of this pod."""
        if self._first and (looked := self._look()) is not None:
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
                return _bad_end(
                    PeerLost(f"{result.message} So it was {fruitless} times, with no newer checkpoint.")
                )
            log.warning("The round is over (%s). Waiting for all pods.", self._over or result.message)

    def _has_saved(self, result: TerminationResult) -> bool:
        """Whether there is a newer checkpoint than after the round before."""
        latest = result.checkpoint.latest if result.checkpoint else None
        before, self._saved_step = self._saved_step, latest.step if latest else self._saved_step
        return self._saved_step > before

    # -- between rounds

    def _look(self) -> TerminationResult | None:
        """The end, if the run's place is another's, or the run finished: that needs no other pod."""
        recorder = FlightRecorder.new()
        child = Child.start(self._command_for(recorder, "looked"), recorder, self._variables)
        result = child.conclude(self._watch(child), told_to_stop=self._told is not None)
        os.close(recorder.fd)
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
                f"Not all {self._seat.world} pods of the run came within {minutes:.0f} minutes: see what "
                "keeps the others (kubectl get pods), or set replicas.nodes to what the cluster has."
            )
        )
        # Of all pods that waited in vain one counts: rank 0's, or rank 1's when it is rank 0 that is missing.
        counts = self._first or (self._seat.rank == 1 and not self.meeting.hears_rank_0)
        return end if counts else end.model_copy(update={"exit_code": EX_TEMPFAIL})

    # -- a round

    def _round(self, store: str) -> TerminationResult:
        """One process, to its end."""
        self._over = ""
        self._left = self._asked = self._killed = False
        recorder = FlightRecorder.new()
        child = Child.start(self._command_for(recorder, "end"), recorder, self._environment(store))
        status = self._watch(child)
        result = child.conclude(status, told_to_stop=self._told is not None)
        os.close(recorder.fd)
        if not self._first and result.exit_code == EX_OK:
            self.meeting.tell(Word.FINISHED)
            self._wait_for_the_end()
        return result

    def _environment(self, store: str) -> dict[str, str]:
        """What Paddle wants to know; its endpoints are names for its own bookkeeping, and aren't used."""
        endpoints = [f"{name}:{self._seat.port}" for name in self._seat.names]
        return {
            **self._variables,
            RANK: str(self._seat.rank),
            WORLD: str(self._seat.world),
            "MASTER_ADDR": "",  # would win over the next one
            "PADDLE_MASTER": store,
            "PADDLE_TRAINER_ENDPOINTS": ",".join(endpoints),
            "PADDLE_CURRENT_ENDPOINT": endpoints[self._seat.rank],
            "PADDLE_DISTRI_BACKEND": "nccl" if self._gpus else "gloo",
            "FLAGS_selected_gpus": "0",
            # How long its store is waited for; staging may take long, and we end it when a pod is lost.
            "FLAGS_stop_check_timeout": str(7 * 24 * 3600),
        }

    def _watch(self, child: Child) -> int:
        """Wait status of the process. It is ended when its time is up, and rank 0's when it hangs: whichever
        rank is at fault, none gets on.
        """
        deadline: float | None = None
        pid, watch = child.pid, Watch(child.recorder, self._stall_timeout_s)
        while (status := reap(pid)) is None:
            watched = self._first and deadline is None
            if watched and (stall := watch.look()) is not None:
                deadline = time.monotonic() + child.end_stalled(stall)
                self.meeting.tell(Word.STALLED, stall.sentence)
            idle = watch.every_s if watched else 3600.0
            left = idle if deadline is None else deadline - time.monotonic()
            if left <= 0:
                self._killed = True
                os.kill(pid, signal.SIGKILL)
                left = 60.0
            told_before, ended_before = self._told, bool(self._over)
            event = self._next(left)
            if self._told is not None and told_before is None:
                deadline = time.monotonic() + self._grace_s - stop_margin_s(self._grace_s)
                self._stop(pid)
            if event is not None and event.word is Word.STALLED:
                child.dump_stacks(event.why)
            if event is not None and event.word is Word.STOP and not self._asked:
                self._asked = True
                log.warning("%s: saving a last checkpoint.", event.why)
                if self._told is None:
                    deadline = time.monotonic() + self._grace_s - stop_margin_s(self._grace_s)
                os.kill(pid, signal.SIGTERM)
            saving = self._first and (self._asked or self._told is not None)
            if self._done or (self._over and not ended_before and not saving):
                deadline = self._sooner(deadline, LAST_WORDS_S if self._first else 0.0)
        return status

    def _stop(self, pid: int) -> None:
        """This pod was told to stop: rank 0's process saves, the others take part until it has."""
        assert self._told is not None
        say_stopping(self._told, self._grace_s)
        if self._first:
            os.kill(pid, signal.SIGTERM)
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
        stays = self._told is None and not own and (ended or self._is_of_others(result))
        self.meeting.tell(Word.OVER, f"rank 0 ended with {result.reason}", left=not stays)
        return None if stays else result

    def _guest_words(self, result: TerminationResult) -> TerminationResult | None:
        if self._done:
            return self._good_end()
        if self._told is not None:
            return _bad_end(Interrupted("Told to stop; the run goes on when all its pods are back."))
        if result.exit_code == EX_OK or (self._over and self._killed):
            return None
        if result.reason == PEER_LOST:
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
        message = f"Rank {self._seat.rank} of {self._seat.world}: the run is finished."
        return TerminationResult(exit_code=EX_OK, reason=Reason.COMPLETED, message=message)


def _bad_end(error: Interrupted | PeerLost) -> TerminationResult:
    row = outcome_of(error)
    return TerminationResult(exit_code=row.exit_code, reason=row.reason, message=str(error))
