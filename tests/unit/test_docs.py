"""What the docs say of the tests is so."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_every_test_that_is_named_as_a_proof_exists() -> None:
    text = (ROOT / "docs/explanation/upstream.md").read_text()
    named = re.findall(r"`([a-z0-9_/]+\.py)::(\w+)`", text)
    assert len(named) > 40
    missing = [
        f"{file}::{test}" for file, test in named if f"def {test}(" not in (ROOT / "tests" / file).read_text()
    ]
    assert missing == []
