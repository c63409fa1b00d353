"""Which energies have a finite integral."""

import math

import pytest
import torch
from torch import nn

from skebm.energies import (
    Box,
    Constrained,
    Gaussians,
    Quadratic,
    Scaled,
    Sum,
    Tilted,
)
from skebm.exceptions import NotNormalizableError, SkebmError
from skebm.partition import check_normalizable
from tests.partition.systems import Formula, bowl, gaussian, generator, normal


def network(d, activation, seed=0):
    """Return a random network of one hidden layer, as a function of rows."""
    g = generator(seed)
    w, b, v = (torch.randn(s, generator=g).double() for s in ((d, 32), (32,), (32,)))
    return lambda x: activation(x.double() @ w + b) @ v


def difference(d, least, most, seed=0):
    """Return x'Ax / 2 with one eigenvalue -least and the others up to ``most``."""
    root = torch.randn(d, d, generator=generator(seed), dtype=torch.float64)
    q = torch.linalg.qr(root).Q
    values = torch.logspace(0, math.log10(most), d, dtype=torch.float64)
    values[0] = -least
    a = q * values @ q.T
    return Formula(lambda x: 0.5 * (x @ a * x).sum(1))


def student(d, power):
    """Return power * log(1 + |x|^2), integrable if 2 power > d."""
    return Formula(lambda x: power * x.square().sum(1).log1p())


FINE = {
    "quadratic": (Quadratic().build(5), 5),
    "one_column": (Quadratic().build(1), 1),
    "condition_100": (gaussian(), 10),
    "gaussians": (Gaussians().build(3), 3),
    "bowl": (bowl(), 10),
    "quartic": (Formula(lambda x: (x**4 - 100 * x**2).sum(1)), 2),
    "heavy_tails": (student(4, 2.5), 4),
    "bounded_network": (Sum(normal(5), Formula(network(5, torch.tanh))), 5),
    "network": (Sum(normal(5), Formula(network(5, nn.SiLU()))), 5),
    "tilted": (Tilted(normal(5), Formula(network(5, nn.SiLU()))), 5),
    "box": (
        Constrained(Formula(lambda x: -x.square().sum(1)), Box(low=-1.0, high=1.0)),
        3,
    ),
    "half_line": (Constrained(Formula(lambda x: x.sum(1)), Box(low=0.0, high=None)), 2),
}
REFUSED = {
    "constant": (Formula(lambda x: 0 * x.sum(1)), 3),
    "bounded_network": (Formula(network(5, torch.tanh)), 5),
    "network": (Formula(network(5, nn.SiLU())), 5),
    "negative": (Scaled(normal(5), -1.0), 5),
    "linear": (Formula(lambda x: x.sum(1)), 2),
    "light_rise": (student(4, 1.9), 4),
    "saddle": (difference(10, 1.0, 1.0), 10),
    "slight_saddle": (difference(10, 1e-3, 1e4), 10),
    "saddle_in_many_columns": (difference(100, 0.01, 10.0), 100),
    "improper": (Formula(lambda x: x[:, 0].square()), 2),
    "nan": (Formula(lambda x: x.sum(1) * math.nan), 2),
    "half_line": (
        Constrained(Formula(lambda x: -x.sum(1)), Box(low=0.0, high=None)),
        2,
    ),
}


@pytest.mark.parametrize("name", sorted(FINE))
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_energies_that_rise_pass(name, seed):
    energy, d = FINE[name]
    check_normalizable(energy, d, generator=generator(seed))


@pytest.mark.parametrize("name", sorted(REFUSED))
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_energies_that_do_not_are_refused(name, seed):
    energy, d = REFUSED[name]
    with pytest.raises(NotNormalizableError, match="Add Bowl"):
        check_normalizable(energy, d, generator=generator(seed))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_cone_that_only_descent_finds(seed):
    """Along its flattest ray this network falls by 22.4 |x|, along an axis by 17."""
    network_20 = network(20, nn.SiLU())
    for slope, is_fine in ((20.0, False), (25.0, True)):
        energy = Formula(lambda x, slope=slope: network_20(x) + slope * x.norm(dim=1))
        if is_fine:
            check_normalizable(energy, 20, generator=generator(seed))
        else:
            with pytest.raises(NotNormalizableError):
                check_normalizable(energy, 20, generator=generator(seed))


def test_center_and_scale_are_those_of_the_rows():
    scale = torch.tensor([1e-4, 1e4], dtype=torch.float64)
    center = torch.tensor([3.0, -5e4], dtype=torch.float64)
    energy = Quadratic().match(center, scale.square().diag())
    check_normalizable(energy, 2, center=center, scale=scale, generator=generator())
    check_normalizable(
        energy.float(), 2, center=center, scale=scale, generator=generator()
    )


def test_weights_and_global_state_stay_as_they_are():
    energy, before = Quadratic().build(3), torch.get_rng_state()
    check_normalizable(energy, 3, generator=generator())
    assert all(p.grad is None for p in energy.parameters())
    assert all(p.requires_grad for p in energy.parameters())
    assert torch.equal(torch.get_rng_state(), before)


def test_error_is_a_value_error_of_skebm():
    assert issubclass(NotNormalizableError, SkebmError)
    assert issubclass(NotNormalizableError, ValueError)
    with pytest.raises(ValueError, match="n_features=0"):
        check_normalizable(normal(1), 0, generator=generator())
