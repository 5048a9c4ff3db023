"""Every entry point reads loaders alike: forms of batches, labels, modes, dtypes and passes."""

import copy

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import agflow
from agflow.cascade.cascade_evaluation import evaluate_cascade
from agflow.data.repeated import SameImages
from agflow.diagnostics import RandomControl, against_random
from agflow.errors import (
    AgflowError,
    InvalidValueError,
    NonFiniteError,
    ShapeError,
)
from agflow.evaluation import logits
from agflow.pruning.least_squares import moments
from agflow.research import image_utilities, with_utilities
from agflow.search import SearchSpace
from agflow.training import CachedTeacher, Distillation

CLASSES = 4
X = torch.randn(24, 3, 32, 32, generator=torch.Generator().manual_seed(3))
Y = torch.arange(24) % CLASSES
BATCHES = [(X[start : start + 8], Y[start : start + 8]) for start in (0, 8, 16)]


@pytest.fixture(scope="module")
def small(make_small):
    return make_small(0)


@pytest.fixture(scope="module")
def make_small():
    from conftest import small_vit

    return lambda seed=0, **how: small_vit(
        **{"num_classes": CLASSES, "depth": 2, "patch_size": 16, "embed_dim": 24, **how}
    )


@pytest.fixture(scope="module")
def plan(small):
    return agflow.plan(agflow.calibrate(small, BATCHES), macs=0.7)


def space():
    return SearchSpace(image_sizes=(16,), macs=(1.0,))


LABELLED = {
    "calibrate": lambda m, plan, loader: agflow.calibrate(m, loader)["sum_abs_yg"].tobytes(),
    "evaluate": lambda m, plan, loader: agflow.evaluate(m, loader),
    "logits": lambda m, plan, loader: logits(m, loader)[0].numpy().tobytes(),
    "predict": lambda m, plan, loader: agflow.predict(m, m, loader, second_view=True),
    "finetune": lambda m, plan, loader: agflow.finetune(fresh(m), loader, epochs=1),
    "teacher": lambda m, plan, loader: agflow.finetune(
        fresh(m), loader, epochs=1, distillation=Distillation(m)
    ),
    "cached teacher": lambda m, plan, loader: CachedTeacher.of(m, loader).logits.numpy().tobytes(),
    "evaluate_cascade": lambda m, plan, loader: evaluate_on(m, loader).ledger,
    "against_random": lambda m, plan, loader: against_random(
        m, agflow.calibrate(m, BATCHES), loader, control=RandomControl(draws=1)
    ),
    "design_cascade": lambda m, plan, loader: len(
        agflow.design_cascade(m, BATCHES, loader, space=space(), epochs=1).frontier
    ),
}
UNLABELLED = {
    "prune": lambda m, plan, loader: parameters(agflow.prune(m, plan, loader)),
    "ridge_at_once": lambda m, plan, loader: parameters(
        agflow.prune(m, plan, loader, compensate="ridge_at_once")
    ),
    "moments": lambda m, plan, loader: bits(
        moments(m, ["blocks.0.mlp.fc2"], loader)["blocks.0.mlp.fc2"].sum_CC
    ),
    "image_utilities": lambda m, plan, loader: image_utilities(m, loader).tobytes(),
    "sketch_images": lambda m, plan, loader: agflow.data.sketch_images(loader),
}
ENTRY_POINTS = LABELLED | UNLABELLED


def fresh(model):
    with torch.inference_mode(False):  # where a copy can be trained
        return copy.deepcopy(model)


def evaluate_on(model, loader):
    predictions = agflow.predict(model, model, BATCHES)
    router = agflow.calibrate_router(predictions, escalation=0.99)
    return evaluate_cascade(agflow.Cascade(model, model, router), loader, predictions)


def bits(tensor):
    return tensor.numpy().tobytes()


def parameters(model):
    return [bits(parameter.detach()) for parameter in model.parameters()]


FORMS = {
    "dictionaries": [{"pixel_values": x, "labels": y[:, None].int()} for x, y in BATCHES],
    "arrays and lists": [[x.numpy(), y.tolist()] for x, y in BATCHES],
    "float64 images": [(x.double(), y) for x, y in BATCHES],
    "an empty batch": [*BATCHES[:2], (X[:0], Y[:0]), BATCHES[2]],
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("entry", ENTRY_POINTS)
def test_every_form_gives_the_same_result(small, plan, entry, form):
    if (form, entry) in {("an empty batch", "finetune"), ("an empty batch", "teacher")}:
        with pytest.raises(AgflowError, match="batch 3 of the loader: it holds no image"):
            ENTRY_POINTS[entry](small, plan, FORMS[form])
        return
    if (form, entry) == ("float64 images", "cached teacher"):
        return  # its images are kept in half precision
    step = ENTRY_POINTS[entry]
    assert step(small, plan, FORMS[form]) == step(small, plan, BATCHES)


@pytest.mark.parametrize("entry", UNLABELLED)
def test_images_alone_suffice_where_no_label_is_needed(small, plan, entry):
    expected, found = (
        ENTRY_POINTS[entry](small, plan, loader) for loader in (BATCHES, [x for x, _ in BATCHES])
    )
    assert found == expected


@pytest.mark.parametrize("entry", ENTRY_POINTS)
def test_what_is_no_batch_is_one_sentence(small, plan, entry):
    dataset = TensorDataset(X, Y)
    for loader in (dataset, [(X.byte(), Y)], [{"x": X}], [("a", "b")], {"images": X}, None):
        if loader is None and entry in ("prune", "ridge_at_once"):
            continue  # another sentence: they need images
        with pytest.raises(AgflowError, match=r"(?s)(batch 1 of the|the) loader.*expected"):
            ENTRY_POINTS[entry](small, plan, loader)
    with pytest.raises(AgflowError, match="no batch"):
        ENTRY_POINTS[entry](small, plan, [])


@pytest.mark.parametrize("labels", [Y - 1, Y + 1, torch.full_like(Y, -100)])
@pytest.mark.parametrize("entry", LABELLED)
def test_labels_outside_the_classes_are_refused(small, plan, entry, labels):
    with pytest.raises(InvalidValueError, match=r"labels run from .* the model has 4 classes"):
        LABELLED[entry](small, plan, [(X, labels)])


@pytest.mark.parametrize("labels", [Y.float(), torch.eye(CLASSES)[Y], Y > 1, Y[:3]])
@pytest.mark.parametrize("entry", LABELLED)
def test_labels_that_are_no_class_numbers_are_refused(small, plan, entry, labels):
    with pytest.raises(AgflowError, match=r"batch 1 of the loader: .* expected"):
        LABELLED[entry](small, plan, [(X, labels)])


@pytest.mark.parametrize("entry", sorted(set(ENTRY_POINTS) - {"moments", "sketch_images"}))
def test_images_of_another_model_are_one_sentence(small, plan, entry):
    for x in (X[:, :1], X[:, :, :16, :16]):
        if entry == "design_cascade" and x.shape[1] == 3:
            continue  # its candidates resize their images
        with pytest.raises(ShapeError, match=r"the images are .*, VisionTransformer takes"):
            ENTRY_POINTS[entry](small, plan, [(x, Y)])


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
@pytest.mark.parametrize("entry", ENTRY_POINTS)
def test_the_mode_of_the_caller_does_not_matter(small, plan, entry, mode):
    expected = ENTRY_POINTS[entry](small, plan, BATCHES)
    with mode():
        inside = [(x * 1, y * 1) for x, y in BATCHES]
        assert ENTRY_POINTS[entry](small, plan, inside) == expected
    assert ENTRY_POINTS[entry](small, plan, inside) == expected  # made inside, used outside


@pytest.mark.parametrize("entry", ENTRY_POINTS)
def test_a_model_made_in_inference_mode_is_taken(make_small, small, plan, entry):
    with torch.inference_mode():
        made = make_small()
        made.load_state_dict(small.state_dict())
    expected = ENTRY_POINTS[entry](small, plan, BATCHES)
    assert ENTRY_POINTS[entry](made, plan, BATCHES) == expected


def test_a_model_made_in_inference_mode_is_copied_and_saved(make_small, small, tmp_path):
    with torch.inference_mode():
        made = make_small()
        made.load_state_dict(small.state_dict())
    agflow.save(made, tmp_path / "expert")
    copies = agflow.load(tmp_path / "expert"), agflow.models.only_classes(made, range(CLASSES))
    for model in copies:
        assert torch.equal(logits(model, BATCHES)[0], logits(small, BATCHES)[0])
    smaller = agflow.models.at_image_size(made, 16)
    assert agflow.calibrate(smaller, BATCHES).columns["samples"][0] == 24


def test_a_model_made_in_inference_mode_cannot_be_trained_in_place(make_small):
    with torch.inference_mode():
        made = make_small()
    with pytest.raises(InvalidValueError, match=r"made in torch.inference_mode.*deepcopy"):
        agflow.finetune(made, BATCHES, epochs=1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_models_of_other_types_answer_everywhere(small, dtype):
    other = copy.deepcopy(small).to(dtype)
    expected, found = (agflow.predict(small, model, BATCHES) for model in (small, other))
    light = found.columns["light_prior"]
    assert (light == expected.columns["light_prior"]).all()
    mixed = agflow.predict(other, small, BATCHES, features=True, second_view=True)
    assert abs(mixed.columns["light_prior"] - light).max() < 0.05
    assert agflow.evaluate(other, BATCHES).images == 24
    agflow.finetune(copy.deepcopy(small), BATCHES, epochs=1, distillation=Distillation(other))
    assert CachedTeacher.of(other, BATCHES).logits.dtype is torch.float32
    assert image_utilities(other, BATCHES).shape == (24,)
    for light, heavy in ((small, other), (other, small), (other, other)):
        answers = agflow.Cascade(light, heavy, 1.1)(X)  # every image escalates
        assert (answers - logits(heavy, BATCHES)[0]).abs().max() < 1e-2
        assert (agflow.Cascade(light, heavy, -1.0)(X.to(dtype)) - answers).abs().max() < 0.5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_half_or_double_model_is_finetuned(small, dtype):
    model = copy.deepcopy(small).to(dtype)
    distillation = Distillation(small, features=1.0)
    history = agflow.finetune(model, BATCHES, epochs=1, distillation=distillation)
    assert history[0]["loss"] > 0 and next(model.parameters()).dtype is dtype


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_answers_that_are_not_finite_are_refused_by_row(small, plan, value):
    broken = copy.deepcopy(small)
    broken.head.bias.data[1] = value
    for step in ("evaluate", "logits", "predict", "cached teacher"):
        with pytest.raises(NonFiniteError, match=r"NaN or infinite for 8 images \(row 0, 1"):
            LABELLED[step](broken, plan, BATCHES)
    images = X.clone()
    images[17] = value
    with pytest.raises(NonFiniteError, match=r"heavy expert's .* for 1 images \(row 17\)"):
        agflow.predict(Ignoring(CLASSES), small, [(images[:16], Y[:16]), (images[16:], Y[16:])])


class Ignoring(torch.nn.Linear):
    """A light expert that does not look at the images."""

    def __init__(self, classes):
        super().__init__(1, classes)

    def forward(self, x):
        return super().forward(torch.zeros(len(x), 1))


@pytest.fixture(autouse=True)
def counted(monkeypatch):
    """Models without an adapter have costs, too."""
    from agflow import models

    count = models.count_macs
    monkeypatch.setattr(
        models, "count_macs", lambda model: 1 if isinstance(model, Ignoring) else count(model)
    )


def test_a_loader_that_shuffles_or_can_be_read_once_gives_the_same_predictions(small, make_small):
    light = agflow.models.at_image_size(small, 16)
    expected = agflow.predict(light, small, BATCHES)
    shuffled = agflow.predict(
        light, small, DataLoader(TensorDataset(X, Y), batch_size=8, shuffle=True)
    )
    for name in ("light_accuracy", "heavy_accuracy"):
        assert getattr(shuffled, name) == getattr(expected, name)
    assert shuffled.metadata["agflow.images"] == expected.metadata["agflow.images"]
    assert agflow.predict(light, small, iter(BATCHES)) == expected


class Augmented:
    """A loader with a random augmentation, which changes at every pass."""

    def __iter__(self):
        return ((x + torch.randn(()), y) for x, y in BATCHES)


SEVERAL_PASSES = {
    "shuffled": DataLoader(TensorDataset(X, Y), batch_size=8, shuffle=True),
    "augmented": Augmented(),
    "of one pass": iter(BATCHES),
    "other labels": [lambda n: (X, Y.roll(n))],
}


@pytest.mark.parametrize("kind", SEVERAL_PASSES)
@pytest.mark.parametrize("entry", ["against_random", "design_cascade"])
def test_answers_of_several_passes_are_not_joined_unless_proven_the_same(small, plan, entry, kind):
    if kind == "other labels":
        passes = iter(range(9))
        loader = type("", (), {"__iter__": lambda self: iter([(X, Y.roll(next(passes)))])})()
    else:
        loader = SEVERAL_PASSES[kind]
    message = "no batch|only once" if kind == "of one pass" else "second pass.*shuffle=False"
    with pytest.raises(AgflowError, match=message):
        LABELLED[entry](small, plan, loader)


def test_passes_of_other_lengths_are_refused():
    lengths = iter([3, 2])
    shorter = type("", (), {"__iter__": lambda self: iter(BATCHES[: next(lengths)])})()
    same = SameImages(shorter)
    assert sum(len(batch.images) for batch in same) == 24
    with pytest.raises(InvalidValueError, match="24 images in its first pass and 16"):
        list(same)
    lengths = iter([2, 3])
    same = SameImages(shorter)
    assert len(list(same)) == 2
    with pytest.raises(InvalidValueError, match="image 16 differs"):
        list(same)
    rebatched = iter([BATCHES, [(X, Y)]])
    same = SameImages(type("", (), {"__iter__": lambda self: iter(next(rebatched))})())
    assert [len(list(same)) for _ in range(2)] == [3, 1]  # the same images in one batch


def test_a_cascade_and_utilities_belong_to_the_images_of_the_predictions(small):
    predictions = agflow.predict(small, small, BATCHES)
    with pytest.raises(InvalidValueError, match="not the 24 of the predictions"):
        evaluate_on(small, [(X.flip(-1), Y)])
    backwards = [(X.flip(0), Y.flip(0))]
    assert evaluate_on(small, backwards).ledger.samples == 24  # in any order
    with pytest.raises(InvalidValueError, match="answers image 0 of the loader otherwise"):
        with_utilities(predictions, small, backwards)
    assert with_utilities(predictions, small, [X]).prior("agf").shape == (24,)


def test_joined_predictions_are_of_as_many_rows(small):
    join = agflow.cascade.join_predictions
    costs = agflow.cascade.CascadeCosts(1, 2)
    one, two = torch.randn(24, CLASSES), torch.randn(23, CLASSES)
    for light, heavy, labels in ((one, two, Y), (two, one, Y), (one, one, Y[:5])):
        with pytest.raises(ShapeError, match="expected as many of each"):
            join(light, heavy, labels, costs)
    extra = agflow.cascade.ExtraPriors(second_view_NK=two)
    with pytest.raises(ShapeError, match="second_view_NK 23"):
        join(one, one, Y, costs, extra=extra)
    for labels, message in ((Y - 1, "from -1 to 2"), (Y + 1, "from 1 to 4"), (Y / 1, "float32")):
        with pytest.raises(AgflowError, match=message):
            join(one, one, labels, costs)
    assert join(one, one, Y[:, None].tolist(), costs) == join(one, one, Y, costs)


def test_a_heavy_expert_at_chance_has_no_router(small):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(400) % CLASSES
    right = 9 * torch.nn.functional.one_hot(labels, CLASSES).float()
    noise = torch.randn(400, CLASSES, generator=generator)
    join = agflow.cascade.join_predictions
    costs = agflow.cascade.CascadeCosts(1, 2)
    off_by_one = right.roll(1, 1)  # labels counted from another number
    shuffled = right[torch.randperm(400, generator=generator)]  # another order
    for heavy in (off_by_one, shuffled, noise):
        with pytest.raises(InvalidValueError, match="heavy expert answers .* chance would answer"):
            agflow.calibrate_router(join(noise, heavy, labels, costs), tolerance=0.05)
    assert agflow.calibrate_router(join(noise, right + noise, labels, costs), tolerance=0.05)


def test_an_epoch_that_is_shorter_than_the_loader_says_is_refused(small):
    class Lying:
        batches = iter(BATCHES)

        def __len__(self):
            return 3

        def __iter__(self):
            return self.batches

    with pytest.raises(AgflowError, match="no batch"):
        agflow.finetune(copy.deepcopy(small), Lying(), epochs=2)
    Lying.batches = iter(BATCHES[:2])
    with pytest.raises(InvalidValueError, match="gave 2 batches in an epoch, expected 3"):
        agflow.finetune(copy.deepcopy(small), Lying(), epochs=1)
