"""`rectrain-trainer report URI`: the page of any run, made again from its place. Called by the command line.

Nothing is written there.
"""

import re
from pathlib import Path

from rectrain_api.errors import UsageError
from rectrain_data.console import say_retry
from rectrain_trainer.place import open_named
from rectrain_trainer.reporting.gather import gather
from rectrain_trainer.reporting.page import page


def write_report(uri: str, target: Path | None) -> Path:
    """Write the page of the run at `uri`, by default into a file named after the run; returns it.

    Raises:
        UsageError: `uri` can't be a run's place, or the file can't be written.
        InputMissing: there is no run.
        RunConflict: a newer version's.
    """
    if not uri.startswith(("s3://", "file://")) and not Path(uri).is_dir():
        raise UsageError(
            f"{uri} isn't a run's place: name one as s3://bucket/prefix (the run's checkpoint.uri), or a "
            "local run's folder."
        )
    run = gather(open_named(uri, say_retry))
    file = target or Path(f"{re.sub(r'[^A-Za-z0-9.-]+', '-', run.name)}-report.html")
    text = page(run)
    try:
        file.write_text(text, encoding="utf-8", errors="replace")
    except OSError as e:
        raise UsageError(f"{file} can't be written ({e.strerror}): name another file with -o.") from e
    return file
