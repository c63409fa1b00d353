"""Hard and soft constraints against truncated laws, and closed forms."""

import math

import numpy as np
import pytest
import torch
from laws import double, generator, ordered, pooled, rows
from scipy.stats import truncnorm
from sklearn.base import clone
from torch.testing import assert_close

from skebm.energies import (
    Ball,
    Box,
    Constrained,
    Energy,
    Mask,
    Penalized,
    Quadratic,
    Simplex,
)
from skebm.energies.constraints import non_negative, norm, sum_to_one

MEAN, SD = double(0.3, -0.5), double(1.0, 2.0)

# Hard constraints


def gaussian():
    return Quadratic().match(MEAN, SD.square().diag())


def test_a_hard_constraint_is_infinite_energy_and_no_penalty():
    """Trap: +inf outside however near the border, the part's energy inside."""
    x = double([0.0, 0.5], [1.0, 1.0], [1 + 1e-9, 0.5], [0.5, -1e-12], [9.0, 9.0])
    part, energy = gaussian(), Constrained(gaussian(), Box(0.0, 1.0))
    assert torch.equal(energy(x)[:2], part(x)[:2])
    assert energy(x)[2:].tolist() == [math.inf] * 3
    assert (-energy(x)[2:]).exp().tolist() == [0.0] * 3


@pytest.mark.parametrize(
    "region",
    [Box(-1.0, 0.5), Box(low=0.0, high=None), Simplex(), Ball(), Mask(ordered, pooled)],
)
def test_energy_is_the_parts_inside_and_infinite_outside(region):
    x = torch.cat([rows(), region.project(rows(5, seed=4))])
    part = Quadratic().match(torch.zeros(3).double(), torch.eye(3).double())
    energy, inside = Constrained(part, region), region.contains(x)
    expected = torch.where(inside, part(x), math.inf)
    assert torch.equal(energy(x), expected)
    assert inside.any()
    e, gradient = energy.value_and_grad(x)
    assert torch.equal(e, expected)
    assert_close(gradient, part.grad(x))


def test_gradient_is_the_parts_everywhere_also_through_autograd():
    x = rows(d=2).requires_grad_(True)
    energy = Constrained(gaussian(), Ball(1.0))
    assert energy(x).isinf().any()
    energy(x).sum().backward()
    expected = gaussian().grad(x)
    assert torch.equal(x.grad, expected)
    assert torch.equal(energy.grad(x), expected)
    assert torch.equal((2 * energy).grad(x), 2 * expected)


class Logarithm(Energy):
    """sum sqrt x - log x: undefined where a column is negative."""

    def forward(self, x):
        return (x.sqrt() - x.log()).sum(1)


def test_a_part_that_is_undefined_outside_leaves_no_nan():
    energy = Constrained(Logarithm(), Box(low=0.0, high=None))
    x = double([1.0, 2.0], [-1.0, 2.0], [0.0, -3.0], [-math.inf, 1.0])
    assert energy(x).tolist()[1:] == [math.inf] * 3
    assert torch.equal(energy(x)[:1], Logarithm()(x)[:1])
    e, gradient = energy.value_and_grad(x)
    assert torch.equal(e, energy(x))
    assert gradient.isfinite().all()
    assert torch.equal(gradient[0], Logarithm().grad(x[:1])[0])
    for composed in (energy + energy, energy - 0.5 * energy):
        e, gradient = composed.value_and_grad(x)
        assert e.tolist()[1:] == [math.inf] * 3
        assert gradient.isfinite().all()


class Pit(Energy):
    """-inf everywhere, the worst that can happen."""

    def forward(self, x):
        return x.sum(1) * 0 - math.inf


def test_infinitely_low_energy_does_not_cross_the_wall():
    energy = Constrained(Pit(), Box(0.0, 1.0))
    assert energy(double([0.5], [2.0])).tolist() == [-math.inf, math.inf]


def test_nan_inside_stays_visible():
    assert Constrained(Logarithm(), Box(-9.0, 9.0))(double([-1.0])).isnan().all()


def test_second_derivatives_are_the_parts():
    energy = Constrained(gaussian(), Box(-5.0, 5.0))
    hessian = torch.autograd.functional.hessian(
        lambda x: energy(x[None]).sum(), double(0.3, 0.4)
    )
    assert_close(hessian, SD.square().reciprocal().diag())


def test_regions_intersect():
    energy = Constrained(Constrained(gaussian(), Box(-1.0, 1.0)), Ball(1.0))
    x = double([0.5, 0.5], [0.9, 0.9], [1.1, 0.0])
    assert energy(x).isfinite().tolist() == [True, False, False]
    both = Constrained(gaussian(), Ball(1.0)) + Constrained(gaussian(), Box(0.2, 1.0))
    assert both(x).isfinite().tolist() == [True, False, False]


def test_density_ratio_inside_needs_no_partition_function():
    energy = Constrained(gaussian(), Box(0.0, 1.0))
    x, y = double([0.1, 0.9], [0.5, 0.5]), double([0.7, 0.2], [3.0, 0.2])
    law = [
        truncnorm(*((np.array([0, 1]) - m) / s), m, s)
        for m, s in zip(MEAN.numpy(), SD.numpy(), strict=True)
    ]
    density = lambda v: law[0].pdf(v[:, 0]) * law[1].pdf(v[:, 1])  # noqa: E731
    ratio = (energy(x) - energy(y)).exp().detach().numpy()
    np.testing.assert_allclose(ratio[0], density(y)[0] / density(x)[0], rtol=1e-9)
    assert ratio[1] == density(y)[1] == 0


def metropolis(energy, x, n_steps, scale, seed=0):
    """Random-walk Metropolis; returns the states of the second half."""
    g, e, kept = generator(seed), energy(x), []
    for step in range(n_steps):
        noise = torch.randn(x.shape, generator=g, dtype=x.dtype)
        proposal = x + scale * noise
        proposed = energy(proposal)
        accept = torch.rand(len(x), generator=g).log() < e - proposed
        x = torch.where(accept[:, None], proposal, x)
        e = torch.where(accept, proposed, e)
        if step >= n_steps // 2:
            kept.append(x)
    return torch.cat(kept)


def test_chains_that_reject_give_the_truncated_moments():
    low, high = (0.0, -3.0), (1.0, 0.5)
    energy = Constrained(gaussian(), Box(low, high))
    with torch.no_grad():
        start = energy.project(rows(4000, 2))
        x = metropolis(energy, start, 400, double(0.6, 2.0))
    assert energy.region.contains(x).all()
    for j in (0, 1):
        m, s = float(MEAN[j]), float(SD[j])
        law = truncnorm((low[j] - m) / s, (high[j] - m) / s, m, s)
        assert float(x[:, j].mean()) == pytest.approx(law.mean(), rel=0.02)
        assert float(x[:, j].var()) == pytest.approx(law.var(), rel=0.02)


def test_chains_in_a_ball_give_the_truncated_moments():
    """|x|^2 is chi2 of 2 truncated at r^2: mean 2 - r^2 / (exp(r^2/2) - 1)."""
    part = Quadratic().match(torch.zeros(2).double(), torch.eye(2).double())
    energy = Constrained(part, Ball(1.5))
    with torch.no_grad():
        x = metropolis(energy, energy.project(rows(4000, 2)), 400, 1.0)
    expected = 2 - 1.5**2 / (math.exp(1.5**2 / 2) - 1)
    assert float(x.square().sum(1).mean()) == pytest.approx(expected, rel=0.02)
    assert energy.region.contains(x).all()


def test_constrained_project_is_the_regions():
    energy = Constrained(gaussian(), Ball(1.0))
    assert torch.equal(energy.project(rows(d=2)), Ball(1.0).project(rows(d=2)))
    assert energy(energy.project(rows(d=2))).isfinite().all()


def test_build_reaches_the_part():
    assert Constrained(Quadratic(), Ball()).build(3).part.mean.shape == (3,)
    assert Penalized(Quadratic(), "norm", 1.0).build(3).part.mean.shape == (3,)


# Soft penalties

PENALTIES = {"sum_to_one": sum_to_one, "non_negative": non_negative, "norm": norm}


def line(mean):
    return Quadratic().match(double(mean), double([1.0]))


def test_penalties_by_hand():
    x = double([0.5, 0.5, 1.0], [-1.0, -2.0, 0.0], [0.0, 0.6, 0.8])
    assert sum_to_one(x).tolist() == pytest.approx([1.0, 16.0, 0.16])
    assert non_negative(x).tolist() == [0.0, 5.0, 0.0]
    assert norm(x).tolist() == pytest.approx([0.0625, 4.0, 0.0])


@pytest.mark.parametrize("penalty", [*PENALTIES, lambda x: x[:, 0].square()])
def test_every_row_pays_for_itself(penalty):
    """Trap: a penalty summed over the batch."""
    x, weight = rows(d=2), 3.0
    energy = Penalized(gaussian(), penalty, weight)
    paid = (PENALTIES.get(penalty, penalty))(x)
    assert energy(x).shape == (len(x),)
    assert_close(energy(x), gaussian()(x) + 0.5 * weight * paid)
    alone = torch.cat([energy(row[None]) for row in x])
    assert_close(energy(x), alone, rtol=1e-12, atol=1e-12)
    other = x.clone()
    other[1:] += 100.0
    assert torch.equal(energy(other)[:1], energy(x)[:1])


@pytest.mark.parametrize("weight", [0.0, 1.0, 10.0, 1e3, 1e6])
def test_minimum_of_a_penalised_line(weight):
    """0.5 (x - m)^2 + 0.5 w (x - c)^2 is least at (m + w c) / (1 + w)."""
    for penalty, m, c in (("sum_to_one", 3.0, 1.0), ("non_negative", -2.0, 0.0)):
        energy = Penalized(line(m), penalty, weight)
        least = (m + weight * c) / (1 + weight)
        gradient = energy.grad(double([least]))
        assert float(gradient) == pytest.approx(0, abs=1e-9 * (1 + weight))
        assert energy(double([least])) < energy(double([least + 1e-3]))
        assert energy(double([least])) < energy(double([least - 1e-3]))


def minimum(energy, x):
    """Newton's method on the rows of x, (1, d)."""
    for _ in range(60):
        hessian = torch.autograd.functional.hessian(
            lambda row: energy(row[None]).sum(), x[0]
        )
        x = x - torch.linalg.solve(hessian, energy.grad(x)[0])[None]
    return x


@pytest.mark.parametrize(
    ("penalty", "violation", "limit"),
    [
        ("sum_to_one", lambda x: x.sum() - 1, 3.5 / 3),
        ("non_negative", lambda x: -x.clamp(max=0).sum(), 2.0),
        ("norm", lambda x: x.norm() - 1, double(1.5, -2.0, 5.0).norm() - 1),
    ],
)
def test_violation_falls_as_one_over_the_weight(penalty, violation, limit):
    """w * violation tends to the multiplier of the hard constraint."""
    part = Quadratic().match(double(1.5, -2.0, 5.0), torch.eye(3).double())
    found = []
    for weight in (1e3, 1e4, 1e5):
        energy = Penalized(part, penalty, weight)
        x = minimum(energy, double([1.5, -2.0, 5.0]))
        assert energy.grad(x).abs().max() < 1e-6
        found.append(float(violation(x)))
    assert found[0] / found[1] == pytest.approx(10, rel=0.01)
    assert found[1] / found[2] == pytest.approx(10, rel=0.01)
    assert 1e5 * found[2] == pytest.approx(float(limit), rel=1e-3)


def test_sum_penalty_in_many_columns_has_a_closed_form():
    """Minimum m - 1 w v with violation v = (sum m - 1) / (1 + w d)."""
    mean, weight = double(1.5, -2.0, 5.0), 7.0
    part = Quadratic().match(mean, torch.eye(3).double())
    energy = Penalized(part, "sum_to_one", weight)
    x = mean - weight * (mean.sum() - 1) / (1 + 3 * weight)
    assert_close(energy.grad(x[None])[0], 0 * x, rtol=0, atol=1e-9)


def test_norm_penalty_is_smooth_at_the_origin():
    energy = Penalized(line(0.0), "norm", 2.0)
    curvature = torch.autograd.functional.hessian(
        lambda x: energy(x[None]).sum(), double(0.0)
    )
    assert float(curvature) == pytest.approx(1 - 1.0)


def test_a_satisfied_constraint_costs_nothing():
    x = double([0.25, 0.75], [0.6, 0.4])
    assert_close(Penalized(gaussian(), "sum_to_one", 9.0)(x), gaussian()(x))
    assert torch.equal(Penalized(gaussian(), "non_negative", 9.0)(x), gaussian()(x))


def test_density_ratio_of_penalised_rows_is_exact():
    x, y = rows(d=2), rows(d=2).flip(0)
    energy = Penalized(gaussian(), "non_negative", 3.0)
    density = lambda v: torch.exp(  # noqa: E731
        -0.5 * ((v - MEAN) / SD).square().sum(1)
        - 1.5 * torch.minimum(v, 0 * v).square().sum(1)
    )
    ratio = (energy(y) - energy(x)).exp()
    assert_close(ratio, density(x) / density(y), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("simplex", 1.0), r"Got penalty='simplex'.*'non_negative', 'norm', 'sum_to"),
        (("norm", -1.0), "Got weight=-1.0, but expected a number >= 0"),
        (("norm", math.nan), "Got weight=nan"),
        ((lambda x: x.square().sum(), 1.0), r"returned shape \(\), .*one number per"),
        ((lambda x: x, 1.0), r"returned shape \(50, 2\), but expected \(50,\)"),
    ],
)
def test_wrong_penalties_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        Penalized(gaussian(), *arguments)(rows(d=2))


def test_penalty_weight_is_a_hyperparameter():
    energy = Penalized(gaussian(), non_negative, 1.0)
    energy.set_params(weight=4.0)
    again = clone(energy)
    assert again.penalty is non_negative
    assert again.weight == 4.0
    x = double([-1.0, 1.0])
    assert_close(energy(x) - gaussian()(x), double(2.0))
