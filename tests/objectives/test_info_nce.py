"""InfoNCE against sums by hand, attention, and known mutual information."""

import math

import pytest
import torch
from torch.testing import assert_close

from skebm.energies import PairEnergy, Quadratic, Similarity
from skebm.objectives import FeatureCorruption, GaussianNoise, InfoNCE

exact = {"atol": 1e-10, "rtol": 0}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def pairs(n=12, d=3, seed=0):
    return torch.randn(n, 2 * d, generator=generator(seed), dtype=torch.float64)


def similarity(temperature=0.3, d=3):
    energy = Similarity(5, (8,), 4, temperature)
    return energy.build(2 * d, generator=generator()).double()


class Critic(PairEnergy):
    """E(x, x') = -a(x)'b(x') with polynomials a and b of each column."""

    def build(self, n_features, *, generator=None):
        n = n_features + 1
        start = torch.randn(2, n, n, generator=generator) / 100
        self.left, self.right = (torch.nn.Parameter(w) for w in start)
        return self

    def sides(self, x, x_other):
        def powers(x):
            return torch.cat([torch.ones_like(x[:, :1]), x, x.square()], 1)

        return powers(x) @ self.left, powers(x_other) @ self.right

    def table(self, left, right):
        a, b = self.sides(left, right)
        return -a @ b.T

    def forward(self, x):
        a, b = self.sides(*x.chunk(2, 1))
        return -(a * b).sum(1)


def by_hand(energy, x):
    """Return the loss, a pair at a time: -log softmax over the candidates."""
    left, right = x.chunk(2, 1)
    total = 0.0
    for i in range(len(x)):
        e = torch.stack(
            [energy(torch.cat([left[i], other])[None])[0] for other in right]
        )
        total = total - torch.log(torch.exp(-e[i]) / torch.exp(-e).sum())
    return total / len(x)


@pytest.mark.parametrize("energy", [similarity(), Critic().build(6).double()])
def test_loss_is_the_cross_entropy_of_the_conditional_model(energy):
    x = pairs()
    found = InfoNCE(symmetric=False)(energy, x, None, generator=generator())
    assert_close(found.value, by_hand(energy, x), **exact)
    swapped = torch.cat(x.chunk(2, 1)[::-1], 1)
    both = InfoNCE()(energy, x, None, generator=generator())
    if isinstance(energy, Similarity):
        expected = (by_hand(energy, x) + by_hand(energy, swapped)) / 2
        assert_close(both.value, expected, **exact)
    assert_close(both.metrics["bound"], math.log(12) - both.value.detach(), **exact)


@pytest.mark.parametrize("temperature", [0.01, 0.3, 5.0])
def test_bound_is_at_most_the_logarithm_of_the_candidates(temperature):
    x = pairs(50)
    x[:, 3:] = x[:, :3]  # partners are equal, as easy as it gets
    with torch.no_grad():
        loss = InfoNCE()(similarity(temperature), x, None, generator=generator())
        alone = InfoNCE()(similarity(), x[:1], None, generator=generator())
    assert float(loss.value) >= 0
    assert float(loss.metrics["bound"]) <= math.log(50)
    assert float(alone.value) == float(alone.metrics["bound"]) == 0.0


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_candidates_have_the_weights_of_attention(temperature):
    """softmax(-E) over the keys, E = -q'k / T, is softmax attention at T."""
    energy, x = similarity(temperature), pairs()
    left, right = x.chunk(2, 1)
    gibbs = (-energy.table(left, right)).softmax(1)
    values = torch.randn(12, 7, generator=generator(3), dtype=torch.float64)
    attention = torch.nn.functional.scaled_dot_product_attention(
        energy.embed(left), energy.embed(right), values, scale=1 / temperature
    )
    assert_close(gibbs @ values, attention, **exact)


@pytest.mark.parametrize(("rho", "d"), [(0.5, 1), (0.9, 1), (0.7, 3)])
def test_mutual_information_of_gaussians(rho, d, descend):
    """-d/2 log(1 - rho^2) nats, from pairs of correlated columns."""
    g = generator(1)
    x = torch.randn(20_000, 2 * d, generator=g)
    x[:, d:] = rho * x[:, :d] + math.sqrt(1 - rho**2) * x[:, d:]
    energy, objective = Critic().build(2 * d, generator=g), InfoNCE()
    state = descend(objective, energy, x[:16_000], batch_size=500, rate=0.03)
    with torch.no_grad():
        loss = objective.criterion(energy, x[16_000:], state, generator=g)
    # Held-out rows come in batches of 256 candidates, the last one of 160.
    bound = 3840 / 4000 * math.log(256) + 160 / 4000 * math.log(160) - loss
    assert bound == pytest.approx(-d / 2 * math.log(1 - rho**2), abs=0.1)


def test_independent_rows_have_no_information(descend):
    x = torch.randn(8000, 2, generator=generator(1))
    energy, objective = Critic().build(2, generator=generator()), InfoNCE()
    descend(objective, energy, x[:4000], batch_size=500)
    bound = objective(energy, x[4000:], None, generator=generator()).metrics["bound"]
    assert abs(float(bound)) < 0.05


def test_views_take_the_place_of_the_partners():
    x, energy = pairs(), similarity()
    seen = []

    def halved(x, generator):
        seen.append(x.clone())
        return x / 2

    factor = torch.tensor([1.0, 1.0, 1.0, 0.5, 0.5, 0.5]).double()
    found = InfoNCE(halved)(energy, x, None, generator=generator())
    assert len(seen) == 1
    assert torch.equal(seen[0], x[:, 3:])
    plain = InfoNCE()(energy, x * factor, None, generator=generator())
    assert_close(found.value, plain.value, **exact)


def test_corruption_draws_from_the_marginals():
    x = torch.stack([torch.arange(5000.0), -torch.arange(5000.0)], 1)
    view = FeatureCorruption(0.3)(x, generator())
    changed = view != x
    assert changed.double().mean(0).sub(0.3).abs().max() < 0.03
    both = float((changed[:, 0] & changed[:, 1]).double().mean())
    assert both == pytest.approx(0.09, abs=0.015)
    assert torch.all(view[:, 0] >= 0)
    assert torch.all(view[:, 1] <= 0)
    drawn = view[:, 0][changed[:, 0]]
    assert float(drawn.mean()) == pytest.approx(2499.5, abs=150)
    assert torch.equal(FeatureCorruption(0.3)(x, generator()), view)


def test_noise_has_its_size():
    x = torch.full((5000, 2), 7.0)
    view = GaussianNoise(0.2)(x, generator())
    assert view.mean(0).sub(7).abs().max() < 0.02
    assert view.std(0).sub(0.2).abs().max() < 0.02


def test_what_does_not_fit_is_told():
    with pytest.raises(TypeError, match="needs a PairEnergy, but got Quadratic"):
        InfoNCE()(Quadratic().build(6), pairs(), None, generator=generator())
    with pytest.raises(ValueError, match="even number of columns"):
        Similarity().build(5)
    with pytest.raises(ValueError, match=r"views of shape \(12, 2\).*\(12, 3\)"):
        InfoNCE(lambda x, g: x[:, :2])(similarity(), pairs(), None, generator=None)
    for share in (0.0, 1.5):
        with pytest.raises(ValueError, match=f"share={share}"):
            FeatureCorruption(share)(pairs(), generator())
    with pytest.raises(ValueError, match="sigma=0"):
        GaussianNoise(0.0)(pairs(), generator())
