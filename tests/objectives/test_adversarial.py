"""The generator: its density, its two players, and what they agree on."""

import math

import pytest
import torch
from torch.testing import assert_close

from skebm.energies import Quadratic
from skebm.energies.perceptrons import MLP
from skebm.objectives import Adversarial


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def shaken(d=3, n_layers=3):
    """Return a flow with random weights, in float64."""
    x = torch.randn(100, d, generator=generator(), dtype=torch.float64)
    objective = Adversarial(n_layers=n_layers, n_hidden=8)
    flow = objective.init(None, x, generator=generator())
    with torch.no_grad():
        for weight in flow.parameters():
            weight += 0.1 * torch.empty_like(weight).normal_(generator=generator(3))
    return flow


@pytest.mark.parametrize(("d", "n_layers"), [(1, 3), (2, 2), (3, 3), (4, 0)])
def test_density_of_the_generator_is_exact(d, n_layers):
    """-log q(x) = -log N(z) + log |dx/dz| with the Jacobian of each row."""
    flow = shaken(d, n_layers)
    x, surprise = flow(6, generator=generator(5))
    z = torch.empty(6, d).double().normal_(generator=generator(5))
    mean, lower = flow.affine()
    for row in range(6):

        def through(one, row=row):
            y = one[None]
            for coupling in flow.couplings:
                y, _ = coupling(y)
            return (mean + y @ lower.T)[0]

        jacobian = torch.autograd.functional.jacobian(through, z[row])
        assert_close(through(z[row]), x[row])
        expected = 0.5 * z[row] @ z[row] + 0.5 * d * math.log(2 * math.pi)
        expected = expected + torch.linalg.slogdet(jacobian).logabsdet
        assert surprise[row].item() == pytest.approx(expected.item(), abs=1e-10)


def test_generator_starts_at_the_moments_of_the_rows(rows):
    flow = Adversarial().init(None, rows, generator=generator())
    with torch.no_grad():
        x, surprise = flow(100_000, generator=generator(1))
    assert_close(x.mean(0), rows.mean(0), rtol=0, atol=0.02)
    assert_close(x.T.cov(), rows.T.cov(), rtol=0, atol=0.04)
    gaussian = Quadratic().match(rows.mean(0), rows.T.cov(correction=0))
    expected = gaussian(x) + gaussian.log_partition()
    assert_close(surprise, expected.detach(), rtol=0, atol=1e-2)


def test_each_player_has_its_own_gradient():
    """The energy's is the gap's; the generator's is that of KL(q | exp(-E))."""
    energy = MLP(hidden=(8,)).build(3, generator=generator(2)).double()
    flow, x = shaken(), torch.randn(50, 3, generator=generator()).double()
    value = Adversarial()(energy, x, flow, generator=generator(4)).value
    own, other = list(energy.parameters()), list(flow.parameters())
    got = torch.autograd.grad(value, [*own, *other], materialize_grads=True)
    drawn, surprise = flow(50, generator=generator(4))
    gap = energy(x).mean() - energy(drawn.detach()).mean()
    divergence = energy(drawn).mean() - surprise.mean()
    wanted = (
        *torch.autograd.grad(gap, own, materialize_grads=True),
        *torch.autograd.grad(divergence, other, materialize_grads=True),
    )
    assert_close(got, wanted, rtol=1e-9, atol=1e-12)
    assert_close(value, gap)


def test_bound_on_log_partition_is_below_it_and_tight_at_the_model(law, rows):
    x = rows.double()
    objective = Adversarial(n_layers=0)
    flow = objective.init(law, x, generator=generator())
    loss = objective(law, x, flow, generator=generator())
    bound = loss.metrics["log_partition_bound"].item()
    assert bound == pytest.approx(law.log_partition(), abs=0.01)
    wide = Quadratic().match(law.mean.detach(), 4 * torch.eye(5).double())
    bound = objective(wide, x, flow, generator=generator()).metrics
    assert bound["log_partition_bound"].item() < wide.log_partition() - 0.5


@pytest.mark.parametrize(("n_layers", "rate"), [(0, 0.02), (2, 0.01)])
def test_variance_of_a_gaussian(law, rows, descend, precision, n_layers, rate):
    energy = Quadratic().build(5)
    objective = Adversarial(n_layers=n_layers, n_hidden=32)
    # The generator starts twice as wide as the rows: it has to follow.
    state = objective.init(energy, 2 * rows, generator=generator())
    descend(objective, energy, rows, batch_size=500, rate=rate, state=state)
    variance, truth = (precision(e).inverse().diagonal() for e in (energy, law))
    assert float((variance / truth - 1).abs().max()) < 0.1
    with torch.no_grad():
        drawn, _ = state(50_000, generator=generator())
    assert_close(drawn.double().var(0), truth, rtol=0.1, atol=0)


def test_one_column_has_a_gaussian_generator():
    x = 3 + 2 * torch.randn(100, 1, generator=generator())
    flow = Adversarial(n_layers=4).init(None, x, generator=generator())
    assert len(flow.couplings) == 0
