"""JSON logs, one object a line on stderr; every line about a run names it. Set up once by `cli`."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Final

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """time, level, logger, message, then whatever came by `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {k: v for k, v in vars(record).items() if k not in _STANDARD and _plain(v)}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def _plain(value: object) -> bool:
    """Libraries attach objects of their own to records; they don't belong into a line."""
    return value is None or isinstance(value, str | int | float | bool)


def set_up(*, debug: bool) -> None:
    """Log as JSON to stderr; with `debug` ours in full, libraries from INFO on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.INFO if debug else logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("rectrain_operator").setLevel(logging.DEBUG if debug else logging.INFO)
    # kopf warns that it doesn't get the signals: it shouldn't.
    logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)
    # aiohttp logs a traceback for every scanner that speaks plain HTTP to a TLS port.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
