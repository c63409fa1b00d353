"""Steps replayed from where their tensors lie are the eager steps."""

import pytest
import torch
from torch.testing import assert_close

from skebm.energies import MLP, Quadratic
from skebm.samplers import (
    HMC,
    MALA,
    ULA,
    Cycle,
    Independence,
    ParallelTempering,
    RandomWalk,
    run_chains,
)
from skebm.samplers.steps import GraphedSteps, Steps, steps_of

SAMPLERS = {
    "random_walk": RandomWalk(step_size=0.5),
    "ula": ULA(step_size=0.1),
    "mala": MALA(step_size=0.5),
    "hmc": HMC(step_size=0.5),
    "tempering": ParallelTempering(MALA(step_size=0.5), 4.0, 3),
    "cycle": Cycle(HMC(step_size=0.5), Independence(Quadratic().build(2))),
}


def generator(seed=0, device="cpu"):
    return torch.Generator(device).manual_seed(seed)


def replayed(move, generator):
    """Return what a graph does without one: the function itself, run again."""
    return move


def eager(name, energy):
    """Return the eager steps of eight chains, one of them done."""
    sampler = SAMPLERS[name]
    x = torch.randn(8, 2, generator=generator(1))
    with torch.no_grad():
        steps = Steps(sampler, energy, sampler.init(energy, x), generator())
        steps()
    return steps


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_steps_in_place_are_the_eager_steps(name):
    energy = MLP(hidden=(8,)).build(2, generator=generator(2))
    plain, copied = eager(name, energy), eager(name, energy)
    graphed = GraphedSteps(copied, replayed)
    x, first = graphed.state.x, plain.acceptance.clone()
    with torch.no_grad():
        for _ in range(5):
            plain()
            graphed()
            assert_close(graphed.state.x, plain.state.x, rtol=0, atol=0)
            assert_close(graphed.state.e, plain.state.e, rtol=0, atol=0)
    assert graphed.state.x is x
    assert_close(graphed.acceptance, plain.acceptance - first)


def test_no_graph_on_a_cpu():
    energy = Quadratic().build(2)
    state = HMC().init(energy, torch.zeros(3, 2))
    assert type(steps_of(HMC(0.5), energy, state, 100, generator())) is Steps


@pytest.mark.gpu
@pytest.mark.parametrize("name", sorted(set(SAMPLERS) - {"cycle", "ula"}))
def test_a_graph_samples_the_gaussian_with_the_same_bits_each_time(name):
    energy = Quadratic().build(2).to("cuda")
    x = torch.zeros(512, 2, device="cuda")

    def drawn(seed):
        source = generator(seed, "cuda")
        return run_chains(SAMPLERS[name], energy, x, n_draws=300, generator=source)

    one, again, other = (drawn(seed).draws for seed in (0, 0, 1))
    assert_close(one, again, rtol=0, atol=0)
    assert not torch.equal(one, other)
    late = one[150:].flatten(0, 1).cpu()
    assert_close(late.T.cov(), torch.eye(2), rtol=0, atol=0.05)


@pytest.mark.gpu
def test_a_graph_on_a_gpu_unless_a_step_asks_it_for_a_number():
    class Asking(Quadratic):
        """Reads a number from the device with every energy."""

        def forward(self, x):
            float(x.sum())
            return super().forward(x)

        def value_and_grad(self, x):
            float(x.sum())
            return super().value_and_grad(x)

    for energy, kind in ((Quadratic(), GraphedSteps), (Asking(), Steps)):
        energy.build(2).to("cuda")
        state = HMC(0.5).init(energy, torch.zeros(3, 2, device="cuda"))
        with torch.no_grad():
            steps = steps_of(HMC(0.5), energy, state, 100, generator(0, "cuda"))
            steps()
        assert type(steps) is kind
        assert steps.state.x.isfinite().all()
