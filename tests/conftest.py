"""What all tests share: the public estimators, the devices, small tables."""

import copy
import inspect

import numpy as np
import pytest
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import parametrize_with_checks
from sklearn.utils.validation import has_fit_parameter
from tables import columns_of, far_rows, fit, rows_of

import skebm
from skebm.base import BaseEBM
from skebm.partition import ImportanceSampling

ONE_STEP = {"max_iter": 1, "batch_size": 8192, "normalizer": None}

TINY: dict[str, dict] = {
    "BernoulliRBM": {"n_components": 4, "n_iter": 5, "binarize": 0.0},
    "CategoricalRBM": {"n_components": 4, "n_iter": 5, "handle_unknown": "missing"},
    "ConditionalRBM": {"n_components": 4, "n_iter": 25, "units": "gaussian"},
    "GaussianRBM": {"n_components": 4, "n_iter": 5},
    "MixedRBM": {"n_components": 4, "n_iter": 5, "kinds": "real"},
    "BoltzmannMachine": {"n_iter": 4, "binarize": 0.0},
    "DeepBeliefNetwork": {"hidden_layer_sizes": (4, 3), "n_iter": 5, "binarize": 0.0},
    "DeepBoltzmannMachine": {
        "hidden_layer_sizes": (4, 3),
        "n_iter": 50,
        "binarize": 0.0,
    },
    "EnergyContrastiveEncoder": {
        "n_components": 6,
        "hidden_layer_sizes": (8,),
        "n_projection": 5,
        "max_iter": 5,
    },
    "DeepEBM": {
        "base": "gaussian",
        "max_iter": 1,
        "batch_size": 4096,
        "normalizer": ImportanceSampling(4000),
    },
    "EBMRegressor": {"hidden": 8, "n_tilts": 4, "n_members": 3, "max_iter": 2},
    "ProductOfExperts": {
        "estimators": [
            ("a", skebm.DeepEBM("quadratic", objective="dsm", **ONE_STEP)),
            ("b", skebm.DeepEBM("mlp", base="gaussian", **ONE_STEP)),
        ],
        "cv": None,
        "normalizer": ImportanceSampling(4000),
    },
    "JEMClassifier": {"backbone": "linear", "max_iter": 20, "calibration": None},
    "RBMClassifier": {
        "n_components": 8,
        "learning_rate": 0.2,
        "batch_size": 50,
        "max_iter": 10,
        "binarize": 0.0,
    },
    "RatingRBM": {"n_components": 4, "max_iter": 2},
}
"""Constructor arguments that keep the fit of an estimator short, by its name."""


TRAITS = {
    "density": lambda e: isinstance(e, BaseEBM),
    "table": lambda e: (
        isinstance(e, BaseEBM)
        or is_classifier(e)
        or is_regressor(e)
        or (hasattr(e, "transform") and not hasattr(e, "recommend"))
    ),
    "predictor": lambda e: TRAITS["table"](e) and not TRAITS["density"](e),
    "real": lambda e: columns_of(e) == "real",
    "discrete": lambda e: columns_of(e) != "real",
    "bits": lambda e: columns_of(e) == "bits",
    "unseen": lambda e: columns_of(e) != "codes",
    "numbers": lambda e: type(e).__name__ != "CategoricalRBM",
    "complete": lambda e: not get_tags(e).input_tags.allow_nan,
    "missing": lambda e: get_tags(e).input_tags.allow_nan,
    "trained": lambda e: "learning_rate" in e.get_params(),
    "epochs": lambda e: "n_iter" in e.get_params(),
    "resumes": lambda e: "checkpoint" in e.get_params(),
    "streams": lambda e: hasattr(e, "partial_fit"),
    "weighted": lambda e: has_fit_parameter(e, "sample_weight"),
}
"""What ``@pytest.mark.estimators`` asks of an estimator: a battery test runs over the
public estimators that have all the traits it names. "table": fits rows that are no
ratings, with or without labels; "predictor": does so and has no density of rows,
as classifiers; "missing": takes NaN for a missing entry; "unseen":
takes values that no row of ``fit`` had; "numbers": refuses text and values outside its
domain (`CategoricalRBM` has tests of its own); "epochs": trained for ``n_iter``."""


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


def wanted_by(test):
    """Return the public estimators that a test's marks ask for."""
    traits = {t for mark in test.iter_markers("estimators") for t in mark.args}
    return [e for e in public_estimators() if all(TRAITS[t](e) for t in traits)]


def pytest_generate_tests(metafunc):
    """Send the public estimators through the tests that ask for ``estimator``."""
    if "check" in metafunc.fixturenames:
        test = metafunc.definition
        mark = parametrize_with_checks(wanted_by(test))
        names, pairs = mark.args
        left_out = {c for m in test.iter_markers("all_checks_but") for c in m.args}
        pairs = [
            (e, check)
            for e, check in pairs
            if check.func.__name__ not in left_out | departures(e)
        ]
        metafunc.parametrize(names, pairs, **mark.kwargs)
    elif "variant" in metafunc.fixturenames:
        metafunc.parametrize("variant", wanted_by(metafunc.definition), ids=repr)


def departures(estimator):
    """Return scikit-learn's checks that an estimator departs from, as documented.

    With ``novelty=True`` every row of ``predict`` is a new one, and ``fit_predict``
    judges training rows: LocalOutlierFactor has no ``fit_predict`` then.
    """
    is_novelty = getattr(estimator, "novelty", False)
    return {"check_outliers_fit_predict"} if is_novelty else set()


@pytest.fixture
def estimator(variant):
    return clone(variant)


@pytest.fixture
def variant():
    raise RuntimeError("parametrised in pytest_generate_tests")


@pytest.fixture
def kind(request):
    """What the columns of the test's estimator are; real where it has none."""
    if "variant" not in request.fixturenames:
        return "real"
    return columns_of(request.getfixturevalue("variant"))


@pytest.fixture(scope="session")
def fits():
    return {}


@pytest.fixture
def fitted(variant, fits):
    """Return a function: rows -> a copy of the estimator's fit to them, made once."""

    def copy_of(X):
        key = repr(variant), X.dtype.str, X.shape, X.tobytes()
        if key not in fits:
            fits[key] = fit(clone(variant), X)
        return copy.deepcopy(fits[key])

    return copy_of


@pytest.fixture
def densities():
    """Every public density and rows that it can fit."""
    rng = np.random.default_rng(0)
    found = [e for e in public_estimators() if TRAITS["density"](e)]
    return [(e, rows_of(columns_of(e), rng, 90, 5)) for e in found]


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
def table(rng, kind):
    """Return a function: (n, width) -> rows that the test's estimator can fit."""
    return lambda n, width=3: rows_of(kind, rng, n, width)


@pytest.fixture
def X(table):
    """90 rows of 3 unlike columns."""
    return table(90)


@pytest.fixture
def X_new(table, kind, X):
    """45 rows like those of X, some seen in X, some far away."""
    near = table(30)
    return np.vstack([near, X[:10], far_rows(kind, near[:5])])


@pytest.fixture
def readers():
    """Return a function: estimator -> its public methods that map X to an array."""
    names = [
        "energy",
        "score_samples",
        "decision_function",
        "predict",
        "predict_interval",
        "predict_quantiles",
        "p_values",
        "predict_fdr",
        "explain",
        "predict_proba",
        "transform",
    ]

    def reads_one_table(estimator, name):
        method = getattr(estimator, name, None)
        if method is None:
            return False
        # It refuses the training table of rows that may hold anomalies.
        if name == "predict_fdr" and getattr(estimator, "novelty", None) is False:
            return False
        _, *others = inspect.signature(method).parameters.values()
        return all(p.default is not p.empty for p in others)

    return lambda estimator: [n for n in names if reads_one_table(estimator, n)]
