"""Every criterion against its formula in float64, on tensors that plain torch hooks collect."""

import copy
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import agflow
from agflow.errors import UnknownLayerError
from agflow.models import adapter_for


def layers_of(model):
    """The layers of the two groups calibrated by default; test_groups.py has the others."""
    return [layer for layer in adapter_for(model).layers(model) if layer.kind in ("mlp", "heads")]


@dataclass
class Raw:
    """What a layer's criteria are made of, in float64."""

    y_RUW: torch.Tensor  # activations: rows (tokens of all images), units, width of a unit
    g_RUW: torch.Tensor  # ∂L/∂Y
    readers_OUW: torch.Tensor  # the weight that reads the units: outputs, units, width of a unit
    weights_UE: torch.Tensor  # every weight element attached to a unit
    gradients_UE: torch.Tensor  # ∂L/∂w of the same
    images: int


def collect(model, layers, batches, raw):
    """{layer: Raw}, by hooks on the readers that know nothing of agflow, all weights trainable.

    ``raw`` makes it of the model with its gradients, the layer, what was seen and the images.
    """
    model = copy.deepcopy(model).requires_grad_(True)
    seen = {layer.name: [] for layer in layers}

    def keep(name):
        def hook(module, inputs):
            inputs[0].retain_grad()
            seen[name].append(inputs[0])

        return hook

    for layer in layers:
        model.get_submodule(layer.reader).register_forward_pre_hook(keep(layer.name))
    for images, labels in batches:
        F.cross_entropy(model(images), labels, reduction="sum").backward()
    return {
        layer.name: raw(model, layer, seen[layer.name], sum(len(images) for images, _ in batches))
        for layer in layers
    }


def raw(model, layer, seen, images):
    units = layer.units, layer.unit_width
    rows = lambda tensors: torch.cat([x.detach().double().reshape(-1, *units) for x in tensors])
    module = model.get_submodule(layer.name)
    if layer.kind == "mlp":
        attached = [(module.fc1.weight, 0), (module.fc2.weight, 1)]
    else:
        attached = [(module.qkv.weight, 0), (module.proj.weight, 1)]
    both = [], []
    for weight, axis in attached:
        for x, parts in zip((weight.detach(), weight.grad), both, strict=True):
            x = (
                x.double() if axis == 0 else x.double().T
            )  # rows: units, or the units of q, k and v one after another
            parts.append(x.reshape(-1, *units, x.shape[1]).transpose(0, 1).reshape(layer.units, -1))
    return Raw(
        rows(seen),
        rows([y.grad for y in seen]),
        attached[1][0].detach().double().reshape(-1, *units),
        *(torch.cat(parts, 1) for parts in both),
        images,
    )


def rms_U(r, power=0.5):
    return (r.y_RUW.square().sum((0, 2)) / len(r.y_RUW)) ** power


def agf(r):
    return (r.y_RUW * r.g_RUW).abs().sum(2).mean(0)


def variance(r):
    return r.y_RUW.transpose(0, 1).flatten(1).var(1, correction=0)


def ria(r):
    """|w| over its column's sum plus |w| over its row's sum, summed over the outputs."""
    size = r.readers_OUW.abs()
    share = size / size.sum(0, keepdim=True) + size / size.sum((1, 2), keepdim=True)
    return share.sum((0, 2)) * rms_U(r, 0.25)


REFERENCE = {
    "agf": agf,
    "agf_relative": lambda r: agf(r) / agf(r).mean(),
    "magnitude": lambda r: r.weights_UE.norm(dim=1),
    "magnitude_l1": lambda r: r.weights_UE.abs().sum(1),
    "taylor": lambda r: (r.y_RUW * r.g_RUW).sum(2).mean(0).abs(),
    "taylor_weight": lambda r: (r.weights_UE * r.gradients_UE).sum(1).abs() / r.images,
    "fisher": lambda r: (r.y_RUW * r.g_RUW).square().sum(2).mean(0),
    "activation": lambda r: r.y_RUW.abs().sum(2).mean(0),
    "wanda": lambda r: r.readers_OUW.abs().sum((0, 2)) * rms_U(r),
    "ria": ria,
    "variance": variance,
    "variance_weighted": lambda r: variance(r) * r.readers_OUW.square().sum((0, 2)),
}


def check_criteria(model, batches):
    """The signed sums cancel, so their error is held against the largest of the layer."""
    statistics = agflow.calibrate(model, batches, weight_gradients=True)
    raws = collect(model, layers_of(model), batches, raw)
    for name, formula in REFERENCE.items():
        scores = agflow.score(statistics, name)
        for layer, r in raws.items():
            expected_U = formula(r).numpy()
            np.testing.assert_allclose(
                scores.of(layer),
                expected_U,
                rtol=1e-5,
                atol=2e-6 * np.abs(expected_U).max(),
                err_msg=f"{name} of {layer}",
            )


def test_all_criteria_have_a_reference():
    assert set(agflow.criteria()) == {*REFERENCE, "random"}


def test_criteria_equal_their_formulas(vit, images):
    check_criteria(vit, list(zip(images[0].split(3), images[1].split(3), strict=True)))


@pytest.mark.slow
def test_criteria_of_deit_tiny_on_photographs_equal_their_formulas(deit, photographs):
    check_criteria(deit[0], list(photographs))


def test_reading_weights_times_their_gradients_are_the_activations_times_theirs(make_vit, images):
    """Scaling a unit's activation or the weights that read it has the same effect.

    Σ_i w_ij · ∂L/∂w_ij = Σ_r y_rj · ∂L/∂y_rj.
    It ties sum_yg, a sum over tokens, to weight gradients, which torch makes in another way.
    """
    model = make_vit()
    statistics = agflow.calibrate(model, [images])
    trained = copy.deepcopy(model)
    F.cross_entropy(trained(images[0]), images[1], reduction="sum").backward()
    for layer in layers_of(model):
        weight = trained.get_submodule(layer.reader).weight
        product_U = (
            (weight * weight.grad).double().sum(0).reshape(layer.units, -1).sum(1).detach().numpy()
        )
        rows = statistics.rows_of(layer.name)
        np.testing.assert_allclose(
            product_U,
            statistics.columns["sum_yg"][rows],
            rtol=1e-4,
            atol=1e-5 * statistics.columns["sum_abs_yg"][rows].max(),
        )


def test_taylor_weight_needs_weight_gradients(make_vit, images):
    with pytest.raises(UnknownLayerError, match="weight_gradients=True"):
        agflow.score(agflow.calibrate(make_vit(), [images]), "taylor_weight")


def test_random_depends_on_the_seed_alone(make_vit, images):
    model = make_vit()
    one, other = (agflow.calibrate(model, [(images[0] * factor, images[1])]) for factor in (1, 2))
    draws = [
        agflow.score(statistics, "random", seed=seed).columns["score"]
        for statistics, seed in ((one, 3), (other, 3), (one, 4))
    ]
    assert np.array_equal(draws[0], draws[1]) and not np.array_equal(draws[0], draws[2])
