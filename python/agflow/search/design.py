"""A designed cascade: the chosen light expert with all candidates it was chosen from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn

from agflow._utils.defaults import default
from agflow.cascade.cascade import Cascade
from agflow.cascade.ensemble import ENSEMBLE_ANSWERS
from agflow.cascade.expert_passes import predict, tuned_on
from agflow.cascade.predictions import Predictions
from agflow.cascade.router import Router, calibrate_router
from agflow.pruning.planning import Plan
from agflow.search.frontier import EvaluatedCandidate, Frontier


@dataclass(frozen=True, repr=False)
class CascadeDesign:
    """The light expert that :func:`agflow.design_cascade` chose, and the candidates it evaluated.

    Attributes
    ----------
    light, heavy : the experts
    plan : that the light expert was pruned by; None for a dense one at a smaller image size
    chosen : the evaluation of the chosen candidate; calibrate its threshold on other images
        (:meth:`calibrate`)
    frontier : all evaluated candidates
    tolerance : accepted loss of accuracy, as a share of the images
    tuning : sketch of the images that trained and chose, on which no router may be calibrated

    Examples
    --------
    See :func:`agflow.design_cascade`, which returns one.
    """

    light: nn.Module
    heavy: nn.Module
    plan: Plan | None
    chosen: EvaluatedCandidate
    frontier: Frontier
    tolerance: float
    tuning: str

    @property
    def shared_blocks(self) -> int:
        """First blocks that both experts share."""
        return self.chosen.shared_blocks

    def predict(self, loader: Iterable, router: Router | None = None) -> Predictions:
        """Run both experts over the images of ``loader`` (:func:`agflow.predict`); costs are MACs.

        Parameters
        ----------
        loader : (images float32 [B, C, H, W], labels int64 [B]), in the same order at every pass
        router : for test images: its temperature and light weight are used, none is fitted
        """
        predictions = predict(
            self.light, self.heavy, loader, router=router, shared_blocks=self.shared_blocks
        )
        return tuned_on(predictions, self.tuning)

    def calibrate(
        self,
        held_out: Iterable | Predictions,
        *,
        tolerance: float | None = None,
        confidence: float = default("route", "confidence"),
    ) -> Router:
        """Calibrate the threshold on images that neither trained nor chose the light expert.

        Parameters
        ----------
        held_out : loader of such images, or their predictions (:meth:`predict`)
        tolerance : accepted loss of accuracy; by default that of the design
        confidence : in (0, 1)

        Raises
        ------
        EmptyError
            The loader gave no batch.
        InvalidValueError
            A value is out of range, or an image is known to have trained or chosen.
        """
        predictions = held_out if isinstance(held_out, Predictions) else self.predict(held_out)
        return calibrate_router(
            predictions,
            tolerance=self.tolerance if tolerance is None else tolerance,
            confidence=confidence,
            ensemble=self.chosen.answers == ENSEMBLE_ANSWERS,
        )

    def cascade(self, router: Router | float) -> Cascade:
        """Join both experts behind ``router``; their shared blocks run once."""
        return Cascade(self.light, self.heavy, router, shared_blocks=self.shared_blocks)

    def __str__(self) -> str:
        return str(self.frontier)

    def __repr__(self) -> str:
        chosen = " ".join(str(self.chosen).split())
        return f"<agflow.CascadeDesign: {len(self.frontier)} evaluated candidates; chosen {chosen}>"

    def _repr_html_(self) -> str:
        return self.frontier._repr_html_()
