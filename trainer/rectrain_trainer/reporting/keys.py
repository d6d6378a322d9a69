"""Where the report and what it is made of lie: under an attempt's prefix, or under the run's place."""

from typing import Final

ABOUT: Final = "about.json"
"""Of an attempt: plan, checks, surroundings."""
SAMPLES: Final = "samples.json"
"""Of the attempt that published: the samples that are read worst."""
INDEX: Final = "report/index.html"
METRICS: Final = "report/metrics.jsonl"
VDL: Final = "vdl/vdlrecords.log"
