"""Some columns held fixed: the joint energy over the others."""

import pytest
import torch
from torch.testing import assert_close

from skebm.energies import Conditioned, Gaussians


def joint():
    root = torch.randn(4, 4, generator=torch.Generator().manual_seed(0)).double()
    covariance = root @ root.T + torch.eye(4, dtype=torch.float64)
    mean = torch.arange(4, dtype=torch.float64)
    return Gaussians().match(torch.ones(1).double(), mean[None], covariance[None])


@pytest.mark.parametrize("columns", [(1, 2), (2, 1), (-2, -3)])
def test_given_columns_take_their_places(columns):
    values = (5.0, 7.0)
    u = torch.tensor([[1.0, 4.0]], dtype=torch.float64)
    x = Conditioned(joint(), columns, values).complete(u)
    expected = torch.tensor([[1.0, 0.0, 0.0, 4.0]], dtype=torch.float64)
    for column, value in zip(columns, values, strict=True):
        expected[0, column] = value
    assert_close(x, expected)


def test_energy_differences_are_those_of_the_conditional_density():
    energy, given = joint(), joint().condition([0, 3], [0.5, -1.0])
    fixed = Conditioned(energy, (0, 3), (0.5, -1.0))
    u = torch.randn(9, 2, generator=torch.Generator().manual_seed(1)).double()
    assert_close(fixed(u) - fixed(u)[0], given(u) - given(u)[0])
    assert_close(fixed.grad(u), given.grad(u))
