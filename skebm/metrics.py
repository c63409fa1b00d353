"""Metrics and scorers for anomalies: which class is positive, and which way is up."""

from dataclasses import dataclass
from functools import partial

import numpy as np
from sklearn.base import is_classifier
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    f1_score,
    matthews_corrcoef,
    precision_score,
    recall_score,
    roc_auc_score,
    roc_curve,
)
from sklearn.pipeline import Pipeline
from sklearn.utils import assert_all_finite, check_consistent_length, column_or_1d

__all__ = ["fpr_at_tpr", "make_outlier_scorer"]


def fpr_at_tpr(y_true, y_score, *, tpr=0.95):
    """Share of normal rows flagged when a share ``tpr`` of the anomalies is found.

    The smallest false-positive rate among the thresholds t of the rule
    ``y_score >= t`` whose true-positive rate is at least ``tpr``. With the default
    it is the FPR95 of the literature on out-of-distribution detection [1]_; lower is
    better, 0 is perfect, and random scores give about ``tpr``.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        1 for the positive class, the anomalies (out-of-distribution rows), 0 for
        normal rows. Both must occur.
    y_score : array-like of shape (n_samples,)
        Finite scores, higher = more anomalous: an energy, or the negative of
        ``score_samples`` or ``decision_function``.
    tpr : float, default=0.95
        Share of the anomalies that must be found, in (0, 1].

    Returns
    -------
    float
        False-positive rate in [0, 1].

    Raises
    ------
    ValueError
        If ``y_true`` holds other labels than 0 and 1 or only one of them, if the
        scores hold NaN or infinity, or if ``tpr`` is out of range.

    Notes
    -----
    Papers differ in which class they call positive. Here the anomalies are; a paper
    that keeps 95% of the *normal* rows reports another number.

    References
    ----------
    .. [1] Hendrycks, Mazeika and Dietterich (2019), Deep anomaly detection with
       outlier exposure, ICLR.

    Examples
    --------
    >>> from skebm.metrics import fpr_at_tpr
    >>> fpr_at_tpr([0, 0, 0, 0, 1, 1], [0.1, 0.2, 0.3, 0.8, 0.7, 0.9])
    0.25
    """
    _check_tpr(tpr)
    truth = _as_labels(y_true, "y_true")
    scores = column_or_1d(y_score)
    check_consistent_length(truth, scores)
    assert_all_finite(scores, input_name="y_score")
    labels = set(truth.tolist())
    if labels != {0, 1}:
        raise ValueError(
            f"fpr_at_tpr needs y_true with both 0 (normal) and 1 (anomaly); got "
            f"{_shown(labels)}. If -1 marks the anomalies, pass y_true == -1."
        )
    false_rate, true_rate, _ = roc_curve(
        truth == 1, scores, pos_label=True, drop_intermediate=False
    )
    return float(false_rate[true_rate >= tpr].min())


def make_outlier_scorer(metric="roc_auc", *, anomaly_label=None, tpr=0.95):
    """Make a scikit-learn scorer for outlier detectors, where y marks the anomalies.

    ``scoring="roc_auc"`` takes the label 1 for the class that ``decision_function``
    scores *high*. An outlier detector scores normal rows high, so with 1 = anomaly
    GridSearchCV silently picks the worst model. This scorer knows both signs.

    Parameters
    ----------
    metric : str, default="roc_auc"
        From the scores: "roc_auc", "average_precision", "fpr_at_tpr", or "fpr95",
        which is "fpr_at_tpr" at its default. From ``predict``, with anomalies as the
        positive class: "balanced_accuracy", "f1", "precision", "recall",
        "matthews_corrcoef". Higher is better for each: the two false-positive rates
        are negated, from -1 to 0.
    anomaly_label : int, str or bool, default=None
        The label in y that marks anomalies; every other label is normal. None reads
        y in {0, 1} (1 = anomaly) or in {-1, +1} (-1 = anomaly, as scikit-learn's
        detectors predict) and refuses anything else.
    tpr : float, default=0.95
        Share of the anomalies that must be found, in (0, 1]. Only "fpr_at_tpr"
        takes another value than the default.

    Returns
    -------
    callable
        ``scorer(estimator, X, y)`` -> float, for ``scoring=`` in GridSearchCV,
        cross_val_score and their like. It can be pickled, copied and compared.

    Raises
    ------
    ValueError
        If ``metric`` is unknown or ``tpr`` is out of range; when the scorer is
        called, if y is ambiguous or holds one class only.
    TypeError
        When the scorer is called, if the estimator is a classifier, a PyOD detector
        (whose scores have the other sign) or has no scores.

    Notes
    -----
    The scores are ``decision_function``, or ``score_samples`` where there is none,
    so density estimators work with the first group of metrics.

    scikit-learn does not stratify folds for outlier detectors: pass
    ``cv=StratifiedKFold(...)``, or a fold may hold no anomaly. It also hands y to
    ``fit``, where detectors ignore it; the training folds keep their anomalies.

    References
    ----------
    .. [1] Campos et al. (2016), On the evaluation of unsupervised outlier
       detection, Data Mining and Knowledge Discovery 30(4).

    Examples
    --------
    >>> from sklearn.ensemble import IsolationForest
    >>> from skebm.metrics import make_outlier_scorer
    >>> scorer = make_outlier_scorer("roc_auc")
    >>> model = IsolationForest(random_state=0).fit([[0.0], [0.1], [0.2], [9.0]])
    >>> scorer(model, [[0.0], [0.1], [8.0]], [0, 0, 1])
    1.0
    """
    known = sorted([*_FROM_SCORES, *_FROM_LABELS, "fpr_at_tpr", "fpr95"])
    if metric not in known:
        raise ValueError(f"metric must be one of {known}; got {metric!r}.")
    _check_tpr(tpr)
    if metric != "fpr_at_tpr" and tpr != 0.95:
        raise ValueError(
            f"tpr={tpr} has no meaning for metric={metric!r}; use 'fpr_at_tpr'."
        )
    return _OutlierScorer(metric, anomaly_label, tpr)


# Metrics of (is_anomaly, anomaly score) and of (is_anomaly, flagged as anomaly).
_FROM_SCORES = {
    "roc_auc": roc_auc_score,
    "average_precision": average_precision_score,
}
_FROM_LABELS = {
    "balanced_accuracy": balanced_accuracy_score,
    "f1": partial(f1_score, zero_division=0.0),
    "precision": partial(precision_score, zero_division=0.0),
    "recall": recall_score,
    "matthews_corrcoef": matthews_corrcoef,
}


@dataclass(frozen=True, repr=False)
class _OutlierScorer:
    """Scorer with scikit-learn's signature; see ``make_outlier_scorer``."""

    metric: str
    anomaly_label: object
    tpr: float

    def __call__(self, estimator, X, y=None):
        """Return the metric of the fitted estimator on X, higher = better."""
        truth = _is_anomaly(y, self.anomaly_label)
        _check_detector(estimator)
        if self.metric in _FROM_LABELS:
            flagged = np.asarray(estimator.predict(X)) == -1
            return float(_FROM_LABELS[self.metric](truth, flagged))
        scores = _anomaly_scores(estimator, X)
        if self.metric in _FROM_SCORES:
            return float(_FROM_SCORES[self.metric](truth, scores))
        return -fpr_at_tpr(truth, scores, tpr=self.tpr)

    def __repr__(self):
        arguments = [repr(self.metric)]
        if self.anomaly_label is not None:
            arguments.append(f"anomaly_label={self.anomaly_label!r}")
        if self.tpr != 0.95:
            arguments.append(f"tpr={self.tpr}")
        return f"make_outlier_scorer({', '.join(arguments)})"


def _check_tpr(tpr):
    """Raise unless 0 < tpr <= 1."""
    if not 0 < tpr <= 1:
        raise ValueError(f"tpr must be in (0, 1]; got {tpr}.")


def _as_labels(y, name):
    """Return y as a one-dimensional array without missing values."""
    y = column_or_1d(y)
    assert_all_finite(y, input_name=name)
    return y


def _is_anomaly(y, anomaly_label):
    """Return the boolean array "this row is an anomaly"; both classes occur in it."""
    if y is None:
        raise ValueError(
            "make_outlier_scorer needs y, the true labels; got y=None. Pass y to "
            "fit or to cross_val_score; detectors ignore it while fitting."
        )
    y = _as_labels(y, "y")
    labels = set(y.tolist())
    if anomaly_label is None:
        anomaly_label = _find_anomaly_label(labels)
    truth = np.asarray(y == anomaly_label, dtype=bool)
    if truth.all() or not truth.any():
        raise ValueError(
            f"y must hold both normal rows and anomalies (label {anomaly_label!r}); "
            f"got only {_shown(labels)}. For cross-validation pass "
            f"cv=StratifiedKFold(...): scikit-learn does not stratify the folds of "
            f"outlier detectors."
        )
    return truth


def _find_anomaly_label(labels):
    """Return 1 for labels in {0, 1} and -1 for {-1, +1}; raise for any other set."""
    if 0 in labels and labels <= {0, 1}:
        return 1
    if -1 in labels and labels <= {-1, 1}:
        return -1
    if labels == {1}:
        raise ValueError(
            "y holds only the label 1, which means anomaly in {0, 1} and normal in "
            "{-1, +1}. Pass anomaly_label=1 or anomaly_label=-1, and "
            "cv=StratifiedKFold(...) so that each fold holds both classes."
        )
    raise ValueError(
        f"y must be in {{0, 1}} (1 = anomaly) or in {{-1, +1}} (-1 = anomaly); got "
        f"{_shown(labels)}. Pass anomaly_label to name the label of the anomalies."
    )


def _check_detector(estimator):
    """Raise if the estimator's scores or predictions have another meaning."""
    last = estimator
    while isinstance(last, Pipeline):
        last = last.steps[-1][1]
    name = type(last).__name__
    if is_classifier(last):
        raise TypeError(
            f"make_outlier_scorer needs an outlier detector or a density estimator; "
            f"got the classifier {name}. Use scikit-learn's own scorers for it."
        )
    if any(c.__module__.partition(".")[0] == "pyod" for c in type(last).__mro__):
        raise TypeError(
            f"{name} is a PyOD detector: its decision_function is high for anomalies "
            f"and it predicts 1 for them. Use scikit-learn's scoring='roc_auc' or "
            f"'average_precision' with 1 = anomaly."
        )


def _anomaly_scores(estimator, X):
    """Return scores of shape (n,), higher = more anomalous."""
    for method in ("decision_function", "score_samples"):
        if hasattr(estimator, method):
            return -np.asarray(getattr(estimator, method)(X), dtype=np.float64)
    raise TypeError(
        f"{type(estimator).__name__} has neither decision_function nor "
        f"score_samples. LocalOutlierFactor has them with novelty=True."
    )


def _shown(labels):
    """Return at most five labels, for a message."""
    shown = sorted(labels, key=str)
    return str(shown[:5])[:-1] + (", ...]" if len(shown) > 5 else "]")
