"""A tilted base: the density ratio, the reach, and moments in closed form."""

import math

import pytest
import torch
from sklearn.base import clone
from sklearn.mixture import GaussianMixture
from torch.testing import assert_close

from skebm.energies import MLP, Energy, Frozen, Gaussians, Quadratic, Tilted


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed=0):
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


class Slope(Energy):
    """E(x) = -a'x: tilts N(m, S) to N(m + S a, S)."""

    def __init__(self, a):
        super().__init__()
        self.a = a

    def forward(self, x):
        return -(x @ x.new_tensor(self.a))


def mixture_of_rows():
    """A fitted GaussianMixture of two groups of rows, and its energy."""
    x = torch.cat([randn(600, 2) - 3, 0.5 * randn(200, 2, seed=1) + 3])
    fitted = GaussianMixture(2, random_state=0).fit(x.numpy())
    tensors = [fitted.weights_, fitted.means_, fitted.covariances_]
    return fitted, Gaussians().match(*map(torch.from_numpy, tensors))


def test_energy_is_that_of_the_base_plus_the_tilt():
    base = Quadratic().match(randn(2), 2 * torch.eye(2, dtype=torch.float64))
    x = randn(9, 2)
    e = Tilted(base, Slope([0.3, -1.0]))(x)
    assert_close(
        e, base(x) + base.log_partition() - x @ torch.tensor([0.3, -1.0]).double()
    )


def test_exponential_tilt_of_a_fitted_mixture_moves_its_moments():
    """b(x) exp(a'x) has weights w_k exp(a'm_k + a'S_k a / 2), means m_k + S_k a."""
    fitted, base = mixture_of_rows()
    a = torch.tensor([0.4, -0.1], dtype=torch.float64)
    tilted = Tilted(base, Slope(a.tolist()))
    s = torch.from_numpy(fitted.covariances_)
    m, w = torch.from_numpy(fitted.means_), torch.from_numpy(fitted.weights_)
    log_w = w.log() + m @ a + 0.5 * torch.einsum("i,kij,j->k", a, s, a)
    mean = log_w.softmax(0) @ (m + s @ a)
    x = tilted.sample_base(400_000, generator=generator())
    weights = (-tilted.correction(x)).softmax(0)
    assert_close(weights @ x, mean, rtol=0.02, atol=0.02)
    log_z = float((-tilted.correction(x)).logsumexp(0)) - math.log(len(x))
    assert log_z == pytest.approx(float(log_w.logsumexp(0)), abs=0.01)


def test_the_tilt_is_constant_beyond_its_reach_and_the_base_is_not():
    base = Quadratic().build(2).double()
    tilted = Tilted(base, Slope([1.0, 0.0]), reach=3.0)
    x = torch.tensor([[3.0, 0.0], [9.0, 0.0], [-9.0, 0.0]], dtype=torch.float64)
    assert_close(tilted.correction(x), torch.tensor([-3.0, -3.0, 3.0]).double())
    assert_close(tilted(x)[1] - tilted(x)[0], base(x)[1] - base(x)[0])


def test_only_the_tilt_learns():
    tilted = Tilted(Quadratic().build(2), MLP((8,))).build(2, generator=generator())
    learns = {name for name, p in tilted.named_parameters() if p.requires_grad}
    assert learns == {n for n, _ in tilted.named_parameters() if n.startswith("tilt.")}


def test_an_untrained_tilt_leaves_the_base_nearly_as_it_is():
    base = Quadratic().build(2)
    tilted = Tilted(base, MLP((8,))).build(2, generator=generator())
    x = randn(50, 2).float()
    e = tilted(x) - base(x) - base.log_partition()
    assert e.std() < 0.05


def test_a_base_without_a_normaliser_is_refused():
    x = torch.zeros(1, 2)
    tilted = Tilted(MLP((4,)).build(2, generator=generator()), Quadratic().build(2))
    with pytest.raises(ValueError, match="needs a base with a known log Z"):
        tilted(x)
    with pytest.raises(TypeError, match="has no sample"):
        tilted.sample_base(3, generator=generator())


def test_clone_keeps_a_frozen_base_and_drops_the_tilt():
    base = Frozen(mixture_of_rows()[1])
    tilted = Tilted(base, MLP((4,)), reach=2.0).build(2, generator=generator())
    fresh = clone(tilted)
    assert repr(fresh) == repr(tilted)
    assert not fresh.tilt.state_dict()
    x = randn(9, 2)
    assert_close(fresh.base(x), base(x))
    drawn = fresh.sample_base(3, generator=generator())
    assert_close(drawn, tilted.sample_base(3, generator=generator()))
