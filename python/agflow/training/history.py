"""What a fine-tuning reports of its epochs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

ACCURACY, COSINE = "accuracy", "cosine"
MEASURES = ACCURACY, COSINE
"""Of a classifier, and of a model that learns the features of its teacher."""
HELD_OUT = "held_out_"
"""How the names of what is measured on held-out images begin."""


class History(list[dict[str, float]]):
    """One dictionary an epoch: epoch, loss, accuracy, lr and, with held-out images, their accuracy.

    A list as any other, that JSON and pandas take. Of a model without a classifier ``cosine`` and
    ``held_out_cosine`` stand in the places of the accuracies: the mean cosine of its features to
    its teacher's.

    Parameters
    ----------
    epochs : with ``epoch`` from 1; ``loss`` and ``accuracy``, means over the epoch's images in
        training mode; ``lr`` at its end; ``held_out_accuracy`` in evaluation mode
    start : accuracy, in [0, 1], or cosine on the held-out images before the training; None without
        them

    Attributes
    ----------
    start : as given

    Examples
    --------
    >>> from agflow.training import History
    >>> history = History([{"epoch": 1, "held_out_accuracy": 0.7}], start=0.75)
    >>> history.best_epoch, history.best_accuracy
    (0, 0.75)
    """

    def __init__(self, epochs: Iterable[dict[str, float]] = (), start: float | None = None):
        super().__init__(epochs)
        self.start = start

    @property
    def best_epoch(self) -> int | None:
        """The epoch whose weights the model has; 0 if training never reached ``start`` again.

        None without held-out images.
        """
        return best_epoch(self.start, self)

    @property
    def best_accuracy(self) -> float | None:
        """Accuracy of the model on the held-out images, in [0, 1].

        None without such images, and of a model without a classifier.
        """
        return self._best(ACCURACY)

    @property
    def best_cosine(self) -> float | None:
        """Mean cosine of the model's features on the held-out images to its teacher's.

        None without such images, and of a classifier.
        """
        return self._best(COSINE)

    def _best(self, measure: str) -> float | None:
        if any(measure not in epoch and HELD_OUT + measure not in epoch for epoch in self):
            return None
        epoch = self.best_epoch
        return held_out_value(self[epoch - 1]) if epoch else self.start


def held_out_value(epoch: Mapping[str, float]) -> float | None:
    """What an epoch measured on the held-out images; None without them.

    Examples
    --------
    >>> from agflow.training.history import held_out_value
    >>> held_out_value({"epoch": 1, "held_out_cosine": 0.9})
    0.9
    """
    return next((epoch[HELD_OUT + name] for name in MEASURES if HELD_OUT + name in epoch), None)


def best_epoch(start: float | None, epochs: Sequence[Mapping[str, float]]) -> int | None:
    """The last epoch that was best on held-out images, with ``start`` the value of epoch 0."""
    if start is None:
        return None
    found = [start, *(held_out_value(epoch) or 0.0 for epoch in epochs)]
    return max(range(len(found)), key=lambda epoch: (found[epoch], epoch))
