"""ADBench protocol on EnergyOutlierDetector, beside five nearest neighbours and peers.

One-class: train on a random half of the normal rows (novelty=True), test on the other
half and all anomalies. Unsupervised: train and test on all rows (novelty=False).
Rows are capped by a seeded, stratified draw; columns are standardised on the training
rows. Everything runs with its defaults.

The data are the files of https://github.com/Minqi824/ADBench (``X`` and ``y`` in an
.npz each). Nothing is downloaded.
"""

import argparse
import time
import warnings
from itertools import product
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

from skebm import EnergyOutlierDetector

SETTINGS = ("one-class", "unsupervised")
COLUMNS = [
    "detector",
    "dataset",
    "setting",
    "seed",
    "auc",
    "ap",
    "seconds",
    "cpu_seconds",
]


def load(path, cap=5000, seed=0):
    """Return X and y, with at most ``cap`` rows and at least 20 anomalies if it can."""
    with np.load(path) as data:
        X, y = data["X"].astype(np.float64), data["y"].astype(int).ravel()
    if len(X) <= cap:
        return X, y
    rng = np.random.default_rng(seed)
    anomalies, normal = np.flatnonzero(y == 1), np.flatnonzero(y == 0)
    n_anomalies = max(min(len(anomalies), 20), round(cap * len(anomalies) / len(y)))
    kept = np.concatenate(
        [
            rng.choice(anomalies, n_anomalies, replace=False),
            rng.choice(normal, cap - n_anomalies, replace=False),
        ]
    )
    rng.shuffle(kept)
    return X[kept], y[kept]


def split(X, y, setting, seed):
    """Return standardised training rows, standardised test rows and test labels."""
    if setting == "unsupervised":
        X_train, X_test, y_test = X, X, y
    else:
        rng = np.random.default_rng(1000 + seed)
        normal = rng.permutation(np.flatnonzero(y == 0))
        half = len(normal) // 2
        test = np.concatenate([normal[half:], np.flatnonzero(y == 1)])
        X_train, X_test, y_test = X[normal[:half]], X[test], y[test]
    scaler = StandardScaler().fit(X_train)
    return scaler.transform(X_train), scaler.transform(X_test), y_test


def energy(X_train, X_test, setting, seed):
    """Return anomaly scores of EnergyOutlierDetector with its defaults."""
    novelty = setting == "one-class"
    model = EnergyOutlierDetector(novelty=novelty, random_state=seed).fit(X_train)
    return -model.score_samples(X_test)


def nearest_neighbors(X_train, X_test, setting, seed):
    """Return the mean distance to five training rows, never to a row's own copy."""
    index = NearestNeighbors(n_neighbors=5).fit(X_train)
    queries = None if setting == "unsupervised" else X_test
    return index.kneighbors(queries)[0].mean(axis=1)


DETECTORS = {
    "EnergyOutlierDetector": energy,
    "5 nearest neighbours": nearest_neighbors,
}


def run(name, path, setting, seed, cap):
    """Return one row of the results and the number of scores that are not finite."""
    X_train, X_test, y = split(*load(path, cap, seed), setting, seed)
    wall, cpu = time.perf_counter(), time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scores = DETECTORS[name](X_train, X_test, setting, seed)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    n_bad = int((~np.isfinite(scores)).sum())
    scores = np.nan_to_num(scores, nan=0.0, posinf=1e30, neginf=-1e30)
    auc, ap = roc_auc_score(y, scores), average_precision_score(y, scores)
    row = [name, path.stem, setting, seed, auc, ap, wall, cpu]
    return dict(zip(COLUMNS, row, strict=True)), n_bad


def run_all(paths, settings, seeds, cap, jobs):
    """Return a table of every run; ``jobs`` processes with one thread each."""
    tasks = list(product(DETECTORS, paths, settings, seeds))
    threads = {"inner_max_num_threads": 1} if jobs > 1 else {}
    rows = []
    with joblib.parallel_config("loky", n_jobs=jobs, **threads):
        parallel = joblib.Parallel(return_as="generator")
        done = parallel(joblib.delayed(run)(*task, cap) for task in tasks)
        for row, n_bad in done:
            rows.append(row)
            if n_bad:
                print(f"{n_bad} scores that are not finite: {row}")
    return pd.DataFrame(rows, columns=COLUMNS)


def comparable(peers, ours):
    """Return the peers' rows on our (dataset, setting, seed), complete peers only.

    A peer stays in a setting if it has every data set that we ran there; the seeds
    that it lacks are left out of its means.
    """
    keys = ["dataset", "setting", "seed"]
    rows = peers.merge(ours[keys].drop_duplicates(), on=keys)
    n_run = ours.groupby("setting")["dataset"].nunique()
    n_sets = rows.groupby(["detector", "setting"])["dataset"].transform("nunique")
    return rows[n_sets == rows["setting"].map(n_run)]


def summarise(results):
    """Return mean AUC and AP over data sets, of means over seeds, best AUC first."""
    per_set = results.groupby(["detector", "dataset"])[["auc", "ap", "seconds"]].mean()
    table = per_set.groupby("detector").agg(
        {"auc": "mean", "ap": "mean", "seconds": "sum"}
    )
    by_detector = results.groupby("detector")
    table["sets"] = by_detector["dataset"].nunique()
    table["seeds"] = by_detector["seed"].nunique()
    return table.sort_values("auc", ascending=False)


def report(ours, peers, verbose):
    """Print a table per setting."""
    results = ours if peers is None else pd.concat([ours, comparable(peers, ours)])
    for setting, rows in results.groupby("setting", sort=False):
        print(f"\n{setting}: mean over data sets, seconds summed over them")
        print(summarise(rows).to_string(float_format="{:.4f}".format))
        if verbose:
            mine = rows[rows["detector"].isin(DETECTORS)]
            table = mine.pivot_table(
                index="dataset", columns="detector", values=["auc", "ap"]
            )
            print(f"\n{setting}, each data set\n")
            print(table.to_string(float_format="{:.4f}".format))


def find_data(folder, only):
    """Return the .npz files of the folder whose name contains one of ``only``."""
    paths = sorted(Path(folder).glob("*.npz"))
    if only:
        paths = [p for p in paths if any(name in p.stem for name in only)]
    if not paths:
        raise SystemExit(f"no data set in {folder} (only: {only or 'all'})")
    return paths


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="folder of .npz files")
    parser.add_argument("--peers", help="CSV of results with the columns of --output")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=SETTINGS)
    parser.add_argument("--cap", type=int, default=5000, help="rows per data set")
    parser.add_argument("--only", nargs="+", help="parts of data set names")
    parser.add_argument("--output", help="CSV to write, one line a run")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--verbose", action="store_true", help="a table per data set")
    args = parser.parse_args()

    paths = find_data(args.data, args.only)
    ours = run_all(paths, args.settings, args.seeds, args.cap, args.jobs)
    if args.output:
        ours.round(5).to_csv(args.output, index=False)
    report(ours, pd.read_csv(args.peers) if args.peers else None, args.verbose)


if __name__ == "__main__":
    main()
