"""Kubernetes quantities as numbers. Pure; used by resourceFieldRef, volume sizes and node capacity."""

from __future__ import annotations

from decimal import ROUND_CEILING, Decimal, InvalidOperation
from typing import Final

SUFFIXES: Final = {
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "k": Decimal(10**3),
    "M": Decimal(10**6),
    "G": Decimal(10**9),
    "T": Decimal(10**12),
    "P": Decimal(10**15),
    "E": Decimal(10**18),
    "Ki": Decimal(2**10),
    "Mi": Decimal(2**20),
    "Gi": Decimal(2**30),
    "Ti": Decimal(2**40),
    "Pi": Decimal(2**50),
    "Ei": Decimal(2**60),
}


def parse(quantity: str) -> Decimal:
    """ "1.5Gi" -> 1610612736. Raises ValueError naming what it can't read."""
    for length in (2, 1):
        if quantity[-length:] in SUFFIXES:
            number, factor = quantity[:-length], SUFFIXES[quantity[-length:]]
            break
    else:
        number, factor = quantity, Decimal(1)
    try:
        return Decimal(number) * factor
    except InvalidOperation:
        raise ValueError(f"{quantity!r} is not a Kubernetes quantity") from None


def in_units(quantity: str, divisor: str) -> int:
    """A quantity divided and rounded up, as resourceFieldRef shows it."""
    return int((parse(quantity) / parse(divisor)).to_integral_value(ROUND_CEILING))
