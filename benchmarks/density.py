"""Held-out log-likelihood: toys with known entropy, tables against a tuned GMM.

    python benchmarks/density.py

Toys: 10,000 rows, 50,000 test rows; the gap is the mean test log-likelihood plus the
entropy, 0 at best. Tables: five random splits, a fifth for testing, standardised on the
training rows; the baseline is scikit-learn's GaussianMixture with the number of
components and the covariance type picked by five-fold cross-validation, with the same
least variance of a component as skebm (0.05 standard deviations).
"""

import argparse
import math
import time
import warnings

import numpy as np
import torch
from sklearn.datasets import (
    load_breast_cancer,
    load_diabetes,
    load_iris,
    load_wine,
)
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, KFold, train_test_split

from skebm import DeepEBM

TABLES = {
    "wine": load_wine,
    "breast_cancer": load_breast_cancer,
    "diabetes": load_diabetes,
    "iris": load_iris,
}
GRID = {
    "n_components": [1, 2, 3, 4, 5, 6, 8],
    "covariance_type": ["full", "tied", "diag", "spherical"],
}


def eight_gaussians(n, rng):
    angle = 2 * math.pi * rng.integers(8, size=n) / 8
    center = 4 * np.column_stack([np.cos(angle), np.sin(angle)])
    return center + 0.5 * rng.normal(size=(n, 2))


def checkerboard(n, rng):
    rows = rng.uniform(-4, 4, size=(4 * n, 2))
    return rows[np.floor(rows / 2).sum(1) % 2 == 0][:n]


def two_moons(n, rng):
    angle, upper = rng.uniform(0, math.pi, n), rng.random(n) < 0.5
    x = np.where(upper, np.cos(angle), 1 - np.cos(angle))
    y = np.where(upper, np.sin(angle), 0.5 - np.sin(angle))
    return np.column_stack([x, y]) + 0.1 * rng.normal(size=(n, 2))


def many_modes(n, rng):
    """32 Gaussians of sd 0.3 at the corners of a cube, turned into 10 columns."""
    corners = 2.0 * (np.arange(32)[:, None] >> np.arange(5) & 1) - 1
    turn = np.random.default_rng(0).normal(size=(5, 10))
    centers = 2 / math.sqrt(5) * corners @ turn
    return centers[rng.integers(32, size=n)] + 0.3 * rng.normal(size=(n, 10))


TOYS = {
    "8 Gaussians": (eight_gaussians, 3.527),
    "checkerboard": (checkerboard, 3.466),
    "two moons": (two_moons, 0.996),
    "32 modes, d=10": (
        many_modes,
        math.log(32) + 5 * math.log(2 * math.pi * math.e * 0.09),
    ),
}


def toy_rows(seeds):
    for name, (make, entropy) in TOYS.items():
        for seed in range(seeds):
            rng = np.random.default_rng(seed)
            train, test = make(10_000, rng), make(50_000, rng)
            start = time.perf_counter()
            model = DeepEBM(random_state=seed).fit(train)
            seconds = time.perf_counter() - start
            gap = model.score(test) + entropy
            print(f"{name:16} {seed:4} {gap:9.4f} {seconds:8.1f}", flush=True)


def table_rows(splits):
    for name, load in TABLES.items():
        pairs = []
        for split in range(splits):
            train, test = train_test_split(
                load().data, test_size=0.2, random_state=split
            )
            location, scale = train.mean(0), train.std(0)
            z, z_test = (train - location) / scale, (test - location) / scale
            start = time.perf_counter()
            model = DeepEBM(random_state=split).fit(z)
            seconds = time.perf_counter() - start
            pairs.append((tuned_mixture(z).score(z_test), model.score(z_test)))
            gmm, ours = pairs[-1]
            line = f"{name:16} {split:4} {gmm:9.3f} {ours:9.3f} {seconds:8.1f}"
            print(line, flush=True)
        gmm, ours = np.mean(pairs, axis=0)
        print(f"{name:16} mean {gmm:9.3f} {ours:9.3f}", flush=True)


def tuned_mixture(z):
    folds = KFold(5, shuffle=True, random_state=0)
    mixture = GaussianMixture(reg_covar=0.05**2, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return GridSearchCV(mixture, GRID, cv=folds).fit(z)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=1, help="fits per toy")
    parser.add_argument("--splits", type=int, default=5, help="splits per table")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.seeds:
        print(f"{'toy':16} {'seed':4} {'gap':>9} {'seconds':>8}")
        toy_rows(args.seeds)
    if args.splits:
        print(f"{'table':16} {'cut':4} {'GMM':>9} {'DeepEBM':>9} {'seconds':>8}")
        table_rows(args.splits)


if __name__ == "__main__":
    main()
