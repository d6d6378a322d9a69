"""What `/metrics` shows. Counted where it happens, served by `health`."""

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

RECONCILES: Final = Counter("rectrain_reconciles_total", "Reconciles, by how they ended.", ["result"])
RECONCILE_SECONDS: Final = Histogram(
    "rectrain_reconcile_seconds",
    "Time of one reconcile [s].",
    buckets=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30),
)
QUEUE_DEPTH: Final = Gauge("rectrain_queue_depth", "Runs waiting for a worker.")
RUNS: Final = Gauge("rectrain_runs", "RecTrainingJobs known.")
API_REQUESTS: Final = Histogram(
    "rectrain_api_request_seconds",
    "Requests to the API server [s]; code 0: not reached.",
    ["method", "code"],
    buckets=(0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30),
)
REPORTS: Final = Counter("rectrain_reports_total", "Progress reports, by HTTP answer.", ["code"])
WATCH_RESTARTS: Final = Counter("rectrain_watch_restarts_total", "Watches that broke.", ["kind"])
