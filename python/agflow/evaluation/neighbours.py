"""Classification of images by the votes of their nearest neighbours among features.

Shape suffixes: N images, G images of a gallery, D features, B images at a time, K classes.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

NEIGHBOURS = 10
_TEMPERATURE = 0.07  # of the votes, as of Wu et al., arXiv 1805.01978
_AT_A_TIME = 1024


def neighbours_correct(
    features_ND: torch.Tensor,
    labels_N: torch.Tensor,
    gallery: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> torch.Tensor:
    """Which images the weighted votes of their nearest neighbours classify correctly, bool [N].

    Parameters
    ----------
    features_ND : float [N, D]
    labels_N : int64 [N]
    gallery : features [G, D] and labels [G] that the neighbours are among; None for the other
        images themselves

    Examples
    --------
    >>> import torch
    >>> from agflow.evaluation.neighbours import neighbours_correct
    >>> features = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
    >>> neighbours_correct(features, torch.tensor([0, 0, 1, 1])).tolist()
    [True, True, True, True]
    """
    others_GD, labels_G = gallery or (features_ND, labels_N)
    features_ND, others_GD = F.normalize(features_ND, dim=1), F.normalize(others_GD, dim=1)
    classes, class_G = labels_G.unique(return_inverse=True)
    correct = []
    for first in range(0, len(features_ND), _AT_A_TIME):
        cosine_BG = features_ND[first : first + _AT_A_TIME] @ others_GD.T
        rows_B = torch.arange(len(cosine_BG))
        if gallery is None:
            cosine_BG[rows_B, first + rows_B] = -torch.inf
        voters = min(NEIGHBOURS, len(others_GD) - (gallery is None))
        near_BV, place_BV = cosine_BG.topk(voters, dim=1)
        votes_BK = torch.zeros(len(cosine_BG), len(classes))
        votes_BK.scatter_add_(1, class_G[place_BV], (near_BV / _TEMPERATURE).exp())
        answers_B = classes[votes_BK.argmax(1)]
        correct.append(answers_B == labels_N[first : first + _AT_A_TIME])
    return torch.cat(correct)
