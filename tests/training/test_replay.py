"""A replayed update is the eager one, also where sizes of batches alternate."""

import pytest
import torch
from torch.testing import assert_close

from skebm import BernoulliRBM
from skebm.energies import RBM, GaussianUnits
from skebm.objectives import NoiseContrastive, RBMLikelihood
from skebm.training.descent import AdamW, Momentum
from skebm.training.learner import Learner
from skebm.training.replay import ReplayedUpdate

KINDS = {
    "adamw": lambda w, **k: AdamW(w, [], betas=(0.9, 0.99), **k),
    "momentum": lambda w, **k: Momentum(w, [], momentum=0.9, **k),
}


def generator(seed=0, device="cpu"):
    return torch.Generator(device).manual_seed(seed)


def bits(n=50, d=8):
    return (torch.rand(n, d, generator=generator(1)) < 0.3).float()


def replayed(move, generator):
    """Return what a graph does without one: the function itself, run again."""
    return move


def trained(kind, chains, capture):
    """Return numbers of three epochs, weights and average; batches of 17 and 16."""
    rbm, x, source = RBM(4).build(8, generator=generator(2)), bits(), generator()
    objective = RBMLikelihood(chains=chains, n_chains=20, n_levels=3)
    state = objective.init(rbm, x, generator=source)
    weights = list(rbm.parameters())
    descent = KINDS[kind](weights, weight_decay=0.1, clip_norm=1.0, ema=0.9)
    learner = Learner(rbm, objective, state, descent, x, 17, source)
    if capture:
        learner._update = ReplayedUpdate(learner._step, source, capture)
    numbers = [learner.epoch(3 * i, lambda t: 0.2 / (1 + t)) for i in range(3)]
    return numbers, weights, descent.average


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("chains", ["persistent", "data", "tempered"])
def test_a_replay_is_the_eager_update(kind, chains):
    plain, other = (trained(kind, chains, capture) for capture in (None, replayed))
    for expected, found in zip(plain[0], other[0], strict=True):
        assert found == pytest.approx(expected, rel=1e-5)
    assert_close(other[1:], plain[1:], rtol=1e-5, atol=1e-7)


def test_what_is_replayable():
    x, rbm = bits(), RBM(4).build(8)
    assert RBMLikelihood().is_replayable(rbm, x)
    assert not RBMLikelihood().is_replayable(rbm, x.where(x > 0, torch.nan))
    reals = RBM(4, GaussianUnits()).build(8)
    assert not RBMLikelihood().is_replayable(reals, x)
    assert not NoiseContrastive().is_replayable(rbm, x)


@pytest.mark.gpu
def test_a_graph_learns_as_the_cpu_does():
    x = bits(2000).numpy()
    fits = [
        BernoulliRBM(4, random_state=0, device=device).fit(x)
        for device in ("cpu", "cuda", "cuda")
    ]
    cpu, gpu, again = (fit.score(x) for fit in fits)
    assert gpu == pytest.approx(cpu, abs=0.05)
    assert gpu == again
