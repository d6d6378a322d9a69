"""Standard conditions, updated the standard way: lastTransitionTime moves when status does. Pure."""

from rectrain_api.status import Condition, ConditionType

_ORDER = {kind.value: place for place, kind in enumerate(ConditionType)}


class Conditions:
    """The conditions of one status while `decide` works on it."""

    def __init__(self, old: list[Condition], *, time: str, generation: int) -> None:
        self._by_type = {c.type: c for c in old}
        self._time = time
        self._generation = generation

    def get(self, kind: ConditionType) -> Condition | None:
        """The condition, if it was ever set."""
        return self._by_type.get(kind.value)

    def has(self, kind: ConditionType) -> bool:
        """Whether the condition was ever set."""
        return kind.value in self._by_type

    def holds(self, kind: ConditionType) -> bool:
        """Whether it is True."""
        return self.has(kind) and self._by_type[kind.value].status == "True"

    def set(self, kind: ConditionType, holds: bool, reason: str, message: str = "") -> None:
        """Set one."""
        status = "True" if holds else "False"
        old = self._by_type.get(kind.value)
        same = old is not None and old.status == status
        self._by_type[kind.value] = Condition(
            type=kind.value,
            status=status,  # type: ignore[arg-type]
            reason=reason[:64],
            message=message[:4096],
            last_transition_time=old.last_transition_time if old is not None and same else self._time,
            observed_generation=self._generation,
        )

    def result(self) -> list[Condition]:
        """All of them, in one order for ever."""
        return sorted(self._by_type.values(), key=lambda c: _ORDER.get(c.type, len(_ORDER)))
