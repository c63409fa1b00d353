"""scikit-learn's own tests of its BernoulliRBM, with the import changed.

From scikit-learn 1.9, sklearn/neural_network/tests/test_rbm.py, by the scikit-learn
developers, license BSD-3-Clause. What departs from there, and why:

- `score_samples` is the log-likelihood; scikit-learn's random proxy of the
  pseudo-likelihood, near -21 in `test_fit` and `test_partial_fit`, is exact in
  `pseudo_log_likelihood`. The bound there is what scikit-learn's own machine reaches in
  it, fitted beside; the learning rate is left to the estimator, since a given rate is
  the one at the start, and falls.
- Values outside [0, 1] raise (`test_score_samples`).
- Components come from another stream of random numbers: `test_fit_gibbs`, which
  compares them and one draw with what a seed gives there, compares the frequencies of
  many draws with the exact law of a step here.
- For time, ``n_iter`` is scikit-learn's 10 where a test leaves it out (here the default
  follows the number of rows), and ``normalizer=None`` leaves out log Z where a test
  does not look at it.
"""

import itertools
import re
import sys
from io import StringIO

import numpy as np
import pytest
from scipy.special import expit
from sklearn.datasets import load_digits
from sklearn.neural_network import BernoulliRBM as PlainRBM
from sklearn.utils._testing import (
    assert_allclose,
    assert_almost_equal,
    assert_array_equal,
)
from sklearn.utils.fixes import CSC_CONTAINERS, CSR_CONTAINERS, LIL_CONTAINERS
from sklearn.utils.validation import assert_all_finite

from skebm import BernoulliRBM
from skebm.exceptions import DataDomainError

Xdigits, _ = load_digits(return_X_y=True)
Xdigits -= Xdigits.min()
Xdigits /= Xdigits.max()


def pseudo_log_likelihood_of(rbm, X):
    """Return the mean of scikit-learn's machine, without its randomness."""
    W, b, c = rbm.components_, rbm.intercept_visible_, rbm.intercept_hidden_
    total = np.zeros(len(X))
    for i in range(X.shape[1]):
        fields = c + X @ W.T - X[:, i : i + 1] * W[:, i]
        rise = b[i] + np.sum(
            np.logaddexp(0, fields + W[:, i]) - np.logaddexp(0, fields), axis=1
        )
        total += X[:, i] * rise - np.logaddexp(0, rise)
    return total.mean()


def test_fit():
    X = Xdigits.copy()

    params = {"n_components": 64, "batch_size": 10, "n_iter": 7, "random_state": 9}
    rbm = BernoulliRBM(**params, normalizer=None)
    rbm.fit(X)

    theirs = PlainRBM(**params, learning_rate=0.1).fit(X)
    assert_almost_equal(theirs.score_samples(X).mean(), -21.0, decimal=0)
    reached = rbm.pseudo_log_likelihood(X).mean()
    assert reached > pseudo_log_likelihood_of(theirs, X)
    assert_almost_equal(reached, pseudo_log_likelihood_of(rbm, X), decimal=9)

    # in-place tricks shouldn't have modified X
    assert_array_equal(X, Xdigits)


def test_partial_fit():
    X = Xdigits.copy()
    rbm = BernoulliRBM(n_components=64, batch_size=20, random_state=9, normalizer=None)
    theirs = PlainRBM(n_components=64, learning_rate=0.1, batch_size=20, random_state=9)
    n_samples = X.shape[0]
    n_batches = int(np.ceil(float(n_samples) / rbm.batch_size))
    batch_slices = np.array_split(X, n_batches)

    for _ in range(7):
        for batch in batch_slices:
            rbm.partial_fit(batch)
            theirs.partial_fit(batch)

    reached = rbm.pseudo_log_likelihood(X).mean()
    assert reached > pseudo_log_likelihood_of(theirs, X)
    assert_array_equal(X, Xdigits)


def test_transform():
    X = Xdigits[:100]
    rbm1 = BernoulliRBM(n_components=16, batch_size=5, n_iter=5, random_state=42)
    rbm1.fit(X)

    Xt1 = rbm1.transform(X)
    Xt2 = rbm1._mean_hiddens(X)

    assert_array_equal(Xt1, Xt2)


@pytest.mark.parametrize("csr_container", CSR_CONTAINERS)
def test_small_sparse(csr_container):
    # BernoulliRBM should work on small sparse matrices.
    X = csr_container(Xdigits[:4])
    BernoulliRBM(n_iter=10, normalizer=None).fit(X)  # no exception


@pytest.mark.parametrize("sparse_container", CSC_CONTAINERS + CSR_CONTAINERS)
def test_small_sparse_partial_fit(sparse_container):
    X_sparse = sparse_container(Xdigits[:100])
    X = Xdigits[:100].copy()

    rbm1 = BernoulliRBM(
        n_components=64,
        learning_rate=0.1,
        batch_size=10,
        random_state=9,
        normalizer=None,
    )
    rbm2 = BernoulliRBM(
        n_components=64,
        learning_rate=0.1,
        batch_size=10,
        random_state=9,
        normalizer=None,
    )

    rbm1.partial_fit(X_sparse)
    rbm2.partial_fit(X)

    assert_almost_equal(
        rbm1.score_samples(X).mean(), rbm2.score_samples(X).mean(), decimal=0
    )


def test_sample_hiddens():
    rng = np.random.RandomState(0)
    X = Xdigits[:100]
    rbm1 = BernoulliRBM(n_components=2, batch_size=5, n_iter=5, random_state=42)
    rbm1.fit(X)

    h = rbm1._mean_hiddens(X[0])
    hs = np.mean([rbm1._sample_hiddens(X[0], rng) for i in range(100)], 0)

    assert_almost_equal(h, hs, decimal=1)


def gibbs_law(rbm):
    """Return p(v' = 1 | v) of a step at v = 0 and v = 1, by a sum over hidden bits."""
    W, b, c = rbm.components_[:, 0], rbm.intercept_visible_[0], rbm.intercept_hidden_
    h = np.array(list(itertools.product([0.0, 1.0], repeat=len(c))))
    ones = expit(c + np.outer([0.0, 1.0], W))
    p_h = np.prod(np.where(h, ones[:, None], 1 - ones[:, None]), axis=2)
    return p_h @ expit(b + h @ W)


@pytest.mark.parametrize("csc_container", CSC_CONTAINERS)
def test_fit_gibbs(csc_container):
    X = np.array([[0.0], [1.0]])
    params = {"n_components": 2, "batch_size": 2, "n_iter": 42, "random_state": 42}
    rbm1 = BernoulliRBM(**params).fit(X)
    first = rbm1.gibbs(np.repeat(X, 20_000, axis=0)).reshape(2, -1)
    assert set(np.unique(first)) == {0.0, 1.0}
    # Five standard errors of a mean of 20,000 bits.
    assert_allclose(first.mean(1), gibbs_law(rbm1), rtol=0, atol=0.018)

    # The same from sparse input.
    rbm2 = BernoulliRBM(**params).fit(csc_container(X))
    second = rbm2.gibbs(csc_container(np.repeat(X, 20_000, axis=0)))
    assert_almost_equal(second.reshape(2, -1), first)
    assert_almost_equal(rbm1.components_, rbm2.components_)


def test_gibbs_smoke():
    # Check if we don't get NaNs sampling the full digits dataset.
    # Also check that sampling again will yield different results.
    X = Xdigits
    rbm1 = BernoulliRBM(
        n_components=42, batch_size=40, n_iter=20, random_state=42, normalizer=None
    )
    rbm1.fit(X)
    X_sampled = rbm1.gibbs(X)
    assert_all_finite(X_sampled)
    X_sampled2 = rbm1.gibbs(X)
    assert np.all((X_sampled != X_sampled2).max(axis=1))


@pytest.mark.parametrize("lil_containers", LIL_CONTAINERS)
def test_score_samples(lil_containers):
    # Test score_samples (pseudo-likelihood) method.
    # Assert that pseudo-likelihood is computed without clipping.
    # See Fabian's blog, http://bit.ly/1iYefRk
    rng = np.random.RandomState(42)
    X = np.vstack([np.zeros(1000), np.ones(1000)])
    rbm1 = BernoulliRBM(n_components=10, batch_size=2, n_iter=10, random_state=rng)
    rbm1.fit(X)
    assert (rbm1.score_samples(X) < -300).all()

    # Sparse vs. dense should not affect the output. Also test sparse input
    # validation.
    rbm1.random_state = 42
    d_score = rbm1.score_samples(X)
    rbm1.random_state = 42
    s_score = rbm1.score_samples(lil_containers(X))
    assert_almost_equal(d_score, s_score)

    # Test numerical stability (#2785): would previously generate infinities
    # and crash with an exception.
    with np.errstate(under="ignore"):
        with pytest.raises(DataDomainError, match="99900"):
            rbm1.score_samples([np.arange(1000) * 100])
        assert_all_finite(rbm1.score_samples([np.arange(1000) / 1000]))


def test_rbm_verbose():
    rbm = BernoulliRBM(n_iter=2, verbose=10, normalizer=None)
    old_stdout = sys.stdout
    sys.stdout = StringIO()
    try:
        rbm.fit(Xdigits)
    finally:
        sys.stdout = old_stdout


@pytest.mark.parametrize("csc_container", CSC_CONTAINERS)
def test_sparse_and_verbose(csc_container, capsys):
    # Make sure RBM works with sparse input when verbose=True
    X = csc_container([[0.0], [1.0]])
    rbm = BernoulliRBM(
        n_components=2, batch_size=2, n_iter=1, random_state=42, verbose=True
    )
    rbm.fit(X)
    # Make sure the captured standard output is sound.
    assert re.match(
        r"\[BernoulliRBM\] Iteration 1,"
        r" pseudo-likelihood = -?(\d)+(\.\d+)?,"
        r" time = (\d|\.)+s",
        capsys.readouterr().out,
    )


@pytest.mark.parametrize(
    ("dtype_in", "dtype_out"),
    [(np.float32, np.float32), (np.float64, np.float64), (int, np.float64)],
)
def test_transformer_dtypes_casting(dtype_in, dtype_out):
    X = Xdigits[:100].astype(dtype_in)
    rbm = BernoulliRBM(n_components=16, batch_size=5, n_iter=5, random_state=42)
    Xt = rbm.fit_transform(X)

    # dtype_in and dtype_out should be consistent
    message = f"transform dtype: {Xt.dtype} - original dtype: {X.dtype}"
    assert Xt.dtype == dtype_out, message


def test_convergence_dtype_consistency():
    # float 64 transformer
    X_64 = Xdigits[:100].astype(np.float64)
    rbm_64 = BernoulliRBM(n_components=16, batch_size=5, n_iter=5, random_state=42)
    Xt_64 = rbm_64.fit_transform(X_64)

    # float 32 transformer
    X_32 = Xdigits[:100].astype(np.float32)
    rbm_32 = BernoulliRBM(n_components=16, batch_size=5, n_iter=5, random_state=42)
    Xt_32 = rbm_32.fit_transform(X_32)

    # results and attributes should be close enough in 32 bit and 64 bit
    assert_allclose(Xt_64, Xt_32, rtol=1e-06, atol=0)
    assert_allclose(
        rbm_64.intercept_hidden_, rbm_32.intercept_hidden_, rtol=1e-06, atol=0
    )
    assert_allclose(
        rbm_64.intercept_visible_, rbm_32.intercept_visible_, rtol=1e-05, atol=0
    )
    assert_allclose(rbm_64.components_, rbm_32.components_, rtol=1e-03, atol=0)
    assert_allclose(rbm_64.h_samples_, rbm_32.h_samples_)


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_feature_names_out(method):
    """Check `get_feature_names_out` for `BernoulliRBM`."""
    n_components = 10
    rbm = BernoulliRBM(n_components=n_components, n_iter=10)
    getattr(rbm, method)(Xdigits)

    names = rbm.get_feature_names_out()
    expected_names = [f"bernoullirbm{i}" for i in range(n_components)]
    assert_array_equal(expected_names, names)
