"""Labels drawn from a model's own softened answers, for a calibration that needs none.

Shape suffixes: B images, K classes.
"""

from __future__ import annotations

import torch

from agflow.calibration.image_draws import uniform_draws


def drawn_labels(
    logits_BK: torch.Tensor, images_BCHW: torch.Tensor, temperature: float, seed: int
) -> torch.Tensor:
    """Draw a label for each image from softmax(logits / temperature).

    The draw of an image goes by the seed and its pixels alone: it is the same in every batch, order
    and process.

    Parameters
    ----------
    logits_BK : [B, K]; NaN draws some label
    images_BCHW : as the loader gave them

    Returns
    -------
    int64 [B]

    Examples
    --------
    >>> import torch
    >>> from agflow.calibration.own_answers import drawn_labels
    >>> logits, images = torch.tensor([[0.0, 99.0], [99.0, 0.0]]), torch.rand(2, 3, 4, 4)
    >>> drawn_labels(logits, images, temperature=1.0, seed=0).tolist()
    [1, 0]
    """
    answers_BK = (logits_BK.detach().double() / temperature).softmax(1).cumsum(1).cpu()
    drawn_B1 = uniform_draws(images_BCHW, seed)[:, None]
    labels_B = (answers_BK[:, :-1] <= drawn_B1).sum(1)
    return labels_B.to(logits_BK.device)
