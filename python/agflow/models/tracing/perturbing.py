"""A copy of a model whose every weight and statistic matters."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from agflow._utils.hooks import temporary_hooks
from agflow._utils.modes import forget_caches
from agflow.models.outputs import whole_output


@torch.no_grad()
def perturbed(model: nn.Module, generator: torch.Generator) -> nn.Module:
    """A float64 copy on the CPU, in evaluation mode, in which nothing is zero or constant.

    A new network has batch norms that change nothing, and often a last scale of zero or nearly so
    in each residual branch: whatever is done to the channels before it makes no difference. The
    weights keep their scale otherwise.
    """
    forget_caches(model)
    model = copy.deepcopy(model).cpu().double().eval().requires_grad_(False)
    for module in model.modules():
        for tensor in module._parameters.values():
            if tensor is not None and tensor.is_floating_point() and tensor.numel():
                _disturb(tensor, generator)
    return model


@torch.no_grad()
def estimate_statistics(
    model: nn.Module, images: torch.Tensor, generator: torch.Generator
) -> torch.Tensor:
    """Give every batch norm about the mean and variance of its inputs, by one pass; its output.

    So what enters the network has an effect on what leaves it, however it was initialised.
    """

    def estimate(norm: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        x_CR = inputs[0].transpose(0, 1).flatten(1)
        noise = torch.randn(2, len(x_CR), generator=generator, dtype=x_CR.dtype)
        variance, mean = torch.var_mean(x_CR, 1, correction=0)
        spread = (variance + 1e-3 * variance.mean()).sqrt()
        norm.get_buffer("running_mean").copy_(mean + 0.1 * spread * noise[0])
        norm.get_buffer("running_var").copy_((spread * (0.1 * noise[1]).exp()) ** 2)

    with temporary_hooks(
        module.register_forward_pre_hook(estimate)
        for module in model.modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
    ):
        return whole_output(model(images))


def _disturb(tensor: torch.Tensor, generator: torch.Generator) -> None:
    """Change a constant tensor, and zeros in another."""
    low, high = tensor.aminmax()
    typical = max(high, -low)
    if high - low > 0.01 * typical:
        if not tensor.all():
            tensor.add_(0.1 * tensor.std() * (tensor == 0) * _noise(tensor, generator))
    elif typical > 0.01:
        tensor.mul_((0.2 * _noise(tensor, generator)).exp())
    else:
        tensor.copy_(0.1 * _noise(tensor, generator))


def _noise(tensor: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)
