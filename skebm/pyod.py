"""PyOD's face for detectors: higher = more abnormal, label 1 = outlier.

Importing this module needs PyOD; nothing else in skebm imports it.
"""

from numbers import Real

import numpy as np
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

try:
    from pyod.models.base import BaseDetector
except ImportError as error:
    raise ImportError(
        "skebm.pyod needs PyOD, which is not installed. Install it with "
        "'python -m pip install pyod'."
    ) from error

__all__ = ["PyODDetector", "to_pyod"]


def to_pyod(est, *, contamination=0.1):
    """Wrap a detector as a PyOD ``BaseDetector``.

    Parameters
    ----------
    est : estimator
        Outlier detector or density estimator with ``fit`` and ``score_samples``
        (higher = more normal): ``EnergyOutlierDetector``, a Pipeline that ends in
        one, ``GaussianMixture``. It is never changed: ``fit`` clones it, so an
        estimator that is already fitted is fitted anew. Pass
        ``FrozenEstimator(est)`` to keep a fitted one as it is.
    contamination : float, default=0.1
        Share of the training rows to label as outliers, in (0, 0.5]. PyOD sets its
        threshold from it; the estimator's own threshold is not used.

    Returns
    -------
    PyODDetector
        Unfitted detector.

    Raises
    ------
    TypeError
        If ``est`` has no ``score_samples``.
    ValueError
        If ``contamination`` is not in (0, 0.5].

    See Also
    --------
    skebm.metrics.make_outlier_scorer : Scorer that knows scikit-learn's signs.

    Examples
    --------
    >>> from sklearn.ensemble import IsolationForest
    >>> from skebm.pyod import to_pyod
    >>> X = [[0.0], [0.1], [0.2], [0.3], [9.0]]
    >>> detector = to_pyod(IsolationForest(random_state=0), contamination=0.2).fit(X)
    >>> detector.labels_
    array([0, 0, 0, 0, 1])
    """
    _check_estimator(est)
    _check_contamination(contamination)
    return PyODDetector(est, contamination=contamination)


class PyODDetector(BaseDetector):
    """PyOD detector whose anomaly scores are ``-score_samples`` of an estimator.

    Parameters
    ----------
    estimator : estimator
        Outlier detector or density estimator with ``score_samples``. ``fit`` clones
        it.
    contamination : float, default=0.1
        Share of the training rows to label as outliers, in (0, 0.5].

    Attributes
    ----------
    detector_ : estimator
        The fitted clone of ``estimator``.
    decision_scores_ : ndarray of shape (n_samples,)
        ``-detector_.score_samples(X)`` of the training rows, higher = more abnormal.
        ``EnergyOutlierDetector`` leaves a training row's own copy out of its score.
    threshold_ : float
        The ``1 - contamination`` quantile of ``decision_scores_``.
    labels_ : ndarray of shape (n_samples,)
        1 for training rows above the threshold, 0 for the others.

    See Also
    --------
    to_pyod : Checks its arguments and builds this class.

    References
    ----------
    .. [1] Zhao, Nasrullah and Li (2019), PyOD: a Python toolbox for scalable outlier
       detection, Journal of Machine Learning Research 20.

    Examples
    --------
    >>> from sklearn.ensemble import IsolationForest
    >>> from skebm.pyod import PyODDetector
    >>> detector = PyODDetector(IsolationForest(random_state=0))
    >>> detector.fit([[0.0], [0.1], [0.2], [9.0]]).predict([[0.1], [8.0]])
    array([0, 1])
    """

    def __init__(self, estimator, contamination=0.1):
        super().__init__(contamination=contamination)
        self.estimator = estimator

    def fit(self, X, y=None):
        """Fit a clone of the estimator and set the threshold.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training rows, as the estimator takes them.
        y : None
            Ignored, present by convention.

        Returns
        -------
        PyODDetector
            The fitted detector itself.

        Raises
        ------
        TypeError
            If the estimator has no ``score_samples``.
        ValueError
            If ``contamination`` is not in (0, 0.5], or if the estimator refuses X.
        """
        _check_estimator(self.estimator)
        _check_contamination(self.contamination)
        self._set_n_classes(None)
        self.detector_ = clone(self.estimator).fit(X, None)
        self.decision_scores_ = self.decision_function(X)
        self._process_decision_scores()
        return self

    def decision_function(self, X):
        """Return anomaly scores, higher = more abnormal.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows to score.

        Returns
        -------
        ndarray of shape (n_samples,)
            ``-detector_.score_samples(X)``.
        """
        check_is_fitted(self, "detector_")
        return -np.asarray(self.detector_.score_samples(X), dtype=np.float64)


def _check_estimator(est):
    """Raise unless est is an instance with fit and score_samples."""
    ready = not isinstance(est, type) and hasattr(est, "fit")
    if not (ready and hasattr(est, "score_samples")):
        name = est.__name__ if isinstance(est, type) else type(est).__name__
        raise TypeError(
            f"to_pyod needs an estimator instance with fit and score_samples (higher "
            f"= more normal), such as EnergyOutlierDetector(); got {name}."
        )


def _check_contamination(contamination):
    """Raise unless contamination is a number in (0, 0.5]."""
    if not (isinstance(contamination, Real) and 0 < contamination <= 0.5):
        raise ValueError(f"contamination must be in (0, 0.5]; got {contamination!r}.")
