"""Python code that loads an expert's folder without agflow, for the README of the folder.

The model is made by its own library and takes the tensors of the weights file, whatever their
sizes; what else a cut changes, counts of heads and branches that are gone, is set by config.json.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any, NamedTuple

from agflow.models.standalone_traced import traced_code


class _Family(NamedTuple):
    """The parts of the code that differ from library to library.

    Attributes
    ----------
    imports : names in the order of isort, but for those that every code needs
    made : makes the dense model, of one head a block
    blocks, attention, mlp : where the model has its blocks, and a block its branches
    heads : what an attention counts its heads by
    projections, output : names of its linear layers
    pair : whether an attention returns its weights, too
    """

    imports: str
    made: str
    blocks: str
    attention: str
    mlp: str
    heads: str
    projections: tuple[str, ...]
    output: str
    pair: bool


_TIMM = _Family(
    "from functools import partial\n\nfrom safetensors.torch import load_file\n"
    "from timm.layers import LayerNorm, {mlp_layer}, get_act_layer\n"
    "from timm.models import {kind}\nfrom torch import nn\n",
    """\
model = {kind}(
    **shape["arguments"],
    depth=len(shape["heads"]),
    num_heads=1,
    mlp_layer={mlp_call},
    act_layer=get_act_layer(shape["activation"]),
    norm_layer=partial(LayerNorm, eps=shape["norm_eps"]),
)
model.pretrained_cfg = shape["pretrained_cfg"]["values"]  # for timm.data
""",
    "blocks",
    "attn",
    "mlp",
    """\
    attention.num_heads, attention.head_dim = heads, shape["head_dim"]
    attention.attn_dim, attention.scale = heads * shape["head_dim"], shape["head_dim"] ** -0.5
""",
    ("qkv",),
    "proj",
    pair=False,
)
_TIMM_MLPS = {
    "mlp": ("Mlp", "Mlp"),
    "glu_gate_last": ("GluMlp", "partial(GluMlp, gate_last=True)"),
    "glu_gate_first": ("GluMlp", "partial(GluMlp, gate_last=False)"),
    "swiglu": ("SwiGLU", "SwiGLU"),
}
_TORCHVISION = _Family(
    "from functools import partial\n\nfrom safetensors.torch import load_file\n"
    "from torch import nn\nfrom torchvision.models.vision_transformer import VisionTransformer\n",
    """\
model = VisionTransformer(
    **shape["arguments"],
    num_layers=len(shape["heads"]),
    num_heads=1,
    norm_layer=partial(nn.LayerNorm, eps=shape["norm_eps"]),
)
""",
    "encoder.layers",
    "self_attention",
    "mlp",
    '    attention.num_heads, attention.head_dim = heads, shape["head_dim"]\n',
    ("in_proj",),
    "out_proj",
    pair=True,
)
_TRANSFORMERS = _Family(
    "\nfrom safetensors.torch import load_file\nfrom torch import nn\n"
    "from transformers import {config}, {kind}\n",
    """\
model = {kind}({config}(
    **shape["arguments"],
    num_hidden_layers=len(shape["heads"]),
    num_attention_heads=1,
    num_labels=shape["num_labels"],
    attn_implementation=shape["attention"],
))
""",
    "base_model.layers",
    "attention",
    "mlp",
    """\
    attention.num_attention_heads, attention.head_dim = heads, shape["head_dim"]
    attention.scaling = shape["head_dim"] ** -0.5
""",
    ("q_proj", "k_proj", "v_proj"),
    "o_proj",
    pair=True,
)
_CLASSES = 'model.config.id2label = dict(enumerate(shape["classes"]))\n'
_ATTENTION = """

class Attention(nn.Module):  # queries and keys may be narrower than values
    def __init__(self, old, heads, qk, v):
        super().__init__()
        for name in ({names}):
            setattr(self, name, nn.Linear(1, 1, getattr(old, name, old.{output}).bias is not None))
        self.q_norm, self.k_norm = (getattr(old, n, nn.Identity()) for n in ("q_norm", "k_norm"))
        self.heads, self.widths = heads, [heads * qk, heads * qk, heads * v]

    def forward(self, x, *_, **__):
        qkv = {qkv}
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in qkv)
        q, k, scale = self.q_norm(q), self.k_norm(k), shape["head_dim"] ** -0.5
        y = nn.functional.scaled_dot_product_attention(q, k, v, scale=scale)
        y = self.{output}(y.transpose(1, 2).flatten(2))
        return {returned}

"""
_GONE = """

class Gone(nn.Module):  # in place of a residual branch that was removed
    def __init__(self, pair):
        super().__init__()
        self.pair = pair

    def forward(self, x, *_, **__):
        zeros = x.new_zeros(x.shape)
        return (zeros, None) if self.pair else zeros

"""
_WEIGHTS = """\
for name, tensor in load_file(folder / "model.safetensors").items():  # each of its own size
    place, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(place), leaf, nn.Parameter(tensor))
for module in model.modules():
    if isinstance(module, nn.LayerNorm):
        module.normalized_shape = tuple(module.weight.shape)
"""
_RESIZE = """\
model.register_forward_pre_hook(lambda _, images: nn.functional.interpolate(
    images[0], {size}, mode="bilinear", antialias=True
))
"""


def standalone_code(architecture: dict[str, Any], size: tuple[int, int] | None) -> str | None:
    """Return code that loads the expert in its folder; None for a family of one's own.

    It needs the model's library and safetensors, and leaves ``model``, in evaluation mode.

    Parameters
    ----------
    architecture : of the expert's config.json
    size : height and width that the model brings its images to, if it does

    Examples
    --------
    >>> import agflow
    >>> from agflow.models import describe
    >>> from agflow.models.standalone import standalone_code
    >>> model, _, _ = agflow.load_model("example")
    >>> code = standalone_code(describe(model), None)
    >>> "from timm" in code, "agflow" in code
    (True, False)
    """
    code = (
        traced_code(architecture)
        if architecture["family"] == "traced"
        else _transformer_code(architecture)
    )
    if code is None:
        return None
    if size is not None:
        code += _RESIZE.format(size=tuple(size))
    return code + "model.eval()\n"


def _transformer_code(architecture: dict[str, Any]) -> str | None:
    """Code that makes ``model``, a Vision Transformer of a declared family."""
    found = _family_of(architecture)
    if found is None:
        return None
    family, words = found
    code = f"import json\nimport pathlib\n{family.imports.format(**words)}"
    code += _classes(family, architecture) + "\n"
    code += 'folder = pathlib.Path(".")  # of config.json\n'
    code += 'shape = json.loads((folder / "config.json").read_text())["architecture"]\n'
    return code + family.made.format(**words) + _loop(family, architecture) + _WEIGHTS


def _family_of(architecture: dict[str, Any]) -> tuple[_Family, dict[str, str]] | None:
    """The family, and words for its code."""
    name = architecture["family"]
    if name == "timm_vit":
        layer, call = _TIMM_MLPS[architecture["mlp_layer"]]
        kind = "VisionTransformer" + ("Distilled" if architecture["distilled"] else "")
        return _TIMM, {"mlp_layer": layer, "mlp_call": call, "kind": kind}
    if name == "torchvision_vit":
        return _TORCHVISION, {}
    # The modules of earlier versions have other names.
    if name == "transformers_vit" and int(version("transformers").partition(".")[0]) >= 5:
        kind = architecture["class"]
        return _TRANSFORMERS, {"kind": kind, "config": kind.partition("For")[0] + "Config"}
    return None


def _classes(family: _Family, architecture: dict[str, Any]) -> str:
    """The classes of modules that this expert has and its library has not."""
    code = ""
    if any(architecture["inner"]):
        one = len(family.projections) == 1
        code += _ATTENTION.format(
            names=", ".join(map(repr, (*family.projections, family.output))),
            output=family.output,
            qkv=f"self.{family.projections[0]}(x).split(self.widths, -1)"
            if one
            else ", ".join(f"self.{name}(x)" for name in family.projections),
            returned="y, None" if family.pair else "y",
        )
    if not all((*architecture["heads"], *architecture["mlp"])):
        code += _GONE
    return code


def _loop(family: _Family, architecture: dict[str, Any]) -> str:
    """What is set block by block."""
    code = f'blocks = zip(model.{family.blocks}, shape["heads"], shape["inner"], shape["mlp"])\n'
    code += "for block, heads, inner, hidden in blocks:\n"
    code += f"    attention = block.{family.attention}\n{family.heads}"
    if any(architecture["inner"]):
        code += "    if inner:\n"
        code += f"        block.{family.attention} = Attention(attention, heads, *inner)\n"
    if not all(architecture["heads"]):
        code += f"    if not heads:\n        block.{family.attention} = Gone({family.pair})\n"
    if not all(architecture["mlp"]):
        code += f"    if not hidden:\n        block.{family.mlp} = Gone(False)\n"
    classes = architecture["family"] == "transformers_vit" and "classes" in architecture
    return code + (_CLASSES if classes else "")
