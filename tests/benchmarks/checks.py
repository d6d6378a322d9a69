"""How long the checks before training take for 100,000 images: `python tests/benchmarks/checks.py`.

A packed set of digits (a few thousand images, over and over under other names). Prints a JSON line
{"name", "value", "unit", "baseline", "ratio"}: value is the check as it is (every label, the bytes of every
image, 10,000 images decoded), baseline the same with all images decoded, ratio = baseline / value, above 1 is
better. Runs are interleaved; values are medians. Spread goes to stderr.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

from rectrain_data import demo, images
from rectrain_data.checks import DECODED, check_set
from rectrain_data.dictionary import Dictionary
from rectrain_data.packed import PackedSet, PackedWriter
from rectrain_data.split import TRAIN

DIGITS = Dictionary(tuple("0123456789"))
DRAWN = 2000


def make(folder: Path, count: int, height: int) -> PackedSet:
    """A packed set of images this high."""
    drawn = []
    for number in range(min(count, DRAWN)):
        text, data = demo.sample(0, number)
        drawn.append((text, *images.at_height(data, "a.jpg", height)[1:]))
    with PackedWriter(folder) as writer:
        for number in range(count):
            text, encoded, width, rows = drawn[number % len(drawn)]
            writer.add(TRAIN, f"{number:07d}.jpg", encoded, text, width=width, height=rows)
        writer.finish()
    return PackedSet.open(folder)


def measure(samples: PackedSet, limit: int) -> float:
    """One check [s]; `limit` images are decoded."""
    started = time.perf_counter()
    checked = check_set(samples, DIGITS, max_text_length=8, ctc_steps=16, decode_limit=limit)
    took = time.perf_counter() - started
    if checked.findings or checked.decoded != min(limit, len(samples)):
        raise SystemExit(f"the set was to be good: {checked.findings}")
    return took


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--height", type=int, default=32, help="of the images [px]")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rectrain-checks-") as folder:
        samples = make(Path(folder) / "set", options.count, options.height)
        times: dict[str, list[float]] = {"sampled": [], "all": []}
        for _ in range(options.runs):
            times["sampled"].append(measure(samples, DECODED))
            times["all"].append(measure(samples, options.count))
    value, baseline = (statistics.median(times[k]) for k in ("sampled", "all"))
    line = {
        "name": f"check of {options.count:,} images {options.height} px high, vs all of them decoded",
        "value": round(value, 2),
        "unit": "s",
        "baseline": round(baseline, 2),
        "ratio": round(baseline / value, 2),
    }
    print(json.dumps(line), flush=True)
    spread = ", ".join(f"{k} {min(v):.2f} to {max(v):.2f} s" for k, v in times.items())
    print(f"{options.runs} runs, {spread}", file=sys.stderr)


if __name__ == "__main__":
    main()
