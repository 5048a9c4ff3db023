"""Devices and precisions: one error for what is not there, float32 where digits are needed."""

import pytest
import torch
from torch import nn

import agflow
from agflow._utils.computing import Computing
from agflow.errors import DeviceError, InvalidValueError


@pytest.mark.parametrize(
    "device", ["gpu", "", "cuda:99", "cpu:x", "meta", "mps", "xla", "cuda:-1", "CPU", "npu"]
)
def test_a_device_that_is_not_there(device):
    with pytest.raises(DeviceError, match="expected cpu, or a device that torch sees") as error:
        Computing(device)
    assert "\n" not in str(error.value) and repr(device) in str(error.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="here is a CUDA device")
def test_cuda_where_there_is_none():
    with pytest.raises(DeviceError, match="compute on device 'cuda'"):
        Computing("cuda")


def test_the_processes_of_torchrun_take_a_device_each(monkeypatch):
    assert Computing.of_process(None, None) == Computing()
    monkeypatch.setenv("LOCAL_RANK", "97")
    assert Computing.of_process("cpu", "bfloat16") == Computing("cpu", "bfloat16")
    with pytest.raises(DeviceError, match="'cuda:97'"):
        Computing.of_process("cuda", None)


@pytest.mark.parametrize("dtype", ["float16", "bf16", "torch.bfloat16", "int8", ""])
def test_a_dtype_that_is_not_known(dtype):
    with pytest.raises(InvalidValueError, match="expected one of float32, bfloat16"):
        Computing("cpu", dtype)


def test_products_are_in_the_dtype_and_weights_stay():
    computing, layer = Computing("cpu", "bfloat16"), nn.Linear(4, 4)
    with computing.precision():
        assert computing.move(layer)(torch.zeros(1, 4)).dtype is torch.bfloat16
    assert layer.weight.dtype is torch.float32
    with Computing().precision():
        assert layer(torch.zeros(1, 4)).dtype is torch.float32


def test_training_in_bfloat16_learns_and_keeps_float32(make_vit, images):
    """A pass without gradients before must not leave weights without gradients behind."""
    model, batch = make_vit().float(), [(images[0], images[1] % 4)]
    before = {name: value.clone() for name, value in model.named_parameters()}
    with Computing("cpu", "bfloat16").precision():
        agflow.evaluate(model, batch)
        history = agflow.finetune(model, batch, epochs=4, lr=1e-2)
    assert history[-1]["loss"] < history[0]["loss"]
    assert all(value.dtype is torch.float32 for value in model.parameters())
    assert all(not torch.equal(value, before[name]) for name, value in model.named_parameters())


def test_pruning_is_the_same_in_any_precision(example, loader, statistics):
    plan = agflow.plan(statistics, macs=0.5)
    plain = agflow.prune(example[0], plan, loader("train", 0, 64))
    with Computing("cpu", "bfloat16").precision():
        mixed = agflow.prune(example[0], plan, loader("train", 0, 64))
    for one, other in zip(plain.parameters(), mixed.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_cuda_device_answers_as_the_cpu_does(example, loader, dtype):
    model, computing = example[0], Computing("cuda", dtype)
    expected = agflow.evaluate(model, loader("test", 0, 500)).top1
    try:
        with computing.precision():
            found = agflow.evaluate(computing.move(model), loader("test", 0, 500)).top1
    finally:
        model.cpu()
    assert abs(found - expected) < 0.02
