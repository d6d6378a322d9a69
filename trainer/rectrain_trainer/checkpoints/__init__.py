"""`rectrain-trainer checkpoints ls|verify|pull`: a run looked into from outside. Nothing writes to S3."""

from rectrain_trainer.checkpoints.commands import Uri, app

__all__ = ["Uri", "app"]
