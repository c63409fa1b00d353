"""Networks that the user brings: shapes, seeds, and the global random state."""

import pickle
import random

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch import nn
from torch.testing import assert_close

from skebm.energies import MLP, Module


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def rows(n=9, d=3):
    return torch.randn(n, d, generator=generator(1))


def column(n_features):
    """Returns (n, 1)."""
    return nn.Sequential(nn.Linear(n_features, 8), nn.SiLU(), nn.Linear(8, 1))


def flat(n_features):
    """Returns (n,)."""
    return nn.Sequential(column(n_features), nn.Flatten(0))


def lazy(n_features):
    return nn.Sequential(nn.LazyLinear(8), nn.Tanh(), nn.LazyLinear(1))


@pytest.mark.parametrize("factory", [column, flat, lazy])
@pytest.mark.parametrize("n", [1, 9])
def test_energy_is_the_output_of_the_network(factory, n):
    energy, x = Module(factory).build(3, generator=generator()), rows(n)
    assert energy(x).shape == (n,)
    assert torch.equal(energy(x), energy.network(x).reshape(n))


@pytest.mark.parametrize("factory", [column, lazy])
def test_weights_depend_on_the_seed_alone(factory):
    drawn = []
    for seed, disturbance in ((0, 1), (0, 2), (1, 1)):
        with torch.random.fork_rng([]):
            torch.manual_seed(disturbance)
            energy = Module(factory).build(3, generator=generator(seed))
        drawn.append(energy(rows()))
    first, same, other = drawn
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_without_a_generator_the_seed_is_zero():
    first, same = (Module(column).build(3)(rows()) for _ in range(2))
    assert torch.equal(first, same)
    expected = Module(column).build(3, generator=generator(0))(rows())
    assert torch.equal(first, expected)


@pytest.mark.parametrize("factory", [column, lazy])
def test_global_random_states_stay_untouched(factory):
    def states():
        numpy_state = np.random.get_state()  # noqa: NPY002
        return (
            torch.get_rng_state().tolist(),
            numpy_state[1].tolist(),
            random.getstate(),
        )

    before = states()
    Module(factory).build(3, generator=generator())
    assert states() == before


def test_a_factory_that_fails_leaves_the_state_too():
    before = torch.get_rng_state()

    def factory(n_features):
        raise RuntimeError("no network")

    with pytest.raises(RuntimeError, match="no network"):
        Module(factory).build(3)
    assert torch.equal(torch.get_rng_state(), before)


def test_parts_of_a_sum_draw_different_weights():
    energy = (Module(column) + Module(column)).build(3, generator=generator())
    assert not torch.equal(energy.left(rows()), energy.right(rows()))


@pytest.mark.parametrize(
    ("factory", "shape"),
    [
        (lambda d: nn.Linear(d, 2), r"\(2, 2\)"),
        (lambda d: nn.Identity(), r"\(2, 3\)"),
        (lambda d: nn.Sequential(flat(d), nn.Linear(2, 1)), r"\(1,\)"),
        (lambda d: nn.Unflatten(1, (d, 1)), r"\(2, 3, 1\)"),
    ],
)
def test_wrong_output_shape_is_refused_when_built(factory, shape):
    message = rf"Got output of shape {shape}.*expected \(2,\) or \(2, 1\).*Linear"
    with pytest.raises(ValueError, match=message):
        Module(factory).build(3)


def test_output_that_mixes_rows_up_later_is_refused_when_called():
    class Pairs(nn.Module):
        def forward(self, x):
            return x[:2].sum(1)

    energy = Module(lambda d: Pairs()).build(3)
    with pytest.raises(ValueError, match=r"Got output of shape \(2,\).*\(9,\)"):
        energy(rows())


@pytest.mark.parametrize("wrong", [None, torch.sum, nn.Linear])
def test_the_factory_returns_a_module(wrong):
    with pytest.raises(ValueError, match=r"expected a torch\.nn\.Module"):
        Module(lambda d: wrong).build(3)


def test_networks_in_double_precision():
    energy = Module(lambda d: column(d).double()).build(3)
    assert energy(rows().double()).dtype == torch.float64


def test_networks_without_weights():
    class Norm(nn.Module):
        def forward(self, x):
            return x.norm(dim=1)

    assert_close(Module(lambda d: Norm()).build(3)(rows()), rows().norm(dim=1))


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_of_the_network_stays_and_dropout_draws_nothing(training):
    def factory(n_features):
        return nn.Sequential(nn.Dropout(), column(n_features)).train(training)

    before = torch.get_rng_state()
    energy = Module(factory).build(3)
    assert energy.network.training == training
    assert torch.equal(torch.get_rng_state(), before)
    energy.eval()
    assert torch.equal(energy(rows()), energy(rows()))


def test_the_first_call_leaves_no_trace_in_the_network():
    def factory(n_features):
        return nn.Sequential(nn.BatchNorm1d(n_features), column(n_features))

    energy = Module(factory).build(3)
    assert energy.network[0].num_batches_tracked == 0


def test_weights_learn_and_are_dropped_by_clone():
    energy = Module(column).build(3, generator=generator())
    assert all(weight.requires_grad for weight in energy.parameters())
    energy(rows()).sum().backward()
    assert all((weight.grad != 0).any() for weight in energy.parameters())
    again = clone(energy)
    assert again.factory is energy.factory
    assert not list(again.parameters())


def test_functions_of_a_module_pickle():
    energy = Module(column).build(3, generator=generator())
    assert torch.equal(pickle.loads(pickle.dumps(energy))(rows()), energy(rows()))


def test_energies_of_the_library_enter_too():
    energy = Module(lambda d: MLP((8,)).build(d)).build(3)
    assert torch.equal(energy(rows()), MLP((8,)).build(3)(rows()))


def test_weights_live_on_the_device_of_the_generator(device):
    state = torch.get_rng_state()
    if device == "cuda":
        cuda_state = torch.cuda.get_rng_state()
    source = torch.Generator(device).manual_seed(0)
    energy = Module(column).build(3, generator=source)
    assert energy(rows().to(device)).device.type == device
    assert torch.equal(torch.get_rng_state(), state)
    if device == "cuda":
        assert torch.equal(torch.cuda.get_rng_state(), cuda_state)
