"""The gradients of classification RBMs against autograd on enumerated losses."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from skebm.energies import RBM, ClassRBM
from skebm.objectives import ClassLikelihood, RBMLikelihood
from tests.energies.machines import generator, law, randomized, states

ALL = states(2, 2, 2, 3)
BITS = ALL[:, :3].unique(dim=0)


@pytest.fixture
def rbm():
    return randomized(ClassRBM(4, 3).build(4), 1.0)


@pytest.fixture
def batch():
    return ALL[torch.randint(len(ALL), (7,), generator=generator(1))]


def discriminative(rbm, batch):
    return nn.functional.cross_entropy(
        rbm.class_fields(batch[:, :-1]), batch[:, -1].long()
    )


def autograd(value, rbm):
    found = torch.autograd.grad(value, list(rbm.parameters()), allow_unused=True)
    pairs = zip(found, rbm.parameters(), strict=True)
    return torch.cat(
        [(torch.zeros_like(w) if g is None else g).ravel() for g, w in pairs]
    )


def flat(rbm):
    return torch.cat([w.grad.ravel() for w in rbm.parameters()])


def test_discriminative_gradient(rbm, batch):
    objective = ClassLikelihood(dropout=0.0)
    state = objective.init(rbm, batch, generator=generator())
    loss = objective(rbm, batch, state, generator=generator())
    value = discriminative(rbm, batch)
    assert_close(loss.value, value.detach())
    assert_close(flat(rbm), autograd(value, rbm), atol=1e-9, rtol=0)
    held_out = objective.criterion(rbm, batch, state, generator=generator())
    assert held_out == pytest.approx(float(value.detach()))


def test_hybrid_gradient(rbm, batch):
    """The generative share is linear in the law of the chains: averaged over all."""
    joint = RBMLikelihood(n_steps=0, n_chains=1, centered=False, weight_decay=0.0)
    objective, total = ClassLikelihood(0.3, 0.0, joint), 0.0
    for row, weight in zip(ALL, law(rbm, ALL), strict=True):
        state = objective.init(rbm, batch, generator=generator()).eval()
        state.joint.chains = row[None]
        for w in rbm.parameters():
            w.grad = None
        objective(rbm, batch, state, generator=generator())
        total = total + weight * flat(rbm)
    log_z = (-rbm(ALL)).logsumexp(0)
    value = discriminative(rbm, batch) + 0.3 * (rbm(batch).mean() + log_z)
    assert_close(total, autograd(value, rbm), atol=1e-9, rtol=0)


def test_dropout_is_unbiased_and_for_training_only(rbm, batch):
    objective = ClassLikelihood(dropout=0.5)
    state = objective.init(rbm, batch, generator=generator())
    g = generator(3)
    losses = [objective(rbm, batch, state, generator=g).value for _ in range(2)]
    assert losses[0] != losses[1]
    state.eval()
    assert_close(
        objective(rbm, batch, state, generator=g).value,
        discriminative(rbm, batch).detach(),
    )


def test_bfloat16_gradient_is_near(batch):
    rbm = randomized(ClassRBM(64, 3).build(4), 0.5).float()
    gradients = []
    for precision in ("float32", "bfloat16"):
        objective = ClassLikelihood(
            dropout=0.0, likelihood=RBMLikelihood(precision=precision)
        )
        state = objective.init(rbm, batch.float(), generator=generator())
        objective(rbm, batch.float(), state, generator=generator())
        gradients.append(flat(rbm))
    assert not torch.equal(*gradients)
    error = (gradients[1] - gradients[0]).norm() / gradients[0].norm()
    assert error < 0.02


def test_wrong_energies_and_parameters_are_refused(rbm, batch):
    with pytest.raises(TypeError, match="needs a ClassRBM, but got RBM"):
        ClassLikelihood().init(RBM(2).build(4), batch, generator=generator())
    for bad in (ClassLikelihood(-1.0), ClassLikelihood(dropout=1.0)):
        with pytest.raises(ValueError, match="expected generative_weight >= 0"):
            bad.init(rbm, batch, generator=generator())
