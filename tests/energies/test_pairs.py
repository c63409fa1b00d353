"""Similarity: the diagonal of its table, its range, its copies."""

import pickle

import torch
from sklearn.base import clone
from torch.testing import assert_close

from skebm.energies import Similarity
from tests.energies.machines import generator


def test_pairs_are_the_diagonal_of_the_table():
    energy = Similarity(5, (8,), 4, 0.5).build(6, generator=generator()).double()
    x = torch.randn(9, 6, generator=generator(), dtype=torch.float64)
    table = energy.table(*x.chunk(2, 1))
    assert_close(energy(x), table.diagonal(), atol=1e-12, rtol=0)
    assert table.abs().max() <= 2 + 1e-12
    own = torch.cat([x[:, :3], x[:, :3]], 1)
    assert_close(energy(own), torch.full((9,), -2.0).double(), atol=1e-12, rtol=0)
    assert energy.represent(x[:, :3]).shape == (9, 5)
    assert torch.all(energy.represent(x[:, :3]) >= 0)


def test_values_clone_print_and_pickle():
    energy = Similarity(5, (8,), 4).build(6, generator=generator())
    x = torch.randn(9, 6, generator=generator())
    again = pickle.loads(pickle.dumps(energy))
    assert torch.equal(again(x), energy(x))
    assert repr(clone(energy)) == repr(energy)
    assert not clone(energy).state_dict()
