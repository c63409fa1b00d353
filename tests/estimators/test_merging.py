"""Equal rows are one row with the sum of their weights."""

import numpy as np

from skebm.estimators.merging import merged


def test_weights_of_equal_rows_add_up_and_rows_of_no_weight_go():
    table = np.array([[2.0, 1.0], [0.0, 5.0], [2.0, 1.0], [-1.0, 0.0]])
    rows, weight = merged(table, np.array([0.5, 1.0, 2.0, 0.0]))
    np.testing.assert_array_equal(rows, [[0.0, 5.0], [2.0, 1.0]])
    np.testing.assert_array_equal(weight, [1.0, 2.5])
