"""What a Vision Transformer costs, as products of the sizes of its groups."""

# torch types every submodule as `Tensor | Module`; the family knows what its branches name.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportIndexIssue=false, reportOperatorIssue=false

from __future__ import annotations

from dataclasses import replace

from torch import nn

from agflow.models.costs import Costs, Product, Size, size
from agflow.models.vit_family import STREAM, Anatomy, Branch, VisionTransformerFamily


def costs_of(family: VisionTransformerFamily, model: nn.Module, anatomy: Anatomy) -> Costs:
    """Costs of the parts of ``model`` that are in ``anatomy``, at any sizes of its groups."""
    stream, patch = size(STREAM), model.get_submodule(anatomy.patch)
    sizes = {STREAM: patch.out_channels}
    products = [
        _linear(anatomy.patch, patch, anatomy.patches, size(patch.weight[0].numel()), stream)
    ]
    products += [
        Product(
            "parameters",
            name,
            size((model.get_parameter(name).numel() // patch.out_channels, STREAM)),
        )
        for name in anatomy.embeddings
    ]
    products += [Product("norm", name, stream, rows) for name, rows in anatomy.before]
    for branch in anatomy.branches():
        of_branch = f"{branch.units}.branch"
        sizes[of_branch] = 1
        inside = _attention_costs if branch in anatomy.attention else _mlp_costs
        made = [
            Product("norm", branch.norm, stream, anatomy.tokens),
            *inside(family, model, branch, anatomy.tokens, sizes),
        ]
        if branch.scale is not None:
            made.append(Product("parameters", f"{branch.scale}.gamma", stream))
        products += [replace(product, times=(of_branch,)) for product in made]
    products += [Product("norm", name, stream, rows) for name, rows in anatomy.after]
    for name in anatomy.classifiers:
        linear = model.get_submodule(name)
        products.append(_linear(name, linear, 1, stream, size(linear.out_features)))
    for name in anatomy.behind:
        linear = model.get_submodule(name)
        products.append(
            _linear(name, linear, 1, size(linear.in_features), size(linear.out_features))
        )
    return Costs(sizes, tuple(products))


def _attention_costs(
    family: VisionTransformerFamily,
    model: nn.Module,
    branch: Branch,
    tokens: int,
    sizes: dict[str, int],
) -> list[Product]:
    module, name = model.get_submodule(branch.units), branch.units
    heads = family.heads(module)
    sizes.update({name: heads.count, f"{name}.qk": heads.qk, f"{name}.v": heads.v})
    queries, values = (1, name, f"{name}.qk"), (1, name, f"{name}.v")
    outputs = (
        [size(queries), size(queries), size(values)]
        if len(family.projections(module)) == 3
        else [size((2, *queries[1:]), values)]
    )
    made = [
        _linear(f"{name}.{entry}", family.projection(module, entry), tokens, size(STREAM), output)
        for entry, output in zip(family.projections(module), outputs, strict=True)
    ]
    if family.has_norm(module):
        made += [
            Product("norm", f"{name}.{norm}", size(f"{name}.qk"), tokens * heads.count)
            for norm in ("q_norm", "k_norm")
        ]
    made.append(Product("attention", name, size(values), tokens, size(queries), size(name)))
    return [
        *made,
        _linear(
            branch.reader,
            model.get_submodule(branch.reader),
            tokens,
            size(values),
            size(STREAM),
        ),
    ]


def _mlp_costs(
    family: VisionTransformerFamily,
    model: nn.Module,
    branch: Branch,
    tokens: int,
    sizes: dict[str, int],
) -> list[Product]:
    module, name = model.get_submodule(branch.units), branch.units
    units = family.hidden(module)
    sizes[name] = units.channels(module)
    made = [
        _linear(
            f"{name}.{entry}",
            module.get_submodule(entry),
            tokens,
            size(STREAM),
            size((rows, name)),
        )
        for entry, rows in units.writers.items()
    ]
    made.append(Product("pointwise", f"{name}.act", size(name), tokens))
    return [
        *made,
        _linear(
            branch.reader, model.get_submodule(branch.reader), tokens, size(name), size(STREAM)
        ),
    ]


def _linear(name: str, layer: nn.Module, rows: int, inputs: Size, outputs: Size) -> Product:
    return Product("linear", name, outputs, rows, inputs, bias=layer.bias is not None)
