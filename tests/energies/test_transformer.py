"""The transformer energy: gradients, attention, and which column is which."""

import itertools

import pytest
import torch
from torch.nn import functional
from torch.testing import assert_close

from skebm.energies import Transformer
from skebm.energies.transformer import AttentionBlock


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def rows(n=20, d=4, seed=1):
    return torch.randn(n, d, generator=generator(seed), dtype=torch.float64)


def built(d=4, width=8, n_heads=2, n_layers=2, **settings):
    energy = Transformer(width, n_heads, n_layers, **settings)
    energy.build(d, generator=generator()).double()
    with torch.no_grad():
        energy.last.weight *= 100
    return energy


def finite_differences(energy, x, step=1e-6):
    shifts = step * torch.eye(x.shape[1], dtype=x.dtype)
    with torch.no_grad():
        both = [(energy(x + s) - energy(x - s)) / (2 * step) for s in shifts]
    return torch.stack(both, 1)


@pytest.mark.parametrize("n_layers", [1, 3])
def test_gradient_check(n_layers):
    energy, x = built(n_layers=n_layers), rows()
    gradient = energy.grad(x)
    assert gradient.abs().min(0).values.max() > 1e-3
    assert_close(gradient, finite_differences(energy, x), rtol=1e-4, atol=1e-6)


def test_second_derivatives_exist_and_are_right():
    energy, x = built(), rows(5)
    for row in x:
        hessian = torch.autograd.functional.hessian(lambda r: energy(r[None])[0], row)
        columns = [
            (energy.grad((row + s)[None]) - energy.grad((row - s)[None]))[0] / 2e-5
            for s in 1e-5 * torch.eye(4, dtype=torch.float64)
        ]
        assert_close(hessian, torch.stack(columns), rtol=1e-4, atol=1e-6)
        assert_close(hessian, hessian.T)


def test_the_energy_knows_which_column_is_which():
    energy, x = built(), rows()
    for first, second in itertools.combinations(range(4), 2):
        order = list(range(4))
        order[first], order[second] = second, first
        assert (energy(x[:, order]) - energy(x)).abs().median() > 1e-2


def test_only_the_embeddings_tell_the_columns_apart():
    energy, x = built(), rows()
    with torch.no_grad():
        for embedding in (energy.slope, energy.intercept):
            embedding[:] = embedding[0].clone()
    for order in itertools.permutations(range(4)):
        assert_close(energy(x[:, order]), energy(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["slope", "intercept"])
def test_each_embedding_alone_tells_them_apart(name):
    energy, x = built(), rows()
    with torch.no_grad():
        embedding = getattr(energy, name)
        embedding[:] = embedding[0].clone()
    assert (energy(x.flip(1)) - energy(x)).abs().median() > 1e-2


def test_columns_meet_in_attention_alone():
    def mixed_derivative(energy):
        row = rows(1)[0]
        return torch.autograd.functional.hessian(lambda r: energy(r[None])[0], row)[
            0, 3
        ]

    assert abs(mixed_derivative(built(n_layers=0))) < 1e-14
    assert abs(mixed_derivative(built(n_layers=1))) > 1e-4


def test_attention_equals_the_one_of_torch():
    block = AttentionBlock(8, 2, "silu", generator()).double()
    h = rows(30, 8).reshape(6, 5, 8)
    q, k, v = (
        part.reshape(6, 5, 2, 4).transpose(1, 2)
        for part in block.queries_keys_values(h).split(8, dim=2)
    )
    expected = functional.scaled_dot_product_attention(q, k, v)
    expected = expected.transpose(1, 2).reshape(6, 5, 8)
    assert_close(block._attend(h), expected, rtol=1e-6, atol=1e-6)
    half = h + block.mix(block._attend(block.attention_norm(h)))
    assert_close(block(h), half + block.network(block.network_norm(half)))


def test_energy_is_bounded():
    energy, x = built(), rows()
    bound = 8**0.5 * energy.last.weight.norm() + energy.last.bias.abs()
    for size in (1.0, 1e3, 1e6):
        assert (energy(size * x).abs() <= bound).all()


def test_one_column_is_enough():
    assert built(d=1)(rows(5, 1)).shape == (5,)


def test_energy_starts_near_a_constant():
    energy = Transformer().build(4, generator=generator())
    assert energy(rows(500).float()).std() < 0.05


def test_weights_depend_on_the_generator_alone():
    before = torch.get_rng_state()
    first, same, other = (
        Transformer().build(4, generator=generator(seed))(rows().float())
        for seed in (0, 0, 1)
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(("width", "n_heads"), [(10, 4), (8, 0), (0, 1), (-8, 4)])
def test_width_is_a_multiple_of_the_heads(width, n_heads):
    with pytest.raises(ValueError, match="expected width to be a multiple of n_heads"):
        Transformer(width, n_heads).build(3)
