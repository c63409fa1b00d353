"""The exact gradient of an RBM against autograd of the enumerated likelihood."""

import pytest
import torch
from torch.testing import assert_close

from skebm.energies import RBM, GaussianUnits
from skebm.objectives import ExactLikelihood
from skebm.partition import LayerSum
from tests.energies.machines import (
    WIDTHS,
    generator,
    law,
    listed,
    machine,
    randomized,
    table_of,
)

NAN = float("nan")


def gradients(rbm, x, *, center=False, **settings):
    """Return the gradients that the objective sets, by name."""
    objective = ExactLikelihood(**settings)
    state = objective.init(rbm, x, generator=generator()).double()
    if not center:
        state.visible_offset.zero_()
        state.hidden_offset.zero_()
    loss = objective(rbm, x, state.eval(), generator=generator())
    return loss, {name: w.grad.clone() for name, w in rbm.named_parameters()}


def autograd(rbm, x, kind):
    """Return loss and gradients of the mean negative log-likelihood, by listing v."""
    rows, cell = listed(kind)
    loss = rbm(x).mean() + (-rbm(rows)).logsumexp(0) + cell
    names, weights = zip(*rbm.named_parameters(), strict=True)
    return loss, dict(zip(names, torch.autograd.grad(loss, weights), strict=True))


@pytest.mark.parametrize("kind", sorted(WIDTHS))
def test_gradient_is_that_of_the_enumerated_likelihood(kind):
    rbm = machine(kind, scale=0.6)
    x = table_of(rbm, 30)
    expected_loss, expected = autograd(rbm, x, kind)
    loss, found = gradients(rbm, x, weight_decay=0.0)
    assert_close(loss.value, expected_loss.detach(), rtol=0, atol=1e-6)
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        assert_close(gradient, expected[name], rtol=0, atol=1e-6)


def test_gradient_with_a_floor_on_the_variance():
    """s^2 = floor + exp(log_variance): the floor takes a part of the slope away."""
    rbm = randomized(RBM(4, GaussianUnits(least_variance=0.4)).build(1), 0.6)
    x = table_of(rbm, 30)
    assert float(rbm.layer.variance.detach()) > 0.4
    _, expected = autograd(rbm, x, "gaussian")
    _, found = gradients(rbm, x, weight_decay=0.0)
    for name, gradient in found.items():
        assert_close(gradient, expected[name], rtol=0, atol=1e-6)


def test_centred_gradient_is_the_plain_one_in_other_coordinates():
    """With b' = b + W'm, c' = c + W u: dW' = dW - m db' - dc u', db = db' - dW''m."""
    rbm = machine("codes", scale=0.6)
    x = table_of(rbm, 30)
    _, plain = gradients(rbm, x, weight_decay=0.0)
    objective = ExactLikelihood(weight_decay=0.0)
    state = objective.init(rbm, x, generator=generator()).double().eval()
    objective(rbm, x, state, generator=generator())
    u, m = state.visible_offset, state.hidden_offset
    dW = (
        plain["weight"]
        - torch.outer(m, plain["visible_bias"])
        - torch.outer(plain["hidden_bias"], u)
    )
    assert_close(rbm.weight.grad, dW, rtol=0, atol=1e-9)
    assert_close(rbm.visible_bias.grad, plain["visible_bias"] - m @ dW)
    assert_close(rbm.hidden_bias.grad, plain["hidden_bias"] - dW @ u)


def test_decay_pulls_the_weights_towards_zero():
    rbm = machine("bits", scale=0.6)
    x = table_of(rbm, 50)
    _, free = gradients(rbm, x, weight_decay=0.0)
    _, fixed = gradients(rbm, x, weight_decay=0.3)
    _, auto = gradients(rbm, x)
    W = rbm.weight.detach()
    assert_close(fixed["weight"] - free["weight"], 0.3 * W)
    by = 1 / (50 * (float(W.square().mean()) + 1))
    assert_close(auto["weight"] - free["weight"], by * W, rtol=1e-5, atol=1e-9)
    assert_close(fixed["visible_bias"], free["visible_bias"])


@pytest.mark.parametrize("kind", ["bits", "codes"])
def test_gradient_vanishes_at_the_law_of_the_rows(kind):
    """Rows in the proportions of the model: no gradient is left."""
    rbm = machine(kind, n_hidden=2, scale=0.5)
    rows, _ = listed(kind)
    counts = (law(rbm, rows) * 20_000).round().long()
    _, found = gradients(rbm, rows.repeat_interleave(counts, 0), weight_decay=0.0)
    assert max(float(g.abs().max()) for g in found.values()) < 1e-3


def test_criterion_is_the_negative_log_likelihood():
    rbm = machine("mixed", scale=0.6)
    x, objective = table_of(rbm, 20), ExactLikelihood()
    state = objective.init(rbm, x, generator=generator())
    with torch.no_grad():
        expected = float(rbm(x).mean()) + LayerSum()(rbm).value
    found = objective.criterion(rbm, x, state, generator=generator())
    assert found == pytest.approx(expected, abs=1e-9)


def test_missing_entries_are_drawn_and_draws_renewed():
    rbm = machine("codes", scale=0.6)
    x, objective = table_of(rbm, 40), ExactLikelihood(n_chains=7)
    x[::3, 1] = NAN
    state = objective.init(rbm, x, generator=generator()).double()
    before = state.chains.clone()
    loss = objective(rbm, x, state, generator=generator())
    assert torch.isfinite(loss.value)
    assert all(w.grad.isfinite().all() for w in rbm.parameters())
    assert state.chains.shape == (7, 3)
    assert (state.chains != before).any()
    missing = objective.criterion(rbm, x, state, generator=generator())
    assert missing == missing


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_chains": 0}, "Got n_chains=0"),
        ({"weight_decay": -1.0}, "Got weight_decay=-1.0"),
        ({"weight_decay": "some"}, "Got weight_decay='some'"),
    ],
)
def test_bad_parameters_are_refused(settings, message):
    rbm = machine("bits")
    with pytest.raises(ValueError, match=message):
        ExactLikelihood(**settings).init(rbm, table_of(rbm, 5), generator=generator())


def test_large_layers_are_refused():
    rbm = machine("bits", n_hidden=17)
    with pytest.raises(ValueError, match="17 hidden bits, but ExactLikelihood lists"):
        ExactLikelihood().init(rbm, table_of(rbm, 5), generator=generator())
