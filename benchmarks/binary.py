"""Binary tables: test log-likelihood of BernoulliRBM with its defaults and early stop.

`--data` holds one `.npz` file per table with the bits `train`, `valid` and `test`. The
rows of train and valid are fitted together, with as large a share held out as valid
has; test rows are read once. Independent columns, fitted to the same rows, stand
beside. Prints nats per test row, with the 95% interval that log Z gives.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from skebm import BernoulliRBM


def load(path):
    """Return fitted rows, test rows, and the share of the first that is valid."""
    with np.load(path) as file:
        train, valid, test = (file[k].astype(np.float32) for k in PARTS)
    return np.vstack([train, valid]), test, len(valid) / (len(train) + len(valid))


PARTS = "train", "valid", "test"


def independent(X, X_test):
    """Return mean log-likelihood of columns that know nothing of each other."""
    p = (X.sum(0) + 0.5) / (len(X) + 1)
    return float(np.mean(X_test @ np.log(p) + (1 - X_test) @ np.log1p(-p)))


def measure(path, seed, params):
    """Return a line of the table for one file."""
    X, X_test, share = load(path)
    model = BernoulliRBM(
        early_stopping=True, validation_fraction=share, random_state=seed, **params
    )
    start, cpu = time.perf_counter(), time.process_time()
    score = model.fit(X).score(X_test)
    low, high = model.log_partition_interval_
    return {
        "table": path.stem,
        "rows": len(X),
        "columns": X.shape[1],
        "independent": independent(X, X_test),
        "BernoulliRBM": score,
        "low": score + model.log_partition_ - high,
        "high": score + model.log_partition_ - low,
        "epochs": model.n_iter_,
        "seconds": time.perf_counter() - start,
        "cpu seconds": time.process_time() - cpu,
    }


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of .npz files")
    parser.add_argument("--only", nargs="+", default=[], help="parts of file names")
    parser.add_argument("--n-components", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    paths = sorted(args.data.glob("*.npz"))
    if args.only:
        paths = [p for p in paths if any(part in p.stem for part in args.only)]
    lines = []
    for path in paths:
        lines.append(measure(path, args.seed, {"n_components": args.n_components}))
        print(pd.DataFrame(lines[-1:]).to_string(index=False, header=len(lines) == 1))


if __name__ == "__main__":
    main()
