"""The classification RBM against sums over its hidden bits and all its rows."""

import pytest
import torch
from torch.testing import assert_close

from skebm.energies import ClassRBM
from skebm.partition import LayerSum
from tests.energies.machines import bits, randomized, states

D, K, H = 3, 3, 4


@pytest.fixture
def rbm():
    return randomized(ClassRBM(H, K).build(D + 1), 1.0)


def by_hand(rbm, x, y):
    """Return log sum_h exp(-E(x, y, h)) with E written out, shape ()."""
    W, U = rbm.weight[:, :D], rbm.weight[:, D:]
    b, d = rbm.visible_bias[:D], rbm.visible_bias[D:]
    terms = [
        b @ x + d[y] + rbm.hidden_bias @ h + h @ W @ x + h @ U[:, y] for h in bits(H)
    ]
    return torch.stack(terms).logsumexp(0)


def test_label_given_row_is_a_sum_over_hidden_bits(rbm):
    with torch.no_grad():
        x = bits(D)
        joint = torch.stack(
            [torch.stack([by_hand(rbm, row, y) for y in range(K)]) for row in x]
        )
        assert_close(
            rbm.class_fields(x).softmax(1), joint.softmax(1), atol=1e-9, rtol=0
        )
        assert_close(
            -(-rbm.class_energies(x)).logsumexp(1),
            -joint.logsumexp(1),
            atol=1e-9,
            rtol=0,
        )
        rows = torch.cat([x.repeat_interleave(K, 0), states(K).repeat(len(x), 1)], 1)
        assert_close(rbm(rows), -joint.flatten(), atol=1e-9, rtol=0)


def test_joint_law_sums_to_one(rbm):
    with torch.no_grad():
        total = (-rbm(states(2, 2, 2, K))).logsumexp(0)
        assert float(total) == pytest.approx(LayerSum()(rbm).value, abs=1e-9)
        assert_close((-rbm.class_energies(bits(D))).flatten().logsumexp(0), total)


def test_hidden_means_sum_the_label_out(rbm):
    with torch.no_grad():
        x = bits(D)
        p = torch.stack([by_hand(rbm, x[5], y) for y in range(K)]).softmax(0)
        given = [
            rbm.hidden_mean(torch.cat([x[5], torch.tensor([float(y)])])[None])[0]
            for y in range(K)
        ]
        expected = sum(q * h for q, h in zip(p, given, strict=True))
        assert_close(rbm.features(x)[5], expected, atol=1e-9, rtol=0)
