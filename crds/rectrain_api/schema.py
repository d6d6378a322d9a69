"""What a pydantic field needs beside its type to become a good CRD field: CEL rules, int-or-string.

Used in annotations by `rectrain_api.spec`; read by `rectrain_api.crd`. The same rules hold when a
manifest is read without an API server, so a laptop says what the cluster would say.
"""

import re
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator, GetJsonSchemaHandler, StringConstraints
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema


@dataclass(frozen=True)
class Cel:
    """One `x-kubernetes-validations` rule and the sentence shown when it fails."""

    rule: str
    message: str

    def as_json(self) -> dict[str, str]:
        """In the CRD's own words."""
        return {"rule": self.rule, "message": self.message}


@dataclass(frozen=True)
class Matches:
    """A string of a pattern, refused with a sentence instead of the pattern."""

    pattern: str
    message: str

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        """Check on this side what CEL checks on the API server's."""

        def check(value: str) -> str:
            if not re.fullmatch(self.pattern[1:-1], value):
                raise ValueError(self.message)
            return value

        return core_schema.no_info_after_validator_function(check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """The CRD's form of it."""
        rule = f"self.matches('{self.pattern}')".replace("\\", "\\\\")
        return {**handler(schema), "x-kubernetes-validations": [Cel(rule, self.message).as_json()]}


@dataclass(frozen=True)
class IntOrString:
    """An integer of at least 1, or a string of a pattern; `message` says both."""

    pattern: str
    message: str

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        """Check on this side what CEL checks on the API server's."""

        def check(value: int | str) -> int | str:
            fits = value >= 1 if isinstance(value, int) else re.fullmatch(self.pattern[1:-1], value)
            if isinstance(value, bool) or not fits:
                raise ValueError(self.message)
            return value

        return core_schema.no_info_after_validator_function(check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """The CRD's form of it."""
        del schema, handler
        rule = f"type(self) == int ? self >= 1 : self.matches('{self.pattern}')"
        return {
            "x-kubernetes-int-or-string": True,
            "maxLength": 64,
            "x-kubernetes-validations": [Cel(rule, self.message).as_json()],
        }


QUANTITY_PATTERN = r"^[0-9]+(\.[0-9]{1,9})?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$"
_SUFFIXES = {"": 1.0, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}
_SUFFIXES |= {s + "i": 1024.0 ** (i + 1) for i, s in enumerate("KMGTP")}


def parse_quantity(text: str) -> float:
    """A Kubernetes quantity as a number: "20Gi" → 21474836480.0, "500m" → 0.5."""
    match = re.fullmatch(r"([0-9.]+)([a-zA-Z]*)", text)
    if match is None or match[2] not in _SUFFIXES:
        raise ValueError(f'"{text}" is not a quantity such as 500m, 4 or 20Gi')
    return float(match[1]) * _SUFFIXES[match[2]]


class _QuantitySchema:
    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        del schema, handler
        rule = f"type(self) == int ? self >= 0 : self.matches('{QUANTITY_PATTERN}')".replace("\\", "\\\\")
        return {
            "x-kubernetes-int-or-string": True,
            "maxLength": 32,
            "x-kubernetes-validations": [
                Cel(rule, "a quantity is a number with an optional unit, such as 500m, 4 or 20Gi").as_json()
            ],
        }


def _as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Quantity = Annotated[
    str,
    StringConstraints(max_length=32, pattern=QUANTITY_PATTERN),
    BeforeValidator(_as_text),
    _QuantitySchema(),
]
