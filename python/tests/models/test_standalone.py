"""Experts are loaded in a process without agflow: by their README's code, or by transformers."""

import pathlib
import subprocess
import sys

import pytest
import torch
from small_vits import images_for, made, of_timm, of_torchvision, of_transformers
from timm.layers import GluMlp, SwiGLU
from timm.models.deit import VisionTransformerDistilled
from torch import nn

from agflow.models import (
    adapter_for,
    at_image_size,
    describe,
    load_model,
    logits_of,
    save_expert,
)
from agflow.models.standalone import standalone_code
from agflow.pruning.pruner import prune

GROUPS = {
    "dense": (),
    "widths": ("mlp", "heads"),
    "inside": ("mlp", "heads", "head_dim"),
    "stream": ("mlp", "heads", "embed"),
    "branches": ("mlp", "block"),
    "all": ("mlp", "heads", "head_dim", "embed", "block"),
}
FAMILIES = {
    "timm": lambda: of_timm(depth=3, init_values=0.1, reg_tokens=2, class_token=True),
    "timm_pooled": lambda: of_timm(depth=3, global_pool="avg", qk_norm=True, qkv_bias=False),
    "timm_distilled": lambda: of_timm(VisionTransformerDistilled, depth=3),
    "timm_swiglu": lambda: of_timm(depth=3, mlp_layer=SwiGLU, act_layer=nn.SiLU, in_chans=1),
    "timm_glu": lambda: of_timm(depth=3, mlp_layer=GluMlp, proj_bias=False),
    "torchvision": lambda: of_torchvision(depth=3, representation_size=16),
    "transformers_vit": lambda: of_transformers(
        depth=3, hidden_act="gelu_new", id2label={i: f"c{i}" for i in range(10)}
    ),
    "transformers_deit": lambda: of_transformers("DeiT", "WithTeacher", depth=3, qkv_bias=False),
}
# Run in one process for all folders: importing the libraries takes seconds.
RUN = """
import os, pathlib, re, sys
sys.modules["agflow"] = None
import torch

def by_its_readme(folder):
    code = re.findall(r"```python\\n(.*?)```", (folder / "README.md").read_text(), re.S)[-1]
    assert "agflow" not in code and max(map(len, code.splitlines())) <= 100
    names = {}
    exec(compile(code, str(folder), "exec"), names)
    return names["model"]

def by_transformers(folder):
    import transformers
    return transformers.AutoModelForImageClassification.from_pretrained(folder)

for folder in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    os.chdir(folder)
    load = by_its_readme if (folder / "README.md").exists() else by_transformers
    model = load(folder)
    with torch.no_grad():
        output = model(torch.load("images.pt"))
    torch.save(getattr(output, "logits", output), "logits.pt")
    config = getattr(model, "config", None)
    pathlib.Path("classes.txt").write_text(repr(config and config.id2label))
"""


QUICK = [
    (family, kind)
    for family in ("timm", "timm_swiglu", "torchvision", "transformers_vit")
    for kind in ("widths", "resized")
]
ALL = [(family, kind) for family in FAMILIES for kind in (*GROUPS, "resized")]


def light_expert(family, kind, plan_of, random_keep):
    """A model that lost something of these groups, or of all and then resizes its images."""
    model = made(FAMILIES[family])
    kept = random_keep(model, 5, GROUPS.get(kind, GROUPS["all"]))
    light = prune(model, plan_of(model, kept), compensate="none")
    return at_image_size(light, 16) if kind == "resized" else light


def even_expert(plan_of):
    """A model of transformers that lost as much in every block, and channels of its stream."""
    model = made(FAMILIES["transformers_vit"])
    left = {"mlp": range(8, 48), "heads": [0, 2, 3], "embed": range(2, 26)}
    layers = [layer for layer in adapter_for(model).layers(model) if layer.kind in left]
    plan = plan_of(model, {layer.name: left[layer.kind] for layer in layers})
    return prune(model, plan, [images_for(model)])


@pytest.mark.parametrize(
    "experts",
    [QUICK, pytest.param(ALL, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])],
    ids=["quick", "all"],
)
def test_experts_load_in_a_process_without_agflow(experts, plan_of, random_keep, tmp_path):
    models = {
        f"{family}_{kind}": light_expert(family, kind, plan_of, random_keep)
        for family, kind in experts
    }
    for name, model in models.items():
        save_expert(model, tmp_path / name)
    models["pretrained"] = even_expert(plan_of)
    models["pretrained"].save_pretrained(tmp_path / "pretrained")
    for name, model in models.items():
        torch.save(images_for(model), tmp_path / name / "images.pt")
    subprocess.run([sys.executable, "-c", RUN, tmp_path], check=True, cwd=tmp_path)
    for name, model in models.items():
        found = torch.load(tmp_path / name / "logits.pt")
        with torch.no_grad():
            logits = logits_of(model(images_for(model)))
        torch.testing.assert_close(found, logits, atol=1e-5, rtol=1e-5, msg=name)
    for name in ("transformers_vit_widths", "pretrained"):
        classes = (tmp_path / name / "classes.txt").read_text()
        assert classes == repr({i: f"c{i}" for i in range(10)})


def test_the_code_in_the_room_s_page_is_that_of_such_a_folder():
    model, _, _ = load_model("example")
    code = standalone_code(describe(model), None)
    page = pathlib.Path(__file__).parents[2] / "README.md"
    assert code.replace('Path(".")', 'Path("light")') in page.read_text()
    assert 15 <= len(code.splitlines()) <= 32
