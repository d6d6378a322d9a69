"""Copies of tensors are true copies, and their memory is used again only when nobody holds them."""

import numpy as np
import paddle
import pytest

from rectrain_trainer.copying import Memory

LARGE = [300, 100]


@pytest.mark.parametrize(
    "tensor",
    [
        pytest.param(paddle.ones(LARGE), id="large"),
        pytest.param(paddle.ones(LARGE, dtype="int64"), id="integers"),
        pytest.param(paddle.ones(LARGE, dtype="bfloat16"), id="bfloat16"),
        pytest.param(paddle.ones([4, *LARGE]).transpose([2, 0, 1]), id="turned"),
        pytest.param(paddle.ones([3]), id="small"),
        pytest.param(paddle.to_tensor(1.0), id="a-number"),
    ],
)
def test_a_copy_is_a_copy(tensor: paddle.Tensor) -> None:
    copies = Memory().copy({"w": tensor, "b": tensor})
    before = tensor.numpy().copy()
    tensor.set_value(paddle.zeros_like(tensor))
    for copy in copies.values():
        assert (copy.dtype, copy.shape) == (before.dtype, before.shape)
        assert np.array_equal(copy, before)


def test_memory_is_used_again_when_it_is_free() -> None:
    memory, tensor = Memory(), paddle.ones(LARGE)
    first = memory.copy({"w": tensor})
    place = first["w"].ctypes.data
    tensor.set_value(paddle.zeros_like(tensor))
    second = memory.copy({"w": tensor})
    assert first["w"].min() == 1
    assert second["w"].max() == 0
    del first
    third = memory.copy({"w": tensor})
    assert third["w"].ctypes.data == place
    assert second["w"].ctypes.data != place
    del second, third
    fourth = memory.copy({"w": paddle.ones([400, 100])})
    assert fourth["w"].shape == (400, 100)


def test_a_weight_that_takes_gradients_is_copied() -> None:
    layer = paddle.nn.Linear(200, 200)
    layer(paddle.ones([1, 200])).sum().backward()
    copies = Memory().copy(layer.state_dict())
    assert np.array_equal(copies["weight"], layer.weight.numpy())
