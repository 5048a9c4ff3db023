"""Fine-tuning of a light expert, with the heavy one as its teacher."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn import functional as F

from agflow._utils.modes import preserve_training_mode
from agflow._utils.progress import progress_bar
from agflow._utils.ranks import Ranks
from agflow.errors import (
    EmptyError,
    InvalidValueError,
    NonFiniteError,
    ShapeError,
    UnsupportedModelError,
)
from agflow.models import adapter_for, logits_of, split
from agflow.training.checkpoint import Checkpoint, Progress, Replay, digest_of, named_tensors
from agflow.training.options import Checkpointing, Distillation, TrainingOptions

WARM_UP = 0.1
CLIP = 1.0


def finetune(
    model: nn.Module,
    loader: Iterable,
    *,
    epochs: int = 3,
    lr: float = 3e-4,
    distillation: Distillation | None = None,
    checkpointing: Checkpointing | None = None,
    options: TrainingOptions = TrainingOptions(),
    seed: int = 0,
) -> list[dict[str, float]]:
    """Train ``model`` in place with AdamW, a short warm-up and cosine decay.

    The loss is cross entropy; with ``distillation`` that of :class:`Distillation`. A batch may bring a teacher's logits as
    its third part (:class:`agflow.training.CachedTeacher`): these teach, by the defaults of :class:`Distillation` where
    none is given, and no teacher runs. On a CUDA device that computes in bfloat16 the forward passes run under autocast.
    Equal seeds and equal batches give equal bits: torch's generators are seeded inside and put back afterwards, so a
    DataLoader that shuffles without a generator of its own is covered, too.

    With ``checkpointing`` the whole state is kept in one safetensors file. The same call after a crash, a SIGKILL included,
    goes on from there and ends with the bits of an unbroken run (on the CPU with as many threads). The batches must come
    from torch's generators alone, none of them inside of persistent workers; a sampler's ``set_epoch`` is called.

    Under ``torchrun``, or when ``torch.distributed`` is initialised, every rank calls this: rank 0's weights are
    given to all, gradients are averaged over all images of a step, and rank 0 alone writes. Shard the data with
    ``DataLoader(…, sampler=DistributedSampler(dataset))``; ``accumulate`` and ``every`` count on each rank.

    Parameters
    ----------
    loader : sized iterable of (images float32 [B, C, H, W], labels int64 [B]), or of these and a teacher's logits
        float32 [B, K], gone through once per epoch
    lr : peak learning rate
    distillation : from which teacher, and how; None trains on labels, and on logits that the batches bring
    checkpointing : where the state is kept, and how often; None keeps none
    options : weight decay, accumulated batches and frozen blocks
    seed : of dropout, and of the loader where it has no generator of its own; rank r takes seed + r

    Returns
    -------
    one dict per epoch: epoch, loss and accuracy (means over the epoch's images, in training mode), lr at its end

    Raises
    ------
    EmptyError
        The loader gives no batch.
    InvalidValueError
        A value out of range, a loader without length, or nothing to train; a teacher and batches that bring logits; a
        checkpoint of another run; ranks that differ in model, arguments or number of batches.
    ShapeError, UnsupportedModelError
        ``features`` of model and teacher, or logits of model and batch, have different shapes; no adapter knows where the
        last block is, or the frozen ones.
    NonFiniteError
        Loss or gradient became NaN or infinite; the model keeps the weights of the last good step.
    FileError, CorruptFileError
        The checkpoint cannot be read or written; it is damaged.
    """
    batches = _batches(loader)
    given, distillation = distillation is not None, distillation or Distillation()
    _check(epochs, lr, distillation)
    teacher = distillation.teacher
    device = next(model.parameters()).device
    arguments = {
        "epochs": epochs,
        "lr": lr,
        "weight_decay": options.weight_decay,
        "temperature": distillation.temperature,
        "distill": distillation.share,
        "features": distillation.features,
        "frozen_blocks": options.frozen_blocks,
        "accumulate": options.accumulate,
        "seed": seed,
        "device": device.type,
        "batches": batches,
    }
    ranks = _ranks(model, device, arguments)
    steps = epochs * math.ceil(batches / options.accumulate)
    objective = _Objective(model, distillation, given)
    replay, done, keeper = Replay(loader, device), Progress(), None
    with (
        _training(model, teacher, options.frozen_blocks),
        replay.seeded(seed + ranks.rank),
        objective.watching(),
    ):
        optimizer = _optimizer(model, lr, options.weight_decay)
        if checkpointing is not None:
            keeper = Checkpoint(
                checkpointing.path,
                {**arguments, **_digests(model, teacher)},
                model,
                optimizer,
                replay,
                ranks,
            )
            done = keeper.resume()
        while done.epoch <= epochs:
            bar = progress_bar(
                replay.epoch(done.epoch, done.batches),
                f"fine-tune {done.epoch}/{epochs}",
                total=batches,
                initial=done.batches,
                visible=ranks.rank == 0,
            )
            for group in _groups(bar, options.accumulate):
                optimizer.zero_grad()
                loss, hits, images = ranks.average(
                    model.parameters(), *objective.backward(group, device)
                )
                norm = nn.utils.clip_grad_norm_(model.parameters(), CLIP)
                if not (loss.isfinite() and norm.isfinite()):
                    raise NonFiniteError(
                        f"loss {loss.item()} and gradient norm {norm.item()} in epoch {done.epoch} after {done.images} images: "
                        f"the last step's weights are kept; try a lower lr than {lr:g}"
                    )
                _set_rate(optimizer, lr * _rate(done.step, steps))
                optimizer.step()
                done.add_step(len(group), loss.item(), hits, images)
                bar.set_postfix(loss=f"{done.loss / done.images:.3f}", refresh=False)
                if keeper and done.step % checkpointing.every == 0 and done.batches < batches:
                    keeper.save(done)
            done.end_epoch(lr * _rate(done.step, steps))
            if keeper:
                keeper.save(done)
    return done.history


def _batches(loader: Iterable) -> int:
    try:
        batches = len(loader)
    except TypeError as error:
        raise InvalidValueError(
            "the loader has no length, which the learning-rate schedule needs: pass a DataLoader or a list of batches"
        ) from error
    if batches == 0:
        raise EmptyError(
            "the loader gives no batch; expected at least one (images, labels) pair: check the dataset's length and limit"
        )
    return batches


def _check(epochs: int, lr: float, distillation: Distillation) -> None:
    if epochs < 1:
        raise InvalidValueError(f"epochs is {epochs}, expected at least 1")
    if not lr > 0:
        raise InvalidValueError(f"lr is {lr}, expected a number above 0")
    if distillation.features and distillation.teacher is None:
        raise InvalidValueError(
            f"features is {distillation.features}, but there is no teacher whose features to learn: "
            "pass Distillation(teacher)"
        )


def _ranks(model: nn.Module, device: torch.device, arguments: dict) -> Ranks:
    """The ranks of this run, which agree on it, with rank 0's weights on all."""
    ranks = Ranks.of_process()
    ranks.check_device(device)
    ranks.agree(
        **arguments,
        model={name: [str(tensor.dtype), *tensor.shape] for name, tensor in named_tensors(model)},
    )
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


def _groups(batches: Iterable, size: int) -> Iterator[list]:
    """Lists of ``size`` batches; the last one may be shorter."""
    batches = iter(batches)
    while group := list(itertools.islice(batches, size)):
        yield group


def _optimizer(model: nn.Module, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trained:
        raise InvalidValueError(
            "every parameter of the model is frozen: call model.requires_grad_() before fine-tuning"
        )
    matrices = [
        parameter for parameter in trained if parameter.ndim in (2, 4)
    ]  # tokens and positions have 3 axes
    others = [parameter for parameter in trained if parameter.ndim not in (2, 4)]
    return torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": weight_decay},
            {"params": others, "weight_decay": 0.0},
        ],
        lr=lr,
    )


def _set_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr


def _rate(step: int, steps: int) -> float:
    """Share of the peak rate at ``step``: linear warm-up, then half a cosine down to zero."""
    warm_up = max(1, round(WARM_UP * steps))
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))


@dataclass
class _Objective:
    """What is minimised (see :func:`finetune`), over the model that ``backward`` leaves gradients in."""

    model: nn.Module
    distillation: Distillation
    given: bool  # by the caller, who then expects a teacher or its logits
    tokens: list[torch.Tensor] = field(
        default_factory=list
    )  # of the last blocks in the forward passes since the last loss

    def backward(
        self, group: list[tuple[torch.Tensor, ...]], device: torch.device
    ) -> tuple[torch.Tensor, int, int]:
        """Add the gradients of the mean loss over all images of ``group``; returns that loss, hits and images."""
        loss, hits, images = 0.0, 0, sum(len(batch[1]) for batch in group)
        for batch in group:
            images_BCHW, labels_B, *taught = (part.to(device) for part in batch)
            with _autocast(device):
                logits_BK = logits_of(self.model(images_BCHW))
                part = self._loss(
                    logits_BK, labels_B, self._teachers(images_BCHW, logits_BK, *taught)
                ) * (len(labels_B) / images)
            part.backward()
            loss = loss + part.detach()
            hits += int((logits_BK.argmax(1) == labels_B).sum())
        return loss, hits, images

    @torch.no_grad()
    def _teachers(
        self,
        images_BCHW: torch.Tensor,
        logits_BK: torch.Tensor,
        remembered_BK: torch.Tensor | None = None,
    ) -> torch.Tensor | None:
        """The teacher's logits [B, K]: those that the batch brings, else those it gives now; None without a teacher."""
        teacher = self.distillation.teacher
        if remembered_BK is None:
            if teacher is not None:
                return logits_of(teacher(images_BCHW))
            if self.given:
                raise InvalidValueError(
                    "the distillation has no teacher and a batch brings no logits of one: pass Distillation(teacher), "
                    "batches of a CachedTeacher, or distillation=None"
                )
            return None
        if teacher is not None:
            raise InvalidValueError(
                "the batches bring a teacher's logits and a teacher was passed, too: leave teacher out, or the logits"
            )
        if remembered_BK.shape != logits_BK.shape:
            raise ShapeError(
                f"the teacher's logits of a batch are {list(remembered_BK.shape)}, the model's {list(logits_BK.shape)}, expected the same: "
                "remember logits of a teacher of the same classes"
            )
        return remembered_BK

    def _loss(
        self, logits_BK: torch.Tensor, labels_B: torch.Tensor, teachers_BK: torch.Tensor | None
    ) -> torch.Tensor:
        hard = F.cross_entropy(logits_BK, labels_B)
        if teachers_BK is None:
            return hard
        share, temperature = self.distillation.share, self.distillation.temperature
        target_BK = F.log_softmax(teachers_BK / temperature, dim=1)
        soft = F.kl_div(
            F.log_softmax(logits_BK / temperature, dim=1),
            target_BK,
            log_target=True,
            reduction="batchmean",
        )
        loss = (1 - share) * hard + share * temperature**2 * soft
        features = self.distillation.features
        return loss + features * self._token_error() if features else loss

    def _token_error(self) -> torch.Tensor:
        student_BTD, teacher_BTD = self.tokens
        self.tokens.clear()
        if student_BTD.shape != teacher_BTD.shape:
            raise ShapeError(
                f"the last block of the model puts out {list(student_BTD.shape)}, that of the teacher {list(teacher_BTD.shape)}, "
                "expected the same shape: leave features out, or take a teacher as wide as the model"
            )
        width = student_BTD.shape[-1:]
        return F.mse_loss(F.layer_norm(student_BTD, width), F.layer_norm(teacher_BTD, width))

    @contextmanager
    def watching(self) -> Iterator[None]:
        """While open, forward passes of model and teacher leave their last block's output in ``tokens``, where features count."""

        def keep(block: nn.Module, inputs: tuple, output) -> None:
            self.tokens.append(output[0] if isinstance(output, tuple) else output)

        models = (self.model, self.distillation.teacher) if self.distillation.features else ()
        blocks = [last_block(model) for model in models]
        hooks = [block.register_forward_hook(keep) for block in blocks]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


def last_block(model: nn.Module) -> nn.Module:
    """The block that holds the last prunable layer: a member of the outermost list of modules around it."""
    path = adapter_for(model).layers(model)[-1].name.split(".")
    for depth in range(1, len(path) + 1):
        if isinstance(
            model.get_submodule(".".join(path[: depth - 1])), (nn.ModuleList, nn.Sequential)
        ):
            return model.get_submodule(".".join(path[:depth]))
    raise UnsupportedModelError(
        f"the blocks of {type(model).__name__} stand in no nn.Sequential or nn.ModuleList, "
        "so the last one is unknown: leave features out"
    )


def _autocast(device: torch.device) -> AbstractContextManager:
    """bfloat16 where a GPU computes in it (Ampere or newer)."""
    able = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    return torch.autocast("cuda", torch.bfloat16) if able else nullcontext()


@contextmanager
def _training(model: nn.Module, teacher: nn.Module | None, frozen_blocks: int) -> Iterator[None]:
    """Model in training mode, its frozen blocks and the teacher in evaluation mode; modes and flags come back and the gradients are dropped."""
    frozen = (
        [
            parameter
            for parameter in split(model, frozen_blocks)[0].parameters()
            if parameter.requires_grad
        ]
        if frozen_blocks
        else []
    )
    with preserve_training_mode(*filter(None, (model, teacher))):
        if teacher is not None:
            teacher.eval()
        model.train()
        _freeze(model, frozen)
        try:
            yield
        finally:
            model.zero_grad()
            for parameter in frozen:
                parameter.requires_grad_()


def _freeze(model: nn.Module, frozen: list[nn.Parameter]) -> None:
    """Take ``frozen`` from the training, and let no module drop out that holds nothing else."""
    held = set(frozen)
    for parameter in frozen:
        parameter.requires_grad_(False)
    for module in model.modules():
        own = set(module.parameters())
        if own and own <= held:
            module.eval()
