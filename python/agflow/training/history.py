"""What a fine-tuning reports of its epochs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

ACCURACY = "held_out_accuracy"


class History(list[dict[str, float]]):
    """One dictionary an epoch: epoch, loss, accuracy, lr and, with held-out images, their accuracy.

    A list as any other, that JSON and pandas take.

    Parameters
    ----------
    epochs : with ``epoch`` from 1; ``loss`` and ``accuracy``, means over the epoch's images in
        training mode; ``lr`` at its end; ``held_out_accuracy`` in evaluation mode
    start : accuracy on the held-out images before the training, in [0, 1]; None without them

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
        """Accuracy of the model on the held-out images, in [0, 1]; None without them."""
        epoch = self.best_epoch
        return self[epoch - 1][ACCURACY] if epoch else self.start


def best_epoch(start: float | None, epochs: Sequence[dict[str, float]]) -> int | None:
    """The last epoch of the highest accuracy on held-out images, with ``start`` that of epoch 0."""
    if start is None:
        return None
    accuracies = [start, *(epoch[ACCURACY] for epoch in epochs)]
    return max(range(len(accuracies)), key=lambda epoch: (accuracies[epoch], epoch))
