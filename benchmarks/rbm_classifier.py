"""MNIST: the test error of a classification RBM, permutation-invariant.

``--data`` names a folder with mnist.npz: x_train, y_train, x_test, y_test; pixels go in
as x / 255. Trains RBMClassifier() in the named ways, otherwise at its defaults, and
logistic regression as a baseline. Prints error and log loss on the 10,000 test rows,
and CPU seconds of the fit.
"""

import argparse
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from skebm import RBMClassifier

KINDS = "discriminative", "hybrid"
PARTS = "x_train", "x_test"


def load(folder):
    """Return training rows, labels, test rows, labels; rows in [0, 1]."""
    arrays = np.load(Path(folder) / "mnist.npz")
    rows = {k: arrays[k].reshape(-1, 784).astype(np.float32) / 255 for k in PARTS}
    return rows["x_train"], arrays["y_train"], rows["x_test"], arrays["y_test"]


def measure(name, model, data):
    """Fit a model and print a line about it."""
    X, y, X_test, y_test = data
    start = time.process_time()
    model.fit(X, y)
    seconds = time.process_time() - start
    p = model.predict_proba(X_test)
    error = np.mean(model.classes_[p.argmax(1)] != y_test)
    loss = log_loss(y_test, p)
    print(
        f"{name:24} error {100 * error:5.2f}%  log loss {loss:.4f}  {seconds:6.0f} s",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--rows", type=int, default=60_000, help="training rows")
    parser.add_argument("--max-iter", type=int, default=None, help="epochs")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    torch.set_num_threads(1)
    X, y, *test = load(args.data)
    data = X[: args.rows], y[: args.rows], *test
    epochs = {} if args.max_iter is None else {"max_iter": args.max_iter}
    for kind in args.kinds:
        model = RBMClassifier(training=kind, random_state=args.seed, **epochs)
        measure(kind, model, data)
    # Forty steps are as good as a minimum here, and take a minute.
    warnings.simplefilter("ignore", ConvergenceWarning)
    measure("logistic regression", LogisticRegression(max_iter=40), data)


if __name__ == "__main__":
    main()
