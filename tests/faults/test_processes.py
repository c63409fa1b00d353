"""FAULTS.md row 30: threads, worker processes, forks."""

import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from joblib import Parallel, delayed
from sklearn.base import clone

pytestmark = pytest.mark.estimators("density")

FORK = """
import os, pickle, signal, sys, warnings, numpy as np, torch
warnings.simplefilter("ignore", DeprecationWarning)
import skebm
from skebm.exceptions import ForkedProcessError

torch.set_num_threads(2)
with open(sys.argv[1], "rb") as file:
    cases = pickle.load(file)
expected = [estimator.fit(X).predict(X) for estimator, X in cases]
torch.randn(512, 512) @ torch.randn(512, 512)
child = os.fork()
if child == 0:
    signal.alarm(60)
    wrong = []
    for (estimator, X), calls in zip(cases, expected):
        torch.set_num_threads(2)
        refused = 0
        for work in [estimator.predict, estimator.fit]:
            try:
                work(X)
            except ForkedProcessError as error:
                refused += "loky" in str(error)
        torch.set_num_threads(1)
        if refused != 2 or not np.array_equal(estimator.fit(X).predict(X), calls):
            wrong.append(repr(estimator))
    print("wrong:", *wrong, flush=True)
    os._exit(0)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def fitted_scores(estimator, X):
    return clone(estimator).fit(X).score_samples(X)


def test_row_30_eight_threads_score(fitted, X, table):
    estimator, tables = fitted(X), [table(n) for n in range(100, 300, 25)]
    expected = [estimator.score_samples(rows) for rows in tables]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            scores = list(pool.map(estimator.score_samples, tables))
            for got, wanted in zip(scores, expected, strict=True):
                np.testing.assert_array_equal(got, wanted)


def test_row_30_eight_threads_fit(estimator, fitted, X):
    expected = fitted(X).score_samples(X)
    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(fitted_scores, estimator, X) for _ in range(8)]
        for job in jobs:
            np.testing.assert_array_equal(job.result(timeout=60), expected)


def test_row_30_two_workers_fit_as_one(estimator, fitted, X):
    one = [fitted(X[i:]).score_samples(X[i:]) for i in range(2)]
    jobs = (delayed(fitted_scores)(estimator, X[i:]) for i in range(2))
    two = Parallel(n_jobs=2, backend="loky", timeout=120)(jobs)
    for got, wanted in zip(two, one, strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_row_30_scores_travel_with_the_pickle(fitted, X):
    """A worker gets the fitted estimator as a pickle and scores the same."""
    estimator = fitted(X)
    job = delayed(type(estimator).score_samples)(estimator, X)
    (scores,) = Parallel(n_jobs=2, backend="loky", timeout=120)([job])
    np.testing.assert_array_equal(scores, estimator.score_samples(X))
    assert len(pickle.dumps(estimator)) < 100 * X.nbytes + 2_000_000


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork on Windows")
def test_row_30_fork_after_torch_is_refused(densities, tmp_path):
    """The child of a fork hears why it cannot go on, instead of hanging."""
    path = tmp_path / "cases"
    path.write_bytes(pickle.dumps(densities))
    done = subprocess.run(
        [sys.executable, "-c", FORK, path],
        timeout=180,
        check=False,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "wrong:\n"), done.stderr
