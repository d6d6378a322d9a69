"""Kubernetes' times: RFC 3339, UTC, whole seconds."""

from datetime import UTC, datetime


def to_text(moment: datetime) -> str:
    """2026-01-02T03:04:05Z."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def from_text(text: str) -> datetime | None:
    """The moment, or None when it isn't one."""
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def elapsed_s(since: str, now: datetime) -> float:
    """Seconds from a time in text until now; 0 when it can't be read."""
    moment = from_text(since)
    return (now - moment).total_seconds() if moment else 0.0
