"""The run's report for people: `report/index.html`, `report/metrics.jsonl` and `vdl/` at its place.

    gather (S3 → Run) → headline, charts (pure) → page (Run → HTML) → make (→ S3)

Everything is made from the run's place alone, so that `rectrain-trainer report URI` makes it again. (What is
told to the operator while a run goes on is `rectrain_trainer.report`.)
"""
