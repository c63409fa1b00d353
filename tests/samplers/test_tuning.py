"""Warm-up finds step size, metric and length, once."""

import math

import pytest
import torch
from torch.testing import assert_close

from skebm.energies import Gaussians, Quadratic
from skebm.samplers import (
    HMC,
    MALA,
    ULA,
    AnnealedLangevin,
    Cycle,
    Independence,
    ParallelTempering,
    RandomWalk,
    bulk_ess,
    run_chains,
)
from skebm.samplers.adaptation import DualAveraging
from skebm.samplers.metric import estimate_factor, spread

DOUBLE = torch.float64


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def ill_conditioned(d, condition, rotated, dtype=DOUBLE):
    """Return a Gaussian with variances 1 to ``condition``, and its axes."""
    variances = torch.logspace(0, math.log10(condition), d, dtype=DOUBLE)
    axes = torch.eye(d, dtype=DOUBLE)
    if rotated:
        axes = torch.linalg.qr(starts(d, d, seed=9))[0]
    covariance = axes @ variances.diag() @ axes.T
    energy = Quadratic().match(torch.zeros(d, dtype=DOUBLE), covariance).to(dtype)
    return energy, axes, variances


def starts(n, d, dtype=DOUBLE, seed=7):
    return torch.randn(n, d, generator=generator(seed), dtype=dtype)


@pytest.mark.parametrize("rotated", [False, True])
@pytest.mark.parametrize(
    ("d", "condition", "scale", "n_draws"),
    [
        (10, 100, 1.0, 1000),
        (10, 100, 1000.0, 1000),
        pytest.param(50, 1000, 1.0, 1500, marks=pytest.mark.slow),
    ],
)
def test_default_sampler_on_ill_conditioned_gaussians(
    d, condition, scale, n_draws, rotated
):
    energy, axes, variances = ill_conditioned(d, condition, rotated, torch.float32)
    x = scale * starts(64, d, torch.float32)
    chains = run_chains(HMC(), energy, x, n_draws=n_draws, generator=generator())
    principal = chains.draws.double() @ axes
    variance = principal.flatten(0, 1).var(0)
    assert (variance / variances - 1).abs().max() <= 0.03
    assert chains.rhat().max() <= 1.01
    assert chains.acceptance == pytest.approx(0.8, abs=0.05)
    # Efficiency that does not depend on the machine: means and squares per draw.
    assert chains.ess().min() > 0.3 * 64 * n_draws
    assert bulk_ess(principal.square()).min() > 0.15 * 64 * n_draws


@pytest.mark.parametrize("scale", [1e-3, 1e3])
@pytest.mark.parametrize(
    ("kernel", "target"), [(HMC, 0.8), (MALA, 0.574), (RandomWalk, 0.3)]
)
def test_acceptance_is_reached_from_a_step_a_thousand_times_off(kernel, target, scale):
    covariance = scale**2 * torch.eye(3, dtype=DOUBLE)
    energy = Quadratic().match(torch.zeros(3, dtype=DOUBLE), covariance)
    metric = torch.ones(3, dtype=DOUBLE)
    x = energy.sample(64, generator=generator(1))
    chains = run_chains(
        kernel(metric=metric),
        energy,
        x,
        n_draws=200,
        n_warmup=120,
        generator=generator(),
    )
    assert chains.acceptance == pytest.approx(target, abs=0.05)
    assert torch.equal(chains.sampler.metric, metric)


@pytest.mark.parametrize("scale", [1e-3, 1e3])
@pytest.mark.parametrize("kernel", [HMC, MALA])
def test_metric_and_step_are_found_from_starts_a_thousand_times_off(kernel, scale):
    covariance = scale**2 * torch.tensor([[1.0, 0.9], [0.9, 1.0]], dtype=DOUBLE)
    energy = Quadratic().match(torch.zeros(2, dtype=DOUBLE), covariance)
    chains = run_chains(
        kernel(), energy, starts(64, 2), n_draws=500, generator=generator()
    )
    factor = chains.sampler.metric
    assert_close(factor @ factor.T, covariance, rtol=0.15, atol=0)
    assert chains.acceptance == pytest.approx(kernel.target, abs=0.05)
    assert chains.rhat().max() < 1.01


def test_tuned_sampler_is_used_again_without_tuning():
    energy, _, _ = ill_conditioned(4, 100, True)
    chains = run_chains(HMC(), energy, starts(64, 4), n_draws=50, generator=generator())
    again = run_chains(
        chains.sampler,
        energy,
        chains.draws[-1],
        n_draws=200,
        n_warmup=0,
        generator=generator(1),
    )
    assert again.sampler is chains.sampler
    assert again.acceptance == pytest.approx(0.8, abs=0.05)


@pytest.mark.parametrize("kernel", [HMC, MALA, RandomWalk])
def test_given_step_size_is_kept(kernel):
    energy, _, _ = ill_conditioned(4, 100, True)
    sampler = kernel(step_size=0.123)
    chains = run_chains(
        sampler, energy, starts(8, 4), n_draws=5, n_warmup=60, generator=generator()
    )
    assert chains.sampler is sampler
    assert sampler.step_size == 0.123
    assert sampler.metric is None


def test_sampler_that_is_run_stays_as_it_is():
    sampler = Cycle(HMC(), ParallelTempering(MALA()))
    before = repr(sampler)
    chains = run_chains(
        sampler,
        Quadratic().build(2),
        starts(8, 2, torch.float32),
        n_draws=2,
        n_warmup=40,
        generator=generator(),
    )
    assert repr(sampler) == before
    assert chains.sampler.first.step_size > 0
    assert chains.sampler.second.kernel.step_size > 0
    assert chains.sampler.second.hottest == 16.0


def test_kernels_without_tuning_come_back_as_they_are():
    base = Quadratic().build(2)
    for sampler in (ULA(), AnnealedLangevin(0.1, n_levels=2), Independence(base)):
        chains = run_chains(
            sampler,
            base,
            starts(8, 2, torch.float32),
            n_draws=2,
            n_warmup=4,
            generator=generator(),
        )
        assert chains.sampler is sampler


def test_few_chains_have_a_longer_warm_up():
    class Counting(Quadratic):
        n_calls = 0

        def value_and_grad(self, x):
            self.n_calls += 1
            return super().value_and_grad(x)

    counts = []
    for n_chains in (64, 32, 1):
        energy = Counting().build(1)
        x = starts(n_chains, 1, torch.float32)
        run_chains(MALA(0.1), energy, x, n_draws=1, generator=generator())
        counts.append(energy.n_calls - 2)
    assert counts == [240, 480, 1920]


def test_warm_up_is_as_long_as_the_parts_need():
    assert HMC().n_warmup == 120
    assert Cycle(HMC(), RandomWalk()).n_warmup == RandomWalk().n_warmup == 480
    assert ParallelTempering(MALA()).n_warmup == 2 * MALA().n_warmup
    assert AnnealedLangevin(n_levels=4).n_warmup == 100


@pytest.mark.parametrize("n_chains", [1, 2])
def test_few_chains_are_enough_to_tune(n_chains):
    energy, _, _ = ill_conditioned(5, 100, True)
    chains = run_chains(
        HMC(), energy, starts(n_chains, 5), n_draws=500, generator=generator()
    )
    assert chains.acceptance == pytest.approx(0.8, abs=0.12)
    assert chains.ess().min() > 0.1 * n_chains * 500


def test_step_size_settles_where_acceptance_meets_the_target():
    """Acceptance exp(-eps) meets .8 at eps = -log .8 from a start 1000 times off."""
    for first in (1e-3 * 0.223, 1e3 * 0.223):
        averaging = DualAveraging(first, 0.8)
        for _ in range(200):
            averaging.update(math.exp(-averaging.step_size))
        assert averaging.averaged == pytest.approx(-math.log(0.8), rel=0.1)


def test_step_size_before_any_step_is_the_first():
    assert DualAveraging(0.3, 0.8).averaged == 0.3


def test_metric_from_many_draws_is_the_covariance():
    energy, _, _ = ill_conditioned(5, 100, True)
    draws = energy.sample(100_000, generator=generator())
    factor = estimate_factor(draws, None)
    covariance = factor @ factor.T
    assert_close(covariance, draws.T.cov(), rtol=0.01, atol=0.1)
    assert torch.equal(factor, factor.tril())


def test_metric_of_independent_columns_is_shrunk_to_its_diagonal():
    draws = starts(400, 10) * torch.arange(1, 11)
    factor = estimate_factor(draws, None)
    off = factor - factor.diagonal().diag()
    loose = torch.linalg.cholesky(draws.T.cov())
    assert off.square().sum() < 0.1 * (loose - loose.diagonal().diag()).square().sum()


def test_metric_from_few_draws_is_diagonal_and_as_wide_as_the_widest_direction():
    """All columns equal: sd 1 each, sd sqrt(d) along the diagonal of the space."""
    one = starts(200, 1)
    draws = one.expand(200, 16) + 1e-3 * starts(200, 16, seed=8)
    factor = estimate_factor(draws, None)
    assert factor.shape == (16,)
    noise = 1 + (16 / 200) ** 0.5
    expected = float(one.std()) * 16**0.5 / noise
    assert_close(factor, torch.full_like(factor, expected), rtol=0.01, atol=0)


@pytest.mark.parametrize("old", [None, (2,), (2, 2)])
def test_column_that_did_not_move_keeps_its_scale(old):
    if old is not None:
        old = 3 * torch.ones(old, dtype=DOUBLE)
        old = old.tril() if old.ndim == 2 else old
    draws = starts(500, 2)
    draws[:, 1] = 7.0
    factor = estimate_factor(draws, old)
    expected = {None: 1.0, 1: 3.0, 2: 18**0.5}[None if old is None else old.ndim]
    assert factor[1, 1].item() == pytest.approx(expected)
    assert factor.isfinite().all()


def test_metric_of_two_equal_columns_is_regular():
    factor = estimate_factor(starts(500, 1).expand(500, 2), None)
    assert factor.isfinite().all()
    assert (factor.diagonal() > 0).all()


def test_spread_of_the_starts_is_the_first_metric():
    assert spread(starts(1, 3)) is None
    x = starts(50, 2)
    x[:, 1] = 4.0
    first = spread(x)
    assert first.tolist() == pytest.approx([float(x[:, 0].std()), 1.0])


def test_windows_of_wide_rows_keep_fewer_draws(monkeypatch):
    kept = []
    monkeypatch.setattr("skebm.samplers.adaptation._KEPT_VALUES", 10 * 8 * 4)

    def watch(draws, old):
        kept.append(len(draws) // 8)
        return estimate_factor(draws, old)

    monkeypatch.setattr("skebm.samplers.adaptation.estimate_factor", watch)
    energy, _, _ = ill_conditioned(4, 100, True)
    run_chains(
        HMC(), energy, starts(8, 4), n_draws=1, n_warmup=120, generator=generator()
    )
    assert len(kept) == 3
    assert max(kept) <= 10


def test_multi_modal_energy_is_sampled_with_jumps_between_modes():
    """HMC alone stays where it starts; with jumps from a base it does not."""
    means = torch.tensor([[-6.0, 0.0], [6.0, 0.0]])
    energy = Gaussians().match(torch.ones(2), means, torch.eye(2).expand(2, 2, 2))
    base = Quadratic().match(torch.zeros(2), torch.tensor([[40.0, 0.0], [0.0, 1.5]]))
    x = base.sample(64, generator=generator(1))
    alone, both = (
        run_chains(sampler, energy, x, n_draws=500, generator=generator())
        for sampler in (HMC(), Cycle(HMC(), Independence(base)))
    )
    assert alone.rhat().max() > 1.2
    assert both.rhat().max() < 1.03
    assert both.sampler.first.step_size > 0
