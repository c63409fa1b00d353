"""The penalty whose strength is learned with the weights."""

import pytest
import torch

from skebm.objectives.penalty import adaptive_decay


@pytest.mark.parametrize(
    ("spread", "n", "floor", "expected"),
    [
        (0.4, 100, 0.1, 0.02),
        (0.0, 1000, 0.1, 0.01),
        (0.0, 200, 1.0, 0.005),
        (0.1, 2, 0.1, 0.1),  # 2.5 by the formula: a step of rate 1 would overshoot
    ],
)
def test_decay_is_one_over_rows_times_variance_up_to_a_bound(
    spread, n, floor, expected
):
    assert adaptive_decay(spread, n, floor) == pytest.approx(expected)
    assert adaptive_decay(spread, torch.tensor(float(n)), floor) == pytest.approx(
        expected
    )
    per_weight = adaptive_decay(torch.tensor([spread] * 2), n, floor)
    assert per_weight.tolist() == pytest.approx([expected] * 2)
