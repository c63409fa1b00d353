"""Perceptron energies against their formulas and their Lipschitz bounds."""

import copy
import pickle

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.special import expit
from sklearn.base import clone
from torch.testing import assert_close

from skebm.energies import MLP, ResidualMLP
from skebm.energies.networks import (
    ACTIVATIONS,
    SpectralLinear,
    activation_named,
    linear,
)

LARGEST_SLOPE = {
    "silu": 1.09984,
    "softplus": 1.0,
    "gelu": 1.12890,
    "tanh": 1.0,
    "elu": 1.0,
    "relu": 1.0,
}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def rows(n=200, d=3, seed=1):
    return torch.randn(n, d, generator=generator(seed), dtype=torch.float64)


def steep(energy, d=3, factor=5.0):
    """Build with weights far from the origin, so that bounds are put to the test."""
    energy.build(d, generator=generator()).double()
    with torch.no_grad():
        for weight in energy.parameters():
            weight.normal_(generator=generator(len(weight))).mul_(factor)
    return energy


def slopes(energy, x):
    return energy.grad(x).norm(dim=1)


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_largest_slopes_of_the_activations(name):
    line = torch.linspace(-6, 6, 120_001, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(activation_named(name)(line).sum(), line)
    assert float(slope.abs().max()) == pytest.approx(LARGEST_SLOPE[name], abs=3e-3)
    assert slope.abs().max() <= LARGEST_SLOPE[name] + 1e-5


def test_mlp_equals_the_formula():
    energy, x = steep(MLP(hidden=(5, 4)), factor=1.0), rows(20)
    weights = [weight.detach().numpy() for weight in energy.parameters()]
    h = x.numpy()
    for W, b in zip(weights[:-2:2], weights[1:-2:2], strict=True):
        h = h @ W.T + b
        h = h * expit(h)
    expected = h @ weights[-2][0] + weights[-1][0]
    assert_allclose(energy(x).detach(), expected, rtol=1e-12, atol=1e-12)


def test_residual_mlp_equals_the_formula():
    energy, x = steep(ResidualMLP(4, 2, "tanh"), factor=1.0), rows(20)
    weights = [weight.detach().numpy() for weight in energy.parameters()]
    pairs = list(zip(weights[::2], weights[1::2], strict=True))
    h = x.numpy() @ pairs[0][0].T + pairs[0][1]
    for (W, b), (V, c) in zip(pairs[1:-1:2], pairs[2:-1:2], strict=True):
        h = h + np.tanh(h @ W.T + b) @ V.T + c
    expected = np.tanh(h) @ pairs[-1][0][0] + pairs[-1][1][0]
    assert len(pairs) == 6
    assert_allclose(energy(x).detach(), expected, rtol=1e-12, atol=1e-12)


def test_without_hidden_layers_the_energy_is_linear():
    energy, x = MLP(hidden=()).build(3, generator=generator()).double(), rows()
    gradient = energy.grad(x)
    assert_close(gradient, gradient[:1].expand_as(gradient))
    assert ResidualMLP(4, 0).build(3)(rows().float()).shape == (200,)


@pytest.mark.parametrize("scale", [1.0, 0.01])
def test_initial_weights_are_uniform_up_to_their_bounds(scale):
    layer = linear(6, 4000, generator=generator(), scale=scale)
    bound = scale * 6**-0.5
    for values in (layer.weight, layer.bias):
        assert values.abs().max().item() == pytest.approx(bound, rel=1e-2)
        assert values.std().item() == pytest.approx(bound / 3**0.5, rel=3e-2)


@pytest.mark.parametrize("make", [MLP, ResidualMLP])
@pytest.mark.parametrize("spectral_norm", [False, True])
def test_energy_starts_near_a_constant(make, spectral_norm):
    energy = make(spectral_norm=spectral_norm).build(10, generator=generator())
    assert energy(rows(500, 10).float()).std() < 0.05


@pytest.mark.parametrize("make", [MLP, ResidualMLP])
def test_weights_depend_on_the_generator_alone(make):
    before = torch.get_rng_state()
    first, same, other = (
        make().build(4, generator=generator(seed))(rows(9, 4).float())
        for seed in (0, 0, 1)
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert torch.equal(make().build(4)(rows(9, 4).float()), first)


@pytest.mark.parametrize("make", [MLP, ResidualMLP])
def test_building_again_makes_new_weights(make):
    energy = make().build(4, generator=generator(1))
    again = energy.build(2, generator=generator())
    assert again is energy
    x = rows(9, 2).float()
    assert torch.equal(energy(x), make().build(2, generator=generator())(x))


def test_layers_do_not_share_their_draws():
    weights = [w for w in MLP((8, 8)).build(8).parameters() if w.shape == (8, 8)]
    assert len(weights) == 2
    assert not torch.equal(*weights)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("make", [MLP, ResidualMLP])
def test_dtype_follows_rows_and_weights(make, dtype):
    energy = make().build(3).to(dtype)
    assert energy(rows().to(dtype)).dtype == dtype


@pytest.mark.parametrize("name", ["silu", "softplus", "gelu", "tanh"])
@pytest.mark.parametrize("spectral_norm", [False, True])
def test_second_derivatives_reach_the_weights(name, spectral_norm):
    energy = MLP((8, 8), name, spectral_norm).build(3, generator=generator()).double()
    x = rows(20).requires_grad_(True)
    (gradient,) = torch.autograd.grad(energy(x).sum(), x, create_graph=True)
    gradient.square().sum().backward()
    first = next(energy.parameters())
    assert (first.grad != 0).any()
    numeric, step = torch.empty(3, dtype=torch.float64), 1e-5
    for j in range(3):
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                first[0, j] += sign * step
            ends.append(energy.grad(x).square().sum())
            with torch.no_grad():
                first[0, j] -= sign * step
        numeric[j] = (ends[0] - ends[1]) / (2 * step)
    assert_close(first.grad[0], numeric, rtol=1e-5, atol=1e-9)


def test_spectral_layer_divides_by_the_largest_singular_value():
    layer = SpectralLinear(5, 7).double()
    W = 3 * rows(7, 5)
    layer.weight.data, layer.bias.data = W, torch.zeros(7).double()
    expected = W.numpy() / np.linalg.norm(W, 2)
    x = rows(9, 5)
    assert_allclose(layer(x).detach(), x.numpy() @ expected.T, rtol=1e-12, atol=1e-12)


def test_spectral_layer_keeps_weights_that_stretch_nothing():
    layer = SpectralLinear(5, 7).double()
    W = rows(7, 5)
    layer.weight.data = 0.99 * W / torch.linalg.matrix_norm(W, 2)
    x = rows(9, 5)
    assert_close(layer(x), x @ layer.weight.T + layer.bias)


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
@pytest.mark.parametrize("hidden", [(), (16,), (32, 16, 8)])
def test_spectral_norm_bounds_the_slope_by_the_product_over_layers(hidden, name):
    x = torch.cat([rows(), 0.1 * rows(), 10 * rows()])
    bound = LARGEST_SLOPE[name] ** len(hidden)
    normed = steep(MLP(hidden, name, spectral_norm=True))
    assert slopes(normed, x).max() <= bound + 1e-12
    e, shifted = normed(x), normed(x.flip(0))
    assert ((e - shifted).abs() <= bound * (x - x.flip(0)).norm(dim=1) + 1e-9).all()
    free = steep(MLP(hidden, name))
    assert slopes(free, x).max() > 3 * bound


def test_a_linear_energy_reaches_the_bound():
    assert_close(
        slopes(steep(MLP((), spectral_norm=True)), rows()), torch.ones(200).double()
    )


def test_the_bound_is_not_met_by_halving():
    """Aligned weights make every layer stretch by exactly one."""
    energy = MLP((4, 4), "relu", spectral_norm=True).build(4).double()
    with torch.no_grad():
        for layer in energy.network[::2]:
            layer.weight.zero_()
            layer.weight[0, 0], layer.bias[:] = 7.0, 0.0
    x = rows(9, 4).abs()
    assert_close(energy(x), x[:, 0])


@pytest.mark.parametrize("name", ["relu", "silu"])
def test_spectral_norm_bounds_the_slope_of_a_residual_network(name):
    c = LARGEST_SLOPE[name]
    normed = steep(ResidualMLP(16, 3, name, spectral_norm=True))
    assert slopes(normed, rows()).max() <= c * (1 + c) ** 3
    assert slopes(steep(ResidualMLP(16, 3, name)), rows()).max() > c * (1 + c) ** 3


@pytest.mark.parametrize("make", [MLP, ResidualMLP])
def test_normed_networks_copy_bit_by_bit(make):
    energy, x = steep(make(spectral_norm=True)), rows()
    e = energy(x)
    assert torch.equal(energy.eval()(x), e)
    assert torch.equal(energy(x), e)
    assert torch.equal(copy.deepcopy(energy)(x), e)
    assert torch.equal(pickle.loads(pickle.dumps(energy))(x), e)
    other = clone(energy).build(3, generator=generator(5)).double()
    assert not torch.equal(other(x), e)
    other.load_state_dict(energy.state_dict())
    assert torch.equal(other(x), e)
    plain = make().build(3)
    assert list(plain.state_dict()) == list(energy.state_dict())


def test_unknown_activation_names_the_known_ones():
    with pytest.raises(ValueError, match=r"Got activation='swish'.*'silu'"):
        MLP(activation="swish").build(2)


@pytest.mark.parametrize("hidden", [(0,), (8, -1)])
def test_empty_layers_are_refused(hidden):
    with pytest.raises(ValueError, match="expected every width >= 1"):
        MLP(hidden=hidden).build(2)


def test_weights_live_on_the_device_of_the_generator(device):
    energy = MLP(hidden=(8,)).build(2, generator=torch.Generator(device).manual_seed(0))
    assert next(energy.parameters()).device.type == device
    assert energy(torch.zeros(3, 2, device=device)).device.type == device
