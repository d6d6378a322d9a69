"""One attempt, stage by stage. Raises what went wrong; the child turns that into an ending.

    look at the run's place → stage → check, try a step → meet the other ranks → take the attempt → resume
    → train → publish

Called by the child alone. A model's config is read before all of it, since the place is looked at with the
resolved plan. The place is looked at first (whose is it, is it done, can it be written), since
that costs nothing; the attempt's number is taken after the checks, since an attempt that never could
train should leave no trace in the log and fence nobody.
"""

import contextlib
import logging
import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from rectrain_api.errors import InputMissing, NoProgress, RectrainError
from rectrain_api.plan import Plan, RunPlan, epochs_of
from rectrain_api.records import AttemptEnd
from rectrain_api.run_log import RunLog, check_plan
from rectrain_api.run_state import ROLLED_BACK, UNPRODUCTIVE_LIMIT, RunState
from rectrain_api.status import Progress, Reason
from rectrain_data.transfer import RetryEvent, S3Options, Store, is_local
from rectrain_trainer.board import Board
from rectrain_trainer.check import check_data, recipe_for
from rectrain_trainer.checkpoint import Committer
from rectrain_trainer.chunks import Chunks
from rectrain_trainer.config import Recipe
from rectrain_trainer.copies import lost_export, make_copies
from rectrain_trainer.device import configure_device, usable_cores
from rectrain_trainer.devices import describe_devices
from rectrain_trainer.environment import PodEnvironment
from rectrain_trainer.follow import follow
from rectrain_trainer.found import Found
from rectrain_trainer.handover import hand_over, take_over
from rectrain_trainer.interrupt import Interrupt
from rectrain_trainer.outcome import Outcome, Until, last_words
from rectrain_trainer.place import (
    QUICK_DEADLINE_S,
    log_store,
    now,
    open_place,
    options_of,
    reached_training,
)
from rectrain_trainer.pretrained import first_weights
from rectrain_trainer.ranks import Ranks
from rectrain_trainer.reporting.live import VdlSync
from rectrain_trainer.smoke import smoke_test
from rectrain_trainer.stage import Staged, stage
from rectrain_trainer.surroundings import log_surroundings
from rectrain_trainer.trial import Trial
from rectrain_trainer.unresolved import resolved

log = logging.getLogger(__name__)

MAX_WORKERS: Final = 8
LAST_SYNC_S: Final = 60.0
"""How long VisualDL's log of a checkpoint is waited for, before that of the whole run is written."""
WAITING: Final = "Waiting for the other ranks of the run."


@dataclass
class Run:
    """What an attempt works with. `execute` once, then `close` whatever happened."""

    written: Plan
    pod: PodEnvironment
    board: Board
    interrupt: Interrupt
    chunks: Chunks
    work_dir: Path
    plan_path: Path | None = None
    """Where the plan lies: its epochs may be raised while the run goes on."""
    ranks: Ranks = field(default_factory=Ranks)
    show: Callable[[Found], None] | None = None
    """Told what the checks found, before anything of it is refused."""
    plan: RunPlan = field(init=False)
    """As it was written, or resolved with the model's config."""
    _committer: Committer | None = None
    _vdl: VdlSync | None = None
    _run_log: RunLog | None = None
    _first: dict[str, Any] | None = None
    """Weights to start from, as long as there is no checkpoint."""
    _options: S3Options = field(init=False)
    _store: Store = field(init=False)
    _log_place: Store = field(init=False)
    """The same place once more, for the log and its checkpoints: what waits there is told differently."""

    def execute(self, until: Until = "end") -> Outcome:
        """The whole attempt; or all of it before the attempt is taken; or a look at its place alone.

        Raises a RectrainError, or something that nobody foresaw.
        """
        self._options = options_of(self.written)
        if not is_local(self.written.checkpoint.uri):
            log.info("%s.", self._options.describe())
        self.plan = resolved(self.written, self._open)
        if not self.ranks.first:
            recipe, staged = self._prepare_beside()
            return follow(self.plan, staged, recipe, self.ranks, self.board, self._workers())
        self._store = self._open(self.plan.checkpoint.uri)
        self._log_place = self._open(self.plan.checkpoint.uri)
        run_log = RunLog(log_store(self._log_place, self.plan), self._store.uri)
        self.interrupt.check()
        state = self._look(run_log)
        done = state.final is not None and state.final.epochs >= self.plan.training.epochs
        if done and until != "checked" and self._export_is_there(state):
            return self._already_complete(state)
        if until == "looked":
            return Outcome(Reason.CHECKED, WAITING)
        self.interrupt.check()  # between stages, for a signal whose exception got lost in a library
        untried = until == "checked" or not state.checkpointed_attempts
        with Trial(self.plan, self.board, wanted=untried, ranks=self.ranks) as trial:
            self._prepare()
            recipe, found = self._checked(trial)
        found = self._begun(recipe, found, state, untried)
        if until == "checked":
            return Outcome(Reason.CHECKED, f"{self.plan.identity} can be trained: {found.verdict()}.")
        self._meet(recipe, found.staged)
        self._take_attempt(run_log, found)
        return self._train(run_log, recipe, found)

    def _prepare_beside(self) -> tuple[Recipe, Staged]:
        """A rank beside rank 0: the data is staged, checked and tried once in each pod."""
        if self.ranks.leads_pod:
            with Trial(self.plan, self.board, wanted=True, ranks=self.ranks) as trial:
                self._configure_device()
                recipe, found = self._checked(trial)
            self._meet(recipe, found.staged)
            return recipe, found.staged
        self._configure_device()
        self.ranks.open()
        return take_over(self.work_dir)

    def _meet(self, recipe: Recipe, staged: Staged) -> None:
        """Wait for the other ranks; those of this pod find here what they need."""
        if self.ranks.alone:
            return
        if self.ranks.in_pod > 1:
            hand_over(self.work_dir, recipe, staged)
        self.board.say(WAITING)
        self.ranks.open()
        self.board.say("")

    def _checked(self, trial: Trial) -> tuple[Recipe, Found]:
        """The data, here and checked, and a step tried."""
        self.interrupt.check()
        folder, cache = self.work_dir / "data", self.pod.cache_dir
        staged = stage(self.plan, self._open, folder, self.board, cache, for_check=self.show is not None)
        self.interrupt.check()
        recipe = recipe_for(self.plan, staged, self.board, self.show)
        trial.begin(recipe, staged)
        found = check_data(self.plan, recipe, staged, self.board, self.show, self._world())
        self.interrupt.check()
        try:
            trial.conclude()
        except RectrainError:
            if self.show:
                self.show(found)
            raise
        self.interrupt.check()
        return recipe, found

    def _begun(self, recipe: Recipe, found: Found, state: RunState, untried: bool) -> Found:
        """The weights to start from, here, and the smoke test; what was found is shown then, or when it ends
        here."""
        try:
            first = first_weights(
                self.plan, recipe, state, self._open, self.work_dir / "pretrained", self.board
            )
            self._first = first.weights if first else None
            if first and first.finding:
                found = found.also(first.finding)
            self.interrupt.check()
            if self.plan.training.smoke_test and untried:
                failed = smoke_test(self.plan, recipe, found.staged.train, self._first, self.board)
                found = found.also(failed) if failed else found
            self.interrupt.check()
        finally:
            self.board.update(data=found.status())
            if self.show:
                self.show(found)
        return found

    def end(self, reason: str) -> None:
        """Say in the log how the attempt ended, if it may still be said. Never raises."""
        run_log = self._run_log
        if run_log is None or (self._committer is not None and self._committer.has_log):
            return
        with contextlib.suppress(RectrainError):
            run_log.append(
                AttemptEnd(
                    attempt=run_log.attempt,
                    time=now(),
                    reason=reason,
                    step=self.board.progress.step,
                    reached_training=self.board.reached_training,
                )
            )

    def report(self, reason: str) -> None:
        """Make the report of a run that failed, if it was begun. Never raises, and takes a bounded time."""
        run_log = self._run_log
        if run_log is None or (self._committer is not None and self._committer.has_log):
            return
        from rectrain_trainer.reporting.make import report_failure

        self.board.rest()
        quick = open_place(self._store.uri, self._options, deadline=QUICK_DEADLINE_S)
        self.board.update(report_uri=report_failure(quick, run_log.attempt, reason))

    # -- before the attempt

    def _open(self, uri: str) -> Store:
        """A store whose waiting is shown, and whose retries shrink when we are told to stop."""
        store = open_place(uri, self._options, self._waiting)
        self.interrupt.when_told(store.retries.shrink)
        return store

    def _waiting(self, event: RetryEvent) -> None:
        since = time.strftime("%H:%M:%S UTC", time.gmtime(time.time() - event.waited_s))
        what = "the disk" if is_local(self.written.checkpoint.uri) else "S3"
        self.board.say(f"Waiting for {what} since {since}: {event.sentence}")

    def _look(self, run_log: RunLog) -> RunState:
        """Whose place it is, and how far it got."""
        state = run_log.read()
        self.board.say("")
        for damage in state.damaged:
            log.warning(
                "%s %s: what that record said is lost; the run goes on with the others.",
                self._store.uri_of(damage.key),
                damage.problem,
            )
        check_plan(state, self.plan, self._store.uri)
        self._refuse_unproductive(state)
        self.board.update(attempt=state.next_attempt, progress=self._progress_so_far(state))
        return state

    def _progress_so_far(self, state: RunState) -> Progress:
        """Where an earlier attempt left off: a restart shouldn't look like a start."""
        newest, epochs = state.newest_first(), self.plan.training.epochs
        if not newest:
            return self.board.progress
        epoch, step = min(newest[0].epoch, epochs), newest[0].step
        percent = 100 * (epoch - 1) // epochs  # the epoch's own steps aren't known before the data is
        return Progress(
            epoch=epoch,
            epochs=epochs,
            step=step,
            percent=percent,
            text=f"{percent}%",
            epoch_text=f"{epoch}/{epochs}",
            stage=self.board.stage.value,
        )

    def _refuse_unproductive(self, state: RunState) -> None:
        count = state.unproductive_attempts(
            self.pod.job_uid, lambda attempt: reached_training(self._store, attempt)
        )
        if count >= UNPRODUCTIVE_LIMIT:
            raise NoProgress(
                f"{count} attempts in a row reached the first step and left no newer checkpoint at "
                f"{self._store.uri}: look at their logs there (attempts/*/log), shorten checkpoint.interval, "
                "give the pod more memory, or choose another checkpoint.uri."
            )

    def _export_is_there(self, state: RunState) -> bool:
        """Whether a finished run still has its model; else it is exported once more, and nothing trained.

        Raises InputMissing when fewer epochs are asked for than the checkpoints have.
        """
        final = state.final
        assert final is not None
        lost = lost_export(self._store, final)
        if lost is None:
            return True
        if final.epochs > self.plan.training.epochs:
            raise InputMissing(
                f"{self._store.uri} holds this run, finished after {final.epochs} epochs, but its exported "
                f"model is gone ({lost}): set training.epochs to {final.epochs} to have it exported again."
            )
        log.warning("The run is finished, but its exported model is gone (%s): it is exported again.", lost)
        return False

    def _already_complete(self, state: RunState) -> Outcome:
        from rectrain_trainer.publish import show_final
        from rectrain_trainer.reporting.make import ensure_report

        final = state.final
        assert final is not None
        make_copies(self._store, state, final)
        report = ensure_report(self._store, final.attempt)
        self.board.update(attempt=state.attempt, report_uri=report)
        show_final(self.board, final, 0 if final.stopped_early else final.step)
        return Outcome(
            Reason.ALREADY_COMPLETE,
            f"{self._store.uri} holds this run, finished by attempt {final.attempt}: nothing was trained.",
        )

    def _prepare(self) -> None:
        """Probe the store while Paddle is being imported: both take seconds."""
        with ThreadPoolExecutor(1, thread_name_prefix="probe") as pool:
            fenced = self.plan.checkpoint.fencing == "On"
            probe = pool.submit(self._store.probe_conditional_writes if fenced else self._try_writing)
            self._configure_device()
            probe.result()

    def _try_writing(self) -> None:
        """Permission to write is asked for before it is needed; the probe does that too."""
        key = f"probe/{secrets.token_hex(8)}"
        self._store.put_bytes(key, b"")
        self._store.delete([key])

    def _configure_device(self) -> None:
        deterministic = self.plan.training.deterministic
        with self.interrupt.held_back():
            kind = configure_device(self.plan.gpus, deterministic=deterministic)
        devices = describe_devices(kind, self._world())
        self.board.update(devices=devices)
        log_surroundings(devices, self.work_dir, self.ranks.in_pod)

    def _world(self) -> int:
        """Ranks of the run; a check alone has but the plan to tell."""
        return self.plan.ranks if self.ranks.alone else self.ranks.share.world

    # -- the attempt

    def _take_attempt(self, run_log: RunLog, found: Found) -> None:
        from rectrain_trainer.reporting.about import tell_about

        attempt = run_log.start(
            self.plan,
            now=now(),
            job_uid=self.pod.job_uid,
            pod_uid=self.pod.pod_uid,
            check=self._refuse_unproductive,
        )
        self._run_log = run_log
        self.board.update(attempt=attempt)
        quick = open_place(self._store.uri, self._options, deadline=QUICK_DEADLINE_S)
        self.chunks.start(quick, attempt)
        where = {"node": self.pod.node, "pod": self.pod.pod_name}
        tell_about(quick, attempt, self.plan, found.to_dict(), self.board.devices, self.work_dir, where)
        self._vdl = VdlSync(quick, attempt)
        log.info("Attempt %d of %s at %s.", attempt, self.plan.identity, self._store.uri)

    def _train(self, run_log: RunLog, recipe: Recipe, found: Found) -> Outcome:
        from rectrain_trainer.evaluate import EvalSet
        from rectrain_trainer.loader import Loader
        from rectrain_trainer.publish import Publication, publish
        from rectrain_trainer.segments import Segments

        staged = found.staged
        with Loader(recipe, staged.train, workers=self._workers(), share=self.ranks.share) as loader:
            held_out = EvalSet(recipe, staged.eval)
            segments = Segments(
                self.plan,
                recipe,
                self.ranks,
                run_log,
                self._store,
                self.work_dir / "resume",
                self.board,
                self.chunks,
                self.interrupt,
                loader,
                held_out,
                self._first,
                lambda: self._new_committer(run_log, recipe),
                self._epochs_wanted,
            )
            state = segments.train()
        if state is None:
            return Outcome(ROLLED_BACK, self.board.message)
        assert self._vdl is not None
        self._vdl.wait(LAST_SYNC_S)
        final = publish(
            Publication(
                self.plan,
                state.recipe,
                state,
                held_out,
                run_log,
                self._store,
                self.board,
                self.interrupt,
                self.work_dir / "out",
                segments.rows,
                segments.evaluations,
                found.to_dict(),
                found.train_samples,
                staged.uris,
            )
        )
        model = f"{self._store.uri}/export"
        return Outcome(Reason.COMPLETED, last_words(self.plan, final, run_log.state, model))

    def _new_committer(self, run_log: RunLog, recipe: Recipe) -> Committer:
        self._committer = committer = Committer(
            run_log,
            self._log_place,
            self.board,
            self._store_metrics,
            folder=self.work_dir / "snapshots",
            config=config_of(self.plan, recipe),
            keep_last=self.plan.checkpoint.keep_last,
        )
        self._log_place.retries.on_retry = committer.retried
        committer.start()
        return committer

    def _store_metrics(self) -> None:
        self.chunks.store_metrics()
        if self._vdl:
            self._vdl.checkpointed()

    def _epochs_wanted(self) -> int:
        """As the plan has it by now; what can't be read changes nothing."""
        if self.plan_path is not None:
            with contextlib.suppress(OSError, ValueError):
                return epochs_of(self.plan_path.read_text("utf-8")) or self.plan.training.epochs
        return self.plan.training.epochs

    def _workers(self) -> int:
        """Loader processes: this rank's part of what is asked for the pod, else one for each of its cores but
        the one that trains.
        """
        asked = self.plan.training.workers
        if asked is None:
            return min(max(usable_cores() - 1, 0), MAX_WORKERS)
        return max(1, asked // self.ranks.in_pod) if asked else 0


def config_of(plan: RunPlan, recipe: Recipe) -> bytes:
    """config.yml of a checkpoint: what its weights belong to."""
    content = {
        "plan": plan.hashed_part(),
        "dictionary": list(recipe.characters),
        "useSpaceChar": recipe.use_space_char,
    }
    return yaml.safe_dump(content, allow_unicode=True, sort_keys=True).encode()
