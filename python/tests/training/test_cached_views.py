"""A fixed set of views with the teacher's answers: the same bits as with the teacher itself."""

import pytest
import torch

from agflow.data.augmentation import shifting_batch
from agflow.data.loading import image_loader
from agflow.errors import EmptyError, InvalidValueError, ShapeError
from agflow.training.cached_views import CachedViews, bytes_an_image
from agflow.training.finetuning import finetune
from agflow.training.options import Distillation


@pytest.fixture
def loader(images):
    return image_loader(list(zip(*images, strict=True)), 3, collate=shifting_batch)


class Unanswered:
    """The same views in the same order, without the teacher's answers."""

    def __init__(self, views):
        self.views = views

    def __len__(self):
        return len(self.views)

    def __iter__(self):
        return ((batch.images, batch.labels) for batch in self.views)


def same(a, b):
    return all(
        torch.equal(mine, theirs)
        for mine, theirs in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )


def test_a_view_comes_with_the_teachers_answer_to_it(make_vit, loader, images):
    teacher = make_vit().train()
    views = CachedViews.of(teacher, loader, views=3, tokens=True, batch_size=5)
    assert teacher.training and not teacher.blocks[-1]._forward_hooks
    assert views.images.shape == (3, *images[0].shape) and views.images.dtype is torch.float16
    assert not torch.equal(views.images[0], views.images[1])
    assert torch.equal(views.labels, images[1])
    teacher.eval()
    with torch.no_grad():
        for batch in views:
            assert torch.allclose(teacher(batch.images), batch.logits, atol=2e-2)
            mean_BT, deviation_BT = batch.tokens.mean(-1), batch.tokens.std(-1, correction=0)
            assert mean_BT.abs().max() < 1e-2 and (deviation_BT - 1).abs().max() < 1e-2


def test_views_are_made_inside_of_autocast(make_vit, loader, images):
    """It cannot promote half precision, in which images are kept."""
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        views = CachedViews.of(make_vit(), loader, views=2, tokens=True)
    assert views.images.dtype is torch.float16 and views.tokens.shape[:2] == (2, 8)


def test_every_image_is_seen_once_an_epoch_in_views_that_change():
    count = 6
    x = torch.arange(2.0).view(2, 1, 1, 1, 1).expand(2, count, 1, 4, 4)
    number_VN1 = torch.arange(float(count)).expand(2, count)[..., None]
    views = CachedViews(x, torch.arange(count), number_VN1, batch_size=4)
    torch.manual_seed(3)
    epochs = [list(views) for _ in range(8)]
    torch.manual_seed(3)
    assert all(map(torch.equal, next(iter(views))[:3], epochs[0][0][:3]))
    for epoch in epochs:
        assert [len(batch.labels) for batch in epoch] == [4, 2] and len(views) == 2
        assert torch.cat([batch.labels for batch in epoch]).sort().values.tolist() == [
            *range(count)
        ]
        assert all(torch.equal(batch.logits[:, 0], batch.labels.float()) for batch in epoch)
    seen = {float(batch.images[0, 0, 0, 0]) for epoch in epochs for batch in epoch}
    assert seen == {0.0, 1.0}


def test_cached_answers_train_as_the_teacher_itself_does(make_vit, loader):
    teacher, first, second = make_vit(depth=2), make_vit(), make_vit()
    views = CachedViews.of(teacher, loader, views=1, tokens=True, batch_size=4)
    cached = finetune(first, views, epochs=3, distillation=Distillation(None, 0.7, features=2.0))
    alone = finetune(
        second, Unanswered(views), epochs=3, distillation=Distillation(teacher, 0.7, features=2.0)
    )
    losses = lambda history: torch.tensor([entry["loss"] for entry in history])
    assert torch.allclose(losses(cached), losses(alone), rtol=1e-3)


def test_equal_seeds_give_equal_views_and_equal_light_experts(make_vit, loader):
    teacher, lights = make_vit(depth=2), [make_vit(), make_vit()]
    for light in lights:
        views = CachedViews.of(teacher, loader, views=2, tokens=True, seed=5)
        finetune(light, views, epochs=2, distillation=Distillation(features=1.0))
    assert same(*lights)
    other = CachedViews.of(teacher, loader, views=2, seed=6)
    assert not torch.equal(other.images, views.images) and other.tokens is None


def test_what_does_not_fit_is_refused(make_vit, images):
    teacher = make_vit()
    shuffled = image_loader(list(zip(*images, strict=True)), 3, shuffle_seed=0)
    with pytest.raises(InvalidValueError, match="another order.*shuffle=False"):
        CachedViews.of(teacher, shuffled, views=3)
    with pytest.raises(InvalidValueError, match="views is 0"):
        CachedViews.of(teacher, shuffled, views=0)
    with pytest.raises(EmptyError, match="no batch"):
        CachedViews.of(teacher, [], views=1)
    x, labels = torch.zeros(2, 4, 3, 4, 4), torch.zeros(4)
    with pytest.raises(ShapeError, match="the same number"):
        CachedViews(x, labels, torch.zeros(1, 4, 3))
    with pytest.raises(InvalidValueError, match="batch_size is 0"):
        CachedViews(x, labels, torch.zeros(2, 4, 3), batch_size=0)
    with pytest.raises(InvalidValueError, match="no teacher whose features"):
        finetune(
            make_vit(),
            CachedViews.of(teacher, [images], views=1),
            epochs=1,
            distillation=Distillation(features=1.0),
        )


def test_memory_of_a_view(make_vit, loader, images):
    model = make_vit()
    for tokens in (False, True):
        views = CachedViews.of(model, loader, views=2, tokens=tokens)
        held = [views.images, views.logits, *([views.tokens] if tokens else [])]
        total = sum(part.numel() * part.element_size() for part in held)
        assert bytes_an_image(model, loader, tokens=tokens) == total / 2 / len(images[1])
