"""Terms of factors and concatenations: what unification, splits and reshapes make of them."""

import pytest
from hypothesis import given, settings, strategies as st

from agflow.models.tracing.axes import (
    Reason,
    atoms,
    concatenation,
    coordinates,
    factored,
    flat,
    freeze,
    mark_normed,
    new,
    positions,
    repeated,
    segments,
    size,
    split,
    unify,
    view,
)

WHY = Reason("aten.foo", "read by aten.foo")


def extents(dim):
    """A term as nested lists: factors in order, a concatenation as a tuple of its parts."""
    return [
        leaf.extent if leaf.parts is None else tuple(extents(part) for part in segments(leaf))
        for leaf in flat(dim)
    ]


def frozen(dim):
    return [atom.frozen for atom in atoms(dim)]


def test_two_atoms_become_one_and_keep_what_is_known_of_either():
    a, b, c = new(6), new(6), new(6, WHY)
    mark_normed(a)
    unify(a, b, WHY)
    assert flat(a) == flat(b)
    assert flat(a)[0].normed
    assert not flat(a)[0].frozen
    unify(b, c, WHY)
    assert flat(a)[0].reason == WHY


def test_an_atom_takes_the_structure_of_what_it_meets():
    a, b, c = new(12), new(3) + new(4), concatenation([new(5), new(7)])
    unify(a, b, WHY)
    assert extents(a) == [3, 4]
    d = new(12)
    unify(d, c, WHY)
    assert extents(d) == [([5], [7])]
    unify(a, d, WHY)  # three chunks of four that are alike, also where they cross the boundary
    assert extents(a) == extents(d) == [([], [], []), ([], [3])]


def test_concatenations_are_parted_at_the_boundaries_of_both():
    a, b = concatenation([new(5), new(7)]), concatenation([new(8), new(4)])
    unify(a, b, WHY)
    assert extents(a) == extents(b) == [([5], [3], [4])]
    assert not any(frozen(a))


def test_a_concatenation_seen_as_a_product():
    equal = concatenation([new(4), new(4)])
    (first,), (second,) = segments(flat(equal)[0])
    unify(equal, new(2) + new(4), WHY)
    assert extents(equal) == [([], []), 4]
    assert flat([first]) == flat([second])
    uneven = concatenation([new(6), new(2)])
    lead, trail = factored(uneven, 2)
    assert (extents(lead), extents(trail)) == ([([3], [])], [2])
    crossing = concatenation([new(6), new(2)])
    unify(crossing, new(2) + new(4), WHY)
    assert extents(crossing)[0] == ([], [])
    assert size(crossing) == 8


def test_products_that_share_no_factors_freeze():
    a, b = new(4) + new(3), new(6) + new(2)
    assert not any(frozen(a) + frozen(b))
    unify(a, b, WHY)
    assert all(frozen(a) + frozen(b))
    c, d = new(2) + new(9), new(2) + new(3)
    unify(c, d, WHY)  # different sizes
    assert all(frozen(c) + frozen(d))


def test_splits_begin_where_a_factor_does():
    dim = new(6) + new(2)
    pieces = split(dim, [4, 8])
    assert [extents(piece) for piece in pieces] == [[2, 2], [4, 2]]
    assert split(new(6) + new(2), [3, 9]) is None
    again = split(new(6), [2, 4])
    assert split(concatenation(again), [3, 3])[0] != again[0]


def test_a_frozen_part_stays_alone():
    dim = concatenation([new(3), new(5)])
    freeze(split(dim, [3, 5])[1], WHY)
    assert frozen(dim) == [False, True]
    other = new(8)
    unify(dim, other, WHY)
    assert frozen(other) == [False, True]


def test_coordinates_of_a_unit_in_products_and_concatenations():
    a, b = new(2), new(3)
    assert coordinates(a + b, a[0]) == [0, 0, 0, 1, 1, 1]
    assert coordinates(a + b, b[0]) == [0, 1, 2, 0, 1, 2]
    assert coordinates(concatenation([b, [], a, b]), b[0]) == [0, 1, 2, -1, -1, -1, 0, 1, 2]
    assert not list(atoms(positions(4)))


def test_what_is_in_two_factors_is_found():
    a, b = new(2), new(3)
    assert repeated(a + b + a) == {*a}
    assert repeated(concatenation([a + b, a])) == set()
    assert repeated(concatenation([a + a, b])) == {*a}


def test_views_split_and_join():
    b, c, h = new(2, WHY), new(12), new(5, WHY)
    dims = view([b, c, h], [2, 3, 4, 5, 1], WHY)
    assert [extents(dim) for dim in dims] == [[2], [3], [4], [5], []]
    assert extents(c) == [3, 4]
    assert [extents(dim) for dim in view(dims, [2, 60], WHY)] == [[2], [3, 4, 5]]
    assert not any(frozen(c))


def test_a_view_across_factors_freezes_those_alone():
    b, c, h = new(2), new(4), new(3)
    dims = view([b, c, h], [2, 6, 2], WHY)
    assert frozen(b) == [False]
    assert frozen(c) == frozen(h) == frozen(dims[1]) == frozen(dims[2]) == [True]
    assert [size(dim) for dim in view([new(0), new(3)], [0], WHY)] == [0]


@st.composite
def terms(draw, extent):
    """Any term of a size."""
    divisors = [n for n in range(2, extent) if extent % n == 0]
    kind = draw(st.sampled_from(["atom", "sum", *["product"] * bool(divisors)]))
    if kind == "product":
        lead = draw(st.sampled_from(divisors))
        return draw(terms(lead)) + draw(terms(extent // lead))
    if kind == "sum" and extent > 1:
        first = draw(st.integers(1, extent - 1))
        return concatenation([draw(terms(first)), draw(terms(extent - first))])
    return new(extent)


@settings(max_examples=40, deadline=None)
@given(st.data())
@pytest.mark.parametrize("extent", [6, 12, 16])
def test_unified_terms_have_their_units_at_the_same_places(extent, data):
    dims = [data.draw(terms(extent)) for _ in range(3)]
    for _ in range(data.draw(st.integers(1, 4))):
        a, b = (data.draw(st.sampled_from(dims)) for _ in range(2))
        unify(a, b, WHY)
        assert size(a) == size(b) == extent
        for atom in {*atoms(a), *atoms(b)}:
            assert atom.to is None
            if not atom.frozen and atom not in repeated(a) | repeated(b):
                assert coordinates(a, atom) == coordinates(b, atom)
