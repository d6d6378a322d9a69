"""The average of the weights: upstream's formula, worked out by hand, and exact over a stop."""

import math
from typing import Any

import numpy as np
import paddle
import pytest

from rectrain_api.errors import InternalError, InvalidSpec
from rectrain_api.presets import EmaConfig
from rectrain_trainer.copying import Memory
from rectrain_trainer.ema import Ema, EmaState


def layer(value: float = 0.0) -> Any:
    """One weight, and BatchNorm's running statistics."""
    made = paddle.nn.Sequential(paddle.nn.Linear(1, 1), paddle.nn.BatchNorm1D(1))
    put(made, value)
    return made


def put(model: Any, value: float) -> None:
    for tensor in model.state_dict().values():
        tensor.set_value(np.full(tensor.shape, value, np.float32))


def averaged(config: EmaConfig, *values: float) -> dict[str, float]:
    model = layer()
    ema = Ema.new(config, model)
    for value in values:
        put(model, value)
        ema.update(model)
    return {name: tensor.item() for name, tensor in ema.weights().items()}


@pytest.mark.parametrize(
    ("config", "values", "expected"),
    [
        # ((0 + 1/2) / 2 + 3/2) / (1 - 1/4)
        pytest.param(EmaConfig(decay=0.5, decay_type="normal"), (1.0, 3.0), 1.75 / 0.75, id="normal"),
        # decays 1/10, 2/11; divided by 1 - (2/11)^2, which is not 1 - 1/10 * 2/11
        pytest.param(
            EmaConfig(), (1.0, 1.0), (0.9 * 2 / 11 + 9 / 11) / (1 - (2 / 11) ** 2), id="threshold-begins"
        ),
        # decays 1/10, then no more than 0.15
        pytest.param(
            EmaConfig(decay=0.15),
            (1.0, 3.0),
            (0.9 * 0.15 + 0.85 * 3) / (1 - 0.15**2),
            id="threshold-reached",
        ),
        # decays 0.8 (1 - e^-1/2), 0.8 (1 - e^-1); no correction
        pytest.param(
            EmaConfig(decay=0.8, gamma=2, decay_type="exponential"),
            (1.0, 3.0),
            (1 - 0.8 * (1 - math.exp(-0.5))) * 0.8 * (1 - math.exp(-1)) + (1 - 0.8 * (1 - math.exp(-1))) * 3,
            id="exponential",
        ),
    ],
)
def test_the_average_is_upstreams(config: EmaConfig, values: tuple[float, ...], expected: float) -> None:
    found = averaged(config, *values)
    assert "1._mean" in found, "running statistics too"
    assert found == pytest.approx(dict.fromkeys(found, expected), rel=1e-6)


def test_steps_of_a_half_are_exact() -> None:
    model = layer()
    ema = Ema.new(EmaConfig(decay=0.5, decay_type="normal"), model)
    for value in (1.0, 3.0, -8.0):
        put(model, value)
        ema.update(model)
    assert {held.item() for held in ema.capture(model, Memory())["ema_state"].values()} == {
        0.125 + 0.75 - 4.0
    }


@pytest.mark.parametrize("decay_type", ["threshold", "exponential", "normal"])
def test_going_on_from_a_copy_is_exact(decay_type: Any) -> None:
    config, model = EmaConfig(decay_type=decay_type), layer()
    whole = Ema.new(config, model)
    captured: EmaState | None = None
    for step in range(9):
        put(model, math.sin(step))
        whole.update(model)
        if step == 4:
            captured = whole.capture(model, Memory())
            at_four = whole.weights()
    assert captured
    assert captured["step"] == 5
    assert {type(held) for held in captured["ema_state"].values()} == {np.ndarray}
    other = layer(3.0)
    resumed = Ema.new(config, other)
    resumed.restore(captured, other)
    assert {tensor.item() for tensor in other.state_dict().values()} == {np.float32(math.sin(4))}
    assert_same(resumed.weights(), at_four)
    for step in range(5, 9):
        put(other, math.sin(step))
        resumed.update(other)
    assert_same(resumed.weights(), whole.weights())
    assert captured["step"] == 5, "a copy"
    again = Ema.new(config, layer())
    again.restore(captured, other)
    assert_same(again.weights(), at_four)


def test_the_model_has_its_own_weights_again() -> None:
    model = layer()
    ema = Ema.new(EmaConfig(decay=0.5, decay_type="normal"), model)
    for value in (1.0, 3.0):
        put(model, value)
        ema.update(model)
    with ema.applied(model):
        assert_same(model.state_dict(), ema.weights())
    assert {tensor.item() for tensor in model.state_dict().values()} == {3.0}
    with pytest.raises(KeyboardInterrupt), ema.applied(model):
        raise KeyboardInterrupt
    assert {tensor.item() for tensor in model.state_dict().values()} == {3.0}


def test_before_the_first_step_there_is_none() -> None:
    with pytest.raises(InternalError, match="before the first step"):
        Ema.new(EmaConfig(), layer()).weights()


def test_an_average_of_another_model_is_refused() -> None:
    other, model = paddle.nn.Linear(2, 1), layer()
    captured = Ema.new(EmaConfig(), other).capture(other, Memory())
    with pytest.raises(InvalidSpec, match="don't fit this model"):
        Ema.new(EmaConfig(), model).restore(captured, model)


def assert_same(left: dict[str, Any], right: dict[str, Any]) -> None:
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        assert np.array_equal(tensor.numpy(), right[name].numpy()), name
