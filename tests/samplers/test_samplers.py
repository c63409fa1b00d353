"""Every sampler through the same questions, against a Gaussian."""

import pickle
import random

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch.testing import assert_close

import skebm.samplers
from skebm.energies import Box, Constrained, Gaussians, Quadratic
from skebm.samplers import (
    HMC,
    MALA,
    ULA,
    AnnealedLangevin,
    Cycle,
    Independence,
    ParallelTempering,
    RandomWalk,
    run_chains,
)

MEAN = torch.tensor([0.5, -1.0], dtype=torch.float64)
COVARIANCE = torch.tensor([[1.5, 0.6], [0.6, 0.8]], dtype=torch.float64)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def gaussian(dtype=torch.float64):
    return Quadratic().match(MEAN, COVARIANCE).to(dtype)


def wide():
    return Gaussians().match(torch.ones(1).double(), MEAN[None], 5 * COVARIANCE[None])


def starts(n=64, d=2, dtype=torch.float64, seed=7):
    return torch.randn(n, d, generator=generator(seed), dtype=dtype)


SAMPLERS = {
    "random_walk": lambda t=1.0: RandomWalk(temperature=t),
    "ula": lambda t=1.0: ULA(step_size=0.02, temperature=t),
    "mala": lambda t=1.0: MALA(temperature=t),
    "hmc": lambda t=1.0: HMC(temperature=t),
    "annealed": lambda t=1.0: AnnealedLangevin(0.3, t, widest=2.0, n_levels=4),
    "tempering": lambda t=1.0: ParallelTempering(MALA(temperature=t), 4.0, 3),
    "independence": lambda t=1.0: Independence(wide(), temperature=t),
    "cycle": lambda t=1.0: Cycle(HMC(temperature=t), Independence(wide(), t)),
}
EXACT = sorted(set(SAMPLERS) - {"ula"})
REFERENCES = {"Sampler", "ChainState", "StepInfo", "Chains", "Minima"}
OF_MACHINES = {"AnnealedLayers", "AnnealedUnits", "BlockGibbs", "StateLaw", "UnitGibbs"}
"""In test_gibbs.py and test_unit_gibbs.py: their rows are bits or codes."""


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request):
    return torch.device(request.param)


@pytest.fixture(params=sorted(SAMPLERS))
def name(request):
    return request.param


def with_steps(sampler):
    """Return the sampler with small steps that need no warm-up."""
    known = {k for k in sampler.get_params() if k.endswith("step_size")}
    return sampler.set_params(**dict.fromkeys(known, 0.1))


def test_public_samplers_are_in_the_battery():
    public = {getattr(skebm.samplers, n) for n in skebm.samplers.__all__}
    classes = {thing for thing in public if isinstance(thing, type)}
    tested = {type(make()) for make in SAMPLERS.values()}
    public = {c.__name__ for c in classes} - REFERENCES - OF_MACHINES
    assert public == {c.__name__ for c in tested}


@pytest.mark.parametrize("temperature", [0.25, 4.0])
def test_temperature_scales_the_deviation_by_its_root(name, temperature):
    chains = run_chains(
        SAMPLERS[name](temperature),
        gaussian(),
        starts(512),
        n_draws=400 if name == "random_walk" else 150,
        n_warmup=300,
        thin=3 if name == "ula" else 1,
        generator=generator(),
    )
    deviation = chains.draws.flatten(0, 1).std(0) / COVARIANCE.diagonal().sqrt()
    assert_close(deviation, torch.full_like(MEAN, temperature**0.5), rtol=0.02, atol=0)
    assert chains.sampler.temperature == temperature


@pytest.mark.parametrize("name", EXACT)
def test_moments_of_the_gaussian(name):
    x = gaussian().sample(1000, generator=generator(1))
    n_draws = 400 if name == "random_walk" else 150
    chains = run_chains(
        SAMPLERS[name](), gaussian(), x, n_draws=n_draws, generator=generator()
    )
    drawn = chains.draws.flatten(0, 1)
    assert_close(drawn.mean(0), MEAN, rtol=0, atol=0.02)
    assert_close(drawn.T.cov(), COVARIANCE, rtol=0, atol=0.03)


def test_energies_and_shapes(name):
    x = starts(5)
    chains = run_chains(
        with_steps(SAMPLERS[name]()),
        gaussian(),
        x,
        n_draws=4,
        n_warmup=3,
        thin=2,
        generator=generator(),
    )
    assert chains.draws.shape == (4, 5, 2)
    e = gaussian()(chains.draws.flatten(0, 1)).detach().view(4, 5)
    assert_close(chains.energies, e, rtol=1e-10, atol=1e-10)
    assert 0 <= chains.acceptance <= 1
    assert not chains.draws.requires_grad
    assert torch.equal(x, starts(5))


def test_gradient_in_the_state_belongs_to_the_place(name):
    energy, sampler = gaussian(), with_steps(SAMPLERS[name]())
    state = sampler.init(energy, starts(50))
    for _ in range(3):
        state, _ = sampler.step(energy, state, generator=generator())
        assert_close(state.e, energy(state.x).detach())
        if state.grad is not None:
            assert_close(state.grad, energy.grad(state.x))


def test_same_seed_same_draws(name):
    drawn = [
        run_chains(
            SAMPLERS[name](),
            gaussian(),
            starts(8),
            n_draws=5,
            n_warmup=30,
            generator=generator(seed),
        ).draws
        for seed in (0, 0, 1)
    ]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_global_random_state_and_settings_are_untouched(name):
    def state():
        return (
            torch.get_rng_state().tolist(),
            np.random.get_state()[1].tolist(),  # noqa: NPY002
            random.getstate(),
            torch.is_grad_enabled(),
            torch.get_default_dtype(),
        )

    before = state()
    run_chains(
        SAMPLERS[name](),
        gaussian(),
        starts(8),
        n_draws=3,
        n_warmup=20,
        generator=generator(),
    )
    assert state() == before


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_is_kept(name, dtype):
    x = starts(8, dtype=dtype)
    chains = run_chains(
        SAMPLERS[name](),
        gaussian(dtype),
        x,
        n_draws=3,
        n_warmup=20,
        generator=generator(),
    )
    assert chains.draws.dtype == dtype
    assert chains.energies.dtype == dtype


def test_repr_is_the_call_and_clone_keeps_the_parameters(name):
    sampler = SAMPLERS[name](2.0)
    again = clone(sampler)
    assert repr(again) == repr(sampler)
    assert again is not sampler
    made = eval(repr(sampler), vars(skebm.samplers) | vars(skebm.energies))
    assert repr(made) == repr(sampler)
    assert made.temperature == again.temperature == 2.0
    params = sampler.get_params()
    assert sampler.set_params(**params).get_params() == params


def test_pickled_sampler_draws_the_same(name):
    sampler = with_steps(SAMPLERS[name]())
    energy, drawn = gaussian(), []
    for kernel in (sampler, pickle.loads(pickle.dumps(sampler)), clone(sampler)):
        state = kernel.init(energy, starts())
        state, _ = kernel.step(energy, state, generator=generator())
        drawn.append(state.x)
    assert torch.equal(drawn[0], drawn[1])
    assert torch.equal(drawn[0], drawn[2])


def test_one_chain_at_an_impossible_place_does_not_move_the_others(name):
    """Momentum and accept-reject belong to a row, never to the batch."""
    energy, sampler = gaussian(), with_steps(SAMPLERS[name]())
    outcomes = []
    for place in (0.0, 1e6, float("nan")):
        x = starts(32)
        x[5] = place
        state = sampler.init(energy, x)
        state, info = sampler.step(energy, state, generator=generator())
        others = torch.arange(32) != 5
        outcomes.append((state.x[others], info.acceptance[others], state.e[others]))
    for first, second, third in zip(*outcomes, strict=True):
        assert_close(first, second, rtol=1e-12, atol=1e-12)
        assert_close(first, third, rtol=1e-12, atol=1e-12)
        assert first.isfinite().all()


def test_hard_constraint_is_never_left(name):
    """A truncated Gaussian: +inf outside is rejected, or projected by Langevin."""
    box = Constrained(gaussian(), Box(low=0.0, high=None))
    chains = run_chains(
        SAMPLERS[name](),
        box,
        starts(64).abs(),
        n_draws=50,
        n_warmup=100,
        generator=generator(),
    )
    assert (chains.draws >= 0).all()
    assert chains.energies.isfinite().all()


@pytest.mark.parametrize("name", EXACT)
def test_truncated_gaussian_has_the_moments(name):
    """N(0, 1) above 1: mean phi(1) / (1 - Phi(1)) = 1.5251, variance 0.1991."""
    standard = Quadratic().build(1).double()
    tail = Constrained(standard, Box(low=1.0, high=None))
    sampler = SAMPLERS[name]()
    if name in ("independence", "cycle"):
        proposal = Quadratic().match(torch.ones(1).double(), torch.eye(1).double())
        sampler = Independence(proposal)
        sampler = Cycle(HMC(), sampler) if name == "cycle" else sampler
    x = 1 + starts(400, 1).abs()
    chains = run_chains(sampler, tail, x, n_draws=400, generator=generator())
    drawn = chains.draws.flatten()
    assert drawn.min() >= 1
    assert drawn.mean().item() == pytest.approx(1.52514, rel=0.02)
    assert drawn.var().item() == pytest.approx(0.19910, rel=0.02)


def test_start_without_finite_energy_is_refused(name):
    box = Constrained(gaussian(), Box(low=0.0, high=None))
    with pytest.raises(ValueError, match=r"1 of 8 chains start .* project the starts"):
        run_chains(
            SAMPLERS[name](),
            box,
            starts(8).abs() * torch.tensor([1.0] * 7 + [-1.0])[:, None],
            n_draws=1,
            generator=generator(),
        )


@pytest.mark.parametrize("name", EXACT)
def test_proposals_that_are_not_finite_are_rejected(name):
    class Torn(Quadratic):
        """NaN, +inf and -inf beside a Gaussian."""

        def forward(self, x):
            e = super().forward(x)
            e = torch.where(x[:, 0] > 1, torch.nan, e)
            e = torch.where(x[:, 1] > 1, -torch.inf, e)
            return torch.where(x[:, 1] < -1, torch.inf, e)

        def value_and_grad(self, x):
            return self(x).detach(), super().value_and_grad(x)[1]

    chains = run_chains(
        SAMPLERS[name](),
        Torn().build(2).double(),
        starts(64).clamp(-0.9, 0.9),
        n_draws=50,
        n_warmup=60,
        generator=generator(),
    )
    assert chains.energies.isfinite().all()
    assert (chains.draws[..., 0] <= 1).all()
    assert (chains.draws[..., 1].abs() <= 1).all()
    assert 0 < chains.acceptance < 1


@pytest.mark.parametrize("field", ["temperature", "step_size"])
@pytest.mark.parametrize("wrong", [0.0, -1.0, float("inf"), float("nan")])
def test_parameters_out_of_range_are_refused(name, field, wrong):
    sampler = SAMPLERS[name]()
    known = [k for k in sampler.get_params() if k.endswith(field)]
    if not known:
        return
    sampler.set_params(**dict.fromkeys(known, wrong))
    with pytest.raises(ValueError, match=f"needs {field} > 0 and finite; got"):
        run_chains(
            sampler, gaussian(), starts(), n_draws=1, n_warmup=0, generator=generator()
        )


@pytest.mark.parametrize("counts", [{"n_draws": 0}, {"thin": 0}, {"n_warmup": -1}])
def test_counts_out_of_range_are_refused(counts):
    with pytest.raises(ValueError, match="run_chains needs n_draws >= 1, thin >= 1"):
        run_chains(
            HMC(0.1),
            gaussian(),
            starts(),
            generator=generator(),
            **{"n_draws": 1} | counts,
        )


def test_thinning_keeps_every_other_state():
    def draws(n_draws, thin):
        return run_chains(
            HMC(0.5),
            gaussian(),
            starts(),
            n_draws=n_draws,
            n_warmup=0,
            thin=thin,
            generator=generator(),
        ).draws

    assert torch.equal(draws(6, 1)[1::2], draws(3, 2))


def test_device_has_the_same_law(name, device):
    sampler = SAMPLERS[name]()
    if name in ("independence", "cycle"):
        part = sampler if name == "independence" else sampler.second
        part.proposal.to(device)
    chains = run_chains(
        sampler,
        gaussian().to(device),
        starts(256).to(device),
        n_draws=200,
        generator=torch.Generator(device).manual_seed(0),
    )
    assert chains.draws.device.type == device.type
    assert_close(chains.draws.flatten(0, 1).mean(0).cpu(), MEAN, rtol=0, atol=0.1)
