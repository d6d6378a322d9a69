"""One training step tried before the run: whether the largest batch fits the memory, and trains at all.

Called by the run while it stages and checks. The step is the real one (forward, backward, moments), with the
real model, on the largest shape of its batches, in a process of its own (`apart`) that is confined to the
memory that is left. That process itself takes as much as the loader's fork server will, once it is gone.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from rectrain_api.errors import BatchTooLarge, InternalError, RectrainError
from rectrain_api.plan import RunPlan
from rectrain_api.presets import SamplerConfig
from rectrain_trainer import memory, upstream
from rectrain_trainer.apart import Answer, Apart
from rectrain_trainer.board import Board
from rectrain_trainer.config import Recipe, resolve
from rectrain_trainer.disk import human
from rectrain_trainer.memory import Room
from rectrain_trainer.sampler import batch_sizes
from rectrain_trainer.stage import Staged

log = logging.getLogger(__name__)

TRY_LIMIT_S: Final = 300.0
MAX_TRIES: Final = 16
"""For the largest batch that fits, once the wanted one doesn't."""
_PRECISION: Final = 32
"""The largest batch is found to one part in so many."""


class Shape(NamedTuple):
    """One batch: images, and their size [px]."""

    images: int
    width: int
    height: int


def largest_shape(config: SamplerConfig, batch_size: int, most: int) -> Shape:
    """The batch with the most pixels, of one rank; `most` images is all that there are for it. Pure."""
    shapes = [
        Shape(min(size, most), width, height)
        for size, (width, height) in zip(batch_sizes(config, batch_size), config.scales, strict=True)
    ]
    return max(shapes, key=lambda s: s.images * s.width * s.height)


def largest_that_fits(fits: Callable[[int], bool], too_large: int) -> tuple[int, int]:
    """The largest batch known to fit (0: none does), and the smallest known not to, close together."""
    low, high = 0, too_large
    for _ in range(MAX_TRIES):
        if high - low <= max(1, low // _PRECISION):
            break
        middle = (low + high) // 2
        if fits(middle):
            low = middle
        else:
            high = middle
    return low, high


@dataclass(frozen=True)
class OneStep:
    """The step itself, for the process of its own."""

    recipe: Recipe
    shape: Shape
    left: int | None
    """Memory that this process may still take at most; None on a GPU, which has its own."""

    def __call__(self) -> dict[str, Any]:
        """Returns when the device has done it; what it learnt is of no interest."""
        from rectrain_trainer.loader import blank_batch
        from rectrain_trainer.loop import TrainState, train_step

        if self.left is not None:
            memory.confine(min(self.left, memory.room().left))
        images, width, height = self.shape
        state = TrainState.new(self.recipe, steps_per_epoch=1)
        state.learner.model.train()
        batch = blank_batch(self.recipe, images, (width, height))
        return {"loss": float(train_step(state, batch, images))}


class Trial:
    """`with` it around staging and checking: `begin` in between, `conclude` after."""

    def __init__(self, plan: RunPlan, board: Board, *, wanted: bool) -> None:
        """`wanted`: False for a run that has a checkpoint, and so has shown that it fits."""
        self._plan, self._board, self._wanted = plan, board, wanted
        self._apart = self._new_process()
        self._recipe: Recipe | None = None
        self._most = 0
        self._room = Room(0, None, "gpu")

    def __enter__(self) -> "Trial":
        if self._wanted:
            self._apart.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._apart.close()

    def begin(self, staged: Staged) -> None:
        """Have it tried from here on. What is wrong with recipe or data is left to the check to say."""
        if not self._wanted:
            return
        dictionary, training = staged.dictionary, self._plan.training
        try:
            recipe = resolve(
                self._plan.model, training, dictionary.characters, use_space_char=dictionary.use_space_char
            )
            count = len(staged.train.open())
        except RectrainError:
            return
        if not count:
            return
        upstream.load()  # this process will need it, so it isn't left
        self._recipe = recipe
        self._most = -(-count // self._plan.nodes)
        if not self._plan.gpus:
            self._room = memory.room()
            log.debug("There are %s left to try a training step in.", human(self._room.left))
        self._apart.ask(self._step(training.batch_size))

    def conclude(self) -> None:
        """Wait for it.

        Raises:
            BatchTooLarge: naming the largest batch that fits.
            InvalidSpec: the model can't be trained, in Paddle's words.
            InternalError: the process crashed.
        """
        if self._recipe is None:
            return
        self._board.say("trying one training step")
        wanted = self._plan.training.batch_size
        try:
            answer = self._apart.answer(TRY_LIMIT_S)
        except TimeoutError:
            log.warning("A training step isn't done after %.0f s: whether it fits is left open.", TRY_LIMIT_S)
            answer = None
        self._apart.close()
        if answer is not None and answer.out_of_memory:
            self._look_for_one_that_fits(wanted, answer)
        if answer is not None:
            answer.result()
        self._board.say("")

    def _look_for_one_that_fits(self, wanted: int, answer: Answer) -> None:
        """Raises BatchTooLarge."""
        answers = {self._shape(wanted): answer}

        def fits(batch: int) -> bool:
            shape = self._shape(batch)
            if shape not in answers:
                self._board.say(f"a batch of {wanted} doesn't fit the memory; trying {batch}")
                try:
                    answers[shape] = self._try(batch)
                except TimeoutError:
                    return False  # not known to fit
            return not answers[shape].out_of_memory

        low, high = largest_that_fits(fits, wanted)
        smallest = answers.get(self._shape(high), answer)
        if not low and smallest.crash not in (None, "SIGKILL"):
            raise InternalError(
                f"The step that is tried before training crashes ({smallest.crash}), with a single image "
                "too: --debug shows what it said."
            )
        raise BatchTooLarge(too_large(wanted, self._shape(wanted), low, high, self._room, self._gpu()))

    def _try(self, batch: int) -> Answer:
        with self._new_process() as apart:
            apart.start()
            apart.ask(self._step(batch))
            return apart.answer(TRY_LIMIT_S)

    def _new_process(self) -> Apart:
        return Apart(self._plan.gpus, deterministic=self._plan.training.deterministic)

    def _step(self, batch: int) -> OneStep:
        assert self._recipe is not None
        return OneStep(self._recipe, self._shape(batch), None if self._plan.gpus else self._room.left)

    def _shape(self, batch: int) -> Shape:
        assert self._recipe is not None
        return largest_shape(self._recipe.sampler, batch, self._most)

    def _gpu(self) -> str:
        """Name and memory of the GPU, if that is what it is tried on."""
        if not self._plan.gpus:
            return ""
        import paddle

        found = paddle.device.cuda.get_device_properties()
        return f"{found.name}, {human(found.total_memory)}"


def too_large(wanted: int, shape: Shape, fits: int, fails: int, room: Room, gpu: str = "") -> str:
    """The sentence for a batch that needs too much memory. Pure."""
    images, width, height = shape
    count = "" if images == wanted else f"{images} "
    has, more = _words(room, gpu)
    step = f"One training step with training.batchSize {wanted} ({count}images of {height}x{width})"
    if not fits:
        return f"{step} needs more memory than {has}, and so does one with a single image: {more}."
    about = "" if fails == fits + 1 else "about "
    return (
        f"{step} needs more memory than {has}: the largest batch that fits is {about}{fits}; lower "
        f"training.batchSize, or {more}."
    )


def _words(room: Room, gpu: str) -> tuple[str, str]:
    """Who has too little memory, and how it gets more."""
    if gpu:
        return f"the GPU has ({gpu})", "train on GPUs with more memory"
    if room.limit is None:
        return f"this machine has left ({human(room.left)})", "use one with more memory"
    if room.of == "pod":
        return f"this pod has (limit {human(room.limit)})", "raise replicas.resources.limits.memory"
    return f"this process may have (limit {human(room.limit)})", "raise that limit (ulimit -d)"
