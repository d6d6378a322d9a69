"""What an attempt knows before it trains, kept at its place for the report: plan, checks, surroundings.

Written once by the run, when the attempt is taken; read by `gather`.
"""

import json
import logging
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rectrain_api.errors import RectrainError
from rectrain_api.plan import RunPlan
from rectrain_api.records import attempt_prefix
from rectrain_api.status import Devices
from rectrain_data.transfer import Store
from rectrain_trainer.model_card import versions
from rectrain_trainer.reporting.keys import ABOUT
from rectrain_trainer.surroundings import surroundings

log = logging.getLogger(__name__)


def tell_about(
    store: Store,
    attempt: int,
    plan: RunPlan,
    checks: Mapping[str, Any],
    devices: Devices | None,
    folder: Path,
    where: Mapping[str, str],
) -> None:
    """Write attempts/NNNN/about.json; never hurts training. `where`: node and pod, where known."""
    content = {
        "plan": plan.to_dict(),
        "checks": checks,
        "environment": {
            "lines": [*surroundings(devices, folder)] if devices else [],
            "versions": [*versions(), f"Python {platform.python_version()}"],
            "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
            **{name: value for name, value in where.items() if value},
        },
    }
    try:
        data = json.dumps(content, ensure_ascii=False).encode(errors="replace")
        store.put_bytes(f"{attempt_prefix(attempt)}{ABOUT}", data)
    except RectrainError as e:
        log.warning("The report will lack what the checks found and where this attempt ran: %s", e)
