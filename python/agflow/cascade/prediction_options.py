"""What predictions are made with beside the logits and labels.

Shape suffixes: N images, C features, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch


@dataclass(frozen=True)
class FixedParameters:
    """Parameters of scaled priors and ensemble that are given; what is None is fitted.

    Attributes
    ----------
    temperature : of the logits behind the scaled priors; None fits it
        (:func:`agflow.cascade.fit_temperature`)
    light_weight : weight of the light expert in the ensemble; None fits it
        (:func:`agflow.cascade.fit_light_weight`)

    Examples
    --------
    >>> import agflow
    >>> agflow.cascade.FixedParameters(temperature=1.0)
    FixedParameters(temperature=1.0, light_weight=None)
    """

    temperature: float | None = None
    light_weight: float | None = None


@dataclass(frozen=True, eq=False)
class ExtraPriors:
    """What priors are made of beside the light expert's logits.

    Attributes
    ----------
    features_NC : the light expert's last features, for the prior ``l1_norm``
    second_view_NK : logits of a second view, for the prior ``agreement``
    recorded : further priors by name, float32 [N], higher where the light expert is more confident

    Examples
    --------
    >>> import agflow, numpy
    >>> extra = agflow.cascade.ExtraPriors(recorded={"sharpness": numpy.ones(3, numpy.float32)})
    """

    features_NC: torch.Tensor | None = None
    second_view_NK: torch.Tensor | None = None
    recorded: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class ImageSketches:
    """Sketches (:func:`agflow.data.sketch_images`) that show whether a router is calibrated on
    images that tuned an expert; "" where none was made.

    Attributes
    ----------
    images : of the predicted images
    tuning : of the images that tuned the experts

    Examples
    --------
    >>> import agflow
    >>> agflow.cascade.ImageSketches()
    ImageSketches(images='', tuning='')
    """

    images: str = ""
    tuning: str = ""


NOTHING_FIXED, NO_EXTRA_PRIORS, NO_SKETCHES = FixedParameters(), ExtraPriors(), ImageSketches()
