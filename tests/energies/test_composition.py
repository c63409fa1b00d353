"""Energies of energies against what is known of Gaussians, and against densities."""

import math

import numpy as np
import pytest
import torch
from laws import COVARIANCES, MEANS, PRECISIONS, double, gaussian, generator
from scipy.stats import kstest, multivariate_normal, norm
from sklearn.base import clone
from torch.testing import assert_close

from skebm.energies import (
    Box,
    Constrained,
    Frozen,
    Gaussians,
    Guided,
    Interpolated,
    Memory,
    Mixture,
    Quadratic,
)
from skebm.exceptions import NotNormalizableError


def law(k):
    return multivariate_normal(MEANS[k], COVARIANCES[k])


def rows(n=50, seed=3):
    return 2 * torch.randn(n, 2, generator=generator(seed), dtype=torch.float64)


def grid(half_width=14.0, n=561):
    line = torch.linspace(-half_width, half_width, n, dtype=torch.float64)
    return torch.cartesian_prod(line, line), 2 * math.log(float(line[1] - line[0]))


def quadrature(energy, temperature=1.0, **size):
    x, log_cell = grid(**size)
    with torch.no_grad():
        return float((-energy(x) / temperature).logsumexp(0)) + log_cell


def combined(coefficients):
    """Precision and mean of sum_k c_k E_k."""
    precision = sum(c * PRECISIONS[k] for k, c in coefficients.items())
    linear = sum(c * PRECISIONS[k] @ MEANS[k] for k, c in coefficients.items())
    return precision, torch.linalg.solve(precision, linear)


a, b, c = (gaussian(k) for k in range(3))


# Differences and products


def test_difference_is_a_ratio_of_densities():
    """NOT: p(x) / p(y) = (p_c / p_b^w)(x) / (p_c / p_b^w)(y) on a grid."""
    energy = c - 0.3 * b
    x, _ = grid(3.0, 61)
    log_ratio = law(2).logpdf(x.numpy()) - 0.3 * law(1).logpdf(x.numpy())
    e = energy(x).detach().numpy()
    np.testing.assert_allclose(
        np.exp(e[0] - e), np.exp(log_ratio - log_ratio[0]), rtol=1e-6
    )
    normalised = np.exp(log_ratio - energy.log_partition())
    expected = -e - energy.log_partition()
    constant = 0.3 * b.log_partition() - c.log_partition()
    np.testing.assert_allclose(np.log(normalised) - constant, expected, atol=1e-6)


def test_difference_of_a_mixture_is_a_ratio_of_densities():
    either = Mixture((a, c), (0.6, 0.4))
    energy = either - 0.5 * a
    x, _ = grid(4.0, 41)
    mixed = 0.6 * law(0).pdf(x.numpy()) + 0.4 * law(2).pdf(x.numpy())
    ratio = mixed / np.sqrt(law(0).pdf(x.numpy()))
    e = energy(x).detach().numpy()
    np.testing.assert_allclose(np.exp(e[7] - e), ratio / ratio[7], rtol=1e-6)


def test_product_samples_have_the_moments():
    form = (a + b).as_quadratic()
    merged = Quadratic().match(form.minimum(), form.precision.inverse())
    x = merged.sample(100_000, generator=generator())
    precision, mean = combined({0: 1, 1: 1})
    covariance = precision.inverse()
    assert_close(x.mean(0), mean, rtol=0, atol=0.03 * float(covariance.max().sqrt()))
    assert_close(x.T.cov(), covariance, rtol=0.03, atol=0.01)


# Mixtures


def test_mixture_is_the_mixture_of_the_densities():
    weights = (0.5, 0.3, 0.2)
    x, _ = grid(5.0, 41)
    e = Mixture((a, b, c), weights)(x).detach()
    expected = sum(w * law(k).pdf(x.numpy()) for k, w in enumerate(weights))
    np.testing.assert_allclose((-e).exp(), expected, rtol=1e-6)
    same = Gaussians().match(double(*weights), MEANS, COVARIANCES)(x)
    assert_close(e, same, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("weights", [None, (1.0, 3.0)])
def test_parts_keep_their_weights_whatever_their_normalisers(weights):
    """Far apart, each half plane holds the weight that was stated."""
    tight = Quadratic().match(double(-8.0, 0.0), 0.01 * COVARIANCES[0])
    loose = Quadratic().match(double(8.0, 0.0), COVARIANCES[1])
    assert loose.log_partition() - tight.log_partition() > 4
    energy = Mixture((tight, loose), weights)
    x, log_cell = grid(14.0, 1401)
    density = (-energy(x).detach() + log_cell).exp()
    share = 0.5 if weights is None else 0.25
    assert float(density.sum()) == pytest.approx(1, abs=1e-6)
    assert float(density[x[:, 0] < 0].sum()) == pytest.approx(share, abs=1e-6)


def test_mixture_of_unnormalised_compositions():
    energy = Mixture((a + b, 0.1 * c), (0.9, 0.1))
    assert energy.log_partition() == 0.0
    assert quadrature(energy, half_width=25.0) == pytest.approx(0, abs=1e-6)
    x = rows()
    densities = [
        multivariate_normal(mean, precision.inverse()).pdf(x.numpy())
        for precision, mean in (combined({0: 1, 1: 1}), combined({2: 0.1}))
    ]
    expected = 0.9 * densities[0] + 0.1 * densities[1]
    np.testing.assert_allclose((-energy(x)).exp(), expected, rtol=1e-6)


def test_given_normalisers_are_used():
    cut = Constrained(a, Box(low=-1.0, high=1.0))
    log_mass = quadrature(cut, half_width=1.0, n=2001)
    energy = Mixture((cut, b), (0.4, 0.6), (log_mass, None))
    x = rows()
    inside = (x.abs() <= 1).all(1).numpy()
    part = np.exp(-a(x).detach().numpy() - log_mass) * inside
    expected = 0.4 * part + 0.6 * law(1).pdf(x.numpy())
    np.testing.assert_allclose((-energy(x)).exp(), expected, rtol=1e-6)
    assert 0 < inside.sum() < len(x)


def test_mixture_needs_every_normaliser():
    unknown = Memory(2.0).store(rows(5))
    with pytest.raises(ValueError, match=r"log Z of every part; got Memory\(beta=2"):
        Mixture((a, unknown))(rows())
    with pytest.raises(ValueError, match="pass log_partitions="):
        Mixture((a, unknown), None, (1.0, None))(rows())
    assert Mixture((a, unknown), None, (None, 1.0))(rows()).isfinite().all()
    with pytest.raises(NotNormalizableError):
        Mixture((a, -b))(rows())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((a, b), (1.0,)), r"Got 2 parts and weights=\(1.0,\)"),
        (((a, b), None, (1.0, 2.0, 3.0)), "Got 2 parts and log_partitions="),
        (((),), "at least one part"),
        (((a, b), (1.0, 0.0)), r"Got weights=\(1.0, 0.0\), but expected positive"),
        (((a, b), (1.0, -1.0)), "expected positive"),
        (((a, b), (1.0, math.nan)), "expected positive"),
        (((a, b), (1.0, math.inf)), "expected positive"),
    ],
)
def test_mixture_refuses_arguments_that_do_not_fit(arguments, message):
    with pytest.raises(ValueError, match=message):
        Mixture(*arguments)(rows())


def test_mixture_gradient_is_the_shared_gradient():
    energy, x = Mixture((a, b, c), (0.5, 0.3, 0.2)), rows()
    densities = np.stack(
        [w * law(k).pdf(x.numpy()) for k, w in enumerate((0.5, 0.3, 0.2))]
    )
    shares = torch.from_numpy(densities / densities.sum(0))
    expected = sum(s[:, None] * p.grad(x) for s, p in zip(shares, (a, b, c)))  # noqa: B905
    assert_close(energy.grad(x), expected, rtol=1e-8, atol=1e-10)
    assert_close(energy.value_and_grad(x)[0], energy(x).detach())


def test_mixture_far_away_does_not_overflow():
    far = double([1e3, -1e3], [-1e5, 1e5])
    e, gradient = Mixture((a, b)).value_and_grad(far)
    assert e.isfinite().all()
    assert (e > 1e5).all()
    assert gradient.isfinite().all()


def test_mixture_samples_follow_the_density():
    tight = Quadratic().match(double(-4.0), double([0.04]))
    loose = Quadratic().match(double(3.0), double([4.0]))
    energy = Mixture((tight, loose), (0.3, 0.7))
    x = energy.sample(5000, generator=generator())[:, 0].numpy()
    law = lambda v: 0.3 * norm.cdf(v, -4, 0.2) + 0.7 * norm.cdf(v, 3, 2)  # noqa: E731
    assert kstest(x, law).pvalue > 0.01
    half = np.sort(x[:2500]), np.sort(x[2500:])
    assert abs((half[0] < -3).mean() - (half[1] < -3).mean()) < 0.05
    again = energy.sample(5000, generator=generator())[:, 0].numpy()
    assert np.array_equal(x, again)
    assert energy.sample(1, generator=generator()).shape == (1, 1)


def test_mixture_of_parts_without_samples_says_so():
    energy = Mixture((a + b, a))
    with pytest.raises(TypeError, match="has no sample"):
        energy.sample(9, generator=generator())


def test_mixture_parts_do_not_learn():
    energy = Mixture((Quadratic(), Quadratic())).build(2)
    assert len(list(energy.parameters())) == 6
    assert not any(weight.requires_grad for weight in energy.parameters())
    kept = gaussian(0)
    Mixture((kept, b))
    assert not kept.mean.requires_grad


def test_mixture_parts_are_hyperparameters_and_modules():
    energy = Mixture((Frozen(gaussian(0)), Memory(2.0)), None, (None, 0.0))
    energy.parts[1].store(rows(5))
    again = clone(energy)
    assert repr(again) == repr(energy)
    assert torch.equal(again.parts[0](rows()), a(rows()))
    assert not list(again.parts[1].buffers())
    energy.set_params(parts=(gaussian(2), gaussian(1)))
    assert_close(energy(rows()), Mixture((c, b), None, (None, 0.0))(rows()))
    names = ["mean", "log_diagonal", "lower"]
    keys = [f"_members.{k}.{name}" for k in (0, 1) for name in names]
    assert list(energy.state_dict()) == keys
    assert {w.dtype for w in energy.float().parts[0].parameters()} == {torch.float32}


def test_mixture_knows_its_normaliser_at_temperature_one_alone():
    energy = Mixture((a, b))
    assert energy.log_partition() == 0.0
    assert energy.log_partition(2.0) is None
    assert Mixture((Mixture((a, b)), c))(rows()).isfinite().all()


# Interpolation and guidance


@pytest.mark.parametrize("t", [0.0, 0.2, 0.5, 0.9, 1.0])
def test_interpolation_between_gaussians(t):
    energy = Interpolated(a, b, t)
    precision = (1 - t) * PRECISIONS[0] + t * PRECISIONS[1]
    linear = (1 - t) * PRECISIONS[0] @ MEANS[0] + t * PRECISIONS[1] @ MEANS[1]
    form = energy.as_quadratic()
    assert_close(form.precision, precision, rtol=0, atol=1e-6)
    mean = torch.linalg.solve(precision, linear)
    assert_close(form.minimum(), mean, rtol=0, atol=1e-6)
    assert_close(energy(rows()), (1 - t) * a(rows()) + t * b(rows()))


def test_minima_of_an_interpolation_are_a_continuous_path():
    """|dm/dt| = |P_t^-1 (P_1 (m_1 - m) - P_0 (m_0 - m))| bounds every step."""
    steps = np.linspace(0, 1, 201)
    path = torch.stack(
        [Interpolated(a, b, float(t)).as_quadratic().minimum() for t in steps]
    )
    assert_close(path[0], MEANS[0], rtol=0, atol=1e-9)
    assert_close(path[-1], MEANS[1], rtol=0, atol=1e-9)
    speeds = []
    for t, m in zip(steps, path, strict=True):
        precision = (1 - t) * PRECISIONS[0] + t * PRECISIONS[1]
        pull = PRECISIONS[1] @ (MEANS[1] - m) - PRECISIONS[0] @ (MEANS[0] - m)
        speeds.append(torch.linalg.solve(precision, pull).norm())
    moves = path.diff(dim=0).norm(dim=1)
    assert (moves <= 1.01 / 200 * max(speeds)).all()
    assert float(moves.sum()) >= float((MEANS[1] - MEANS[0]).norm())


def test_ends_of_an_interpolation_are_the_parts():
    cut = Constrained(b, Box(low=0.0, high=1.0))
    assert torch.equal(Interpolated(a, cut, 0.0)(rows()), a(rows()))
    assert torch.equal(Interpolated(a, cut, 1.0)(rows()), cut(rows()))
    inside = Interpolated(a, cut, 1e-9)(rows()).isfinite()
    assert torch.equal(inside, cut.region.contains(rows()))


@pytest.mark.parametrize("t", [-0.1, 1.1, math.nan])
def test_interpolation_stays_between_its_ends(t):
    with pytest.raises(ValueError, match=r"Got t=.*\[0, 1\].*use Guided"):
        Interpolated(a, b, t)(rows())


def test_extrapolation_is_guidance():
    x, t = rows(), 1.4
    beyond = (1 - t) * a(x) + t * b(x)
    assert_close(Guided(b, a, weight=t - 1)(x), beyond, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("weight", [0.0, 0.3, 0.6])
def test_guidance_of_gaussians(weight):
    energy = Guided(c, a, weight)
    x = rows()
    assert_close(energy(x), (1 + weight) * c(x) - weight * a(x))
    precision = (1 + weight) * PRECISIONS[2] - weight * PRECISIONS[0]
    linear = (1 + weight) * PRECISIONS[2] @ MEANS[2]
    linear -= weight * PRECISIONS[0] @ MEANS[0]
    mean = torch.linalg.solve(precision, linear)
    expected = multivariate_normal(mean, precision.inverse()).logpdf(x.numpy())
    log_density = -energy(x).detach() - energy.log_partition()
    np.testing.assert_allclose(log_density, expected, rtol=0, atol=1e-6)


def test_guidance_moves_away_from_the_unconditional_mean():
    away = MEANS[2] - MEANS[0]
    places = [Guided(c, a, w).as_quadratic().minimum() @ away for w in (0.0, 0.5, 1.0)]
    assert places[0] < places[1] < places[2]


@pytest.mark.parametrize("weight", [-0.5, math.inf, math.nan])
def test_guidance_takes_no_negative_weight(weight):
    with pytest.raises(ValueError, match=r"Got weight=.*use Interpolated"):
        Guided(a, b, weight)(rows())


def test_build_reaches_all_parts():
    energies = [
        Mixture((Quadratic(), Quadratic())),
        Interpolated(Quadratic(), Quadratic(), 0.0),
        Guided(Quadratic(), Quadratic(), 0.0),
    ]
    for energy in energies:
        assert energy.build(3) is energy
        assert [w.shape[0] for w in energy.parameters()] == [3] * 6


# Hard constraints inside compositions

INSIDE, OUTSIDE = double([0.5, 0.5]), double([2.0, 0.5])
CUT = Constrained(gaussian(1), Box(low=0.0, high=1.0))
WIDER = Constrained(gaussian(2), Box(low=-1.0, high=1.5))


@pytest.mark.parametrize(
    "energy",
    [
        CUT + a,
        a - CUT,
        CUT - a,
        CUT - WIDER,
        CUT - CUT,
        -CUT,
        0 * CUT,
        -0.5 * CUT,
        Interpolated(CUT, WIDER, 0.5),
        Guided(CUT, WIDER, 2.0),
        Guided(a, CUT, 2.0),
        Mixture((CUT, WIDER), None, (0.0, 0.0)),
        Frozen(CUT) - WIDER,
    ],
    ids=repr,
)
def test_excluded_rows_stay_excluded_whatever_the_signs(energy):
    x = torch.cat([INSIDE, OUTSIDE])
    assert energy(x).tolist()[1] == math.inf
    e, gradient = energy.value_and_grad(x)
    assert e[0].isfinite()
    assert e[1] == math.inf
    assert gradient.isfinite().all()
    leaf = x.clone().requires_grad_(True)
    energy(leaf).sum().backward()
    assert leaf.grad.isfinite().all()
    assert_close(leaf.grad[0], gradient[0])


def test_a_mixture_covers_the_rows_of_any_part():
    energy = Mixture((CUT, WIDER), (0.5, 0.5), (0.0, 0.0))
    x = double([0.5, 0.5], [-0.5, 0.5], [-2.0, 0.5])
    expected = -math.log(0.5) + WIDER(x)[1]
    assert energy(x)[0].isfinite()
    assert_close(energy(x)[1], expected)
    assert energy(x)[2] == math.inf
    assert_close(energy.grad(x)[1], WIDER.grad(x)[1])
