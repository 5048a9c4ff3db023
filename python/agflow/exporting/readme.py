"""The README of an exported cascade, whose code runs the cascade from its files."""

from __future__ import annotations

from agflow.cascade.cascade import Cascade
from agflow.cascade.file_names import HEAVY_ROLE, LIGHT_ROLE, PREFIX_ROLE, ROUTER_FILE
from agflow.cascade.readme import cascade_summary
from agflow.cascade.router import Router
from agflow.models import model_name

_RUN = {
    "onnx": """\
import numpy as np
import onnxruntime


def run(file, values):
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    passes = [values[i : i + 1] for i in range(len(values))]  # int8 scales of its own for each
    return np.concatenate([session.run(None, {name: one})[0] for one in passes])
""",
    "torch": """\
import torch


def run(file, values):
    return torch.export.load(file).module()(torch.from_numpy(values)).detach().numpy()
""",
}


def export_readme(
    cascade: Cascade, router: Router, files: list[dict], format: str, more: str = ""
) -> str:
    """The Markdown text of README.md.

    Parameters
    ----------
    files : the entries of export.json
    more : Markdown behind the summary
    """
    listed = "".join(f"- `{entry['file']}`: {_contract(entry)}\n" for entry in files)
    names = {entry["file"].partition(".")[0]: entry["file"] for entry in files}
    return (
        f"# {model_name(cascade.heavy)}: cascade for other runtimes\n\n"
        f"{cascade_summary(cascade, router, router.counts)}{more}{listed}"
        f"- `{ROUTER_FILE}`: the calibrated router\n\n"
        "`images` are float32 [batch, channels, height, width] of this size, a numpy array.\n\n"
        f"{_code(cascade, names, format)}\n"
        "Routing (`agflow decide`, `agflow.cascade.Logits` and `agflow.cascade.Decisions`) needs "
        "agflow, without torch. A Go program needs no files of logits: package "
        "`agflow/core/routing`, `Router.Decide` and `Router.Answer`.\n"
    )


def _contract(entry: dict) -> str:
    size = " of {}x{} pixels".format(*entry["image_size"]) if "image_size" in entry else ""
    return f"{entry['takes']}{size} to {entry['gives']}"


def _code(cascade: Cascade, names: dict[str, str], format: str) -> str:
    """Five steps from images to answers."""
    taken, prefix = "images", ""
    if cascade.shared_blocks:
        taken, prefix = "tokens", f'tokens = run("{names[PREFIX_ROLE]}", images)\n'
    return f"""\
1. Run the light expert on all images.

```python
import agflow
{_RUN[format]}

{prefix}light_logits = run("{names[LIGHT_ROLE]}", {taken})
agflow.cascade.Logits.of(light_logits).save("light.arrow")
```

2. Decide which images escalate.

```sh
agflow decide --router {ROUTER_FILE} --light light.arrow --output decisions.arrow
```

3. Run the heavy expert on these images, in their order.

```python
escalated = agflow.cascade.Decisions.load("decisions.arrow").escalated
heavy_logits = run("{names[HEAVY_ROLE]}", {taken}[escalated])
agflow.cascade.Logits.of(heavy_logits).save("heavy.arrow")
```

4. Decide the answers.

```sh
agflow decide --router {ROUTER_FILE} --light light.arrow --heavy heavy.arrow --output answers.arrow
```

5. Read the predicted classes, int64 [batch].

```python
classes = agflow.cascade.Decisions.load("answers.arrow")["prediction"]
```
"""
