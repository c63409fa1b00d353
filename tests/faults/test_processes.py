"""FAULTS.md row 30: threads, worker processes, forks."""

import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from joblib import Parallel, delayed
from sklearn.base import clone

FORK = """
import os, pickle, signal, sys, warnings, numpy as np, torch
warnings.simplefilter("ignore", DeprecationWarning)
import skebm
from skebm.exceptions import ForkedProcessError

torch.set_num_threads(2)
estimator = pickle.loads({pickled!r})
X = np.random.default_rng(0).normal(size=(400, 5))
expected = estimator.fit(X).predict(X)
torch.randn(512, 512) @ torch.randn(512, 512)
child = os.fork()
if child == 0:
    signal.alarm(60)
    refused = 0
    for work in [estimator.predict, estimator.fit]:
        try:
            work(X)
        except ForkedProcessError as error:
            refused += "loky" in str(error)
    torch.set_num_threads(1)
    same = np.array_equal(estimator.fit(X).predict(X), expected)
    os._exit(0 if refused == 2 and same else 10 + refused)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def fitted_scores(estimator, X):
    return clone(estimator).fit(X).score_samples(X)


def test_row_30_eight_threads_score(estimator, X, rng):
    estimator.fit(X)
    tables = [rng.normal(size=(n, 3)) for n in range(100, 300, 25)]
    expected = [estimator.score_samples(table) for table in tables]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            scores = list(pool.map(estimator.score_samples, tables))
            for got, wanted in zip(scores, expected, strict=True):
                np.testing.assert_array_equal(got, wanted)


def test_row_30_eight_threads_fit(estimator, X):
    expected = fitted_scores(estimator, X)
    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(fitted_scores, estimator, X) for _ in range(8)]
        for job in jobs:
            np.testing.assert_array_equal(job.result(timeout=60), expected)


def test_row_30_two_workers_fit_as_one(estimator, X):
    one = [fitted_scores(estimator, X[i:]) for i in range(2)]
    jobs = (delayed(fitted_scores)(estimator, X[i:]) for i in range(2))
    two = Parallel(n_jobs=2, backend="loky", timeout=120)(jobs)
    for got, wanted in zip(two, one, strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_row_30_scores_travel_with_the_pickle(estimator, X):
    """A worker gets the fitted estimator as a pickle and scores the same."""
    estimator.fit(X)
    job = delayed(type(estimator).score_samples)(estimator, X)
    (scores,) = Parallel(n_jobs=2, backend="loky", timeout=120)([job])
    np.testing.assert_array_equal(scores, estimator.score_samples(X))
    assert len(pickle.dumps(estimator)) < 100 * X.nbytes + 2_000_000


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork on Windows")
def test_row_30_fork_after_torch_is_refused(estimator):
    """The child of a fork hears why it cannot go on, instead of hanging."""
    script = FORK.format(pickled=pickle.dumps(estimator))
    done = subprocess.run([sys.executable, "-c", script], timeout=120, check=False)
    assert done.returncode == 0
