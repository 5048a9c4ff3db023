"""Which channels inside of the heads of attentions can be cut: pairs of query and key, and values.

Pairs are a group and values another one where the code lets their widths differ. Where it does not,
because one reshape or one number serves queries, keys and values, they are one group, whose parts,
the pairs of each head and the values of each, keep equal counts. Products are divided by the root
of the dense width, also where the code takes that of the width it finds: a cut then multiplies the
queries by what is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice

from torch import nn

from agflow.models.channel_group import Attribute, ChannelGroup
from agflow.models.tracing.attributes import attribute_choices
from agflow.models.tracing.dims_groups import (
    BOTH,
    PAIRS,
    VALUES,
    group_of,
    pairs_alone,
    places_held,
    scaled,
)
from agflow.models.tracing.groups import ChannelClass
from agflow.models.tracing.multiplied import ATTENTION
from agflow.models.tracing.numbers import Unclear
from agflow.models.tracing.pairs import Inside, insides_of
from agflow.models.tracing.proof import Proof
from agflow.models.tracing.proving import FAINT, Learnt, faint_of, prove
from agflow.models.tracing.seen import Sights
from agflow.models.tracing.tracer import Tracer
from agflow.models.tracing.uses import callers

Groups = dict[ChannelClass, ChannelGroup]
Reasons = dict[ChannelClass, str]
Sets = Callable[[ChannelGroup], "Iterable[Sequence[tuple[Attribute, ...]]]"]
"""Gives sets of attributes that a group may need."""


@dataclass(frozen=True)
class HeadDims:
    """Finds the groups inside of the heads of a traced model."""

    model: nn.Module
    tracer: Tracer
    proof: Proof
    seen: Sights

    def beside(self, proven: Groups, classes: Sequence[ChannelClass]) -> tuple[Groups, Reasons]:
        """The proven groups by class, those inside of heads among them, and why others are none."""
        insides, reasons = insides_of(self.tracer, classes)
        reasons |= self._unproven(insides)
        similar: dict[tuple, list[Inside]] = {}
        for inside in insides:
            if inside.keys not in reasons:
                similar.setdefault(self._likeness(inside), []).append(inside)
        for alike in similar.values():
            found, refused = self._proven(proven, alike)
            proven, reasons = proven | found, reasons | refused
        return proven, {held: why for held, why in reasons.items() if held not in proven}

    def _unproven(self, insides: Sequence[Inside]) -> Reasons:
        """Why no proof would say anything of pairs: they move the logits by too little.

        Values, which do more, would hide that.
        """
        pairs, reasons = {}, {}
        for inside in insides:
            try:
                pairs[inside.keys] = pairs_alone(self.tracer, inside)
            except Unclear as unclear:
                reasons[inside.keys] = str(unclear)
        faint = faint_of(self.proof, list(pairs.values()))
        return reasons | {held: FAINT for held, of in pairs.items() if of in faint}

    def _likeness(self, inside: Inside) -> tuple:
        """What attentions have in common that need the same attributes."""
        caller = self.model.get_submodule((callers(inside.product.node) or [""])[-1])
        no_values = isinstance(inside.taken, str)
        return type(caller), inside.is_one_class, no_values, inside.product.node.target

    def _proven(self, proven: Groups, alike: Sequence[Inside]) -> tuple[Groups, Reasons]:
        """The groups of attentions that are alike; the first shows what they need."""
        trial = _Trial(self, proven, alike[0])
        forms = trial.forms()
        found: Groups = {}
        reasons = {} if forms else _as_first(alike, trial.reason)
        for form in forms:
            stand, refused = self._of_form({**proven, **found}, alike, form)
            found |= stand
            reasons |= refused if form.scope != VALUES else {}
        return found, reasons

    def _of_form(
        self, proven: Groups, alike: Sequence[Inside], form: _Form
    ) -> tuple[Groups, Reasons]:
        """The groups of one form, and why attentions have none."""
        base = list(dict.fromkeys(proven.values()))
        groups: dict[str, ChannelGroup] = {}
        of_name, choices, reasons = {}, {}, {}
        for inside in alike:
            try:
                group = self.group(inside, form, [*base, *groups.values()])
            except Unclear as unclear:
                reasons[inside.keys] = str(unclear)
                continue
            groups[group.name], of_name[group.name] = group, inside
            choices[group.name] = self.choices(inside, group)
        found, refused = prove(self.proof, base, list(groups.values()), choices, learnt=form.learnt)
        reasons |= {of_name[name].keys: why for name, why in refused.items()}
        stand: Groups = {}
        for name, group in found.items():
            stand |= dict.fromkeys(_classes(of_name[name], form.scope), group)
        return stand, reasons

    def group(self, inside: Inside, form: _Form, others: Iterable[ChannelGroup]) -> ChannelGroup:
        """The group of an attention that has a form.

        Raises
        ------
        Unclear
            There is none.
        """
        names = (group.name for group in others)
        group = group_of(self.tracer, self.seen, inside, form.scope, names)
        scales = form.divides and form.scope != VALUES
        return replace(group, scaled=scaled(group, inside)) if scales else group

    def choices(
        self, inside: Inside, group: ChannelGroup
    ) -> Callable[[], Iterable[Sequence[tuple[Attribute, ...]]]]:
        """What gives sets of attributes that a group may need."""
        leaf, numbers = inside.keys.leaf, dict.fromkeys(_numbers(self.tracer, group))
        return partial(attribute_choices, self.model, self.tracer, group, leaf, numbers)


@dataclass(frozen=True)
class _Form:
    """What similar attentions have as a group.

    Attributes
    ----------
    scope : pairs, values or both
    divides : whether code divides products by the root of the width that it finds
    learnt : of the group's attributes
    """

    scope: str
    divides: bool = False
    learnt: Learnt = field(default_factory=Learnt)


class _Trial:
    """Proves one attention, to find the forms of the groups of all that are like it.

    Attributes
    ----------
    reason : why it has none
    """

    def __init__(self, of: HeadDims, proven: Groups, inside: Inside):
        self._of, self._inside = of, inside
        self._base = list(dict.fromkeys(proven.values()))
        self._has_values = inside.values is not None and inside.values not in proven
        self._proofs, self.reason = 0, ""

    def forms(self) -> list[_Form]:
        """The forms of its groups; none where nothing is proven."""
        both, attributes = self._stands(BOTH, self._any) if self._has_values else (None, ())
        if self._inside.is_one_class:
            return [both] if both else []
        likely: Sets = self._any
        if both is not None:
            likely = lambda _: [[(attribute,)] for attribute in attributes]
        elif self._proofs:  # what fails for both mostly fails for each: fewer are tried
            likely = lambda group: islice(self._any(group), 1)
        scopes = (PAIRS, VALUES) if self._has_values else (PAIRS,)
        found = [self._stands(scope, likely)[0] for scope in scopes]
        alone = [form for form in found if form is not None]
        return [both] if both is not None and len(alone) < 2 else alone

    def _any(self, group: ChannelGroup) -> Iterable[Sequence[tuple[Attribute, ...]]]:
        return self._of.choices(self._inside, group)()

    def _stands(self, scope: str, sets: Sets) -> tuple[_Form | None, tuple[Attribute, ...]]:
        """The form of one group, and its attributes, if it stands with one of some sets of them."""
        for divides in _divisions(self._inside) if scope != VALUES else (False,):
            form = _Form(scope, divides)
            try:
                group = self._of.group(self._inside, form, self._base)
            except Unclear as unclear:
                self.reason = self.reason if scope == VALUES else str(unclear)
                break
            choices = {group.name: partial(sets, group)}
            found, reasons = prove(self._of.proof, self._base, [group], choices, learnt=form.learnt)
            self._proofs += 1
            if found:
                return form, found[group.name].attributes
            self.reason = self.reason if scope == VALUES else reasons[group.name]
        return None, ()


def _as_first(alike: Sequence[Inside], reason: str) -> Reasons:
    """The reason that was found of one attention, for all that are like it."""
    first, *others = (inside.keys for inside in alike)
    return {first: reason} | {held: f"as those of {first.first}: {reason}" for held in others}


def _classes(inside: Inside, scope: str) -> list[ChannelClass]:
    held = {PAIRS: [inside.keys], VALUES: [inside.values], BOTH: [inside.keys, inside.values]}
    return [each for each in held[scope] if each is not None]


def _divisions(inside: Inside) -> tuple[bool, ...]:
    """Whether code may divide by the root of the width that it finds, likely first."""
    node = inside.product.node
    if node.target is ATTENTION and node.kwargs.get("scale") is None:
        return (True,)
    return (False, True) if inside.divided else (False,)


def _numbers(tracer: Tracer, group: ChannelGroup) -> set[int]:
    """Numbers that are multiples of the width of heads: of a head, and of what parameters hold."""
    found = {group.units // group.parts}
    for members in (group.members, *((member,) for member in group.members)):
        held = places_held(tracer, members, group.units)
        found |= {int(own.sum()) for own in held.values()}
    return found - {1}
