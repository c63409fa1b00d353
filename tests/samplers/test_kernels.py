"""Each kernel against what theory says of it on a Gaussian."""

import math

import pytest
import torch
from torch.testing import assert_close

from skebm._torch import normal_like
from skebm.energies import Box, Constrained, Energy, Gaussians, Quadratic
from skebm.samplers import HMC, MALA, ULA, Independence, RandomWalk, run_chains
from skebm.samplers.leapfrog import Dynamics
from skebm.samplers.sampler import accept_or_stay, state_with_grad

DOUBLE = torch.float64


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def standard(d=1):
    return Quadratic().build(d).double()


def random_gaussian(d, seed=3):
    root = torch.randn(d, d, generator=generator(seed), dtype=DOUBLE)
    return Quadratic().match(
        torch.zeros(d, dtype=DOUBLE), root @ root.T + 0.1 * torch.eye(d, dtype=DOUBLE)
    )


class Quartic(Energy):
    """An energy whose leapfrog is not linear."""

    def forward(self, x):
        return 0.25 * x.pow(4).sum(1) + 0.5 * x.square().sum(1)


def rows(n, d, seed=1):
    return torch.randn(n, d, generator=generator(seed), dtype=DOUBLE)


def test_random_walk_has_the_moments_of_the_gaussian():
    energy = random_gaussian(2)
    x = energy.sample(64, generator=generator(1))
    chains = run_chains(RandomWalk(), energy, x, n_draws=2000, generator=generator())
    z = (
        chains.draws @ energy.lower.tril(-1).add(energy.log_diagonal.exp().diag())
    ).detach()
    error = chains.ess().min().rsqrt()
    assert (z.flatten(0, 1).mean(0).abs() < 3 * error).all()
    assert ((z.flatten(0, 1).T.cov() - torch.eye(2)).abs() < 3 * 2**0.5 * error).all()
    assert 0.2 < chains.acceptance < 0.5


@pytest.mark.parametrize("eps", [0.1, 0.5])
def test_both_usual_forms_of_langevin_are_the_same_kernel(eps):
    """x - (eta / 2) g + sqrt(eta) z with eta = 2 eps."""
    energy, x, eta = random_gaussian(3), rows(20, 3), 2 * eps
    kernel = ULA(step_size=eps)
    state, info = kernel.step(energy, kernel.init(energy, x), generator=generator())
    z = normal_like(x, generator())
    expected = x - eta / 2 * energy.grad(x) + math.sqrt(eta) * z
    assert_close(state.x, expected, rtol=1e-13, atol=1e-13)
    assert info.accepted.all()
    assert (info.acceptance == 1).all()


@pytest.mark.parametrize("eps", [0.2, 1.0])
def test_unadjusted_langevin_has_its_known_bias(eps):
    chains = run_chains(
        ULA(step_size=eps),
        standard(),
        rows(2000, 1),
        n_draws=50,
        thin=5,
        generator=generator(),
    )
    variance = chains.draws.var().item()
    assert variance == pytest.approx(1 / (1 - eps / 2), rel=0.02)


def test_step_of_a_hundredth_with_noise_of_seven_thousandths_is_cold():
    """x - .01 g + .007 z samples T = .007^2 / (2 * .01) = .00245, not 1."""
    step, noise = 0.01, 0.007
    kernel = ULA(step_size=step, temperature=0.00245)
    x = rows(20, 2)
    state, _ = kernel.step(
        standard(2), kernel.init(standard(2), x), generator=generator()
    )
    expected = x - step * x + noise * normal_like(x, generator())
    assert_close(state.x, expected, rtol=1e-12, atol=1e-12)
    chains = run_chains(
        kernel,
        standard(),
        0.05 * rows(2000, 1),
        n_draws=40,
        n_warmup=500,
        thin=20,
        generator=generator(),
    )
    assert chains.draws.var().item() == pytest.approx(0.00245, rel=0.02)


def test_unadjusted_langevin_is_projected_on_the_region():
    box = Constrained(standard(2), Box(low=-0.1, high=0.2))
    kernel = ULA(step_size=0.5)
    state = kernel.init(box, torch.zeros(50, 2, dtype=DOUBLE))
    state, _ = kernel.step(box, state, generator=generator())
    assert state.x.min() == -0.1
    assert state.x.max() == 0.2


@pytest.mark.parametrize("d", [1, 5])
def test_mala_is_unbiased_and_tuned_to_its_optimum(d):
    chains = run_chains(
        MALA(), standard(d), rows(256, d), n_draws=600, generator=generator()
    )
    variance = chains.draws.flatten(0, 1).var(0)
    assert_close(variance, torch.ones(d, dtype=DOUBLE), rtol=0.01 * d**0.5, atol=0)
    assert chains.acceptance == pytest.approx(0.574, abs=0.03)


def test_mala_accepts_with_the_ratio_of_metropolis_and_hastings():
    energy, x, eps, temperature = Quartic(), rows(30, 2), 0.3, 1.7
    factor = torch.tensor([[1.2, 0.0], [0.4, 0.7]], dtype=DOUBLE)
    covariance = factor @ factor.T
    kernel = MALA(eps, temperature, factor)
    _, info = kernel.step(energy, kernel.init(energy, x), generator=generator())
    z = normal_like(x, generator())
    drift = x - eps * energy.grad(x) @ covariance
    y = drift + math.sqrt(2 * eps * temperature) * z @ factor.T
    law = torch.distributions.MultivariateNormal
    spread = 2 * eps * temperature * covariance
    forth = law(drift, spread).log_prob(y)
    back = law(y - eps * energy.grad(y) @ covariance, spread).log_prob(x)
    ratio = (energy(x) - energy(y)) / temperature + back - forth
    assert_close(info.acceptance, ratio.exp().clamp(max=1), rtol=1e-9, atol=1e-12)
    assert (info.acceptance < 0.99).any()


@pytest.mark.parametrize("kernel", [MALA, RandomWalk, HMC])
def test_tiny_steps_are_accepted_and_huge_ones_are_not(kernel):
    energy, x = random_gaussian(4), rows(500, 4)
    for step_size, low, high in ((1e-4, 0.9, 1.0), (30.0, 0.0, 0.5)):
        sampler = kernel(step_size)
        _, info = sampler.step(energy, sampler.init(energy, x), generator=generator())
        assert low <= info.acceptance.mean() <= high


@pytest.mark.parametrize("factor_shape", [None, (3,), (3, 3)])
def test_trajectories_can_be_followed_back(factor_shape):
    factor = None
    if factor_shape:
        factor = 0.5 + torch.rand(factor_shape, generator=generator(), dtype=DOUBLE)
        factor = factor.tril() if len(factor_shape) == 2 else factor
    energy, steps = Quartic(), torch.full((20, 1), 0.1, dtype=DOUBLE)
    dynamics = Dynamics(energy, steps, 15, factor, 1.3)
    start, v = state_with_grad(energy, rows(20, 3)), rows(20, 3, seed=5)
    there = dynamics.leapfrog(start, v)
    back = dynamics.leapfrog(there.state, -there.v)
    assert (there.state.x - start.x).abs().max() > 0.5
    assert_close(back.state.x, start.x, rtol=0, atol=1e-6)
    assert_close(-back.v, v, rtol=0, atol=1e-6)
    assert (there.inside == 1).all()


def test_trajectories_that_meet_a_wall_can_be_followed_back():
    wall = Constrained(Quartic(), Box(low=-0.7, high=0.9))
    steps = torch.full((200, 1), 0.1, dtype=DOUBLE)
    dynamics = Dynamics(wall, steps, 15, None, 1.0)
    start = state_with_grad(wall, rows(200, 2).clamp(-0.6, 0.8))
    v = rows(200, 2, seed=5)
    there = dynamics.leapfrog(start, v)
    back = dynamics.leapfrog(there.state, -there.v)
    assert 0.2 < (there.inside < 1).double().mean() < 1
    assert there.state.e.isfinite().all()
    assert_close(back.state.x, start.x, rtol=0, atol=1e-6)
    assert_close(-back.v, v, rtol=0, atol=1e-6)


def hamiltonian(energy, x, v):
    return energy(x) + 0.5 * v.square().sum(1)


def test_energy_error_is_quadratic_in_the_step():
    energy, x, v = Quartic(), rows(200, 2), rows(200, 2, seed=5)
    errors = []
    for n_steps in (20, 40):
        steps = torch.full((1, 1), 1.0 / n_steps, dtype=DOUBLE)
        dynamics = Dynamics(energy, steps, n_steps, None, 1.0)
        end = dynamics.leapfrog(state_with_grad(energy, x), v)
        change = hamiltonian(energy, end.state.x, end.v) - hamiltonian(energy, x, v)
        errors.append(change.abs().mean())
    assert errors[0] / errors[1] == pytest.approx(4.0, rel=0.1)


def test_leapfrog_equals_the_textbook():
    energy, eps, temperature = Quartic(), 0.2, 2.0
    x, v = rows(10, 2), rows(10, 2, seed=5)
    dynamics = Dynamics(
        energy, torch.full((1, 1), eps, dtype=DOUBLE), 3, None, temperature
    )
    end = dynamics.leapfrog(state_with_grad(energy, x), v)
    for _ in range(3):
        v = v - eps / 2 * energy.grad(x) / temperature
        x = x + eps * v
        v = v - eps / 2 * energy.grad(x) / temperature
    assert_close(end.state.x, x)
    assert_close(end.v, v)
    assert_close(end.state.e, energy(x))
    assert_close(end.state.grad, energy.grad(x))


def test_hmc_without_a_given_length_goes_a_quarter_of_a_period():
    """On N(0, 1) a fine trajectory of length pi / 2 swaps place and velocity."""
    energy, x = standard(), rows(20, 1)
    kernel = HMC(step_size=math.pi / 2 / 50, jitter=0.0)
    state, info = kernel.step(energy, kernel.init(energy, x), generator=generator())
    g = generator()
    g.manual_seed(0)
    torch.empty(20, 1, dtype=DOUBLE).uniform_(generator=g)
    v = normal_like(x, g)
    assert_close(state.x, v, rtol=0, atol=1e-3)
    assert info.acceptance.min() > 0.99


def test_hmc_takes_at_most_64_steps_by_itself():
    class Counting(Quartic):
        n_calls = 0

        def value_and_grad(self, x):
            self.n_calls += 1
            return super().value_and_grad(x)

    for sampler, n_calls in ((HMC(1e-5), 64), (HMC(9.0), 1), (HMC(1e-5, n_steps=7), 7)):
        energy = Counting()
        state = sampler.init(energy, rows(2, 2))
        sampler.step(energy, state, generator=generator())
        assert energy.n_calls == 1 + n_calls


@pytest.mark.parametrize("wrong", [{"n_steps": 0}, {"jitter": 1.0}, {"jitter": -0.1}])
def test_hmc_refuses_parameters_out_of_range(wrong):
    with pytest.raises(ValueError, match=f"HMC needs {next(iter(wrong))}"):
        HMC(0.1, **wrong).init(standard(), rows(2, 1))


@pytest.mark.parametrize("kernel", [HMC, MALA, RandomWalk])
def test_step_without_a_step_size_says_what_to_do(kernel):
    sampler = kernel()
    state = sampler.init(standard(), rows(2, 1))
    with pytest.raises(ValueError, match=r"run_chains tunes it in its warm-up"):
        sampler.step(standard(), state, generator=generator())
    with pytest.raises(ValueError, match=r"run_chains tunes it in its warm-up"):
        run_chains(
            sampler,
            standard(),
            rows(2, 1),
            n_draws=1,
            n_warmup=0,
            generator=generator(),
        )


def test_independent_draws_from_the_density_itself_are_all_accepted():
    energy = random_gaussian(3)
    chains = run_chains(
        Independence(energy),
        energy,
        rows(64, 3),
        n_draws=500,
        n_warmup=0,
        generator=generator(),
    )
    assert chains.acceptance == pytest.approx(1.0, abs=1e-12)
    assert chains.ess().min() > 0.9 * 64 * 500


def test_independent_proposals_carry_chains_to_the_right_weights():
    two = Gaussians().match(
        torch.tensor([0.8, 0.2]), torch.tensor([[-8.0], [8.0]]), torch.ones(2, 1, 1)
    )
    even = Gaussians().match(
        torch.tensor([0.5, 0.5]), torch.tensor([[-8.0], [8.0]]), 2 * torch.ones(2, 1, 1)
    )
    x = torch.full((64, 1), 8.0)
    chains = run_chains(
        Independence(even), two, x, n_draws=500, n_warmup=50, generator=generator()
    )
    assert (chains.draws < 0).float().mean().item() == pytest.approx(0.8, abs=0.02)


def test_independence_needs_something_to_draw_from():
    with pytest.raises(TypeError, match="needs a proposal with sample"):
        Independence(Quartic()).init(standard(), rows(2, 1))


def test_acceptance_is_that_of_the_ratio_row_by_row():
    energy, n = standard(2), 40_000
    state = state_with_grad(energy, torch.zeros(n, 2, dtype=DOUBLE))
    proposal = state_with_grad(energy, torch.ones(n, 2, dtype=DOUBLE))
    log_ratio = torch.tensor([-torch.inf, torch.nan, -0.5, 3.0], dtype=DOUBLE)
    chosen, info = accept_or_stay(
        state, proposal, log_ratio.repeat(n // 4), generator()
    )
    share = info.accepted.view(-1, 4).double().mean(0)
    expected = torch.tensor([0.0, 0.0, math.exp(-0.5), 1.0], dtype=DOUBLE)
    assert_close(info.acceptance[:4], expected)
    assert_close(share, expected, rtol=0, atol=0.02)
    assert torch.equal(chosen.x[:, 0] == 1, info.accepted)
    assert torch.equal(chosen.e == 1, info.accepted)
    assert torch.equal(chosen.grad[:, 0] == 1, info.accepted)
