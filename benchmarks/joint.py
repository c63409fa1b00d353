"""JEMClassifier: accuracy, calibration, an unseen class, few labels, stability.

`tables`: digits, breast cancer and wine, half of the rows for training, `--seeds`
splits: accuracy, expected calibration error (15 bins of the largest probability) and
seconds of a fit beside logistic regression. `unseen`: digits, trained on nine of them;
AUROC of the tenth by log p(x), and the accuracy of the same model. `labels`: ten labels
a class of digits, the other training rows unlabelled, beside the labels alone.
`langevin`: digits with generative="network". `exposure`: `unseen` with the energy of
logits, trained on labels alone and with each kind of known outliers, AUROC and FPR95 of
the tenth digit and of uniform noise. `mnist`: `--train` rows of `DIR/mnist.npz` with a
convolutional backbone, each digit in turn unseen.
"""

import argparse
import time
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skebm import JEMClassifier
from skebm.energies import ClassPatterns, Convolutional
from skebm.metrics import fpr_at_tpr
from skebm.objectives import OutlierExposure

TABLES = {
    "digits": load_digits,
    "breast cancer": load_breast_cancer,
    "wine": load_wine,
}
OUTLIERS = {
    "labels alone": None,
    "uniform noise": lambda A, rng: rng.uniform(0, 16, A.shape),
    "shuffled pixels": lambda A, rng: rng.permuted(A, axis=1),
    "shuffled columns": lambda A, rng: rng.permuted(A, axis=0),
}
N_BINS = 15


def halves(X, y, seed):
    """Return training and test rows and their labels, half each."""
    return train_test_split(X, y, test_size=0.5, stratify=y, random_state=seed)


def calibration_error(p, y):
    """Return the mean gap of confidence and accuracy over bins of confidence."""
    confidence, right = p.max(1), p.argmax(1) == y
    place = np.minimum((N_BINS * confidence).astype(int), N_BINS - 1)
    bins = [place == b for b in range(N_BINS) if (place == b).any()]
    return sum(b.mean() * abs(right[b].mean() - confidence[b].mean()) for b in bins)


def tables(args):
    """Return a line per table and seed."""
    lines = []
    for name in args.only or TABLES:
        X, y = TABLES[name](return_X_y=True)
        for seed in range(args.seeds):
            A, B, a, b = halves(X, y, seed)
            start = time.process_time()
            model = JEMClassifier(random_state=seed).fit(A, a)
            seconds = time.process_time() - start
            p = model.predict_proba(B)
            usual = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
            lines.append(
                {
                    "table": name,
                    "accuracy": np.mean(p.argmax(1) == b),
                    "calibration error": calibration_error(p, b),
                    "logistic regression": usual.fit(A, a).score(B, b),
                    "seconds": seconds,
                }
            )
    lines = pd.DataFrame(lines).groupby("table", sort=False)
    return lines.agg(["mean", "min", "max"])


def unseen(args):
    """Return a line per digit: means over seeds."""
    X, y = load_digits(return_X_y=True)
    lines = []
    for digit in range(10):
        for seed in range(args.seeds):
            A, B, a, b = halves(X, y, seed)
            model = JEMClassifier(random_state=seed, max_iter=args.max_iter)
            model.fit(A[a != digit], a[a != digit])
            auc = roc_auc_score(b == digit, -model.score_samples(B))
            score = model.score(B[b != digit], b[b != digit])
            lines.append({"digit": digit, "AUROC": auc, "accuracy": score})
    table = pd.DataFrame(lines).groupby("digit").mean()
    return pd.concat([table, table.agg(["mean", "min"])])


def labels(args):
    """Return a line per seed: accuracy with and without the unlabelled rows."""
    X, y = load_digits(return_X_y=True)
    lines = []
    for seed in range(args.seeds):
        A, B, a, b = halves(X, y, seed)
        order = np.random.default_rng(seed).permutation(len(a))
        known = np.concatenate([order[a[order] == k][:10] for k in range(10)])
        part = np.full(len(a), -1)
        part[known] = a[known]
        alone = JEMClassifier(random_state=seed).fit(A[known], a[known])
        both = JEMClassifier(random_state=seed).fit(A, part)
        lines.append({"labels": alone.score(B, b), "all rows": both.score(B, b)})
    table = pd.DataFrame(lines)
    return table.agg(["mean", "min"])


def langevin(args):
    """Return a line per seed."""
    X, y = load_digits(return_X_y=True)
    lines = []
    for seed in range(args.seeds):
        A, B, a, b = halves(X, y, seed)
        start = time.process_time()
        model = JEMClassifier(generative="network", random_state=seed).fit(A, a)
        seconds = time.process_time() - start
        noise = np.random.default_rng(seed).uniform(0, 16, B.shape)
        rows = np.vstack([B, noise])
        auc = roc_auc_score(np.arange(len(rows)) >= len(B), -model.score_samples(rows))
        lines.append(
            {"accuracy": model.score(B, b), "noise AUROC": auc, "seconds": seconds}
        )
    table = pd.DataFrame(lines)
    return table.agg(["mean", "min", "max"])


def exposure(args):
    """Return a line per kind of known outliers: means over digits and seeds."""
    X, y = load_digits(return_X_y=True)
    lines = []
    for kind, digit, seed in product(OUTLIERS, range(10), range(args.seeds)):
        A, B, a, b = halves(X, y, seed)
        rng = np.random.default_rng(seed)
        A, a, known = A[a != digit], a[a != digit], b != digit
        model = JEMClassifier(generative=None, calibration=None, random_state=seed)
        if OUTLIERS[kind] is not None:
            objective = OutlierExposure(OUTLIERS[kind](A, rng))
            model.set_params(generative="network", objective=objective)
        line = {"outliers": kind, "accuracy": model.fit(A, a).score(B[known], b[known])}
        noise = rng.uniform(0, 16, B.shape)
        for name, strange in {"digit": B[~known], "noise": noise}.items():
            e = model.energy(np.vstack([B[known], strange]))
            truth = np.arange(len(e)) >= known.sum()
            line[f"{name} AUROC"] = roc_auc_score(truth, e)
            line[f"{name} FPR95"] = fpr_at_tpr(truth, e)
        lines.append(line)
    return pd.DataFrame(lines).groupby("outliers", sort=False).mean()


def mnist(args):
    """Return a line per digit: unseen AUROC and accuracy of the same model."""
    with np.load(args.data / "mnist.npz") as file:
        data = {k: file[k].reshape(len(file[k]), -1) for k in file}
    lines = []
    for digit in args.digits:
        rng = np.random.default_rng(digit)
        places = rng.permutation(np.flatnonzero(data["y_train"][:, 0] != digit))
        A = data["x_train"][places[: args.train]] / 255.0
        a = data["y_train"][places[: args.train], 0]
        model = JEMClassifier(
            Convolutional((28, 28), channels=(16, 32), pooling=True),
            generative=ClassPatterns(image_shape=(28, 28)),
            random_state=0,
        )
        start = time.process_time()
        model.fit(A, a)
        seconds = time.process_time() - start
        B, b = data["x_test"] / 255.0, data["y_test"][:, 0]
        auc = roc_auc_score(b == digit, -model.score_samples(B))
        score = model.score(B[b != digit], b[b != digit])
        lines.append(
            {"digit": digit, "AUROC": auc, "accuracy": score, "seconds": seconds}
        )
    table = pd.DataFrame(lines).set_index("digit")
    return pd.concat([table, table.agg(["mean", "min"])])


PARTS = {f.__name__: f for f in (tables, unseen, labels, langevin, exposure, mnist)}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--only", nargs="+", choices=TABLES)
    parser.add_argument("--max-iter", type=int, default=50, help="epochs of unseen")
    parser.add_argument("--data", type=Path, metavar="DIR")
    parser.add_argument("--digits", type=int, nargs="+", default=list(range(10)))
    parser.add_argument("--train", type=int, default=5000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(PARTS[args.part](args).to_string(float_format="{:.4f}".format))


if __name__ == "__main__":
    main()
