"""The pipeline of ``agflow design``: split images, design a cascade, calibrate and evaluate it."""

from __future__ import annotations

import pathlib
from dataclasses import dataclass, replace
from html import escape

from agflow._utils.computing import Computing
from agflow._utils.defaults import default
from agflow._utils.folders import check_folder
from agflow._utils.progress import logged_progress
from agflow.cascade.ensemble import HEAVY_ANSWERS
from agflow.cascade.file_names import ROUTER_FILE
from agflow.cascade.folder import CASCADE_FOLDER
from agflow.cascade.router import Router
from agflow.cascade.router_evaluation import RouterEvaluation
from agflow.cascade.verdict import Verdict
from agflow.errors import InvalidValueError, UnsupportedModelError
from agflow.evaluation.timing import Timing
from agflow.models.fitting import request_check
from agflow.models.head import known_classes, only_classes
from agflow.models.load import image_options, load_model
from agflow.recipes.design_images import design_images
from agflow.recipes.design_steps import (
    EVALUATION,
    TIMINGS,
    DesignParts,
    finish,
    holds_run,
    make_steps,
    steps_folder,
)
from agflow.recipes.pipeline import TIMED_BATCH
from agflow.recipes.results import verdict_of
from agflow.recipes.run_files import read_evaluation, read_timings
from agflow.recipes.run_folder import Say
from agflow.recipes.run_identity import RunIdentity
from agflow.search.design import CascadeDesign
from agflow.search.space import SearchSpace


@dataclass(frozen=True)
class DesignOptions:
    """Options of :func:`design`; the command's flags have the same names.

    Attributes
    ----------
    output : the cascade folder to make
    model, weights : heavy expert (:func:`agflow.load_model`)
    data, held_out : data sets (:func:`agflow.load_dataset`); without ``held_out``, half of ``data``
        is held out
    classes : classes to keep; () keeps all
    image_sizes, macs, groups, shared_blocks, ensemble, cost : :class:`agflow.search.SearchSpace`;
        no image size stands for its default
    epochs, lr, seed : :func:`agflow.design_cascade`
    tolerance, confidence : :func:`agflow.calibrate_router`
    batch_size : of all loaders
    limit : :func:`agflow.load_dataset`
    label, image_column, class_map : :class:`agflow.data.DataOptions`
    mean, std : of the images' channels, where they are not known of the model
    crop, crop_mode, interpolation : of the images, in place of what is known of the model
        (:func:`agflow.load_model`)
    device, dtype : where the models compute, and in which precision: float32 or bfloat16
    workers : processes that decode images
    force : repeat a run that is finished

    Raises
    ------
    InvalidValueError
        The tolerance is not above 0 and below 1.

    Examples
    --------
    >>> import agflow
    >>> agflow.recipes.DesignOptions(output="designed", image_sizes=(16, 20)).model
    'example'
    """

    output: str
    model: str = default("common", "model")
    weights: str | None = None
    data: str = default("common", "data")
    held_out: str | None = None
    classes: tuple[int, ...] = ()
    image_sizes: tuple[int, ...] = ()
    macs: tuple[float, ...] = default("design", "macs")
    groups: tuple[str, ...] = default("calibrate", "groups")
    shared_blocks: tuple[int, ...] = default("design", "shared_blocks")
    ensemble: bool = default("route", "ensemble")
    cost: str = default("design", "cost")
    epochs: int = default("design", "epochs")
    lr: float = default("design", "lr")
    tolerance: float = default("route", "tolerance")
    confidence: float = default("route", "confidence")
    batch_size: int = default("common", "batch_size")
    seed: int = default("common", "seed")
    label: str | None = None
    image_column: str | None = None
    class_map: str | None = None
    mean: tuple[str, ...] = ()
    std: tuple[str, ...] = ()
    crop: float | None = None
    crop_mode: str | None = None
    interpolation: str | None = None
    limit: int | None = None
    device: str = default("common", "device")
    dtype: str = default("common", "dtype")
    workers: int = default("common", "workers")
    force: bool = default("common", "force")

    def __post_init__(self):
        if not 0 < self.tolerance < 1:  # refused before the training rather than after it
            raise InvalidValueError(
                f"tolerance is {self.tolerance:g}, expected an accepted loss of accuracy above 0 "
                "and below 1, such as 0.005"
            )

    @property
    def computing(self) -> Computing:
        """Where the models compute, and in which precision."""
        return Computing(self.device, self.dtype)

    @property
    def space(self) -> SearchSpace:
        """The candidates, and the cost to minimise."""
        return SearchSpace(
            image_sizes=self.image_sizes or None,
            macs=self.macs,
            groups=self.groups,
            shared_blocks=self.shared_blocks,
            ensemble=self.ensemble,
            cost=self.cost,
        )


@dataclass(frozen=True, repr=False)
class DesignResult:
    """A designed cascade, calibrated and evaluated on images of their own.

    Attributes
    ----------
    options : of the run
    name : of the model
    design, router : what was designed and calibrated
    evaluation : on the test images
    timings : images per second of ``"heavy"``, ``"light"`` and ``"cascade"``

    Examples
    --------
    See :func:`design`, which returns one.
    """

    options: DesignOptions
    name: str
    design: CascadeDesign
    router: Router
    evaluation: RouterEvaluation
    timings: dict[str, Timing]

    @property
    def counts(self) -> Verdict:
        """The verdict on both counts, of the test images and by the clock."""
        return verdict_of(self.router, self.evaluation, self.timings)

    @property
    def next(self) -> str:
        """What to do about the cascade, or with it."""
        return self.counts.next(f"serve it: agflow.Server(agflow.load('{self.options.output}'))")

    @property
    def summary(self) -> str:
        """Verdict, evaluation, router, speeds and frontier in words, and what to do next."""
        speeds = ", ".join(
            f"{contender} {timing.images_per_second:.1f} "
            f"({timing.spread[0]:.1f} to {timing.spread[1]:.1f})"
            for contender, timing in self.timings.items()
        )
        router, counts = self.router, self.counts
        return (
            f"{counts}\n{self.options.output}: {counts.meaning}\n"
            f"{self.name} as a cascade on {self.evaluation.images} test images: "
            f"{self.evaluation.figures}\n"
            f"{router.rule}, which {_answerer(router)} then answers\n"
            f"images/s in batches of {TIMED_BATCH}, median (slowest to fastest round): {speeds}, "
            f"{self.options.computing}\n"
            f"{self.design.frontier.listing}\n{self.next}"
        )

    def __repr__(self) -> str:
        return (
            f"<agflow.DesignResult: {self.options.output}: {self.counts}; "
            f"{self.evaluation.figures}>"
        )

    def _repr_html_(self) -> str:
        evaluation = replace(self.evaluation, counts=self.counts)  # which the clock has a part in
        return f"{evaluation._repr_html_()}{self.design.frontier._repr_html_()}{escape(self.next)}"


def _answerer(router: Router) -> str:
    return "the heavy expert" if router.answers == HEAVY_ANSWERS else "the ensemble of both"


def design(options: DesignOptions, say: Say = print) -> DesignResult:
    """Design a cascade, calibrate its threshold and evaluate it, each on images of its own.

    The run fills a cascade folder (:func:`agflow.save`), with predictions-threshold.arrow,
    predictions.arrow (of the test images), frontier.arrow and frontier.md beside the experts, and
    run.json with the run's id, a digest of the options and of the contents of model and data.

    What is done so far lies in ``OUTPUT.partial`` until the cascade folder appears, whole. After a
    kill the same call goes on from there, inside of a distillation from its checkpoint, and ends
    with the bytes of an unbroken run (on the CPU with as many threads), all but measured times and
    what reports them; times that were measured stay. Where the cascade folder is this run's,
    nothing is computed again without ``options.force``. An older cascade is replaced.

    Parameters
    ----------
    say : receives a line of text at every step and, where there is no terminal, after every epoch

    Raises
    ------
    AgflowError
        Any step refuses its input; the message says which and what to do. An older folder stays.

    Examples
    --------
    >>> import agflow, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     options = agflow.recipes.DesignOptions(
    ...         f"{folder}/designed", limit=240, image_sizes=(16,), macs=(1.0,), epochs=1
    ...     )
    ...     result = agflow.recipes.design(options, say=lambda line: None)
    >>> result.evaluation.images
    48
    """
    check_folder(options.output, CASCADE_FOLDER)  # before the training rather than after it
    with (
        steps_folder(options.output, say) as folder,
        options.computing.precision(),
        logged_progress(say),
    ):
        parts, identity = _parts(options)
        if holds_run(options.output, identity.run) and not options.force:
            say(
                f"{options.output} holds this design already ({identity.run[:12]}), so nothing is "
                "computed again: --force repeats it"
            )
            if folder.run == identity.run:  # a kill may have left it
                folder.forget()
        else:
            folder.begin(identity, force=options.force, replace=True)
            make_steps(parts, folder)
            finish(parts, folder, identity)
    return _result(parts)


def _parts(options: DesignOptions) -> tuple[DesignParts, RunIdentity]:
    check = request_check(options.groups)
    heavy, preprocessing, name = load_model(
        options.model, options.weights, check=check, **image_options(vars(options))
    )
    heavy = options.computing.move(heavy)
    known = known_classes(heavy)
    if known is None:
        raise UnsupportedModelError(
            f"{name} has no classifier, and a cascade routes by the confidence of answers: give "
            "a model with one, or make this one smaller by agflow.shrink"
        )
    images = design_images(options, preprocessing, known)
    identity = RunIdentity.of("design", options, heavy, preprocessing, images.sources)
    if options.classes:
        heavy = only_classes(heavy, options.classes)
    return DesignParts(options, name, heavy, preprocessing, images), identity


def _result(parts: DesignParts) -> DesignResult:
    path = pathlib.Path(parts.options.output)
    return DesignResult(
        parts.options,
        parts.name,
        parts.designed(path),
        Router.load(path / ROUTER_FILE),
        read_evaluation(path / EVALUATION),
        read_timings(path / TIMINGS),
    )
