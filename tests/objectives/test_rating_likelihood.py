"""The likelihood of each rating given the others, against loops over the ratings."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from skebm.energies import OrdinalRBM, Quadratic, RatedRows, Ratings
from skebm.objectives import RatingLikelihood
from tests.energies.machines import generator, randomized

RATINGS = Ratings(*torch.tensor([[0, 0, 0, 1, 2], [0, 1, 3, 2, 3], [2, 0, 1, 1, 0]]), 3)


@pytest.fixture
def rows():
    return RatedRows(randomized(OrdinalRBM(3, 4).build(4), 1.0), RATINGS)


def by_hand(rows, places):
    """Return the mean of -log p(v_i | others, what is rated), by differences of E."""
    machine, losses = rows.machine, []
    for place in places:
        own = [e for e in range(5) if int(RATINGS.row[e]) == place]
        for e in own:
            energies = []
            for k in range(3):
                level = RATINGS.level.clone()
                level[e] = k
                table = Ratings(RATINGS.row[own] * 0, RATINGS.item[own], level[own], 1)
                energies.append(machine.energies(table)[0])
            losses.append(-(-torch.stack(energies)).log_softmax(0)[RATINGS.level[e]])
    return torch.stack(losses).mean()


def test_value_and_gradient(rows):
    x, objective = torch.tensor([[0.0], [2.0]]), RatingLikelihood(0.0, 2.0)
    loss = objective(rows, x, nn.Module(), generator=generator())
    penalty = 2.0 * rows.machine.weight.square().sum() / 5
    assert_close(loss.value, by_hand(rows, [0, 2]) + penalty)
    assert_close(loss.metrics["nll"], by_hand(rows, [0, 2]).detach())
    weights = list(rows.parameters())
    found = torch.autograd.grad(loss.value, weights)
    expected = torch.autograd.grad(by_hand(rows, [0, 2]) + penalty, weights)
    for one, two in zip(found, expected, strict=True):
        assert_close(one, two)


def test_dropout_hides_ratings_in_training_only(rows):
    x, state = torch.tensor([[0.0], [1.0]]), nn.Module()
    all_seen = RatingLikelihood(0.0)(rows, x, state, generator=generator()).value
    objective = RatingLikelihood(0.6)
    values = {
        float(objective(rows, x, state, generator=generator(i)).value.detach())
        for i in range(12)
    }
    # Three ratings of user 0 matter to each other: eight patterns at most.
    assert 2 < len(values) <= 8
    assert_close(
        objective(rows, x, state.eval(), generator=generator()).value, all_seen
    )


def test_other_energies_are_refused():
    with pytest.raises(TypeError, match="needs RatedRows, but got Quadratic"):
        RatingLikelihood()(
            Quadratic(), torch.zeros(1, 1), nn.Module(), generator=generator()
        )
