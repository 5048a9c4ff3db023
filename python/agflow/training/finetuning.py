"""Fine-tuning of a light expert, distilled from a heavy one."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sized
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn
from torch.utils.data import RandomSampler, SequentialSampler

from agflow._utils.defaults import default
from agflow._utils.devices import device_of
from agflow._utils.modes import with_gradients
from agflow._utils.progress import ProgressMeter
from agflow._utils.ranks import Ranks
from agflow.data.batches import EMPTY, Batch, check_loader
from agflow.errors import EmptyError, InvalidValueError, NonFiniteError
from agflow.models.exported import refuse_exported
from agflow.training.checkpoint import Checkpoint, Progress
from agflow.training.digests import digest_of, named_tensors
from agflow.training.feature_objective import objective_of
from agflow.training.freezing import training_mode
from agflow.training.held_out import HeldOut
from agflow.training.history import History, held_out_value
from agflow.training.objective import Objective
from agflow.training.optimizer import Schedule, adamw
from agflow.training.options import Checkpointing, Distillation, TrainingOptions
from agflow.training.replay import Replay

MAX_GRADIENT_NORM = 1.0


# Long because: held-out images are data as the training's are, and no option.
@with_gradients
def finetune(
    model: nn.Module,
    loader: Iterable,
    *,
    epochs: int = default("finetune", "epochs"),
    lr: float = default("finetune", "lr"),
    distillation: Distillation | None = None,
    held_out: Iterable | None = None,
    checkpointing: Checkpointing | None = None,
    options: TrainingOptions = TrainingOptions(),
    seed: int = default("common", "seed"),
) -> History:
    """Train ``model`` in place with AdamW, a short warm-up and cosine decay.

    The loss is cross entropy; with ``distillation`` that of :class:`agflow.training.Distillation`.
    A batch may bring a teacher's logits as its third part, and the tokens of its last block as its
    fourth (:class:`agflow.training.CachedTeacher`, :class:`agflow.training.CachedViews`): then no
    teacher runs, and the defaults of ``Distillation`` hold where none is given. Inside
    ``torch.autocast(…, cache_enabled=False)`` the forward passes run in its dtype, the weights stay
    as they are. Equal seeds and equal batches give equal bits: torch's generators are seeded inside
    and restored afterwards, so a DataLoader that shuffles without a generator of its own is
    covered, too.

    A model without a classifier learns the features of the distillation's teacher
    (:class:`agflow.training.feature_objective.FeatureObjective`); labels are not needed, and its
    accuracies are the mean cosines of its features to the teacher's.

    Norms over the batch (BatchNorm) train as they do in torch: by the statistics of each batch,
    from which their running ones move; those are in checkpoints, in the best weights and averaged
    over ranks. A batch of one image, such as the last one of an epoch, takes the running ones.

    With ``held_out`` the model ends with the weights of its best epoch: its accuracy on these
    images is measured before the training and after every epoch, and training that gains nothing
    changes nothing. The same holds when an exception ends the training.

    With ``checkpointing`` the whole state is kept in one safetensors file. The same call after a
    crash, a SIGKILL included, goes on from there and ends with the bits of an unbroken run (on the
    CPU with as many threads). The batches must come from torch's generators alone, none of them
    inside of persistent workers; a sampler's ``set_epoch`` is called.

    Under ``torchrun``, or when ``torch.distributed`` is initialised, every rank calls this: all
    take rank 0's weights, gradients are averaged over all images of a step, and rank 0 alone
    writes. Shard the data with ``DataLoader(…, sampler=DistributedSampler(dataset))``;
    ``TrainingOptions.accumulate`` and ``Checkpointing.every`` count on each rank.

    Parameters
    ----------
    loader : sized iterable of batches (images [B, C, H, W], labels [B]), see
        :mod:`agflow.data.batches`, or of these and a teacher's answers, iterated once per epoch.
        Model and teacher get the images in their own dtypes
    lr : peak learning rate
    distillation : teacher and loss. None trains on labels, and on logits that the batches bring
    held_out : batches of (images, labels) that train nothing and can be read again and again; under
        ``torchrun`` all of them on every rank, or sharded. None keeps the weights of the last epoch
    checkpointing : where the state is kept, and how often. None keeps none
    options : weight decay, accumulated batches, frozen blocks and a callback for loggers
    seed : of dropout, and of the loader where it has no generator of its own; rank r takes seed + r

    Returns
    -------
    a list of one dictionary per epoch: epoch, loss and accuracy (means over the epoch's images, in
    training mode), lr at its end and, with held-out images, ``held_out_accuracy``; of a model
    without a classifier ``cosine`` and ``held_out_cosine`` in the places of the accuracies;
    :class:`agflow.training.History` knows the best of them

    Raises
    ------
    EmptyError
        The loader has no batch, or a batch no image.
    InvalidValueError, DtypeError
        A value out of range, a loader without length or of another one, or nothing to train; a
        batch that is not one of images and labels of the model's classes; a distillation without
        teacher and logits, or with both; held-out images that train, or can be read only once; a
        checkpoint of another run; ranks that differ in model, arguments or number of batches.
    ShapeError, UnsupportedModelError
        ``features`` of model and teacher have different numbers of tokens, or logits of model and
        batch different shapes; no adapter knows where the last block is, or the frozen ones.
    NonFiniteError
        Loss or gradient became NaN or infinite; the model keeps the weights of the last good step.
    FileError, CorruptFileError
        The checkpoint cannot be read or written; it is damaged.

    Examples
    --------
    >>> import agflow, timm, torch
    >>> vit = lambda depth: timm.create_model(
    ...     "vit_tiny_patch16_224", img_size=32, patch_size=8, depth=depth, num_classes=4
    ... )
    >>> light, heavy = vit(1), vit(2)
    >>> batches = [(torch.randn(4, 3, 32, 32), torch.arange(4))]
    >>> distillation = agflow.training.Distillation(heavy, share=0.5)
    >>> held_out = [(torch.randn(8, 3, 32, 32), torch.arange(8) % 4)]
    >>> history = agflow.finetune(
    ...     light, batches, epochs=2, distillation=distillation, held_out=held_out
    ... )
    >>> [entry["epoch"] for entry in history], history.best_accuracy >= history.start
    ([1, 2], True)
    """
    batches = _length(loader)
    refuse_exported(model)
    _check(model, epochs, lr)
    _check_held_out(held_out, loader)
    objective = objective_of(model, distillation)
    teacher, device = objective.distillation.teacher, device_of(model)
    run = _arguments(epochs, lr, objective.distillation, options, seed)
    run |= {"device": device.type, "batches": batches}
    watched = {"held_out": held_out is not None, "callback": options.callback is not None}
    ranks = _agreed_ranks(model, device, {**run, **watched})
    held = HeldOut(model, held_out, ranks, None if objective.labelled else teacher)
    replay = Replay(loader, device, labelled=objective.labelled)
    checkpoint, progress = None, Progress()
    schedule = Schedule(lr, epochs * math.ceil(batches / options.accumulate))
    with (
        held.keeping_best(),
        training_mode(model, teacher, options.frozen_blocks),
        replay.seeded(seed + ranks.rank),
        objective.recording_tokens(),
        ProgressMeter("fine-tune", total=epochs * batches, visible=ranks.rank == 0) as meter,
    ):
        optimizer = adamw(model, lr, options.weight_decay)
        if checkpointing is not None:
            run |= {**_digests(model, teacher), "held_out": held.digest}
            checkpoint = Checkpoint(checkpointing, run, model, optimizer, replay, ranks, held.best)
            progress = checkpoint.resume()
        meter.skip((progress.epoch - 1) * batches + progress.batches)
        trainer = _Trainer(objective, optimizer, schedule, ranks)
        while progress.epoch <= epochs:
            shown = replay.epoch(progress.epoch, progress.batches)
            for group in _groups(shown, options.accumulate):
                trainer.step(group, progress)
                meter.advance(
                    len(group),
                    epoch=f"{progress.epoch}/{epochs}",
                    loss=f"{progress.loss / progress.images:.3f}",
                )
                if checkpoint and progress.batches < batches:
                    checkpoint.save_if_due(progress)
            _check_length(progress.batches, batches)
            progress.end_epoch(schedule.at(progress.step), objective.measure)
            held.measure(progress.history)
            if checkpoint:
                checkpoint.save(progress)
            meter.report(_epoch_in_words(progress.history[-1], epochs, objective))
            _report(progress, options.callback, ranks)
    return History(progress.history, held.start)


@dataclass(frozen=True)
class _Trainer:
    """Takes optimizer steps, the same on all ranks."""

    objective: Objective
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    ranks: Ranks

    def step(self, batches: list[Batch], progress: Progress) -> None:
        """Step along the gradient of the mean loss over all images of ``batches`` and ranks."""
        model, statistics = self.objective.model, self.objective.statistics
        self.optimizer.zero_grad()
        with statistics.restored_on_error():
            loss, correct, images = self.ranks.average(
                model.parameters(), *self.objective.backward(batches)
            )
            norm = nn.utils.clip_grad_norm_(model.parameters(), MAX_GRADIENT_NORM)
            if not (loss.isfinite() and norm.isfinite()):
                raise NonFiniteError(
                    f"loss {loss.item()} and gradient norm {norm.item()} in epoch "
                    f"{progress.epoch} after {progress.images} images: the last step's weights "
                    f"are kept; try a lower lr than {self.schedule.peak:g}"
                )
        self.ranks.mean(statistics.tensors)
        self.schedule.apply(self.optimizer, progress.step)
        self.optimizer.step()
        progress.add_step(len(batches), loss.item(), correct, images)


def _length(loader: Iterable) -> int:
    check_loader(loader)
    try:
        batches = len(cast(Sized, loader))
    except TypeError as error:
        raise InvalidValueError(
            "the loader has no length, which the learning-rate schedule needs: "
            "pass a DataLoader or a list of batches"
        ) from error
    if batches == 0:
        raise EmptyError(EMPTY)
    return batches


def _check_length(found: int, batches: int) -> None:
    """Check that an epoch had as many batches as the loader's length says."""
    if found == 0:
        raise EmptyError(EMPTY)
    if found != batches:
        raise InvalidValueError(
            f"the loader gave {found} batches in an epoch, expected {batches}, its length: "
            "pass one that can be iterated over again, such as a DataLoader or a list"
        )


def _check(model: nn.Module, epochs: int, lr: float) -> None:
    if any(tensor.is_inference() for _, tensor in named_tensors(model)):
        raise InvalidValueError(
            "the model was made in torch.inference_mode(), so it cannot be trained: "
            "make or load it outside, or train copy.deepcopy(model)"
        )
    if epochs < 1:
        raise InvalidValueError(f"epochs is {epochs}, expected at least 1")
    if not lr > 0:
        raise InvalidValueError(f"lr is {lr}, expected a number above 0")


def _epoch_in_words(entry: dict[str, float], epochs: int, objective: Objective) -> str:
    measured = held_out_value(entry)
    trained = objective.in_words(entry[objective.measure], "training images")
    return f"epoch {entry['epoch']}/{epochs}: loss {entry['loss']:.3f}, {trained}" + (
        "" if measured is None else f", {objective.in_words(measured, 'held-out ones')}"
    )


def _check_held_out(held_out: Iterable | None, loader: Iterable) -> None:
    """Check that the held-out images are others than those that train, as far as loaders show."""
    if held_out is None:
        return
    check_loader(held_out)
    whole = _reads_all(held_out)
    if held_out is loader or (whole is not None and whole is _reads_all(loader)):
        raise InvalidValueError(
            "held_out and the loader read the same images: hold others out, such as a part that "
            "torch.utils.data.random_split makes"
        )


def _reads_all(loader: Iterable) -> Any:
    """The dataset that a DataLoader reads the whole of; None for what may read parts of one."""
    whole = isinstance(getattr(loader, "sampler", None), (SequentialSampler, RandomSampler))
    return getattr(loader, "dataset", None) if whole else None


def _report(progress: Progress, callback: Callable | None, ranks: Ranks) -> None:
    """Give the epoch that has ended to the callback."""
    if callback is not None:
        ranks.on_first(lambda: callback(dict(progress.history[-1])))


def _arguments(
    epochs: int, lr: float, distillation: Distillation, options: TrainingOptions, seed: int
) -> dict[str, Any]:
    """The arguments by their names in checkpoint files."""
    return {
        "epochs": epochs,
        "lr": lr,
        "weight_decay": options.weight_decay,
        "temperature": distillation.temperature,
        "distill": distillation.share,
        "features": distillation.features,
        "frozen_blocks": options.frozen_blocks,
        "accumulate": options.accumulate,
        "seed": seed,
    }


def _agreed_ranks(model: nn.Module, device: torch.device, run: dict[str, Any]) -> Ranks:
    """The ranks of this run, which agree on it, with rank 0's weights on all."""
    ranks = Ranks.of_process()
    ranks.check_device(device)
    shapes = {name: [str(tensor.dtype), *tensor.shape] for name, tensor in named_tensors(model)}
    ranks.agree(**run, model=shapes)
    ranks.share(model)
    return ranks


def _digests(model: nn.Module, teacher: nn.Module | None) -> dict[str, str | None]:
    trained = " ".join(
        name for name, parameter in model.named_parameters() if parameter.requires_grad
    )
    return {
        "model": digest_of(model),
        "teacher": None if teacher is None else digest_of(teacher),
        "trained": hashlib.sha256(trained.encode()).hexdigest(),
    }


def _groups(batches: Iterable[Batch], size: int) -> Iterator[list[Batch]]:
    """Lists of ``size`` batches; the last one may be shorter."""
    batches = iter(batches)
    while group := list(itertools.islice(batches, size)):
        yield group
