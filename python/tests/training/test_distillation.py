"""Distillation from cached logits: the same bits as with the teacher itself, batches, refusals."""

import copy

import pytest
import torch

from agflow.errors import EmptyError, InvalidValueError, ShapeError
from agflow.models import split
from agflow.training.distillation import CachedTeacher, distill
from agflow.training.finetuning import finetune
from agflow.training.options import Checkpointing, Distillation, TrainingOptions


def batches(images, size=3):
    return list(zip(images[0].split(size), images[1].split(size), strict=True))


@torch.no_grad()
def with_logits(pairs, teacher):
    return [(x, labels, teacher(x)) for x, labels in pairs]


def same(a, b):
    return all(
        torch.equal(mine, theirs)
        for mine, theirs in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )


def test_every_image_is_seen_once_an_epoch_with_its_own_label_and_logits():
    x = torch.arange(10.0).view(10, 1, 1, 1).expand(10, 1, 4, 4)
    cached = CachedTeacher(
        x, torch.arange(10), torch.arange(10.0)[:, None].expand(10, 3), batch_size=4
    )
    torch.manual_seed(3)
    first, second, again = list(cached), list(cached), None
    torch.manual_seed(3)
    again = list(cached)
    assert [len(labels) for _, labels, _ in first] == [4, 4, 2] and len(cached) == 3
    for x_BCHW, labels, logits in first:
        assert torch.allclose(x_BCHW[:, 0, 0, 0], labels.float(), atol=1e-5) and torch.equal(
            logits[:, 2], labels.float()
        )
    assert torch.cat([labels for _, labels, _ in first]).sort().values.tolist() == list(range(10))
    assert all(
        torch.equal(a, b)
        for one, other in zip(first, again, strict=True)
        for a, b in zip(one, other, strict=True)
    )
    assert not torch.equal(first[0][1], second[0][1])


def test_of_a_teacher(make_vit, images):
    teacher = make_vit().train()
    cached = CachedTeacher.of(teacher, batches(images))
    assert teacher.training and cached.images.dtype is torch.float16
    with torch.no_grad():
        assert torch.allclose(cached.logits, teacher.eval()(images[0]), atol=1e-5)
    plain = cached.plain(5)
    assert (
        torch.allclose(torch.cat([x for x, _ in plain]), images[0][:5], atol=2e-3)
        and plain[0][0].dtype is torch.float32
    )
    with pytest.raises(EmptyError, match="no batch"):
        CachedTeacher.of(teacher, [])


def test_half_precision_separates_all_levels_of_a_pixel():
    levels = ((torch.arange(256.0) / 255 - 0.485) / 0.225).half()
    assert len(levels.unique()) == 256


def test_cached_logits_train_the_same_bits_as_the_teacher(make_vit, images):
    teacher, first, second = make_vit(depth=2), make_vit(), make_vit()
    with_teacher = finetune(
        first, batches(images), epochs=3, distillation=Distillation(teacher, share=0.7)
    )
    cached = with_logits(batches(images), teacher)
    without = finetune(second, cached, epochs=3, distillation=Distillation(share=0.7))
    assert with_teacher == without and same(first, second)


def test_distillation_resumes_from_its_checkpoint_with_the_same_bits(make_vit, images, tmp_path):
    cached = CachedTeacher.of(make_vit(depth=2), batches(images), batch_size=3)
    whole, broken = make_vit(drop_rate=0.1), make_vit(drop_rate=0.1)
    finetune(
        whole,
        cached,
        epochs=3,
        checkpointing=Checkpointing(tmp_path / "whole", every=2),
    )

    class Stops(CachedTeacher):
        seen = 0

        def __iter__(self):
            for batch in super().__iter__():
                self.seen += 1
                if self.seen > 5:
                    raise KeyboardInterrupt
                yield batch

    with pytest.raises(KeyboardInterrupt):
        stops = Stops(cached.images, cached.labels, cached.logits, batch_size=3)
        finetune(
            broken,
            stops,
            epochs=3,
            checkpointing=Checkpointing(tmp_path / "broken", every=2),
        )
    broken = make_vit(drop_rate=0.1)
    finetune(
        broken,
        cached,
        epochs=3,
        checkpointing=Checkpointing(tmp_path / "broken", every=2),
    )
    assert same(whole, broken)


@pytest.mark.parametrize("blocks", [1, 2])
def test_frozen_blocks_keep_their_bits_and_all_others_are_trained(make_vit, images, blocks):
    model = make_vit(drop_path_rate=0.5, proj_drop_rate=0.5)
    before, flags = (
        copy.deepcopy(model),
        [parameter.requires_grad for parameter in model.parameters()],
    )
    inside = []
    hooks = [
        block.register_forward_hook(lambda block, *_: inside.append(block.training))
        for block in model.blocks
    ]
    distill(
        model,
        CachedTeacher.of(before, batches(images)),
        epochs=2,
        frozen_blocks=blocks,
    )
    for hook in hooks:
        hook.remove()
    (prefix, rest), (old_prefix, old_rest) = split(model, blocks), split(before, blocks)
    assert same(prefix, old_prefix)
    assert all(
        not torch.equal(a, b) for a, b in zip(rest.parameters(), old_rest.parameters(), strict=True)
    )
    assert [parameter.requires_grad for parameter in model.parameters()] == flags and not any(
        module.training for module in model.modules()
    )
    assert inside[:3] == [False] * blocks + [True] * (3 - blocks)


def test_refusals(make_vit, images):
    model, teacher = make_vit(), make_vit(depth=2)
    with pytest.raises(InvalidValueError, match="leave teacher out"):
        finetune(model, with_logits(batches(images), teacher), distillation=Distillation(teacher))
    with pytest.raises(ShapeError, match=r"logits of a batch are \[3, 4\], the model's \[3, 10\]"):
        finetune(model, with_logits(batches(images), make_vit(num_classes=4)))
    with pytest.raises(InvalidValueError, match="expected 0 to 3"):
        finetune(model, batches(images), options=TrainingOptions(frozen_blocks=4))
    with pytest.raises(InvalidValueError, match="frozen_blocks is -1"):
        TrainingOptions(frozen_blocks=-1)
    with pytest.raises(InvalidValueError, match="no teacher and a batch brings no logits"):
        finetune(model, batches(images), distillation=Distillation())
    assert all(parameter.requires_grad for parameter in model.parameters())
    with pytest.raises(ShapeError, match="8 images, 8 labels and 7 rows"):
        CachedTeacher(*images, torch.zeros(7, 3))
    with pytest.raises(EmptyError, match="no image"):
        CachedTeacher(torch.zeros(0, 3, 4, 4), torch.zeros(0), torch.zeros(0, 3))
    with pytest.raises(InvalidValueError, match="smallest_crop 0"):
        CachedTeacher(*images, torch.zeros(8, 3), smallest_crop=0)
