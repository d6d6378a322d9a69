"""The condition DataReady: what is trained on, what was found, and why data was refused."""

from rectrain_api.report import Stage
from rectrain_api.status import Condition, DataStatus, FindingStatus, RecTrainingJobStatus
from rectrain_operator.decide import decide
from tests.unit.operator import make
from tests.unit.operator.make import ended, report, running, seen, taken

FEW = FindingStatus(
    code="RD022",
    severity="Warning",
    count=1,
    message="RD022 at training.evalInterval (2 evaluations): fewer than three; lower it",
)


def data_ready(status: RecTrainingJobStatus) -> Condition:
    [found] = [c for c in status.conditions if c.type == "DataReady"]
    return found


def test_it_says_what_is_trained_on_and_every_finding() -> None:
    found = DataStatus(train_samples=4000, eval_samples=1000, left_out=3, findings=[FEW])
    status = decide(seen(running(), report=taken(running(), report(data=found))), make.NOW).status
    assert status.data == found
    ready = data_ready(status)
    assert (ready.status, ready.reason) == ("True", "CheckedWithWarnings")
    assert ready.message == (
        "Trains on 4,000 samples, evaluates on 1,000. 3 that can't be used are left out. "
        "RD022 at training.evalInterval (2 evaluations): fewer than three; lower it."
    )


def test_without_findings_it_is_checked_and_stays_so_when_a_later_report_has_none() -> None:
    found = DataStatus(train_samples=10, eval_samples=5)
    first = decide(seen(running(), report=taken(running(), report(data=found))), make.NOW).status
    later = decide(seen(running(), report=taken(running()), status=first), make.NOW).status
    assert later.data == found
    ready = data_ready(later)
    assert (ready.status, ready.reason) == ("True", "Checked")
    assert ready.message == "Trains on 10 samples, evaluates on 5."


def test_refused_data_says_why() -> None:
    checking = decide(seen(running(), report=taken(running(), report(Stage.CHECKING))), make.NOW).status
    words = make.words(65, "DatasetInvalid", message="The data can't be trained on: RD006 at …")
    failed = make.job_failed("PodFailurePolicy")
    status = decide(seen(ended(65, message=words), batch=failed, status=checking), make.NOW).status
    refused = data_ready(status)
    assert (refused.status, refused.reason) == ("False", "DatasetInvalid")
    assert refused.message == "The data can't be trained on: RD006 at …"
