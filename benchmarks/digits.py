"""Unseen digits: each of scikit-learn's ten digits held out in turn.

Train on a random half of the other nine digits' rows, test on their other half and on
all rows of the digit left out. Pixels go in as they are, all in one unit (0 to 16).
Prints the AUROC of telling the unseen digit, mean over seeds.
"""

import argparse

import numpy as np
import pandas as pd
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors

from skebm import EnergyOutlierDetector


def hold_out(X, y, digit, seed):
    """Return training rows, test rows and "is the digit left out" of the test rows."""
    rng = np.random.default_rng(seed)
    known = rng.permutation(np.flatnonzero(y != digit))
    half = len(known) // 2
    test = np.concatenate([known[half:], np.flatnonzero(y == digit)])
    return X[known[:half]], X[test], y[test] == digit


def energy(X_train, X_test, seed):
    """Return anomaly scores of EnergyOutlierDetector with its defaults."""
    model = EnergyOutlierDetector(novelty=True, random_state=seed).fit(X_train)
    return -model.score_samples(X_test)


def nearest_neighbors(X_train, X_test, seed):
    """Return the mean distance to the five nearest training rows."""
    index = NearestNeighbors(n_neighbors=5).fit(X_train)
    return index.kneighbors(X_test)[0].mean(axis=1)


DETECTORS = {
    "EnergyOutlierDetector": energy,
    "5 nearest neighbours": nearest_neighbors,
}


def unseen_digit_auc(X, y, seeds):
    """Return AUROC, a row per digit and a column per detector, mean over seeds."""
    rows = []
    for digit in np.unique(y):
        for seed in seeds:
            X_train, X_test, unseen = hold_out(X, y, digit, seed)
            for name, detector in DETECTORS.items():
                auc = roc_auc_score(unseen, detector(X_train, X_test, seed))
                rows.append({"digit": digit, "detector": name, "auc": auc})
    table = pd.DataFrame(rows)
    return table.pivot_table(index="digit", columns="detector", values="auc")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3])
    args = parser.parse_args()

    table = unseen_digit_auc(*load_digits(return_X_y=True), args.seeds)
    summary = pd.DataFrame({"mean": table.mean(), "worst": table.min()}).T
    print(pd.concat([table, summary]).to_string(float_format="{:.4f}".format))


if __name__ == "__main__":
    main()
