"""The machine of ratings against sums over its hidden bits and its levels."""

import pytest
import torch
from torch.testing import assert_close

from skebm.energies import OrdinalRBM, RatedRows, Ratings
from tests.energies.machines import bits, randomized

NAN = float("nan")
K, D, H = 3, 4, 5


@pytest.fixture
def rbm():
    return randomized(OrdinalRBM(K, H).build(D), 1.0)


def by_hand(rbm, levels, rated):
    """Return log sum_h exp(-E(v, h)) of items -> level, given what counts as rated."""
    s = rbm.scores
    n = len(rated)
    terms = []
    for h in bits(H):
        fields = rbm.hidden_bias + sum(rbm.rated_weight[i] for i in rated) / n**0.5
        fields = fields + sum(s[k] * rbm.weight[i] for i, k in levels.items())
        terms.append(sum(rbm.level_bias[i, k] for i, k in levels.items()) + h @ fields)
    return torch.stack(terms).logsumexp(0)


def row(levels):
    """Return a row with NaN where unrated."""
    return torch.tensor([[float(levels.get(i, NAN)) for i in range(D)]]).double()


def test_scores_are_standardised(rbm):
    assert_close(rbm.scores.mean(), torch.tensor(0.0).double(), atol=1e-7, rtol=0)
    assert_close(rbm.scores.square().mean(), torch.tensor(1.0).double())
    assert OrdinalRBM(1, 2).build(2).scores.tolist() == [0.0]


def test_energy_is_a_sum_over_hidden_bits(rbm):
    with torch.no_grad():
        for levels in ({0: 2, 3: 0}, {1: 1}, {0: 0, 1: 2, 2: 1, 3: 2}):
            e = rbm(row(levels))[0]
            assert_close(e, -by_hand(rbm, levels, list(levels)), atol=1e-9, rtol=0)


def test_rows_share_weights_and_do_not_mix(rbm):
    with torch.no_grad():
        rows = torch.cat([row({0: 2, 3: 0}), row({1: 1}), row({2: 0})])
        alone = torch.cat([rbm(r[None]) for r in rows])
        assert_close(rbm(rows), alone)
        ratings = Ratings(*torch.tensor([[0, 0, 1, 2], [0, 3, 1, 2], [2, 0, 1, 0]]), 3)
        listed = RatedRows(rbm, ratings)
        places = torch.tensor([[2.0], [0.0], [2.0]])
        assert_close(listed(places), alone[[2, 0, 2]])


def test_a_further_rating_given_the_others_is_exact(rbm):
    """Against a sum over hidden bits, with the same items counted as rated."""
    with torch.no_grad():
        seen = {0: 2, 3: 0}
        ratings = Ratings(*torch.tensor([[0, 0], [0, 3], [2, 0]]), 1)
        fields = rbm.hidden_fields(ratings)
        got = rbm.level_fields(fields, torch.tensor([1])).softmax(1)[0]
        law = torch.stack([by_hand(rbm, seen | {1: k}, list(seen)) for k in range(K)])
        assert_close(got, law.softmax(0), atol=1e-9, rtol=0)
