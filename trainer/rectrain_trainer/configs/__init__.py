"""`rectrain-trainer config list|show|diff|validate|preview`: models looked at before anything is trained."""

from rectrain_trainer.configs.commands import app

__all__ = ["app"]
