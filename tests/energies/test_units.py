"""Layers of units against the exponential family that defines them, by enumeration."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch.testing import assert_close

import skebm.energies
from skebm.energies import (
    BernoulliUnits,
    CategoricalUnits,
    GaussianUnits,
    MixedUnits,
)
from tests.energies.machines import WIDTHS, generator, listed, randomized, units

NAN = float("nan")


@pytest.fixture(params=sorted(WIDTHS))
def kind(request):
    return request.param


def layer_of(kind):
    n = WIDTHS[kind]
    return randomized(units(kind, n).build(n), 0.5)


def fields_of(layer, n=1, seed=1):
    return torch.randn(n, layer.n_statistics, generator=generator(seed)).double()


def log_weights(layer, v, fields):
    """Return -A(v) + phi(v)'f."""
    with torch.no_grad():
        return layer.statistics(v) @ fields[0] - layer.self_energies(v).sum(1)


def test_normaliser_and_means_are_those_of_all_states(kind):
    layer = layer_of(kind)
    fields, (v, cell) = fields_of(layer), listed(kind)
    log_p = log_weights(layer, v, fields)
    with torch.no_grad():
        psi, mean = layer.log_normalizers(fields), layer.mean(fields)
    assert psi.shape == (1, layer.n_features)
    assert_close(psi.sum(), log_p.logsumexp(0) + cell, rtol=0, atol=1e-9)
    expected = log_p.softmax(0) @ layer.statistics(v).detach()
    assert_close(mean[0], expected, rtol=0, atol=1e-9)


def test_normaliser_of_a_column_is_its_own(kind):
    """Another field in one column changes the Psi of that column alone."""
    layer = layer_of(kind)
    fields = fields_of(layer, 1).repeat(2, 1)
    fields[1, -1] += 1.0
    with torch.no_grad():
        change = layer.log_normalizers(fields).diff(dim=0)[0] != 0
    assert change.tolist() == [False] * (layer.n_features - 1) + [True]


def test_guess_is_the_mean_of_numbers_and_the_likeliest_code(kind):
    layer = layer_of(kind)
    fields, (v, _) = fields_of(layer), listed(kind)
    p = log_weights(layer, v, fields).softmax(0)
    expected = p @ v
    sizes = {"codes": [2, 4, 3], "mixed": [0, 0, 3]}.get(kind, [])
    for j, size in enumerate(sizes):
        if size:
            codes = v[:, j].long()
            expected[j] = torch.zeros(size).double().index_add_(0, codes, p).argmax()
    with torch.no_grad():
        assert_close(layer.predict(fields)[0], expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_have_the_moments_at_any_temperature(kind, temperature):
    """Means and covariances of phi and v^2 under exp((-A + phi'f) / T)."""
    layer = layer_of(kind)
    fields, (v, _) = fields_of(layer), listed(kind)
    n = 100_000
    with torch.no_grad():
        drawn = layer.sample(
            fields.expand(n, -1), temperature=temperature, generator=generator(2)
        )

        def moments(rows, p):
            z = torch.cat([layer.statistics(rows), rows.square()], 1)
            mean = p @ z
            return mean, (z - mean).T @ (p[:, None] * (z - mean))

        p = (log_weights(layer, v, fields) / temperature).softmax(0)
        expected = moments(v, p)
        got = moments(drawn, torch.full((n,), 1 / n).double())
    sd = expected[1].diagonal().sqrt()
    error = (got[0] - expected[0]).abs() / sd.clamp(min=1e-12)
    assert error.max() < 5 / n**0.5
    scale = torch.outer(sd, sd)
    assert_close(got[1] / scale, expected[1] / scale, rtol=0, atol=0.05)
    assert drawn.shape == (n, layer.n_features)


def test_gaussian_draws_are_normal():
    """v | f ~ N(f, T s^2): the whole distribution."""
    layer = layer_of("gaussian")
    fields, temperature = fields_of(layer), 1.7
    with torch.no_grad():
        drawn = layer.sample(
            fields.expand(100_000, -1), temperature=temperature, generator=generator()
        )
    sd = (temperature * layer.log_variance.exp()).sqrt().detach()
    u = torch.special.ndtr((drawn - fields) / sd).flatten().sort().values
    ranks = (torch.arange(100_000) + 0.5) / 100_000
    assert (u - ranks).abs().max() < 0.006  # Kolmogorov, p = 0.001


def test_every_row_has_its_own_temperature(kind):
    layer, n = layer_of(kind), 500
    fields = fields_of(layer, n)
    temperature = torch.linspace(0.2, 3.0, n).double()[:, None]
    with torch.no_grad():
        drawn = layer.sample(fields, temperature=temperature, generator=generator())
        for i in (0, n - 1):
            same = float(temperature[i])
            again = layer.sample(fields, temperature=same, generator=generator())
            assert torch.equal(drawn[i], again[i])
            assert not torch.equal(drawn, again)


def test_draws_leave_fields_alone_and_come_from_the_generator(kind):
    layer, before = layer_of(kind), torch.get_rng_state()
    fields = fields_of(layer, 2000)
    kept = fields.clone()
    with torch.no_grad():
        first, same, other = (
            layer.sample(fields, generator=generator(seed)) for seed in (0, 0, 1)
        )
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert torch.equal(fields, kept)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_is_kept(kind, dtype):
    layer = layer_of(kind).to(dtype)
    fields = fields_of(layer, 3).to(dtype)
    v = layer.sample(fields, generator=generator())
    results = [
        v,
        layer.statistics(v),
        layer.self_energies(v),
        layer.log_normalizers(fields),
        layer.mean(fields),
        layer.predict(fields),
        layer.base_fields(v),
    ]
    assert {result.dtype for result in results} == {dtype}


def test_base_fields_give_the_frequencies_of_the_rows():
    """Half a row is added to each value; NaN entries are left out."""
    v = torch.tensor([[1.0, 0.0], [1.0, NAN], [0.0, 0.0], [NAN, 0.0]]).double()
    bits = BernoulliUnits().build(2)
    expected = torch.tensor([2.5 / 4, 0.5 / 4]).double()
    assert_close(bits.mean(bits.base_fields(v)[None])[0], expected)
    codes = CategoricalUnits([2, 3]).build(2)
    expected = torch.tensor([1.5 / 4, 2.5 / 4, 3.5 / 4.5, 0.5 / 4.5, 0.5 / 4.5])
    assert_close(codes.mean(codes.base_fields(v)[None])[0], expected.double())


def test_matched_gaussian_has_the_moments_of_the_rows():
    v = torch.tensor([[1.0, 5.0], [3.0, NAN], [8.0, 7.0]]).double()
    layer = GaussianUnits().build(2).double()
    fields = layer.match(v).base_fields(v)
    assert_close(fields, torch.tensor([4.0, 6.0]).double())
    assert_close(layer.log_variance.exp(), torch.tensor([26 / 3, 1.0]).double())
    assert layer.log_variance.requires_grad


def test_matched_parts_are_matched_columns():
    layer = MixedUnits([(GaussianUnits(), 2), (CategoricalUnits(3), 1)])
    layer.build(3).double()
    v = torch.tensor([[1.0, 5.0, 2.0], [3.0, NAN, 0.0], [8.0, 7.0, NAN]]).double()
    fields = layer.match(v).base_fields(v)
    frequencies = torch.tensor([1.5, 0.5, 1.5]).double() / 3.5
    expected = torch.cat([torch.tensor([4.0, 6.0]).double(), frequencies.log()])
    assert_close(fields, expected)
    variances = layer.parts[0][0].log_variance.exp()
    assert_close(variances, torch.tensor([26 / 3, 1.0]).double())


def test_gradients_are_those_of_autograd(kind):
    layer, n = layer_of(kind), 7
    fields = fields_of(layer, n)
    v = layer.sample(fields_of(layer, n, seed=5), generator=generator()).detach()
    value = (layer.statistics(v) * fields).sum(1) - layer.self_energies(v).sum(1)
    own = list(layer.parameters())
    expected = torch.autograd.grad(value.mean(), own) if own else []
    got = layer.gradients(v, fields)
    assert len(got) == len(own) == {"gaussian": 1, "mixed": 1}.get(kind, 0)
    assert_close(got, list(expected), rtol=1e-10, atol=1e-12)


def test_states_count_the_values_of_every_column():
    assert list(BernoulliUnits().build(3).states()) == [2, 2, 2]
    assert list(CategoricalUnits(4).build(2).states()) == [4, 4]
    assert GaussianUnits().build(2).states() is None
    finite = MixedUnits([(CategoricalUnits([3, 5]), 2), (BernoulliUnits(), 1)])
    assert list(finite.build(3).states()) == [3, 5, 2]
    assert units("mixed", 3).build(3).states() is None


def test_statistics_of_codes_are_one_hot_and_zero_beyond_k():
    layer = CategoricalUnits([2, 3]).build(2)
    v = torch.tensor([[1.0, 2.0], [0.0, 0.0], [2.0, 3.0], [NAN, 1.0]])
    assert layer.statistics(v).tolist() == [
        [0, 1, 0, 0, 1],
        [1, 0, 1, 0, 0],
        [0, 0, 0, 0, 0],
        [0, 0, 0, 1, 0],
    ]


@pytest.mark.parametrize("given", [1, [2, 1], [2, 3, 4], [2]])
def test_wrong_numbers_of_categories_are_refused(given):
    with pytest.raises(ValueError, match=r"Got n_categories=.* for 2 columns"):
        CategoricalUnits(given).build(2)


@pytest.mark.parametrize("given", [np.int64(3), np.array([3, 3]), (3, 3)], ids=repr)
def test_numbers_of_categories_may_be_numpy_numbers(given):
    assert CategoricalUnits(given).build(2).n_statistics == 6


def test_parts_take_every_column():
    with pytest.raises(ValueError, match=r"Got 4 columns, but the parts .* take 3"):
        units("mixed", 3).build(4)


def test_value_clones_prints_and_pickles(kind):
    layer = layer_of(kind)
    again = clone(layer)
    assert repr(again) == repr(layer)
    assert not list(again.state_dict())
    assert repr(eval(repr(layer), vars(skebm.energies))) == repr(layer)
    fields = fields_of(layer, 9)
    loaded = pickle.loads(pickle.dumps(layer))
    assert torch.equal(loaded.log_normalizers(fields), layer.log_normalizers(fields))


def test_parts_that_are_set_are_the_parts_that_learn():
    layer = MixedUnits([(BernoulliUnits(), 2)])
    layer.set_params(parts=[(GaussianUnits(), 2)]).build(2)
    assert [p.shape for p in layer.parameters()] == [(2,)]
    assert layer.double().parts[0][0].log_variance.dtype == torch.float64
