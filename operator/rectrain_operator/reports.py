"""Accepted progress reports, in memory, and the rules of their order.

`report_server` asks `refusal` and puts; `observe` reads. Lost with the process: status has what was written,
and the next report brings the rest.
"""

from collections.abc import Callable
from typing import Final

from rectrain_api.report import ProgressReport
from rectrain_api.status import RecTrainingJobStatus
from rectrain_operator.keys import JobKey
from rectrain_operator.seen import Taken

SOON_S: Final = 1.0
"""Least time between two status writes for reports, however much happens."""
_AT_ONCE: Final = ("checkpoint", "model", "report", "attempt")
LATE_S: Final = 15.0
"""A report that changes little is written after this long at the latest."""


def refusal(
    status: RecTrainingJobStatus, last: Taken | None, pod_name: str, report: ProgressReport
) -> str | None:
    """Why a report comes too late; None when it is the newest. Attempt 0: the pod hasn't reached the log."""
    attempt = max(status.attempt or 0, last.report.attempt if last else 0)
    if 0 < report.attempt < attempt:
        return f"attempt {report.attempt} is over: attempt {attempt} has reported"
    if last is not None:
        same, sequence = last.pod_name == pod_name, last.report.sequence
    else:
        same, sequence = status.pod == pod_name, status.report_sequence or 0
    if same and last is not None and report.attempt < last.report.attempt:
        return f"attempt {report.attempt} is over: attempt {last.report.attempt} has reported"
    if same and report.sequence <= sequence:
        return f"report {report.sequence} is old: report {sequence} was taken"
    return None


def matters(before: ProgressReport | None, report: ProgressReport) -> bool:
    """Whether users should see it at once: another stage, sentence, checkpoint or model, or 1% more."""
    if before is None or before.stage != report.stage or before.message != report.message:
        return True
    if any(getattr(before, part) != getattr(report, part) for part in _AT_ONCE):
        return True
    percents = [r.progress.percent if r.progress else 0 for r in (before, report)]
    accuracies = [r.metrics.accuracy if r.metrics else None for r in (before, report)]
    return percents[0] != percents[1] or accuracies[0] != accuracies[1]


class ReportStore:
    """The newest report of each run, and when its status was last written for one."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._newest: dict[JobKey, Taken] = {}
        self._shown: dict[JobKey, tuple[float, ProgressReport]] = {}

    def get(self, key: JobKey) -> Taken | None:
        """The newest report of a run."""
        return self._newest.get(key)

    def put(self, key: JobKey, taken: Taken) -> float:
        """Keep a report; returns after how long the run should be reconciled [s]."""
        shown_at, shown = self._shown.get(key, (float("-inf"), None))
        self._newest[key] = taken
        wait_s = SOON_S if matters(shown, taken.report) else LATE_S
        return max(0.0, shown_at + wait_s - self._clock())

    def shown(self, key: JobKey, taken: Taken) -> None:
        """Status now shows this report."""
        known = self._shown.get(key)
        if known is None or known[1] != taken.report:
            self._shown[key] = (self._clock(), taken.report)

    def forget(self, key: JobKey) -> None:
        """The run is gone or over."""
        self._newest.pop(key, None)
        self._shown.pop(key, None)
