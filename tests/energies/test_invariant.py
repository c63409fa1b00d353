"""Energies that rearrangements leave unchanged: groups, their closure, and sets."""

import itertools

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from skebm.energies import MLP, Invariant, Quadratic, Rotations, SetEnergy, SignFlip
from skebm.energies.invariant import closed

S3 = tuple(itertools.permutations(range(3)))
SIGNED = tuple(
    tuple(j if keep else ~j for j, keep in zip(order, signs, strict=True))
    for order in itertools.permutations(range(3))
    for signs in itertools.product([True, False], repeat=3)
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def rows(n, d, seed=1):
    return torch.randn(n, d, generator=generator(seed))


def uneven(energy, d, dtype=torch.float32):
    """Build with weights that make no energy nearly constant."""
    energy.build(d, generator=generator()).to(dtype)
    with torch.no_grad():
        for weight in energy.parameters():
            weight += 0.3 * torch.randn(weight.shape, generator=generator())
    return energy


def moved(x, element):
    """Apply an element to rows, one column at a time."""
    columns = [x[:, j] if j >= 0 else -x[:, -1 - j] for j in element]
    return torch.stack(columns, 1)


@pytest.mark.parametrize("shape", [(4, 4), (5, 5), (2, 3, 3)])
def test_quarter_turns_of_an_image_leave_the_energy(shape):
    d = int(np.prod(shape))
    x = rows(20, d)
    energy = uneven(Invariant(MLP((16,)), Rotations(shape)), d)
    image = x.numpy().reshape(20, *shape)
    for k in range(1, 4):
        turned = np.rot90(image, k, axes=(-2, -1)).reshape(20, d)
        turned = torch.from_numpy(turned.copy())
        assert_close(energy(turned), energy(x), rtol=1e-5, atol=1e-5)
        assert (energy.part(turned) - energy.part(x)).abs().median() > 1e-2
    mirrored = torch.from_numpy(image[..., ::-1].reshape(20, d).copy())
    assert (energy(mirrored) - energy(x)).abs().median() > 1e-3


@pytest.mark.parametrize("group", [S3, SIGNED, SignFlip()], ids=["S3", "B3", "flip"])
def test_every_element_leaves_the_energy(group):
    energy, x = uneven(Invariant(MLP((16,)), group), 3), rows(20, 3)
    elements = group(3) if callable(group) else group
    assert len(energy.index) == len(elements)
    for element in elements:
        assert_close(energy(moved(x, element)), energy(x), rtol=1e-5, atol=1e-5)
    assert (energy(x) - energy.part(x)).abs().median() > 1e-3


def test_energy_is_the_mean_over_the_group():
    energy, x = uneven(Invariant(MLP((16,)), SIGNED), 3, torch.float64), rows(9, 3)
    x = x.double()
    expected = torch.stack([energy.part(moved(x, g)) for g in SIGNED]).mean(0)
    assert_close(energy(x), expected)


def test_the_mean_of_a_gaussian_over_sign_flips_forgets_its_mean():
    """0.5 |x - m|^2 and 0.5 |x + m|^2 average to 0.5 |x|^2 + 0.5 |m|^2."""
    m, x = torch.tensor([1.0, -2.0]), rows(9, 2)
    part = Quadratic().match(m, torch.eye(2))
    energy = Invariant(part, SignFlip()).check_group(2)
    assert_close(energy(x), 0.5 * x.square().sum(1) + 2.5)


def test_gradient_turns_with_the_row():
    energy, x = uneven(Invariant(MLP((16,)), Rotations((3, 3))), 9), rows(9, 9)
    quarter = Rotations((3, 3))(9)[1]
    turned = energy.grad(moved(x, quarter))
    assert_close(turned, moved(energy.grad(x), quarter), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("elements", "missing"),
    [
        (((0, 1, 2), (1, 2, 0)), r"\(2, 0, 1\)"),
        (((1, 0),), r"\(0, 1\)"),
        (((0, 1), (1, 0), (-1, -2)), r"\(-2, -1\)"),
        (((0, 1), (-2, 0)), r"\(-1, -2\)"),
    ],
)
def test_a_set_that_is_no_group_names_the_missing_product(elements, missing):
    with pytest.raises(ValueError, match=f"no group.*is missing. Add {missing}"):
        Invariant(Quadratic(), elements).build(len(elements[0]))


@pytest.mark.parametrize(
    "elements",
    [((0, 1),), ((0, 1), (-1, 1)), ((0, 1), (-2, 0), (-1, -2), (1, -1)), S3, SIGNED],
)
def test_groups_are_taken_as_they_are(elements):
    assert closed(elements, len(elements[0])) == elements


def test_one_quarter_turn_alone_is_no_group():
    with pytest.raises(ValueError, match="no group"):
        Invariant(Quadratic(), Rotations((2, 2))(4)[:2]).build(4)


@pytest.mark.parametrize(
    "elements",
    [((0, 1, 1),), ((0, 1),), ((0, 1, 3),), ((0, 1, 2), (0, -1, 2)), ((0, 1, 2, 3),)],
)
def test_elements_hold_each_column_once(elements):
    with pytest.raises(ValueError, match="expected each of 3 columns once"):
        Invariant(Quadratic(), elements).build(3)


def test_an_empty_group_is_refused():
    with pytest.raises(ValueError, match="the identity at least"):
        Invariant(Quadratic(), ()).build(3)


def test_repeats_weigh_once():
    energy = uneven(Invariant(MLP((16,)), ((0, 1), (1, 0), (1, 0))), 2)
    assert len(energy.index) == 2
    x = rows(20, 2)
    assert_close(energy(x.flip(1)), energy(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("shape", "d"), [((2, 3), 6), ((2, 2), 5), ((2, 2, 3), 12)])
def test_quarter_turns_need_square_images(shape, d):
    with pytest.raises(ValueError, match="expected a square image"):
        Invariant(Quadratic(), Rotations(shape)).build(d)


@pytest.mark.parametrize("size", [1, 2])
def test_the_order_of_the_elements_of_a_set_does_not_matter(size):
    x = rows(20, 4 * size)
    energy = uneven(SetEnergy(size, hidden=(16,)), 4 * size)
    for order in itertools.permutations(range(4)):
        shuffled = x.reshape(20, 4, size)[:, list(order)].reshape(20, -1)
        assert_close(energy(shuffled), energy(x), rtol=1e-5, atol=1e-5)


def test_the_columns_inside_an_element_matter():
    energy, x = uneven(SetEnergy(2, hidden=(16,)), 8), rows(20, 8)
    assert (energy(x[:, [1, 0, 2, 3, 4, 5, 6, 7]]) - energy(x)).abs().median() > 1e-3


def test_set_energy_equals_the_formula():
    energy, x = uneven(SetEnergy(2, hidden=(5, 3)), 6), rows(9, 6)
    each = [energy.elements(x[:, j : j + 2]) for j in (0, 2, 4)]
    expected = energy.readout(sum(each) / 3)[:, 0]
    assert_close(energy(x), expected, rtol=1e-5, atol=1e-6)


def test_elements_of_a_set_interact():
    energy, x = uneven(SetEnergy(hidden=(16,)), 3, torch.float64), rows(1, 3)
    hessian = torch.autograd.functional.hessian(
        lambda row: energy(row[None])[0], x[0].double()
    )
    assert abs(hessian[0, 2]) > 1e-4


@pytest.mark.parametrize("size", [0, 3, -2])
def test_rows_hold_whole_elements(size):
    with pytest.raises(ValueError, match="expected a whole number of elements"):
        SetEnergy(size).build(4)


def test_sets_need_a_hidden_layer():
    with pytest.raises(ValueError, match=r"hidden=\(64,\)"):
        SetEnergy(hidden=()).build(4)
