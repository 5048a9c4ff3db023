"""The files of a cascade folder by name, and the README that explains them."""

from __future__ import annotations

from agflow.cascade.cascade import Cascade
from agflow.cascade.ensemble import ENSEMBLE_ANSWERS
from agflow.cascade.file_names import CASCADE_FILE, HEAVY_FOLDER, LIGHT_FOLDER, ROUTER_FILE
from agflow.cascade.ledger import cost_text
from agflow.cascade.router import Router
from agflow.cascade.verdict import Verdict
from agflow.models import model_name

_CODE = f"""\
```python
import agflow

cascade = agflow.load("path of this folder")
logits = cascade(images)  # images float32 [B, C, H, W], logits float32 [B, K]
with agflow.Server(cascade) as server:
    future = server.submit(image)  # image float32 [C, H, W], from any thread
    logits_of_image = future.result()  # float32 [K]
```

The preprocessing of the images, where it was saved:

```python
from agflow.models.expert import expert_preprocessing

preprocessing = expert_preprocessing("path of this folder/{HEAVY_FOLDER}")
```

For runtimes without torch, as ONNX files with a README of their own:

```python
agflow.exporting.export_cascade(cascade, "exported")
```
"""


def cascade_readme(cascade: Cascade, router: Router, counts: Verdict) -> str:
    """The Markdown text of README.md, which begins with the verdict."""
    return (
        f"# {model_name(cascade.heavy)}: cascade for agflow\n\n"
        f"{cascade_summary(cascade, router, counts)}"
        f"`{LIGHT_FOLDER}` and `{HEAVY_FOLDER}` are expert folders, `{ROUTER_FILE}` is the "
        f"calibrated router in the format of `agflow route`, `{CASCADE_FILE}` holds the shared "
        f"blocks, the greatest batch and the SHA-256 of the other parts.\n\n{_CODE}"
    )


def cascade_summary(cascade: Cascade, router: Router, counts: Verdict) -> str:
    """Verdict, costs, rule and evidence of a cascade, as Markdown."""
    costs, blocks = cascade.costs, cascade.shared_blocks
    first = "first block" if blocks == 1 else f"first {blocks} blocks"
    shared = f"; they share the embeddings and the {first}, which run once" if blocks else ""
    ensemble = (
        " The ensemble of both experts answers these (averaged log-probabilities), the light one "
        f"with weight {router.light_weight:.3g}."
        if router.answers == ENSEMBLE_ANSWERS
        else ""
    )
    next_step = f" Next: {counts.cure}." if counts.cure else ""
    return (
        f"**{counts.line}**\n\n{counts.meaning[0].upper()}{counts.meaning[1:]}.{next_step}\n\n"
        f"The light expert costs {cost_text(costs.light, costs.unit)} per image, "
        f"the heavy one {cost_text(costs.heavy, costs.unit)}{shared}.\n\n"
        f"Routing: {router.rule}.{ensemble} Of the {router.samples} held-out images that "
        f"calibrated it {100 * router.escalation:.1f} % escalated. The expected cost per image "
        f"there, with both passes of an escalated image paid, was {router.ledger.charged:.3f}x "
        f"of the heavy expert's cost.\n\n"
    )
