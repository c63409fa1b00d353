"""Draws of a tilted base against the tilted law, exact and by chains."""

import numpy as np
import pytest
import torch

from skebm.energies import Conditioned, Energy, Gaussians, Quadratic, Tilted
from skebm.estimators.drawing import (
    _starts,
    conditioned,
    diagnosis,
    draw,
    mixed_chains,
    tuned,
)
from skebm.exceptions import NotMixedWarning
from skebm.samplers import HMC, MALA, Chains

SLOPE = torch.tensor([1.0, -0.5, 0.3], dtype=torch.float64)


class Slope(Energy):
    """E(x) = -a'x: tilts N(m, S) to N(m + S a, S)."""

    def forward(self, x):
        return -(x @ SLOPE[: x.shape[1]])


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def base():
    root = torch.tensor([[1.0, 0, 0], [0.5, 0.8, 0], [-0.3, 0.2, 0.7]]).double()
    return Gaussians().match(
        torch.ones(1).double(), torch.ones(1, 3).double(), (root @ root.T)[None]
    )


def tilted(reach=None):
    return Tilted(base(), Slope(), reach)


def covariance():
    return base().factors[0] @ base().factors[0].T


@pytest.mark.parametrize("sampler", [None, HMC(), MALA()])
def test_draws_follow_the_tilted_law(sampler):
    x = draw(tilted(), base(), sampler, 20_000, generator=generator())
    expected = 1 + covariance() @ SLOPE
    np.testing.assert_allclose(x.mean(0), expected, atol=0.06)
    np.testing.assert_allclose(x.T.cov(), covariance(), atol=0.06)


def test_rejection_gives_way_to_chains_where_it_keeps_too_few():
    far = Tilted(base(), 6 * Slope())
    x = draw(far, base(), None, 500, generator=generator())
    expected = 1 + 6 * covariance() @ SLOPE
    np.testing.assert_allclose(x.mean(0), expected, atol=0.25)


def test_starts_are_drawn_by_importance():
    starts = _starts(tilted(), base(), generator())
    error = 4 * covariance().diagonal().sqrt() / 8
    assert ((starts.mean(0) - (1 + covariance() @ SLOPE)).abs() < error).all()


@pytest.mark.parametrize("reach", [None, 2.0])
def test_conditioned_energies_differ_as_the_joint_ones(reach):
    joint = tilted(reach)
    given, _ = conditioned(joint, base(), (1,), (3.0,))
    u = torch.randn(9, 2, generator=generator()).double()
    x = torch.stack([u[:, 0], torch.full((9,), 3.0).double(), u[:, 1]], 1)
    torch.testing.assert_close(given(u) - given(u)[0], joint(x) - joint(x)[0])


def test_a_conditioned_tilt_sees_given_values_within_its_reach():
    given, _ = conditioned(tilted(2.0), base(), (1,), (3.0,))
    assert given.tilt.values == (2.0,)
    given, _ = conditioned(tilted(), base(), (1,), (3.0,))
    assert given.tilt.values == (3.0,)


def test_other_energies_are_conditioned_as_they_are():
    given, free = conditioned(Quadratic().build(3), base(), (0,), (1.0,))
    assert isinstance(given, Conditioned)
    assert free.means.shape == (1, 2)


def test_chains_that_disagree_warn():
    weights, means = torch.tensor([0.5, 0.5]).double(), torch.tensor([[-30.0], [30.0]])
    modes = Gaussians().match(weights, means.double(), torch.ones(2, 1, 1).double())
    with pytest.warns(NotMixedWarning, match="did not mix: R-hat"):
        mixed_chains(modes, modes, HMC(), 50, 1, generator=generator())


def test_tuned_samplers_are_not_tuned_again():
    sampler = tuned(tilted(), base(), HMC(), generator=generator())
    chains = mixed_chains(tilted(), base(), sampler, 50, 1, generator=generator())
    assert sampler.step_size is not None
    assert chains.sampler.step_size == sampler.step_size


def test_diagnosis_is_in_the_units_of_the_columns():
    draws = torch.arange(80.0).reshape(10, 4, 2)
    chains = Chains(draws, torch.full((10, 4), 3.0), 0.8, MALA())
    known = np.array([1.0, 2.0])
    table = diagnosis(chains, ["a", "b"], known, np.array([5.0, 0.0]), 2.0)
    assert table.index.tolist() == ["a", "b", "energy"]
    assert table["mean"].tolist() == [39 * 2 + 5, 40 * 2, 3]
    assert table["sd"].iloc[0] == pytest.approx(2 * np.arange(0, 80, 2).std(ddof=1))
    assert (table["energy_gap"] == 1.5).all()
    assert diagnosis(chains, ["a", "b"])["energy_gap"].isna().all()
