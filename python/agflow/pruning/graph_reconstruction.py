"""Sequential reconstruction of any network that can be exported: convolutions and linear layers.

Two networks of the same shape run side by side, node by node: the dense one, and the cut one, in
which each layer that reads removed units loses them (its weights are zero there) and is fitted. The
layers are fitted in the order in which they run, each on what the layers before it, already fitted,
give it. Where a layer loses inputs the least squares are over its kept inputs, with an intercept
where the layer or the normalisation behind it has a shift; the rows are the patches of the cut
network, the target is what brings back the dense network's value
(:mod:`agflow.pruning.graph_targets`), and the weights are drawn towards the present ones by a
penalty that images held out from the fit choose. Where an activation with limits follows, a second
fit leaves alone what it cuts off (:mod:`agflow.pruning.clipping`).

Memory: of either network the values of all images are held at one place only, a narrow one between
two fits, and what lies between is run again batch by batch. A fit takes MOST_ROWS rows at most: as
many positions of each image, drawn by a fixed seed and the same in both networks. Layers of more
than LARGEST_GRAM inputs are fitted from MOST_DUAL_ROWS rows at most, through the rows' Gram matrix
in place of the inputs' (:mod:`agflow.pruning.dual_regression`).

Shape suffixes: B images of a batch, P positions, R rows, K kept inputs, O outputs.
"""

# torch.fx types the arguments of a node as anything that a graph can hold.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportOptionalMemberAccess=false, reportCallIssue=false, reportReturnType=false

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import fx, nn

from agflow._utils.progress import progress_bar
from agflow.errors import NonFiniteError
from agflow.models.tracing.graph_run import GraphRun, OfKept, Values
from agflow.pruning.clipping import Limits, limits_behind
from agflow.pruning.dual_regression import DualRegression
from agflow.pruning.graph_targets import (
    FitTarget,
    end_rows,
    factor_of,
    is_linear,
    layer_of,
    output_rows,
    target_of,
)
from agflow.pruning.patches import Patches
from agflow.pruning.reconstruction import HELD_OUT_EVERY, held_out_rows
from agflow.pruning.refitted import refitted
from agflow.pruning.regression import PENALTIES, Regression, best_penalty
from agflow.pruning.residual_blocks import LEAST_SHARE, non_finite_message

MOST_ROWS = 2**18
LARGEST_GRAM = 8192  # inputs: 0.5 GB
MOST_DUAL_ROWS = 4096
FINE_INPUTS = 1024  # up to which every penalty is tried, beyond every second: solves take seconds
CHUNK_VALUES = 2**26  # of the rows that are laid out at once
# Share of a sum's error that a layer is fitted to remove, its own output's error being removed
# wholly: 0.75 and 1 give ResNet-20 at a quarter (see graph_pruner) 72.2 % both, EfficientNet-Lite0
# at 0.6x, 112 pixels and 160 images 63.7 and 63.3 % (0.5: 62.3).
SUM_SHARE = 0.75

Weights = dict[str, torch.Tensor]


@dataclass
class _Held:
    """A batch at a place: the live values of both networks, and how many images are real."""

    dense: Values
    cut: Values
    images: int


@dataclass(frozen=True)
class _Fit:
    """A layer to be fitted, with the inputs that it keeps along the second axis of its weight."""

    weight: str
    target: FitTarget
    keep_C: torch.Tensor


class GraphReconstruction:
    """Both networks, and the fits that turn one into the other.

    Parameters
    ----------
    run : the exported network
    dense : weights of the dense network, by name
    changed : those of the cut network that differ before any fit
    kept : by weight of a layer to be fitted, the inputs that it keeps, ascending int64
    method : ``"ridge"``, in sequence on the cut network; ``"ridge_at_once"`` or ``"mean"``, every
        layer by itself on the dense network
    removed : nodes that return zeros in the cut network: the ends of branches that are gone
    norms : nodes that take means over fewer channels there
    rows : by weight of a layer to be fitted that loses outputs itself (keys whose queries are
        gone), those that it keeps, ascending int64
    """

    def __init__(
        self,
        run: GraphRun,
        dense: Mapping[str, torch.Tensor],
        changed: Mapping[str, torch.Tensor],
        kept: Mapping[str, torch.Tensor],
        method: str = "ridge",
        removed: Collection[fx.Node] = (),
        norms: OfKept | None = None,
        rows: Mapping[str, torch.Tensor] | None = None,
    ):
        self._rows = rows or {}
        self._run, self._dense, self._method = run, dict(dense), method
        self._removed, self._norms = removed, norms
        self._cut: Weights = dict(dense)
        # Where all layers are fitted at once, the network that they are fitted on stays dense.
        self._changed = method == "ridge" and bool(changed or removed or norms)
        if self._changed:
            self._cut.update(changed)
        self._fits = self._in_order(kept)

    def _in_order(self, kept: Mapping[str, torch.Tensor]) -> list[_Fit]:
        fits = []
        for weight, keep_C in kept.items():
            layer = layer_of(self._run, weight)
            if layer is not None:
                fits.append(_Fit(weight, target_of(self._run, layer), keep_C))
        return sorted(fits, key=lambda fit: self._run.place[fit.target.layer])

    def fit(self, batches: Iterable[torch.Tensor]) -> Weights:
        """Fit all layers to the images; returns the weights that change, by name."""
        held = list(_held(self._run, batches))
        place = 0
        found: Weights = {}
        for number, fit in enumerate(progress_bar(self._fits, "reconstruction")):
            stop = narrow_place(self._run, place, self._run.place[fit.target.layer])
            for batch in held:
                self._advance(batch, place, stop)
            place = stop
            for limits in self._rounds(fit):
                sums = _Sums(self._run, fit, self._cut, _total(held), number, limits)
                for batch in held:
                    sums.add(*self._observed(batch, fit.target, place), batch.images)
                new = self._without_rows(fit.weight, sums.solved(self._method))
                found.update(new)
                if self._method == "ridge":
                    self._cut.update(new)
                    self._changed = True
        return found

    def _without_rows(self, name: str, new: Weights) -> Weights:
        """The new weights with zeros in the rows that the layer loses."""
        if name not in self._rows:
            return new
        stays_S = torch.zeros(len(new[name]), dtype=torch.bool)
        stays_S[self._rows[name]] = True
        gone = (~stays_S).nonzero().flatten().to(new[name].device)
        return {**new, name: new[name].index_fill(0, gone, 0)}

    def _rounds(self, fit: _Fit) -> list[Limits | None]:
        """The limits of each fit of a layer: none, then those of the activation behind it."""
        limits = limits_behind(fit.target.end) if self._method == "ridge" else None
        return [None] if limits is None else [None, limits]

    def _advance(self, batch: _Held, place: int, stop: int) -> None:
        same = batch.cut is batch.dense and not self._changed
        dense = self._run.run(batch.dense, self._dense, place, stop)
        cut = dense if same else self._run_cut(batch.cut, place, stop)
        batch.dense, batch.cut = dense, cut

    def _observed(self, batch: _Held, target: FitTarget, place: int) -> tuple[Values, Values]:
        """The values around a layer, in the dense and in the cut network."""
        last = self._run.place[target.end] + 1
        wanted = (target.layer.args[0], target.layer, target.branch, target.end)
        dense = self._run.run(batch.dense, self._dense, place, last, wanted)
        if not self._changed:
            return dense, dense
        return dense, self._run_cut(batch.cut, place, last, wanted)

    def _run_cut(
        self, values: Values, place: int, stop: int, wanted: Sequence[fx.Node] = ()
    ) -> Values:
        return self._run.run(values, self._cut, place, stop, wanted, self._removed, self._norms)


class _Sums:
    """The sums of one layer's least squares."""

    def __init__(
        self,
        run: GraphRun,
        fit: _Fit,
        weights: Mapping[str, torch.Tensor],
        images: int,
        seed: int,
        limits: Limits | None,
    ):
        self._limits = limits
        self._run, self._target, self._weights, self._name = run, fit.target, weights, fit.weight
        self._layer, self._patches = fit.target.layer, Patches.of(fit.target.layer)
        weight = weights[fit.weight]
        self._keep_C = fit.keep_C.to(weight.device)
        self._kept_OK = weight[:, self._keep_C].flatten(1)
        self._factor_O = factor_of(run, fit.target, weights).to(weight)
        self._intercept = fit.target.shifts
        inputs, outputs = self._kept_OK.shape[1], len(weight)
        shape = self._layer.meta["val"].shape
        self._positions = shape.numel() // outputs // run.batch_size
        large = inputs > LARGEST_GRAM
        most = MOST_DUAL_ROWS if large else MOST_ROWS
        self._taken = max(1, min(self._positions, most // images))
        if large:
            warnings.warn(
                f"{fit.weight.rpartition('.')[0]} reads {inputs:,} inputs that stay: it is fitted "
                f"to {MOST_DUAL_ROWS:,} rows at most, through the Gram matrix of the rows",
                stacklevel=2,
            )
        # The smaller of the two Gram matrices is solved: of the rows where these are fewer.
        kind = DualRegression if large or images * self._taken < inputs else Regression
        self._fitted, self._held_out = (
            kind.empty(inputs, outputs, weight.device) for _ in range(2)
        )
        self._generator = torch.Generator().manual_seed(seed)
        self._few = images < HELD_OUT_EVERY
        self._seen = 0

    def add(self, dense: Values, cut: Values, images: int) -> None:
        """Add the rows of a batch, the first ``images`` of which are real."""
        target, batch_size = self._target, self._run.batch_size
        x = cut[self._layer.args[0]]
        if is_linear(self._layer):
            x = x.reshape(batch_size, -1, x.shape[-1])
        of_dense, of_cut = dense[target.end], cut[target.end]
        gap = of_dense - of_cut if self._limits is None else self._limits.gap(of_dense, of_cut)
        gap = end_rows(target, gap, batch_size) * self._share(cut)
        z = output_rows(target, cut[self._layer], batch_size)
        step = max(1, CHUNK_VALUES // (self._taken * self._kept_OK.shape[1]))
        for first in range(0, images, step):
            part = slice(first, min(images, first + step))
            self._add_images(x[part], z[part], gap[part])

    def _share(self, cut: Values) -> float:
        if not self._target.adds:
            return 1.0
        branch, total = (cut[node].norm() for node in (self._target.branch, self._target.end))
        return SUM_SHARE if branch >= LEAST_SHARE * total else 0.0

    def _add_images(self, x, z_BPO: torch.Tensor, gap_BPO: torch.Tensor) -> None:
        positions_BP = None
        if self._taken < self._positions:
            drawn = [
                torch.randperm(self._positions, generator=self._generator)[: self._taken]
                for _ in range(len(x))
            ]
            positions_BP = torch.stack(drawn).to(x.device)
            z_BPO, gap_BPO = (
                value.take_along_dim(positions_BP[:, :, None], 1) for value in (z_BPO, gap_BPO)
            )
        y_BPK = self._patches.rows(x, self._keep_C, positions_BP)
        own_BPO = z_BPO - nn.functional.linear(y_BPK, self._kept_OK, self._bias())
        missing_BPO = own_BPO * self._factor_O + gap_BPO
        held_out_BP = held_out_rows(self._seen, *y_BPK.shape[:2], self._few).to(x.device)
        for sums, wanted_BP in ((self._fitted, ~held_out_BP), (self._held_out, held_out_BP)):
            sums.add(y_BPK[wanted_BP], missing_BPO[wanted_BP])
        self._seen += len(x)

    def _bias(self) -> torch.Tensor | None:
        bias = self._target.bias
        return None if bias is None else self._weights[self._run.names[bias]]

    def solved(self, method: str) -> Weights:
        """The new weights of the layer and of the normalisation behind it."""
        total = self._fitted + self._held_out
        if not total.is_finite():
            raise NonFiniteError(non_finite_message(self._name.rpartition(".")[0]))
        if method == "mean":
            change_OK = torch.zeros_like(self._kept_OK, dtype=torch.float64)
            change_O = total.mean_target()
        else:
            few = self._kept_OK.shape[1] <= FINE_INPUTS
            penalties = PENALTIES if few else PENALTIES[::2]
            penalty = best_penalty(self._fitted, self._held_out, self._intercept, penalties)
            change_OK, change_O = total.solve(penalty, self._intercept)
        return refitted(
            self._run,
            self._target,
            self._weights,
            self._keep_C,
            (change_OK, change_O),
            self._factor_O,
            total,
        )


def narrow_place(run: GraphRun, first: int, last: int) -> int:
    """The latest place from ``first`` to ``last`` where little is live: twice the least at most."""
    sizes = {place: run.live_bytes[place] for place in range(first, last + 1)}
    allowed = 2 * min(sizes.values())
    return max(place for place, size in sizes.items() if size <= allowed)


def _held(run: GraphRun, batches: Iterable[torch.Tensor]) -> Iterator[_Held]:
    """The images in batches of the size of the exported network, the last one filled up."""
    left = None
    for images in batches:
        left = images if left is None else torch.cat([left, images])
        while len(left) >= run.batch_size:
            values = {run.image: left[: run.batch_size]}
            yield _Held(values, values, run.batch_size)
            left = left[run.batch_size :]
    if left is not None and len(left):
        spare = left[:1].expand(run.batch_size - len(left), *left.shape[1:])
        values = {run.image: torch.cat([left, spare])}
        yield _Held(values, values, len(left))


def _total(held: Sequence[_Held]) -> int:
    return sum(batch.images for batch in held)
