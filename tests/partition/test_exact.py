"""Enumeration and quadrature against closed forms."""

import math

import pytest
import torch
from scipy.special import k1

from skebm.energies import Gaussians
from skebm.exceptions import NotNormalizableError, PartitionWarning
from skebm.partition import Enumeration, Quadrature, fit_base
from skebm.partition.exact import _gauss_lobatto
from tests.partition.systems import Formula, bowl, generator, normal, ring


def integral(energy, d, base=None, **params):
    estimate = Quadrature(**params)(
        energy, base=base or normal(d), generator=generator()
    )
    low, high = estimate.interval
    assert low <= estimate.value <= high
    assert estimate.ess == math.inf
    return estimate


def test_enumeration_of_a_million_states_of_independent_bits():
    """Z = prod_j (1 + e^b_j)."""
    bias = torch.randn(20, generator=generator(), dtype=torch.float64)
    estimate = Enumeration()(Formula(lambda x: -x @ bias), n_features=20)
    expected = float(bias.exp().log1p().sum())
    assert estimate.value == pytest.approx(expected, abs=1e-9)
    assert estimate.interval == (estimate.value, estimate.value)
    assert estimate.method == "Enumeration(n_values=2)"


@pytest.mark.parametrize("n_values", [3, 4])
def test_enumeration_of_digits(n_values):
    bias = torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64)
    energy = Formula(lambda x: -x @ bias)
    digits = torch.arange(n_values, dtype=torch.float64)
    expected = float((bias[:, None] * digits).logsumexp(1).sum())
    estimate = Enumeration(n_values)(energy, base=normal(3), generator=generator())
    assert estimate.value == pytest.approx(expected, abs=1e-12)


def test_enumeration_of_an_ising_ring():
    """Z = (2 cosh J)^d + (2 sinh J)^d, spins +-1."""
    spins = Formula(lambda x: -0.7 * ((2 * x - 1) * (2 * x - 1).roll(1, 1)).sum(1))
    expected = math.log((2 * math.cosh(0.7)) ** 10 + (2 * math.sinh(0.7)) ** 10)
    assert Enumeration()(spins, n_features=10).value == pytest.approx(expected)


def test_enumeration_skips_forbidden_states():
    """One bit set of ten."""
    energy = Formula(lambda x: torch.where(x.sum(1) == 1, 0.0, math.inf))
    assert Enumeration()(energy, n_features=10).value == pytest.approx(math.log(10))


def test_enumeration_refuses_what_it_cannot_do():
    energy = Formula(lambda x: x.sum(1))
    with pytest.raises(ValueError, match=r"Got 2\^40 states"):
        Enumeration()(energy, n_features=40)
    with pytest.raises(ValueError, match="needs n_features"):
        Enumeration()(energy)
    with pytest.raises(ValueError, match="n_values=1"):
        Enumeration(1)(energy, n_features=3)
    with pytest.raises(ValueError, match="NaN"):
        Enumeration()(Formula(lambda x: x.sum(1) * math.nan), n_features=3)


@pytest.mark.parametrize("d", [1, 2])
@pytest.mark.parametrize("variance", [1e-3, 0.5, 1.0, 400.0])
def test_gaussian_of_any_width(d, variance):
    energy = normal(d, variance)
    expected = 0.5 * d * math.log(2 * math.pi * variance)
    assert integral(energy, d).value == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("d", "z"), [(1, 2 * k1(1.0)), (2, 4 * math.pi / math.e)])
def test_confining_bowl(d, z):
    estimate = integral(bowl(), d)
    assert estimate.value == pytest.approx(math.log(z), abs=1e-6)
    assert estimate.interval[1] - estimate.interval[0] < 1e-6


def test_heavy_tails_enlarge_the_box():
    """The integral of 1 / (1 + x^2) is pi."""
    cauchy = Formula(lambda x: x.square().sum(1).log1p())
    assert integral(cauchy, 1).value == pytest.approx(math.log(math.pi), abs=1e-6)


def test_eight_gaussians():
    base = fit_base(ring().sample(2000, generator=generator()))
    assert integral(ring(), 2, base).value == pytest.approx(0.0, abs=1e-6)
    assert integral(ring(), 2).value == pytest.approx(0.0, abs=1e-6)


def test_mass_far_from_the_base():
    energy = Formula(lambda x: 0.5 * (x - 12).square().sum(1))
    expected = math.log(2 * math.pi)
    assert integral(energy, 2).value == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("edge", [0.3, 1.0, 1.3, 1 + 1e-9, math.inf])
@pytest.mark.parametrize("seed", range(4))
def test_kink_and_jump_in_one_column(edge, seed):
    """exp(-|x|) cut at +-edge."""
    energy = Formula(lambda x: torch.where(x.abs() < edge, x.abs(), math.inf)[:, 0])
    expected = math.log(2 * (1 - math.exp(-edge)))
    estimate = integral(energy, 1, normal(1, 1.0 + 0.37 * seed))
    assert estimate.value == pytest.approx(expected, abs=1e-6)
    assert estimate.interval[0] - 1e-12 < expected < estimate.interval[1] + 1e-12


def test_kink_in_two_columns():
    energy = Formula(lambda x: x.abs().sum(1))
    assert integral(energy, 2).value == pytest.approx(math.log(4), abs=1e-6)


def test_curved_edge_is_reported_as_less_exact():
    disc = Formula(lambda x: torch.where(x.norm(dim=1) < 1.3, 0.0, math.inf))
    with pytest.warns(PartitionWarning, match="max_evaluations"):
        estimate = integral(disc, 2)
    expected = math.log(1.69 * math.pi)
    assert estimate.interval[0] < expected < estimate.interval[1]
    assert estimate.value == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: 0 * x.sum(1),
        lambda x: x.sum(1),
        lambda x: -x.square().sum(1),
        lambda x: 0.5 * x.square().sum(1).log1p(),
    ],
)
def test_infinite_integrals_are_refused(function):
    with pytest.raises(NotNormalizableError, match="Add Bowl"):
        integral(Formula(function), 1)


def test_single_precision_reaches_a_millionth():
    two = Gaussians().match(
        torch.tensor([0.8, 0.2]), torch.tensor([[-4.0], [4.0]]), torch.ones(2, 1, 1)
    )
    assert integral(two, 1).value == pytest.approx(0.0, abs=2e-6)


def test_quadrature_refuses_what_it_cannot_do():
    with pytest.raises(ValueError, match="Got 3 columns"):
        integral(normal(3), 3)
    with pytest.raises(ValueError, match="n_nodes=2"):
        integral(normal(1), 1, n_nodes=2)
    nowhere = Formula(lambda x: x[:, 0] + math.inf)
    with pytest.raises(ValueError, match="meets the region"):
        integral(nowhere, 1)
    with pytest.raises(ValueError, match="NaN"):
        integral(Formula(lambda x: x[:, 0] * math.nan), 1)


@pytest.mark.parametrize("n", [3, 4, 8, 13])
def test_lobatto_rule_is_exact_to_its_degree(n):
    x, w = _gauss_lobatto(n)
    for degree in range(2 * n - 2):
        assert float((w * x**degree).sum()) == pytest.approx(1 / (degree + 1))
    assert float((w * x ** (2 * n - 2)).sum()) != pytest.approx(
        1 / (2 * n - 1), rel=1e-15, abs=0
    )
