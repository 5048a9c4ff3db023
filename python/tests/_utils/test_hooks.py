"""Temporary hooks and a model's own device and type."""

import pytest
import torch
from torch import nn

from agflow._utils.devices import device_of, first_parameter
from agflow._utils.hooks import temporary_hooks


def test_hooks_fire_inside_and_are_gone_after(make_vit, images):
    model, calls = make_vit(), []
    layers = [model.blocks[0], model.blocks[1]]
    hook = lambda *_: calls.append(1)
    with temporary_hooks(layer.register_forward_hook(hook) for layer in layers):
        model(images[0])
    model(images[0])
    assert len(calls) == 2


def test_hooks_are_gone_after_an_error():
    layer = nn.Linear(2, 2)
    with pytest.raises(ZeroDivisionError):
        with temporary_hooks([layer.register_forward_hook(print)]):
            raise ZeroDivisionError
    assert not layer._forward_hooks


def test_a_failed_registration_removes_those_before():
    layer = nn.Linear(2, 2)

    def registered():
        yield layer.register_forward_hook(print)
        raise KeyError("no such module")

    with pytest.raises(KeyError, match="no such module"):
        with temporary_hooks(registered()):
            pytest.fail("entered")
    assert not layer._forward_hooks


def test_a_models_device_and_type_are_its_first_parameters():
    model = nn.Linear(2, 2, dtype=torch.float64, device="meta")
    assert first_parameter(model) is model.weight and device_of(model) == torch.device("meta")
