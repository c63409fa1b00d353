"""Regions: what they contain, and projections against optima."""

import math
import pickle

import numpy as np
import pytest
import torch
from laws import double, generator, ordered, pooled, rows
from scipy.optimize import minimize
from sklearn.base import clone
from torch.testing import assert_close

from skebm.energies import (
    Ball,
    Box,
    Constrained,
    Mask,
    Quadratic,
    Simplex,
)

REGIONS = {
    "box": Box(low=-1.0, high=0.5),
    "box per column": Box(low=(-1.0, 0.0, -0.2), high=(0.0, 2.0, -0.2)),
    "half box": Box(low=(0.0, -math.inf, 1.0), high=None),
    "everything": Box(low=None, high=None),
    "simplex": Simplex(),
    "ball": Ball(),
    "ball elsewhere": Ball(radius=0.7, center=(1.0, -2.0, 3.0)),
}
SETTERS = {
    "box": [("ineq", lambda z: z + 1), ("ineq", lambda z: 0.5 - z)],
    "box per column": [
        ("ineq", lambda z: z - [-1.0, 0.0, -0.2]),
        ("ineq", lambda z: [0.0, 2.0, -0.2] - z),
    ],
    "half box": [("ineq", lambda z: z[[0, 2]] - [0.0, 1.0])],
    "everything": [],
    "simplex": [("ineq", lambda z: z), ("eq", lambda z: z.sum() - 1)],
    "ball": [("ineq", lambda z: 1 - z @ z)],
    "ball elsewhere": [("ineq", lambda z: 0.49 - ((z - [1.0, -2.0, 3.0]) ** 2).sum())],
}


@pytest.fixture(params=sorted(REGIONS))
def name(request):
    return request.param


@pytest.fixture
def region(name):
    return REGIONS[name]


def test_projection_is_the_nearest_row(name, region):
    constraints = [{"type": kind, "fun": f} for kind, f in SETTERS[name]]
    x = rows(12)
    start = region.project(rows(12, seed=4)).numpy()
    for row, first, found in zip(x.numpy(), start, region.project(x), strict=True):
        best = minimize(
            lambda z, row=row: 0.5 * ((z - row) ** 2).sum(),
            first,
            jac=lambda z, row=row: z - row,
            constraints=constraints,
            method="SLSQP",
            options={"ftol": 1e-14, "maxiter": 500},
        )
        np.testing.assert_allclose(found, best.x, atol=2e-6)


def test_no_row_of_the_region_is_nearer_than_the_projection(region):
    """Obtuse angle: (x - Px)'(z - Px) <= 0 for every z of a convex set."""
    x = rows(200)
    onto, inside = region.project(x), region.project(rows(300, seed=8))
    angle = ((x - onto)[:, None] * (inside - onto[:, None])).sum(2)
    assert angle.max() <= 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_projection_lands_inside_and_stays(region, dtype):
    x = torch.cat([rows(200), 1e4 * rows(50), 1e-3 * rows(50)]).to(dtype)
    onto = region.project(x)
    assert onto.dtype == dtype
    assert region.contains(onto).all()
    assert torch.equal(region.project(onto), onto)
    kept = region.contains(x)
    assert torch.equal(onto[kept], x[kept])


@pytest.mark.parametrize("d", [1, 7, 100, 10_000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1e-3, 1.0, 1e8, 1e25])
def test_projection_lands_inside_in_many_columns_and_sizes(d, dtype, size):
    x = (size * torch.randn(5, d, generator=generator())).to(dtype)
    x[0] = size
    x[1] = torch.linspace(-size, size, d)
    center = tuple(torch.linspace(-3, 5, d).tolist())
    for region in (Simplex(), Ball(2.0), Ball(0.3, center), Box(-1.0, 1.0)):
        onto = region.project(x)
        assert region.contains(onto).all()
        assert torch.equal(region.project(onto), onto)


def test_projection_of_rows_whose_squares_overflow():
    x = torch.tensor([[3e25, -4e25], [1e30, 0.0]])
    expected = torch.tensor([[3.0, -4.0], [5.0, 0.0]])
    assert_close(Ball(5.0).project(x), expected)
    assert_close(Simplex().project(x), torch.tensor([[1.0, 0.0], [1.0, 0.0]]))


def test_simplex_projection_sums_to_one_in_single_precision():
    """Sums of thousands of entries lose digits that the last division gives back."""
    x = torch.full((1, 30_000), 0.5)
    x[0, 0] = 1.0
    onto = Simplex().project(x)
    assert float(onto.sum()) == pytest.approx(1, abs=2e-6)
    assert Simplex().contains(onto).all()


def test_projections_have_finite_gradients_at_special_rows(region):
    x = torch.cat([rows(3), torch.zeros(1, 3), double([1.0, -2.0, 3.0])])
    x.requires_grad_(True)
    region.project(x).square().sum().backward()
    assert x.grad.isfinite().all()


def test_simplex_projection_by_hand():
    x = double([0.6, 0.8, -0.3], [9.0, 0.0, 0.0], [-5.0, -5.0, -5.0], [0.2, 0.3, 0.5])
    third = 1 / 3
    expected = double([0.4, 0.6, 0], [1, 0, 0], [third, third, third], [0.2, 0.3, 0.5])
    assert_close(Simplex().project(x), expected, rtol=0, atol=1e-12)
    assert_close(Simplex().project(double([7.0])), double([1.0]))


def test_simplex_projection_ignores_a_shift_of_the_row():
    x = rows(20, 6)
    assert_close(Simplex().project(x + 37.0), Simplex().project(x), rtol=0, atol=1e-12)


def test_what_the_regions_contain():
    edge = double([0.0, 1.0], [1.0, 0.0], [-1e-12, 1.0], [0.5, 1 + 1e-12])
    assert Box(0.0, 1.0).contains(edge).tolist() == [True, True, False, False]
    low = Box((0.0, 1.0), None)
    assert low.contains(edge).tolist() == [True, False, False, True]
    shares = double([0.5, 0.5], [1.0, 0.0], [0.6, 0.5], [1.1, -0.1], [0.0, 0.0])
    assert Simplex().contains(shares).tolist() == [True, True, False, False, False]
    near = double([0.5, 0.5001])
    assert Simplex(tolerance=1e-3).contains(near).tolist() == [True]
    assert Simplex().contains(near).tolist() == [False]
    round_ = double([3.0, 4.0], [3.0, 4.0 + 1e-12], [0.0, -5.0])
    assert Ball(5.0).contains(round_).tolist() == [True, False, True]
    assert Ball(1.0, (3.0, 3.0)).contains(round_).tolist() == [True, False, False]
    assert Ball(2.0, 3.0).contains(round_).tolist() == [True, True, False]


def test_a_row_with_nan_is_in_no_region(region):
    x = rows(2)
    x[1, 2] = math.nan
    assert not region.contains(x)[1]


def test_regions_are_values(region):
    again = clone(region)
    assert again == region
    assert again is not region
    assert eval(repr(region), {**globals(), "inf": math.inf}) == region
    assert pickle.loads(pickle.dumps(region)) == region
    assert region != Ball(radius=99.0)
    assert region.set_params(**region.get_params()) == again
    assert type(region)(**region.get_params()) == region


def test_region_parameters_nest_in_the_energy():
    energy = Constrained(Quadratic(), Box(0.0, 1.0))
    assert energy.get_params()["region__high"] == 1.0
    energy.set_params(region__high=2.0)
    assert energy.region == Box(0.0, 2.0)
    again = clone(energy)
    assert again.region == energy.region
    assert again.region is not energy.region


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Box(1.0, 0.0), "Got low=1.0 and high=0.0, but expected low <= high"),
        (lambda: Box((0.0, 0.0, 3.0), (1.0, 1.0, 2.0)), "low <= high in every column"),
        (lambda: Box(math.nan, 1.0), "low <= high"),
        (lambda: Box((0.0, 1.0), 2.0), r"Got low=\(0.0, 1.0\).*each of the 3 columns"),
        (lambda: Box(0.0, [1.0, 2.0, 3.0]), r"Got high=\[1.0, 2.0, 3.0\]"),
        (lambda: Box("0", 1.0), "Got low='0'"),
        (lambda: Ball(0.0), "Got radius=0.0, but expected a finite number > 0"),
        (lambda: Ball(math.inf), "Got radius=inf"),
        (lambda: Ball(-1.0), "Got radius=-1.0"),
        (lambda: Ball(1.0, (0.0,)), r"Got center=\(0.0,\)"),
        (lambda: Simplex(-1e-3), "Got tolerance=-0.001, but expected a number >= 0"),
    ],
)
def test_wrong_parameters_are_named(make, message):
    for use in (make().contains, make().project):
        with pytest.raises(ValueError, match=message):
            use(rows())


def test_bounds_may_be_numpy_numbers():
    x = rows()
    region = Box(np.float32(-1.0), np.int64(1))
    assert torch.equal(region.project(x), Box(-1.0, 1.0).project(x))


def test_bounds_made_in_inference_mode_serve_autograd():
    region = Box(low=(-0.125, 0.0), high=(0.375, 0.5))
    with torch.inference_mode():
        region.project(rows(5, 2))
    x = rows(5, 2).requires_grad_(True)
    region.project(x).sum().backward()
    assert torch.equal(x.grad, ((x >= double(-0.125, 0.0)) & (x < 0.5)) * x.grad)
    assert x.grad.sum() > 0


def test_mask_asks_the_function():
    x = rows(20, 2)
    region = Mask(ordered, pooled)
    assert torch.equal(region.contains(x), x[:, 0] <= x[:, 1])
    onto = region.project(x)
    assert region.contains(onto).all()
    assert torch.equal(onto[ordered(x)], x[ordered(x)])
    assert torch.equal(region.project(onto), onto)
    assert clone(region) == region == Mask(ordered, pooled)
    assert pickle.loads(pickle.dumps(region)) == region


def test_mask_without_a_projection_says_so():
    with pytest.raises(
        ValueError, match=r"Pass projection=\.\.\., or use a sampler that"
    ):
        Mask(ordered).project(rows())


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x > 0,
        lambda x: x[:, 0],
        lambda x: (x > 0).all(),
        lambda x: (x > 0).all(1, keepdim=True),
    ],
)
def test_mask_refuses_functions_that_do_not_answer_per_row(function):
    with pytest.raises(ValueError, match=r"bool of shape \(50,\): one answer"):
        Mask(function).contains(rows())


@pytest.mark.parametrize("device", [pytest.param("cuda", marks=pytest.mark.gpu)])
def test_regions_follow_the_rows_to_the_device(device):
    x = rows()
    for region in REGIONS.values():
        there = region.project(x.to(device))
        assert there.device.type == device
        assert_close(there.cpu(), region.project(x), rtol=1e-9, atol=1e-9)
        assert region.contains(there).all()
