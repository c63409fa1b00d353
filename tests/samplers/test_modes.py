"""Two modes far apart, of weights .8 and .2: the right weights need more than steps."""

import pytest
import torch

from skebm.energies import AtLevel, Energy, Gaussians, NoiseConditional
from skebm.samplers import HMC, MALA, AnnealedLangevin, ParallelTempering, run_chains

WEIGHTS = torch.tensor([0.8, 0.2], dtype=torch.float64)
MEANS = torch.tensor([[-5.0, 0.0], [5.0, 1.0]], dtype=torch.float64)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def modes(sigma=0.0):
    """Return the mixture after Gaussian noise of standard deviation sigma."""
    covariances = (0.25 + sigma**2) * torch.eye(2).double().expand(2, 2, 2)
    return Gaussians().match(WEIGHTS, MEANS, covariances)


class NoisyModes(NoiseConditional):
    """The exact energies of the mixture at every noise level."""

    def __init__(self, sigma=0.05):
        super().__init__()
        self.sigma = sigma

    def forward(self, x, sigma=None):
        level = self.sigma if sigma is None else float(sigma)
        return modes(level)(x)


def starts(n=64, spread=1.0):
    return spread * torch.randn(n, 2, generator=generator(5), dtype=torch.float64)


def share(draws):
    return (draws[..., 0] < 0).double().mean().item()


def test_steps_alone_keep_the_weights_of_the_starts():
    chains = run_chains(
        MALA(), modes(), starts() + MEANS[1], n_draws=200, generator=generator()
    )
    assert share(chains.draws) < 0.05


@pytest.mark.parametrize("kernel", [MALA, pytest.param(HMC, marks=pytest.mark.slow)])
def test_parallel_tempering_finds_the_weights(kernel):
    sampler = ParallelTempering(kernel(), hottest=40.0, n_levels=5)
    chains = run_chains(
        sampler, modes(), starts() + MEANS[1], n_draws=600, generator=generator()
    )
    assert share(chains.draws) == pytest.approx(0.8, abs=0.03)
    left = chains.draws[chains.draws[..., 0] < 0]
    assert left.var(0).tolist() == pytest.approx([0.25, 0.25], rel=0.05)
    assert chains.sampler.kernel.step_size > 0


def test_hot_replicas_have_their_temperature():
    """On a Gaussian the replicas at T_k have variance T_k: one in their own units."""
    standard = Gaussians().match(
        torch.ones(1).double(), torch.zeros(1, 2).double(), torch.eye(2).double()[None]
    )
    sampler = ParallelTempering(MALA(0.5), hottest=9.0, n_levels=3)
    state = sampler.init(standard, starts(4000))
    before = state.hotter.x.clone()
    g = generator()
    for _ in range(30):
        state, info = sampler.step(standard, state, generator=g)
    assert info.acceptance.shape == (4000,)
    assert state.hotter.x.shape == (8000, 2)
    assert state.x.var().item() == pytest.approx(1.0, rel=0.05)
    assert state.hotter.x.var().item() == pytest.approx(1.0, rel=0.05)
    assert not torch.equal(before, state.hotter.x)


def test_swaps_exchange_places_with_their_ratio():
    """Two levels, no moves: a pair swaps with min(1, exp((1 - 1 / 4) (E_1 - E_2)))."""
    standard = Gaussians().match(
        torch.ones(1).double(), torch.zeros(1, 1).double(), torch.eye(1).double()[None]
    )
    sampler = ParallelTempering(MALA(1e-12), hottest=4.0, n_levels=2)
    n = 40_000
    state = sampler.init(standard, torch.full((n, 1), 1.0, dtype=torch.float64))
    warm = standard.value_and_grad(torch.full((n, 1), 1.5, dtype=torch.float64))
    e, grad = warm
    hot = state.hotter._replace(
        x=torch.full((n, 1), 0.75, dtype=torch.float64), e=e / 4, grad=grad / 2
    )
    state, _ = sampler.step(standard, state._replace(hotter=hot), generator=generator())
    swapped = state.x[:, 0] > 1.25
    expected = float(torch.tensor(0.75 * (0.5 - 0.5 * 1.5**2)).exp())
    assert swapped.double().mean().item() == pytest.approx(expected, abs=0.01)
    torch.testing.assert_close(
        state.hotter.x[swapped, 0],
        torch.full_like(state.x[swapped, 0], 0.5),
        rtol=0,
        atol=1e-4,
    )


@pytest.mark.parametrize("wrong", [{"hottest": 1.0}, {"n_levels": 1}])
def test_tempering_refuses_a_ladder_without_steps(wrong):
    with pytest.raises(ValueError, match="needs hottest > 1 and n_levels >= 2"):
        ParallelTempering(MALA(0.1), **wrong).init(modes(), starts())


def test_tempering_needs_a_state_with_replicas():
    state = MALA(0.1).init(modes(), starts())
    with pytest.raises(ValueError, match=r"start from init\(\)"):
        ParallelTempering(MALA(0.1)).step(modes(), state, generator=generator())


@pytest.mark.parametrize("energy", [NoisyModes(0.05), AtLevel(NoisyModes(2.0), 0.05)])
def test_annealed_langevin_finds_the_weights(energy):
    """Weights within .03, each mode with the variance of the last level."""
    x = starts(4000, 10.0)
    chains = run_chains(
        AnnealedLangevin(widest=10.0), energy, x, n_draws=1, generator=generator()
    )
    assert share(chains.draws) == pytest.approx(0.8, abs=0.03)
    left = chains.draws[chains.draws[..., 0] < 0]
    assert left.var(0).tolist() == pytest.approx([0.2525, 0.2525], rel=0.08)


def test_annealing_walks_from_the_widest_level_to_the_last():
    seen = []

    class Watched(NoisyModes):
        def forward(self, x, sigma=None):
            seen.append(float(sigma))
            return super().forward(x, sigma)

    sampler = AnnealedLangevin(0.1, widest=8.0, n_levels=4)
    warm_up = sampler.warm_up(8)
    energy = Watched(sigma=1.0)
    state = MALA(0.1).init(modes(), starts())
    for _ in range(8):
        state, _ = warm_up.step(energy.at(1.0), state, generator=generator())
    assert sorted(set(seen), reverse=True) == pytest.approx([8.0, 4.0, 2.0, 1.0])
    assert seen[0] == 8.0
    assert warm_up.finish() is sampler


def test_warm_up_shorter_than_the_ladder_ends_in_a_state_of_the_energy():
    energy = NoisyModes(0.5)
    sampler = AnnealedLangevin(0.1, widest=8.0, n_levels=4)
    warm_up = sampler.warm_up(2)
    state = sampler.init(energy, starts())
    for _ in range(2):
        state, _ = warm_up.step(energy, state, generator=generator())
    torch.testing.assert_close(state.e, energy(state.x))
    torch.testing.assert_close(state.grad, energy.grad(state.x))


def test_temperature_ladder_joins_modes_that_a_step_does_not():
    """From one start in the wrong mode, a hot beginning reaches both."""

    class Double(Energy):
        def forward(self, x):
            return 6 * (x[:, 0].square() - 1).square() + 3 * x[:, 1].square()

    x = torch.tensor([[1.0, 0.0]], dtype=torch.float64).repeat(2000, 1)
    sampler = AnnealedLangevin(step_size=0.01, widest=4.0)
    chains = run_chains(sampler, Double(), x, n_draws=1, generator=generator())
    assert share(chains.draws) == pytest.approx(0.5, abs=0.04)
    assert chains.sampler.step_size > 0
    cold = run_chains(
        MALA(0.01), Double(), x, n_draws=1, n_warmup=500, generator=generator()
    )
    assert share(cold.draws) < 0.4
