"""Few labels: logistic regression on columns and on features learned without labels.

Each of scikit-learn's tables is split in halves at random; in the first half
``--labels`` rows of each class keep their label. ``EnergyContrastiveEncoder()`` is
fitted to all rows of that half, logistic regression to the labelled ones, on

- standardised columns,
- columns as the encoder scales them, where pixels share one scale,
- features alone (``passthrough=False``),
- ``transform`` as it is by default: features and scaled columns.

Prints the mean share of the other half that is classified right over the seeds, the
gain of the last over the first with its standard error, and CPU seconds of a fit.
"""

import argparse
import time

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from skebm import EnergyContrastiveEncoder

TABLES = {
    "digits": load_digits,
    "breast cancer": load_breast_cancer,
    "wine": load_wine,
}


def labelled(y, n_labels, rng):
    """Return places of n_labels rows of each class."""
    groups = [rng.permutation(np.flatnonzero(y == label)) for label in np.unique(y)]
    return np.concatenate([group[:n_labels] for group in groups])


def compare(X, y, n_labels, seed, encoder):
    """Return the four shares classified right, and seconds of the encoder's fit."""
    X, X_test, y, y_test = train_test_split(
        X, y, test_size=0.5, random_state=seed, stratify=y
    )
    places = labelled(y, n_labels, np.random.default_rng(seed))
    start = time.process_time()
    encoder.set_params(random_state=seed).fit(X)
    seconds = time.process_time() - start
    columns, k = StandardScaler().fit(X), encoder.n_components
    ways = [
        columns.transform,
        lambda rows: encoder.transform(rows)[:, k:],
        lambda rows: encoder.transform(rows)[:, :k],
        encoder.transform,
    ]
    shares = []
    for way in ways:
        linear = LogisticRegression(max_iter=3000).fit(way(X[places]), y[places])
        shares.append(linear.score(way(X_test), y_test))
    return [*shares, seconds]


def line(name, found):
    """Return a line about a table from what `compare` returned for each seed."""
    found = np.asarray(found)
    gain = found[:, 3] - found[:, 0]
    error = gain.std(ddof=1) / np.sqrt(len(gain))
    shares = "".join(f"{share:10.4f}" for share in found[:, :4].mean(0))
    seconds = found[:, 4].mean()
    return f"{name:14}{shares}{gain.mean():+10.4f} +- {error:.4f}{seconds:6.1f} s"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=list(TABLES), default=list(TABLES))
    parser.add_argument("--labels", type=int, default=10, help="of each class")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--max-iter", type=int, default=None, help="epochs")
    args = parser.parse_args()

    torch.set_num_threads(1)
    epochs = {} if args.max_iter is None else {"max_iter": args.max_iter}
    print(
        f"{'':14}{'columns':>10}{'scaled':>10}{'features':>10}{'both':>10}{'gain':>10}"
    )
    for name in args.only:
        X, y = TABLES[name](return_X_y=True)
        found = [
            compare(X, y, args.labels, seed, EnergyContrastiveEncoder(**epochs))
            for seed in range(args.seeds)
        ]
        print(line(name, found), flush=True)


if __name__ == "__main__":
    main()
