"""What all tests share: the public estimators, the devices, small tables."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.utils.estimator_checks import parametrize_with_checks

import skebm
from skebm.partition import ImportanceSampling

ONE_STEP = {"max_iter": 1, "batch_size": 8192, "normalizer": None}

TINY: dict[str, dict] = {
    "BernoulliRBM": {"n_components": 4, "n_iter": 5, "binarize": 0.0},
    "DeepEBM": {
        "base": "gaussian",
        "max_iter": 1,
        "batch_size": 4096,
        "normalizer": ImportanceSampling(4000),
    },
    "ProductOfExperts": {
        "estimators": [
            ("a", skebm.DeepEBM("quadratic", objective="dsm", **ONE_STEP)),
            ("b", skebm.DeepEBM("mlp", base="gaussian", **ONE_STEP)),
        ],
        "cv": None,
        "normalizer": ImportanceSampling(4000),
    },
}
"""Constructor arguments that keep the fit of an estimator short, by its name."""


def public_estimators():
    """Return every exported estimator, in both values of ``novelty`` if it has one.

    A later estimator joins all batteries by being exported.
    """
    variants = []
    for name in skebm.__all__:
        estimator = getattr(skebm, name)(**TINY.get(name, {}))
        known = estimator.get_params()
        if "random_state" in known:
            estimator.set_params(random_state=0)
        variants.append(estimator)
        if "novelty" in known:
            variants.append(clone(estimator).set_params(novelty=not known["novelty"]))
    return variants


def pytest_generate_tests(metafunc):
    """Send every public estimator through the tests that ask for ``estimator``."""
    if "check" in metafunc.fixturenames:
        mark = parametrize_with_checks(public_estimators())
        metafunc.parametrize(*mark.args, **mark.kwargs)
    elif "variant" in metafunc.fixturenames:
        metafunc.parametrize("variant", public_estimators(), ids=repr)


@pytest.fixture
def estimator(variant):
    return clone(variant)


@pytest.fixture
def variant():
    raise RuntimeError("parametrised in pytest_generate_tests")


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request):
    return request.param


@pytest.fixture(params=[np.float64, np.float32], ids=["float64", "float32"])
def dtype(request):
    return request.param


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def X(rng):
    """90 rows of 3 unlike columns."""
    return rng.normal(size=(90, 3)) * [1.0, 20.0, 0.1] + [0.0, 100.0, -3.0]


@pytest.fixture
def X_new(rng, X):
    """45 rows like those of X, some seen in X, some far away."""
    near = rng.normal(size=(30, 3)) * [1.0, 20.0, 0.1] + [0.0, 100.0, -3.0]
    return np.vstack([near, X[:10], near[:5] * 3])


@pytest.fixture
def readers():
    """Return a function: estimator -> its public methods that map X to an array."""
    names = [
        "energy",
        "score_samples",
        "decision_function",
        "predict",
        "p_values",
        "predict_fdr",
        "explain",
    ]
    return lambda estimator: [n for n in names if hasattr(type(estimator), n)]
