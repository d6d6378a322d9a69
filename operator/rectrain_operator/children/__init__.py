"""Builders of a run's children. Pure: the same run and plan give the same bytes; no API call in here."""

from rectrain_operator.children.build import ca_config_map, children_of, plan_config_map, service
from rectrain_operator.children.job import batch_job

__all__ = ["batch_job", "ca_config_map", "children_of", "plan_config_map", "service"]
