"""The batches that a run would train on, as a picture. Called by `config preview`.

The batches are the loader's own: same order, same augmentation, same sizes as in the run's epoch. Of each
size the first batch is drawn, and of that the first images.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from rectrain_api.errors import InputMissing
from rectrain_api.plan import FROM_LABELS
from rectrain_api.presets import Scale
from rectrain_data import dictionary as dictionaries
from rectrain_data.dictionary import Dictionary
from rectrain_data.labels import LooseSet
from rectrain_data.packed import INDEX, PackedSet
from rectrain_data.split import TRAIN
from rectrain_trainer.config import Recipe, resolve
from rectrain_trainer.configs.named import Named
from rectrain_trainer.configs.sheet import Block, Picture, draw, face_for
from rectrain_trainer.loader import Batch, BatchMaker, Task
from rectrain_trainer.sampler import Sampler
from rectrain_trainer.sources import StagedSource, open_set


def preview(
    named: Named,
    data: Path,
    output: Path,
    *,
    dictionary: str | None,
    images: int,
    epoch: int,
    font: Path | None,
) -> list[str]:
    """Write the picture; returns what is to be said of it.

    Raises InputMissing, InvalidSpec, DatasetInvalid.
    """
    source = _source(data)
    characters = _dictionary(dictionary or named.dictionary, source)
    recipe = resolve(
        named.model,
        named.training(),
        characters.characters,
        use_space_char=characters.use_space_char,
    )
    blocks = list(_blocks(recipe, source, images, epoch))
    face = face_for([picture.text for block in blocks for picture in block.pictures], font)
    draw(blocks, face).save(output)
    augmented = ", ".join(name for operator in recipe.augment for name in operator) or "none"
    said = [f"{output} shows {len(blocks)} size(s), epoch {epoch}; augmentation: {augmented}."]
    return [*said, *face.problems]


def _source(data: Path) -> StagedSource:
    """A packed set's training split, or a label file."""
    if (data / INDEX).is_file():
        index = PackedSet.read_index(data)
        return StagedSource(data, True, TRAIN if TRAIN in index.splits else None)
    if not data.is_file():
        raise InputMissing(f"{data} is neither a label file nor a packed set (it holds no {INDEX}).")
    LooseSet.open(data)  # which looks at every line
    return StagedSource(data, False)


def _dictionary(name: str | None, source: StagedSource) -> Dictionary:
    counts = dictionaries.count_set(open_set(source.whole))
    if name is None or name == FROM_LABELS:
        return dictionaries.from_counts(counts)
    if name.startswith("s3://"):
        raise InputMissing(f"The dictionary {name} isn't on this machine: name a file with --dictionary.")
    chosen = dictionaries.read(Path(name)) if Path(name).is_file() else dictionaries.builtin(name)
    return chosen.with_space_of(counts)


def _blocks(recipe: Recipe, source: StagedSource, images: int, epoch: int) -> Iterator[Block]:
    """The first batch of each size."""
    maker, wanted = BatchMaker(recipe, source), list(recipe.sampler.scales)
    sampler = Sampler(
        recipe.sampler, len(source.open()), batch_size=recipe.batch_size, world=1, seed=recipe.seed
    )
    drawn: list[int] = []
    for number, (scale, positions) in enumerate(sampler.batches(epoch)):
        drawn = drawn or positions
        if scale in wanted:
            wanted.remove(scale)
            shown = positions[:images]
            part = f"{len(shown)} of {len(positions)}" if len(shown) < len(positions) else f"{len(shown)}"
            title = f"Batch {number + 1} of epoch {epoch}, {_size(scale)}: {part} images"
            yield Block(title, _pictures(recipe, maker(Task(epoch, scale, shown))))
        if not wanted:
            return
    for scale in wanted:
        title = (
            f"{_size(scale)}: no batch of epoch {epoch}, since the samples are too few; these would look so"
        )
        yield Block(title, _pictures(recipe, maker(Task(epoch, scale, drawn[:images]))))


def _size(scale: Scale) -> str:
    width, height = scale
    return f"{height}x{width}"


def _pictures(recipe: Recipe, batch: Batch) -> list[Picture]:
    """Pixels as a screen has them, and the labels as they were encoded: joined ones are joined here too."""
    alphabet = [*recipe.characters, *([" "] if recipe.use_space_char else [])]
    labels, lengths = batch[1], batch[recipe.keep_keys.index("length")]
    return [
        Picture(_pixels(image), "".join(alphabet[c - 1] for c in label[:length]))
        for image, label, length in zip(batch.images, labels, lengths, strict=True)
    ]


def _pixels(image: np.ndarray[Any, np.dtype[np.float32]]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """H x W x 3, RGB. What a batch pads with 0 is grey here."""
    grey = (image.transpose(1, 2, 0)[:, :, ::-1] + 1) * 127.5
    return np.ascontiguousarray(np.clip(np.rint(grey), 0, 255).astype(np.uint8))
