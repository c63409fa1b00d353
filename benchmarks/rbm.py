"""BernoulliRBM: likelihood on digits, seconds per epoch, MNIST with log Z both ways.

`digits` fits scikit-learn's 8x8 digits, thresholded at half of their range, with 16
hidden bits on a random 80% and reads the exact log-likelihood of the rest, for budgets
of epochs up to the default; scikit-learn's machine, read by the same exact sum, stands
beside. `speed` times an epoch of persistent contrastive divergence on MNIST beside the
products that no such update can do without, five of them in float32, scikit-learn in
float64 and, where it is installed, `rbms`. `mnist` fits thresholded MNIST with 500
hidden bits and reads test rows with log Z from annealing ahead and back. `missing` fits
digits with 32 hidden bits, with and without a fifth of the entries: what that costs in
log-likelihood of complete test rows, and by how much imputed entries of other test rows
are nearer than the means of the columns.
"""

import argparse
import copy
import math
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import BernoulliRBM as TheirRBM

from skebm import BernoulliRBM
from skebm.energies import RBM
from skebm.objectives import RBMLikelihood
from skebm.partition import AnnealedGibbs, LayerSum


def exact_score(rbm, X):
    """Return the exact mean log-likelihood of a fitted machine of scikit-learn."""
    energy = RBM(rbm.n_components).build(X.shape[1]).double().requires_grad_(False)
    energy.weight.copy_(torch.from_numpy(rbm.components_))
    energy.hidden_bias.copy_(torch.from_numpy(rbm.intercept_hidden_))
    energy.visible_bias.copy_(torch.from_numpy(rbm.intercept_visible_))
    return -float(energy(torch.from_numpy(X)).mean()) - LayerSum()(energy).value


def timed(function):
    """Return what a function returns, with wall and processor seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    found = function()
    return found, time.perf_counter() - wall, time.process_time() - cpu


def digits(epochs, seeds):
    """Return exact test log-likelihoods on 8x8 digits, mean over splits."""
    X = (load_digits().data >= 8).astype(float)
    lines = []
    for seed in seeds:
        train, test = train_test_split(X, test_size=0.2, random_state=seed)
        for n_iter in epochs:
            ours = BernoulliRBM(16, n_iter=n_iter, random_state=seed, normalizer=None)
            _, wall, cpu = timed(lambda m=ours, x=train: m.fit(x))
            score = -ours.energy(test).mean() - LayerSum()(ours.energy_).value
            lines.append(("skebm", n_iter, score, wall, cpu))
        for n_iter in (10, 1000):
            theirs = TheirRBM(16, n_iter=n_iter, random_state=seed)
            _, wall, cpu = timed(lambda m=theirs, x=train: m.fit(x))
            lines.append(("sklearn", n_iter, exact_score(theirs, test), wall, cpu))
    names = ["machine", "epochs", "test nats", "seconds", "cpu seconds"]
    table = pd.DataFrame(lines, columns=names).astype({"epochs": str})
    return table.groupby(["machine", "epochs"]).mean().reset_index()


def floor_seconds(n_rows, n_visible, n_hidden, batch_size, repeats=20):
    """Return what the float32 products of one epoch take."""
    v, h = torch.rand(batch_size, n_visible), torch.rand(batch_size, n_hidden)
    weight = torch.rand(n_hidden, n_visible)

    def products():
        v @ weight.T, v @ weight.T, h @ weight, h.T @ v, h.T @ v

    products()
    best = min(timed(products)[1] for _ in range(repeats))
    return best * math.ceil(n_rows / batch_size)


def epoch_seconds(X, n_hidden, batch_size, precision):
    """Return the seconds of one more epoch of BernoulliRBM, log Z left out."""

    def fit(n_iter):
        objective = RBMLikelihood(n_chains=batch_size, precision=precision)
        model = BernoulliRBM(
            n_hidden,
            learning_rate=0.05,
            batch_size=batch_size,
            n_iter=n_iter,
            objective=objective,
            normalizer=None,
            random_state=0,
        )
        return timed(lambda: model.fit(X))[1]

    return fit(2) - fit(1)


def their_seconds(X, n_hidden, batch_size):
    """Return the seconds of an epoch of scikit-learn's machine, in float64."""
    model = TheirRBM(n_hidden, batch_size=batch_size, n_iter=1, learning_rate=0.05)
    return timed(lambda: model.fit(X.astype(np.float64)))[1]


def rbms_seconds(X, n_hidden, batch_size):
    """Return the seconds of an epoch of `rbms`, or None where it is missing."""
    try:
        from rbms.bernoulli_bernoulli.classes import BBRBM
        from rbms.training.pcd import fit_batch_pcd
    except ImportError:
        return None

    x = torch.from_numpy(X)
    options = {"device": torch.device("cpu"), "dtype": torch.float32}
    machine = BBRBM.init_parameters(num_hiddens=n_hidden, dataset=_Rows(x), **options)
    chains = machine.init_chains(num_samples=batch_size)
    for parameter in machine.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer = torch.optim.SGD(machine.parameters(), lr=0.05, maximize=True)

    def epoch():
        state = chains
        for rows in torch.randperm(len(x)).split(batch_size):
            batch = x[rows], torch.ones(len(rows), 1)
            optimizer.zero_grad(set_to_none=False)
            state, _ = fit_batch_pcd(batch, state, machine, gibbs_steps=1, beta=1.0)
            optimizer.step()

    with torch.no_grad():
        return timed(epoch)[1]


class _Rows:
    """What `rbms` wants to know of its data."""

    def __init__(self, data):
        self.data, self.weights = data, torch.ones(len(data), 1)

    def get_num_visibles(self):
        return self.data.shape[1]


def speed(X, n_hidden, batch_size, n_runs):
    """Return seconds per epoch and their ratios to the products, best of some runs."""
    runs = []
    for _ in range(n_runs):
        runs.append(
            {
                "five float32 products": floor_seconds(*X.shape, n_hidden, batch_size),
                "skebm float32": epoch_seconds(X, n_hidden, batch_size, "float32"),
                "skebm auto": epoch_seconds(X, n_hidden, batch_size, "auto"),
                "sklearn float64": their_seconds(X, n_hidden, batch_size),
                "rbms": rbms_seconds(X, n_hidden, batch_size),
            }
        )
    best = pd.DataFrame(runs).min().rename("seconds").to_frame()
    best["ratio"] = best["seconds"] / best.loc["five float32 products", "seconds"]
    return best


def mnist(X, X_test, n_hidden, n_iter):
    """Return a line on thresholded MNIST, with log Z ahead and back."""
    model = BernoulliRBM(n_hidden, n_iter=n_iter, normalizer=None, random_state=0)
    _, wall, cpu = timed(lambda: model.fit(X))
    energy = copy.deepcopy(model.energy_).float()
    generator = torch.Generator().manual_seed(0)
    ahead, behind = AnnealedGibbs(256, n_temperatures=5000).both_ways(
        energy, base=energy.independent(), generator=generator, x=torch.from_numpy(X)
    )
    n, e = math.log(ahead.numel()), float(model.energy(X_test).mean())
    return {
        "epochs": model.n_iter_,
        "seconds": wall,
        "cpu seconds": cpu,
        "ahead": -e - float(ahead.logsumexp((0, 1))) + n,
        "back": -e + float((-behind).logsumexp((0, 1))) - n,
    }


def missing(n_hidden, seeds, share=0.2):
    """Return log-likelihoods of fits to complete and incomplete rows, and gains."""
    X = (load_digits().data >= 8).astype(float)
    lines = []
    for seed in seeds:
        train, test = train_test_split(X, test_size=0.2, random_state=seed)
        rng = np.random.default_rng(seed)
        holes = [rng.random(rows.shape) < share for rows in (train, test)]
        seen, given = (
            np.where(hole, np.nan, rows)
            for hole, rows in zip(holes, (train, test), strict=True)
        )
        whole, part = (
            BernoulliRBM(n_hidden, random_state=seed).fit(rows)
            for rows in (train, seen)
        )
        means = np.broadcast_to(np.nanmean(seen, 0), test.shape)
        far, near = (
            np.sqrt(np.mean((guess - test)[holes[1]] ** 2))
            for guess in (means, part.impute(given))
        )
        scores = whole.score(test), part.score(test)
        lines.append((seed, *scores, scores[0] - scores[1], 1 - near / far))
    columns = ["seed", "complete", "a fifth missing", "loss", "gain of imputing"]
    return pd.DataFrame(lines, columns=columns).set_index("seed")


def load_mnist(folder):
    """Return thresholded training and test rows of MNIST."""
    with np.load(folder / "mnist.npz") as file:
        parts = (file[k].reshape(-1, 784) > 127 for k in ("x_train", "x_test"))
        return [part.astype(np.float32) for part in parts]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=["digits", "speed", "mnist", "missing"])
    parser.add_argument("--data", type=Path, help="folder that holds mnist.npz")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--n-components", type=int, default=None)
    parser.add_argument("--n-iter", type=int, default=None)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    if args.part == "digits":
        found = digits([100, 200, args.n_iter or "auto"], args.seeds)
    elif args.part == "missing":
        found = missing(args.n_components or 32, args.seeds)
    else:
        X, X_test = load_mnist(args.data)
        if args.part == "speed":
            found = speed(X, args.n_components or 1024, args.batch_size, args.runs)
        else:
            n_hidden = args.n_components or 500
            found = pd.DataFrame([mnist(X, X_test, n_hidden, args.n_iter or "auto")])
    print(found.to_string(float_format="{:.3f}".format))


if __name__ == "__main__":
    main()
