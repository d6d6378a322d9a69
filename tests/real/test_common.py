"""The same test bodies as on the process node: what differs between the two would show here."""

from tests.e2e.test_bad_input import test_missing_bucket
from tests.e2e.test_faults import test_deletion_leaves_nothing, test_suspend_commits_and_resume_goes_on

__all__ = ["test_deletion_leaves_nothing", "test_missing_bucket", "test_suspend_commits_and_resume_goes_on"]
