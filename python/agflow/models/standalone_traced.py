"""Python code that loads the folder of a traced expert without agflow, for its README.

Its library makes the dense model; what the folder says of differences is done to that.
"""

from __future__ import annotations

from typing import Any

_IMPORTS = "import json\nimport pathlib\n\nfrom safetensors.torch import load_file\n"
_LIBRARIES = {
    "timm": ("from timm import create_model\n", 'model = create_model("{name}")\n'),
    "torchvision": (
        "from torchvision.models import get_model\n",
        'model = get_model("{name}", weights=None{options})\n',
    ),
    "transformers": (
        "from transformers import {config}, {kind}\n",
        'model = {kind}({config}.from_dict(shape["origin"]["config"]))\n',
    ),
    "torch": ("", 'model = made(shape["origin"]["tree"])\n'),
}
_READ = """\
folder = pathlib.Path(".")  # of config.json
shape = json.loads((folder / "config.json").read_text())["architecture"]
"""
_PLAIN = """

def plain(value):  # JSON has no tuples
    if isinstance(value, dict):
        return tuple(map(plain, value["tuple"]))
    return list(map(plain, value)) if isinstance(value, list) else value

"""
_MADE = """
def made(tree):  # a module, of its class, its numbers and its parts
    place, _, name = tree["class"].rpartition(".")
    kind = getattr(importlib.import_module(place), name)
    module = kind.__new__(kind)
    nn.Module.__init__(module)
    vars(module).update({key: plain(value) for key, value in tree["attributes"].items()})
    for key in tree["parameters"]:
        module.register_parameter(key, None)
    for key in tree["buffers"]:
        module.register_buffer(key, None)
    for key, child in tree["children"].items():
        module.add_module(key, child and made(child))
    return module

"""
_OWNER = """
def owner(name):
    place, _, leaf = name.rpartition(".")
    return model.get_submodule(place), leaf


"""
_MODULES = """\
for name, tree in shape["changes"]["modules"].items():
    parent, leaf = owner(name)
    parent._modules[leaf] = {made}
"""
_GONE = """\
for name in shape["changes"]["gone"]:
    parent, leaf = owner(name)
    del parent._modules[leaf]
"""
_ATTRIBUTES = """\
for name, values in shape["changes"]["attributes"].items():
    numbers = {key: plain(value) for key, value in values.items()}
    vars(model.get_submodule(name)).update(numbers)
"""
_WITHOUT = """\
for name in [name for name, size in shape["changes"]["shapes"].items() if size is None]:
    parent, leaf = owner(name)
    setattr(parent, leaf, None)
"""
_WEIGHTS = """\
for name, tensor in load_file(folder / "model.safetensors").items():  # each of its own size
    parent, leaf = owner(name)
    if leaf in parent._buffers:
        parent._buffers[leaf] = tensor
    else:
        parent.register_parameter(leaf, nn.Parameter(tensor))
"""
_CONFIG = 'model.pretrained_cfg = shape["pretrained_cfg"]["values"]  # for timm.data\n'


def traced_code(architecture: dict[str, Any]) -> str | None:
    """Return code that makes ``model`` of the folder's files; None for one of the user's own.

    Examples
    --------
    >>> import timm
    >>> from agflow.models import describe
    >>> from agflow.models.standalone_traced import traced_code
    >>> code = traced_code(describe(timm.create_model("resnet18")))
    >>> "create_model" in code, "agflow" in code
    (True, False)
    """
    origin, changes = architecture["origin"], architecture["changes"]
    library = origin["library"]
    if library not in _LIBRARIES:
        return None
    imported, made = (text.format(**_words(origin)) for text in _LIBRARIES[library])
    trees = library == "torch" or any(changes["modules"].values())
    plain = trees or changes["attributes"]
    code = "import importlib\n" if trees else ""
    torch_last = library in ("torchvision", "transformers")
    code += _IMPORTS + (
        f"from torch import nn\n{imported}" if torch_last else f"{imported}from torch import nn\n"
    )
    code += (_PLAIN if plain else "\n") + (_MADE if trees else "") + _OWNER + _READ + made
    if changes["modules"]:
        code += _MODULES.format(made="tree and made(tree)" if trees else "None")
    for key, text in (("gone", _GONE), ("attributes", _ATTRIBUTES)):
        code += text if changes[key] else ""
    code += _WITHOUT if None in changes["shapes"].values() else ""
    return code + _WEIGHTS + (_CONFIG if architecture["pretrained_cfg"]["values"] else "")


def _words(origin: dict[str, Any]) -> dict[str, str]:
    kind = origin.get("class", "")
    slow = origin.get("name") in ("googlenet", "inception_v3")
    return {
        "name": origin.get("name", ""),
        "kind": kind,
        "config": kind.partition("For")[0] + "Config",
        "options": ", init_weights=False" if slow else "",
    }
