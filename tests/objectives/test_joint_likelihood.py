"""The joint likelihood against sums by hand and scikit-learn's classifier."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from torch.testing import assert_close

from skebm.energies import MLP, ClassPatterns, JointNetwork, JointPatterns, Quadratic
from skebm.objectives import JointLikelihood, NoiseContrastive, ScoreMatching
from skebm.trainer import Trainer


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def packed(x, codes, k=3, weights=None):
    targets = torch.nn.functional.one_hot(codes, k).to(x)
    return torch.cat([x, targets if weights is None else weights[:, None] * targets], 1)


def table(n=40, d=2, k=3):
    g = generator()
    x = torch.randn(n, d, generator=g, dtype=torch.float64)
    return x, torch.randint(k, (n,), generator=g)


def network(k=3, d=2):
    energy = JointNetwork(MLP((8,)), k).build(d, generator=generator()).double()
    with torch.no_grad():
        for weight in energy.parameters():
            weight += torch.randn(weight.shape, generator=generator(1))
    return energy


def value(objective, energy, rows, *, training=True):
    state = objective.init(energy, rows, generator=generator()).train(training)
    return objective(energy, rows, state, generator=generator()).value


def test_without_a_density_it_is_the_cross_entropy():
    energy, (x, codes) = network(), table()
    expected = torch.nn.functional.cross_entropy(energy.logits(x), codes)
    assert_close(value(JointLikelihood(), energy, packed(x, codes)), expected)


def test_noise_on_rows_is_the_mean_over_it():
    """Two linear scores: E log(1 + exp(-m - s u)), u normal, by Gauss-Hermite nodes."""
    energy = JointNetwork(None, 2).build(2, generator=generator()).double()
    with torch.no_grad():
        for weight in energy.parameters():
            weight += torch.randn(weight.shape, generator=generator(1))
    x, codes = torch.tensor([[0.3, -0.5]]).double(), torch.tensor([1])
    slope = energy.network.last.weight.detach().diff(dim=0).squeeze()
    margin = energy.logits(x).detach().diff(dim=1).item()
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    spread = 2.0 * float(slope.norm())
    expected = weights @ np.logaddexp(0, -margin - spread * nodes) / weights.sum()
    rows = packed(x.expand(200_000, 2), codes.expand(200_000), k=2)
    found = value(JointLikelihood(noise=2.0), energy, rows).detach()
    assert float(found) == pytest.approx(expected, rel=0.01)
    plain = value(JointLikelihood(), energy, rows).detach()
    judged = value(JointLikelihood(noise=2.0), energy, rows, training=False)
    assert_close(judged.detach(), plain)
    assert float(plain) != pytest.approx(expected, rel=0.05)


def test_weights_of_rows_are_factors():
    energy, (x, codes) = network(), table()
    w = torch.linspace(0.0, 2.0, 40).double()
    losses = torch.nn.functional.cross_entropy(
        energy.logits(x), codes, reduction="none"
    )
    found = value(JointLikelihood(), energy, packed(x, codes, weights=w))
    assert_close(found, (w * losses).mean())


def test_row_without_a_target_trains_the_energy_alone():
    energy, (x, codes) = network(), table()
    nothing = packed(x, codes, weights=torch.zeros(40).double())
    objective = JointLikelihood(ScoreMatching(), weight=0.7)
    expected = 0.7 * value(ScoreMatching(), energy, x)
    assert_close(value(objective, energy, nothing), expected)


def test_penalty_is_on_weights_and_not_on_intercepts():
    energy, (x, codes) = network(), table()
    rows = packed(x, codes)
    weights = [w for w in energy.parameters() if w.ndim == 2]
    penalty = 0.5 * 5.0 / 40 * sum(float(w.detach().square().sum()) for w in weights)
    plain = float(value(JointLikelihood(), energy, rows).detach())
    found = value(JointLikelihood(alpha=5.0), energy, rows).detach()
    assert float(found) == pytest.approx(plain + penalty)
    judged = value(JointLikelihood(alpha=5.0), energy, rows, training=False)
    assert float(judged.detach()) == pytest.approx(plain)


def test_linear_energy_is_logistic_regression():
    X, y = load_iris(return_X_y=True)
    z = (X - X.mean(0)) / X.std(0)
    energy = JointNetwork(None, 3).build(4)
    trainer = Trainer(
        max_iter=3000, batch_size=150, learning_rate=0.05, ema=0.0, n_warmup_steps=0
    )
    rows = packed(torch.from_numpy(z), torch.from_numpy(y)).float()
    trainer.run(energy, JointLikelihood(alpha=2.0), rows, generator=generator())
    exact = LogisticRegression(C=1 / 2.0, tol=1e-8, max_iter=10_000).fit(z, y)
    found = energy.network.last.weight.detach().numpy()
    assert np.abs(found - exact.coef_).max() < 1e-3


def test_patterns_read_what_is_given():
    x, codes = table()
    shares = torch.nn.functional.one_hot(codes, 3).double()
    energy = JointPatterns(ClassPatterns(0.5).store(x, shares)).build(2).double()
    targets = packed(x, codes)
    given = energy.patterns.left_out().log_softmax(1)
    rows = torch.cat([x, given, targets[:, 2:]], 1)
    found = value(JointLikelihood(n_given=3), energy, rows)
    s = 0.3 * given + energy.logits(x)
    assert_close(found, torch.nn.functional.cross_entropy(s, codes))
    itself = value(JointLikelihood(), energy, targets)
    assert (
        float(itself.detach()) < float(found.detach()) - 0.01
    )  # each row recognises its own copy


def test_criterion_is_the_mean_over_all_held_out_rows():
    energy, (x, codes) = network(), table(600)
    objective = JointLikelihood(NoiseContrastive(), alpha=1.0)
    rows = packed(x, codes)
    state = objective.init(energy, rows, generator=generator()).eval()
    found = objective.criterion(energy, rows, state, generator=generator())
    expected = torch.nn.functional.cross_entropy(energy.logits(x), codes)
    assert found == pytest.approx(float(expected.detach()))


@pytest.mark.parametrize("params", [{"weight": -1.0}, {"alpha": -1.0}, {"noise": -0.1}])
def test_negative_factors_are_refused(params):
    with pytest.raises(ValueError, match="expected numbers >= 0"):
        value(JointLikelihood(**params), network(), packed(*table()))


def test_other_energies_are_refused():
    with pytest.raises(TypeError, match="needs a JointEnergy, but got Quadratic"):
        value(JointLikelihood(), Quadratic().build(5), packed(*table()))
