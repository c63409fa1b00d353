"""Laws of a target given a row: log-density, coverage of intervals, R2.

Toys: two branches, near and apart, and heavy-tailed noise, with known p(y | x); prints
the mean of KL(p_true || p_model) over 20,000 fresh rows, its standard error, and
seconds of the fit to 5,000 rows. Tables: diabetes and three made ones, in random splits
of 3 to 1; prints means over the splits, for EBMRegressor(), ridge regression with a
constant Gaussian, a Gaussian whose mean and width are networks, and a mixture density
network of five Gaussians. The networks have two layers of 64 units and are the mean
densities of five, cross-fitted and stopped like EBMRegressor's members.
"""

import argparse
import math
import time
from itertools import pairwise

import numpy as np
import torch
from scipy import stats
from scipy.special import logsumexp
from sklearn.datasets import (
    load_diabetes,
    make_friedman1,
    make_regression,
    make_sparse_uncorrelated,
)
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import train_test_split
from torch import nn

from skebm import EBMRegressor

N_MEMBERS, N_LOOKS, STEPS_PER_LOOK, PATIENCE = 5, 60, 32, 10
ALPHAS = np.logspace(-4, 4, 25)


def branches(apart):
    """Return a toy whose target is near m(x) or near -m(x), and its log-density."""
    width = 0.15 if apart else 0.2

    def middle(x):
        return 0.5 + np.abs(np.sin(x)) if apart else 1 + 0.5 * np.sin(x)

    def rows(n, rng):
        x = rng.uniform(-3, 3, n)
        sign = np.where(rng.random(n) < 1 / (1 + np.exp(-x)), 1, -1)
        return x[:, None], sign * middle(x) + width * rng.normal(size=n)

    def log_density(X, y):
        x, m = X[:, 0], middle(X[:, 0])
        up = -np.logaddexp(0, -x) + stats.norm.logpdf(y, m, width)
        return np.logaddexp(up, -np.logaddexp(0, x) + stats.norm.logpdf(y, -m, width))

    return rows, log_density


def heavy_tails():
    """Return a toy with Student noise of three degrees of freedom."""

    def rows(n, rng):
        x = rng.uniform(-3, 3, n)
        noise = (0.2 + 0.1 * np.abs(x)) * rng.standard_t(3, n)
        return x[:, None], 2 * np.sin(x) + noise

    def log_density(X, y):
        x = X[:, 0]
        return stats.t.logpdf(y, 3, 2 * np.sin(x), 0.2 + 0.1 * np.abs(x))

    return rows, log_density


TOYS = {
    "two branches": branches(apart=False),
    "two branches with kinks": branches(apart=True),
    "heavy tails": heavy_tails(),
}


def heteroscedastic(n=600):
    """Return make_sparse_uncorrelated's rows; the noise grows with the first column."""
    X, y = make_sparse_uncorrelated(n, random_state=0)
    noise = np.random.default_rng(0).normal(size=n)
    return X, y + 2 * np.exp(0.5 * X[:, 0]) * noise


TABLES = {
    "diabetes": lambda: load_diabetes(return_X_y=True),
    "friedman1": lambda: make_friedman1(600, noise=1.0, random_state=0),
    "linear": lambda: make_regression(600, 10, noise=20.0, random_state=0),
    "heteroscedastic": heteroscedastic,
}


class MixtureDensity:
    """Committee of mixture density networks; one component is a Gaussian network."""

    def __init__(self, n_components, seed):
        self.n_components, self.seed = n_components, seed

    def fit(self, X, y):
        """Train five networks, each on four folds, stopped on the fifth."""
        self.location, self.scale = X.mean(0), X.std(0)
        self.y_location, self.y_scale = y.mean(), y.std()
        x, z = self._tensors(X, y)
        fold = np.random.default_rng(self.seed).permutation(len(x)) % N_MEMBERS
        self.members = []
        for j in range(N_MEMBERS):
            seen, held = (
                torch.from_numpy(np.flatnonzero(f)) for f in (fold != j, fold == j)
            )
            self.members.append(self._train(x[seen], z[seen], x[held], z[held], j))
        return self

    def log_density(self, X, y):
        """Return log of the members' mean density, in y's units."""
        x, z = self._tensors(X, y)
        with torch.no_grad():
            found = [-self._loss(net, x, z).numpy() for net in self.members]
        mean = logsumexp(np.array(found), axis=0) - math.log(len(found))
        return mean - np.log(self.y_scale)

    def predict(self, X):
        """Return the mean of y."""
        x, _ = self._tensors(X, np.zeros(len(X)))
        with torch.no_grad():
            parts = [net(x).unflatten(1, (3, -1)).unbind(1) for net in self.members]
        means = [(w.softmax(1) * m).sum(1) for w, m, _ in parts]
        return np.mean(means, axis=0) * self.y_scale + self.y_location

    def predict_interval(self, X, coverage):
        """Return the interval between equal tails, from a grid of 2001 points."""
        grid = np.linspace(-8, 8, 2001)
        x, _ = self._tensors(X, np.zeros(len(X)))
        p = 0
        with torch.no_grad():
            for net in self.members:
                w, m, s = (
                    v.numpy()[..., None] for v in net(x).unflatten(1, (3, -1)).unbind(1)
                )
                w = np.exp(w - logsumexp(w, axis=1, keepdims=True))
                p = p + (w * stats.norm.cdf(grid, m, np.exp(s))).sum(1) / N_MEMBERS
        ends = [
            (p < level).sum(1) for level in ((1 - coverage) / 2, (1 + coverage) / 2)
        ]
        found = grid[np.clip(np.stack(ends, 1), 0, 2000)]
        return found * self.y_scale + self.y_location

    def _tensors(self, X, y):
        x = (X - self.location) / self.scale
        z = (y - self.y_location) / self.y_scale
        return torch.from_numpy(x).float(), torch.from_numpy(z).float()

    def _loss(self, net, x, z):
        w, m, s = net(x).unflatten(1, (3, -1)).unbind(1)
        log_p = (
            -0.5 * ((z[:, None] - m) / s.exp()) ** 2 - s - 0.5 * math.log(2 * math.pi)
        )
        return -(w.log_softmax(1) + log_p).logsumexp(1)

    def _train(self, x, z, x_valid, z_valid, j):
        torch.manual_seed(self.seed * N_MEMBERS + j)
        widths = x.shape[1], 64, 64, 3 * self.n_components
        layers = [nn.Linear(a, b) for a, b in pairwise(widths)]
        net = nn.Sequential(
            layers[0], nn.SiLU(), nn.Dropout(0.1), layers[1], nn.SiLU(), layers[2]
        )
        steps = torch.optim.AdamW(net.parameters(), 2e-3, weight_decay=0.1)
        best, kept, stale = math.inf, None, 0
        for _ in range(N_LOOKS):
            net.train()
            for _ in range(STEPS_PER_LOOK):
                batch = torch.randint(len(x), (256,))
                steps.zero_grad()
                self._loss(net, x[batch], z[batch]).mean().backward()
                steps.step()
            net.eval()
            with torch.no_grad():
                loss = float(self._loss(net, x_valid, z_valid).mean())
            stale += 1
            if loss < best:
                best, stale = loss, 0
                kept = {k: v.clone() for k, v in net.state_dict().items()}
            if stale >= PATIENCE:
                break
        net.load_state_dict(kept)
        return net


class RidgeGaussian:
    """Ridge regression with one width, by degrees of freedom."""

    def fit(self, X, y):
        """Fit both."""
        self.ridge = RidgeCV(ALPHAS).fit(X, y)
        off = y - self.ridge.predict(X)
        self.width = np.sqrt(np.sum(off**2) / (len(y) - X.shape[1] - 1))
        return self

    def predict(self, X):
        """Return the mean of y."""
        return self.ridge.predict(X)

    def log_density(self, X, y):
        """Return the log-density."""
        return stats.norm.logpdf(y, self.predict(X), self.width)

    def predict_interval(self, X, coverage):
        """Return the interval between equal tails."""
        half = stats.norm.ppf((1 + coverage) / 2) * self.width
        return self.predict(X)[:, None] + [-half, half]


MODELS = {
    "EBMRegressor": lambda seed: EBMRegressor(random_state=seed),
    "ridge, Gaussian": lambda seed: RidgeGaussian(),
    "Gaussian network": lambda seed: MixtureDensity(1, seed),
    "mixture density network": lambda seed: MixtureDensity(5, seed),
}


def run_toys(names, n_rows, params):
    """Print a line for each toy."""
    for name in names:
        rows, log_density = TOYS[name]
        X, y = rows(n_rows, np.random.default_rng(0))
        X_test, y_test = rows(20_000, np.random.default_rng(1))
        start = time.process_time()
        model = EBMRegressor(random_state=0, **params).fit(X, y)
        seconds = time.process_time() - start
        gap = log_density(X_test, y_test) - model.log_density(X_test, y_test)
        error = gap.std() / math.sqrt(len(gap))
        print(
            f"{name:26} KL {gap.mean():.4f} +- {error:.4f}  "
            f"tilted {model.tilted_!s:5}  {seconds:5.1f} s",
            flush=True,
        )


def figures(model, X, y):
    """Return log-density, R2 and the coverage of two intervals."""
    off = y - model.predict(X)
    covered = []
    for coverage in (0.9, 0.95):
        low, high = model.predict_interval(X, coverage).T
        covered.append(np.mean((low <= y) & (y <= high)))
    r2 = 1 - np.mean(off**2) / np.var(y)
    return [np.mean(model.log_density(X, y)), r2, *covered]


def run_tables(names, n_splits, models):
    """Print a line for each table and model."""
    for name in names:
        X, y = TABLES[name]()
        found = {kind: [] for kind in models}
        for seed in range(n_splits):
            X1, X2, y1, y2 = train_test_split(X, y, test_size=0.25, random_state=seed)
            for kind in models:
                start = time.process_time()
                model = MODELS[kind](seed).fit(X1, y1)
                seconds = time.process_time() - start
                found[kind].append([*figures(model, X2, y2), seconds])
        ours = np.array(found[models[0]])[:, 0]
        for kind, rows in found.items():
            log_p, r2, low, high, seconds = np.mean(rows, axis=0)
            behind = ours - np.array(rows)[:, 0]
            error = behind.std() / math.sqrt(len(behind))
            print(
                f"{name:16} {kind:24} log-density {log_p:7.4f}  "
                f"behind {behind.mean():7.4f} +- {error:.4f}  R2 {r2:.4f}  "
                f"90%: {low:.3f}  95%: {high:.3f}  {seconds:4.1f} s",
                flush=True,
            )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--toys", nargs="*", choices=TOYS, default=list(TOYS))
    parser.add_argument("--tables", nargs="*", choices=TABLES, default=list(TABLES))
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--rows", type=int, default=5000, help="rows of a toy")
    parser.add_argument("--max-iter", type=int, default=None, help="epochs on toys")
    args = parser.parse_args()

    torch.set_num_threads(1)
    params = {} if args.max_iter is None else {"max_iter": args.max_iter}
    run_toys(args.toys, args.rows, params)
    run_tables(args.tables, args.splits, args.models)


if __name__ == "__main__":
    main()
