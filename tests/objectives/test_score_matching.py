"""Score matching against explicit Hessians and closed forms."""

import pytest
import torch
from torch.testing import assert_close

from skebm.energies import Quadratic
from skebm.energies.perceptrons import MLP
from skebm.objectives import ScoreMatching, SlicedScoreMatching


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def table(n=30, d=4, seed=0):
    return torch.randn(n, d, generator=generator(seed), dtype=torch.float64)


def mlp(activation="silu"):
    energy = MLP(hidden=(8, 8), activation=activation)
    energy.build(4, generator=generator(7)).double()
    with torch.no_grad():
        energy.network[-1].weight.mul_(100)
    return energy


def value_of(objective, energy, x, seed=0):
    state = objective.init(energy, x, generator=generator())
    return objective(energy, x, state, generator=generator(seed)).value


def explicit(energy, x):
    """Hyvarinen (2005), equation 4, with a Hessian row by row."""
    total = 0.0
    for row in x:
        gradient, hessian = (
            function(lambda r: energy(r[None])[0], row, create_graph=True)
            for function in (
                torch.autograd.functional.jacobian,
                torch.autograd.functional.hessian,
            )
        )
        total = total + 0.5 * gradient @ gradient - hessian.trace()
    return total / len(x)


@pytest.mark.parametrize("activation", ["silu", "tanh", "softplus", "gelu"])
def test_exact_equals_the_trace_of_an_explicit_hessian(activation):
    energy, x = mlp(activation), table()
    value, expected = value_of(ScoreMatching(), energy, x), explicit(energy, x)
    assert_close(value, expected, rtol=0, atol=1e-8)
    weights = [w for w in energy.parameters() if w is not energy.network[-1].bias]
    got, wanted = (torch.autograd.grad(v, weights) for v in (value, expected))
    assert_close(got, wanted, rtol=0, atol=1e-8)


def test_closed_form_for_a_gaussian(law, precision):
    x, p = table(d=5), precision(law)
    expected = 0.5 * ((x - law.mean) @ p).square().sum(1).mean() - p.trace()
    assert_close(value_of(ScoreMatching(), law, x), expected, rtol=0, atol=1e-10)


def correlated():
    precision = torch.eye(4).double() + 2
    return Quadratic().match(torch.zeros(4).double(), precision.inverse())


@pytest.mark.parametrize("build", [mlp, correlated])
def test_sliced_is_unbiased_for_exact(build):
    energy, x = build(), table()
    exact = value_of(ScoreMatching(), energy, x).item()
    g = generator(3)
    objective = SlicedScoreMatching(n_slices=5)
    state = objective.init(energy, x, generator=g)
    draws = torch.tensor(
        [objective(energy, x, state, generator=g).value.item() for _ in range(400)]
    )
    error = float(draws.std()) / 20
    assert error < 0.1 * abs(exact)
    assert float(draws.mean()) == pytest.approx(exact, abs=4 * error)


def test_variance_falls_with_the_number_of_slices():
    energy, x = mlp(), table()
    spread = [
        torch.tensor(
            [value_of(SlicedScoreMatching(k), energy, x, s).item() for s in range(60)]
        ).std()
        for k in (1, 16)
    ]
    assert 2.5 < float(spread[0] / spread[1]) < 6.5


def test_sliced_is_exact_for_a_diagonal_hessian():
    energy = Quadratic().match(table(1)[0], torch.diag(1 + table(1)[0].square()))
    exact = value_of(ScoreMatching(), energy, table())
    assert_close(value_of(SlicedScoreMatching(), energy, table()), exact)


def test_held_out_criterion_is_the_mean_over_rows_of_uneven_batches():
    energy, x, objective = mlp(), table(600), ScoreMatching()
    state = objective.init(energy, x, generator=generator()).eval()
    got = objective.criterion(energy, x, state, generator=generator())
    expected = value_of(objective, energy, x).item()
    assert got == pytest.approx(expected, rel=1e-10)


def test_energy_without_curvature_has_trace_zero():
    energy = MLP(hidden=()).build(4).double()
    weight = energy.network[0].weight
    expected = 0.5 * weight.square().sum()
    assert_close(value_of(ScoreMatching(), energy, table()), expected)
    assert_close(value_of(SlicedScoreMatching(), energy, table()), expected)


@pytest.mark.parametrize(
    "objective",
    [ScoreMatching(), SlicedScoreMatching(), SlicedScoreMatching(3)],
    ids=repr,
)
def test_precision_of_a_gaussian(
    law, rows, descend, precision, relative_error, objective
):
    energy = Quadratic().build(5)
    descend(objective, energy, rows)
    assert relative_error(precision(energy), precision(law)) < 0.03
