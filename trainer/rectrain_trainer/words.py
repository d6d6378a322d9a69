"""Words for numbers, in messages."""


def many(count: int, what: str) -> str:
    """Such as `1 sample` or `1,200 samples`."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"
