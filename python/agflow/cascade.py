"""Light expert first, heavy expert for what it is unsure of, as one module."""

from __future__ import annotations

import torch
from torch import nn

from agflow.errors import InvalidValueError
from agflow.models import logits_of
from agflow.routing import LOGIT_PRIORS, PRIOR, SCALED, Costs, Ledger, Router, escalations


class Cascade(nn.Module):
    """``cascade(x) -> logits``: the light expert answers, images below the router's threshold go on to the heavy one.

    Escalated images are compacted into one heavy batch and their answers scattered back, so the order of the batch
    is kept. For inference only; no gradient flows.

    Parameters
    ----------
    light, heavy : models that map float32 [B, C, H, W] to logits [B, K] on the same device
    router : Router, or a bare threshold of the maximum probability, in [0, 1]

    Attributes
    ----------
    ledger : Ledger
        Images seen since construction or :meth:`reset_ledger`, escalations, charged and uncharged cost.
    """

    def __init__(self, light: nn.Module, heavy: nn.Module, router: Router | float):
        super().__init__()
        self.light, self.heavy = light, heavy
        calibrated = isinstance(router, Router)
        self.threshold = float(router.threshold if calibrated else router)
        self.prior, self.temperature = (router.prior, router.temperature) if calibrated else (PRIOR, 1.0)
        if self.threshold != self.threshold:
            raise InvalidValueError(f"threshold is {self.threshold}, expected a number: calibrate one with calibrate_router")
        if self.prior.removesuffix(SCALED) not in LOGIT_PRIORS:
            raise InvalidValueError(f"the router's prior is {self.prior!r}, a cascade computes {', '.join(LOGIT_PRIORS)} from the logits: "
                                    "calibrate with one of these")
        self.costs = Costs.of(light, heavy)
        self.reset_ledger()

    def reset_ledger(self) -> None:
        self._samples = self._escalated = 0

    @property
    def ledger(self) -> Ledger:
        return Ledger.of(self.costs, self._samples, self._escalated)

    @torch.no_grad()
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits [B, K] for images [B, C, H, W].

        Raises
        ------
        NonFiniteError
            The light expert gave a logit that is NaN or infinite.
        """
        logits_BK = logits_of(self.light(x))
        escalated = escalations(logits_BK, self.threshold, prior=self.prior, temperature=self.temperature)
        if len(escalated):
            heavy_EK = logits_of(self.heavy(x.index_select(0, escalated)))
            logits_BK = logits_BK.index_copy(0, escalated, heavy_EK.to(logits_BK.dtype))
        self._samples += len(x)
        self._escalated += len(escalated)
        return logits_BK
