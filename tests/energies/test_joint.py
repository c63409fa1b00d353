"""Joint energies of rows and labels: one function, two laws, by hand."""

import math

import pytest
import torch
from sklearn.base import clone
from torch.testing import assert_close

from skebm.energies import (
    MLP,
    ClassPatterns,
    Gaussians,
    JointNetwork,
    JointPatterns,
    JointTilted,
    OfLabel,
    Quadratic,
    Readout,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def rows(n, d=2, seed=0):
    return torch.randn(n, d, generator=generator(seed), dtype=torch.float64)


def labels(n, k, seed=0):
    return torch.randint(k, (n,), generator=generator(seed))


def one_hot(codes, k):
    return torch.nn.functional.one_hot(codes, k).double()


def stored(n=30, k=3, **params):
    return ClassPatterns(**params).store(rows(n), one_hot(labels(n, k), k))


def shaken(energy, d=2):
    energy.build(d, generator=generator()).double()
    with torch.no_grad():
        for weight in energy.parameters():
            if weight.requires_grad:
                weight += torch.randn(weight.shape, generator=generator(1))
    energy.network.temperature.fill_(1.7)
    return energy


def network(k=3):
    return JointNetwork(MLP((8,)), k)


JOINT = {
    "network": lambda: shaken(network()),
    "linear": lambda: shaken(JointNetwork(None, 3)),
    "tilted": lambda: shaken(JointTilted(Quadratic().build(2), network())),
    "patterns": lambda: shaken(JointPatterns(stored(), MLP((8,)))),
}


@pytest.fixture(params=sorted(JOINT))
def energy(request):
    return JOINT[request.param]()


def test_energy_is_minus_log_sum_exp_over_the_labels(energy):
    x = rows(9, seed=5)
    assert_close(
        energy(x), -(-energy.class_energies(x)).logsumexp(1), atol=1e-9, rtol=0
    )


def test_softmax_of_the_energies_is_the_law_of_the_label(energy):
    x = rows(9, seed=5)
    p = (-energy.class_energies(x)).softmax(1)
    expected = (energy.scores(x) / 1.7).softmax(1)
    assert_close(p, expected, atol=1e-9, rtol=0)
    assert_close(energy.log_proba(x).exp(), expected, atol=1e-9, rtol=0)


def test_temperature_leaves_the_energy_of_the_row(energy):
    x = rows(9, seed=5)
    e, p = energy(x), energy.log_proba(x)
    energy.network.temperature.fill_(0.4)
    assert_close(energy(x), e)
    assert (energy.log_proba(x) - p).abs().max() > 0.1


def test_network_at_temperature_one_has_one_head():
    """Trap: E(x, y) = -f_y(x) and E(x) = -logsumexp f(x), of the same logits f."""
    energy = JOINT["network"]()
    energy.network.temperature.fill_(1.0)
    x = rows(9)
    f = energy.logits(x)
    assert_close(energy.class_energies(x), -f)
    assert_close(energy(x), -f.logsumexp(1))
    assert [w.shape[0] for w in energy.network.last.parameters()] == [3, 3]


def test_tilted_adds_the_base():
    energy, x = JOINT["tilted"](), rows(9)
    base = -0.5 * x.square().sum(1) - math.log(2 * math.pi)
    assert_close(energy(x), -base + energy.tilt(x))


def test_label_energy_adds_up_to_the_energy_of_the_pair(energy):
    x = rows(9, seed=5)
    total = energy(x) + OfLabel(energy, 2)(x)
    assert_close(total, energy.class_energies(x)[:, 2])


def test_clone_drops_weights_and_keeps_parameters():
    fresh = clone(network())
    assert fresh.classes == 3
    assert fresh.backbone.hidden == (8,)


def test_patterns_are_a_mixture_of_gaussians():
    x, codes, w = rows(12), labels(12, 3), torch.linspace(1.0, 3.0, 12).double()
    energy = ClassPatterns(bandwidth=0.7).store(x, one_hot(codes, 3), w)
    query = rows(6, seed=3)
    covariance = 0.49 * torch.eye(2, dtype=torch.float64)
    for y in range(3):
        own = codes == y
        law = Gaussians().match(
            w[own] / w[own].sum(), x[own], covariance.expand(int(own.sum()), 2, 2)
        )
        expected = -law(query) + (w[own].sum() / w.sum()).log()
        assert_close(energy.log_joint(query)[:, y], expected, atol=1e-9, rtol=0)


def test_patterns_are_normalised():
    energy = stored(8, 2, bandwidth=0.5)
    line = torch.linspace(-7, 7, 500, dtype=torch.float64)
    grid = torch.cartesian_prod(line, line)
    cell = float(line[1] - line[0]) ** 2
    total = torch.logsumexp(-energy(grid), 0) + math.log(cell)
    assert abs(float(total)) < 1e-6
    assert energy.log_partition() == 0.0
    assert energy.log_partition(2.0) is None


def test_left_out_is_a_store_without_the_row():
    x, shares = rows(10), one_hot(labels(10, 2), 2)
    energy = ClassPatterns(bandwidth=0.6).store(x, shares)
    for i in range(10):
        others = torch.arange(10) != i
        rest = ClassPatterns(bandwidth=0.6).store(x[others], shares[others])
        expected = rest.log_joint(x[i : i + 1])[0] + math.log(9 / 10)
        assert_close(energy.left_out()[i], expected, atol=1e-9, rtol=0)
    assert_close(energy.left_out(7), energy.left_out()[7:])


def test_bandwidth_is_twice_that_of_highest_left_out_likelihood():
    energy = stored(60, 2)
    h = float(energy.width) / 2

    def left_out(width):
        given = stored(60, 2, bandwidth=width)
        return float(given.left_out().logsumexp(1).mean())

    assert left_out(h) > max(left_out(0.97 * h), left_out(1.03 * h))


def test_equal_patterns_keep_a_width():
    x = torch.zeros(6, 2, dtype=torch.float64)
    energy = ClassPatterns().store(x, one_hot(labels(6, 2), 2))
    assert float(energy.width) == pytest.approx(0.05)
    assert energy(x).isfinite().all()


def test_extended_patterns_are_all_patterns():
    x, shares = rows(20), one_hot(labels(20, 2), 2)
    weights = torch.linspace(0.5, 2.0, 20).double()
    whole = ClassPatterns().store(x, shares, weights)
    parts = ClassPatterns().store(x[:12], shares[:12], weights[:12])
    parts.extend(x[12:], shares[12:], weights[12:])
    query = rows(5, seed=2)
    assert_close(parts.log_joint(query), whole.log_joint(query))


def test_class_without_patterns_is_far_and_finite():
    shares = one_hot(torch.zeros(5, dtype=torch.long), 2)
    b = ClassPatterns(bandwidth=1.0).store(rows(5), shares).log_joint(rows(3))
    assert_close(b[:, 1], b[:, 0] - 1e4)


def test_draws_of_patterns_have_their_moments():
    energy = stored(15, 3, bandwidth=0.5)
    drawn = energy.sample(200_000, generator=generator())
    x = energy.patterns
    assert_close(drawn.mean(0), x.mean(0), atol=0.01, rtol=0)
    covariance = torch.cov(x.T, correction=0) + 0.25 * torch.eye(2)
    assert_close(torch.cov(drawn.T), covariance, atol=0.02, rtol=0)


def test_images_are_compared_by_shape():
    """Brightness, contrast and a small shift change a row less than another shape."""
    x = torch.zeros(2, 28, 28, dtype=torch.float64)
    x[0, 6:22, 13:15] = 1.0
    x[1, 13:15, 6:22] = 1.0
    flat = x.flatten(1)
    energy = ClassPatterns(0.1, image_shape=(28, 28)).store(
        flat, one_hot(labels(2, 2), 2)
    )
    brighter = 0.3 + 0.5 * flat[:1]
    shifted = x[:1].roll(1, 2).flatten(1)
    middle = 0.5 * (flat[:1] + flat[1:])
    assert_close(energy(brighter), energy(flat[:1]))
    assert energy(shifted) < energy(middle)
    assert energy.log_partition() is None
    with pytest.raises(ValueError, match="Leave image_shape out to draw"):
        energy.sample(1, generator=generator())


def test_bad_bandwidth_is_refused():
    with pytest.raises(ValueError, match="Got bandwidth=0"):
        stored(bandwidth=0)


class Wide:
    def __call__(self, n_features):
        return torch.nn.Unflatten(1, (n_features, 1))


def test_features_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"Got output of shape \(2, 3, 1\)"):
        Readout(Wide()).build(3)


def test_readout_has_the_features_of_the_module():
    energy = Readout(Doubled()).build(3)
    x = rows(4, 3).float()
    assert_close(energy.features(x), 2 * x)
    assert energy.n_outputs == 3


class Doubled:
    def __call__(self, n_features):
        return Twice()


class Twice(torch.nn.Module):
    def forward(self, x):
        return 2 * x
