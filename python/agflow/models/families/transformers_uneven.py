"""Classifiers of transformers whose widths no config can say, which refuse ``save_pretrained``.

A config of transformers has one number of heads and one of hidden channels for all blocks. A cut
model is an instance of its library's own class while these are enough, and of a class here while
they are not: it computes the same and has the same name.
"""

from __future__ import annotations

from typing import Any, NoReturn

import transformers
from torch import nn

from agflow.errors import UnsupportedModelError
from agflow.models.families.transformers_parts import CLASSIFIERS


class Uneven:
    """What the classes of cut models have beside those of transformers."""

    def save_pretrained(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse, before anything is written."""
        name = type(self).__name__
        raise UnsupportedModelError(
            f"save_pretrained cannot save this {name}: a config of transformers has one width for "
            f"all blocks, and after the cut {vars(self)['uneven']}: save it with "
            "agflow.save(model, folder), or plan equal widths, agflow.plan(statistics, "
            "pruning_ratio=0.5, allocation=agflow.pruning.Allocation(widths='uniform')) over MLP "
            "channels, heads and stream channels"
        )

    push_to_hub = save_pretrained


# By module and name they are this module's, so that models can be pickled.
_KINDS = {
    name: type(name, (Uneven, getattr(transformers, name)), {"__module__": __name__})
    for name in CLASSIFIERS
}
globals().update(_KINDS)


def note_unevenness(model: nn.Module, reason: str | None) -> None:
    """Give ``model``, in place, the class that refuses for that reason; its library's without."""
    name = type(model).__name__
    if reason is None:
        model.__class__ = getattr(transformers, name)
        vars(model).pop("uneven", None)
    else:
        model.__class__ = _KINDS[name]
        vars(model)["uneven"] = reason
