"""p(y | x) = exp(-E(x, y)) / Z(x): regression that gives the whole law of y."""

import warnings
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.callback import with_callbacks

from skebm._check import (
    Interval,
    StrOptions,
    check_targets,
    fit_context,
    refuse_few,
)
from skebm._torch import to_numpy
from skebm.estimators.merging import merged
from skebm.estimators.response_readers import ResponseReaders
from skebm.estimators.response_training import held_out_levels, train_response
from skebm.estimators.scaling import column_location_and_scale, scaled
from skebm.exceptions import InterruptedFitWarning


class EBMRegressor(ResponseReaders):
    """Regression by an energy of rows and targets, with calibrated intervals.

    p(y | x) = exp(-E(x, y)) / Z(x) [1]_, with
    E(x, y) = -log b(r) + log s(x) - a(x)'c(r) and r = (y - mu(x)) / s(x): a Student
    density b around mu(x), tilted by networks a and c where held-out rows say that the
    tilt pays. The tilt makes skewed laws and laws with several modes. Z(x) is a
    quadrature for one target, good to 1e-6, and an average over 2048 points for
    several.

    The model is the mean of the densities of ``n_members`` members, each trained on all
    rows but its fold, so that every row helps training and every row is held out once.
    Training starts at a ridge regression, or at a constant, and the Student law of its
    residuals. A tilt that starts at a constant sees the targets themselves and learns
    the shape of their own law, such as its ends. The held-out rows stop training,
    choose the start and whether to tilt, and calibrate the intervals.

    Parameters
    ----------
    prediction : {"mean", "median", "mode"}, default="mean"
        What ``predict`` returns; the mode of one target alone.
    hidden : int or tuple of int, default=(64, 64)
        Units of each hidden layer, >= 1, of the network behind mu, s and a.
    tilt : bool or "auto", default="auto"
        Whether to tilt the Student density. True trains twice, from a ridge regression
        and from a constant, False once, from a ridge regression, and "auto" all three
        ways; the one that makes held-out rows likeliest is kept.
    n_tilts : int, default=32
        Entries of a and c, >= 1.
    n_members : int, default=5
        Members and folds, >= 2; no more than there are distinct rows.
    calibration : {"conformal"} or None, default="conformal"
        Correct ``predict_interval`` by the levels that held-out rows had; None takes
        the model's own quantiles.
    learning_rate : float or "auto", default="auto"
        Largest rate, > 0, of AdamW. "auto" is 0.002 below 2000 rows, 0.008 above.
    weight_decay : float or "auto", default="auto"
        Decay >= 0 of AdamW. "auto" is (500 / n)^2 for n rows, and at most 1.
    dropout : float or "auto", default="auto"
        Share of hidden units, in [0, 1), set to zero in training. "auto" is
        (300 / n)^2 for n rows, and at most 0.2.
    batch_size : int, default=256
        Rows per update, >= 1.
    max_iter : int or "auto", default="auto"
        Epochs, >= 1, of the table, repeated to four times its rows, at least 2048 and
        at most 8192, unless it has more. "auto" is 491,520 rows in all, and
        at least 20 epochs.
    early_stopping : bool, default=True
        Stop when 81,920 rows of training have not made held-out rows likelier by 0.001
        nats. Each member keeps its own best epoch either way.
    device : str, default="auto"
        "cpu", "cuda", "cuda:1", ...; "auto" takes a CUDA device if there is one.
    random_state : int, RandomState or None, default=None
        Seed of weights, folds, batches and draws.

    Attributes
    ----------
    energy_ : ResponseEnergy
        The energy of scaled rows and targets, in double precision, on ``device_``.
    tilted_ : bool
        Whether the model is tilted.
    linear_ : bool
        Whether training started from a ridge regression.
    held_out_log_density_ : float
        Mean log p(y | x) of the training rows, in nats, each under the member that did
        not see it. The same rows chose the member's epoch, which flatters them.
    levels_ : ndarray of shape (n_targets, n_levels)
        P(target <= y | x) of the training rows, each under the member that did not see
        it, sorted; their shares of the rows are in ``level_shares_``.
    level_shares_ : ndarray of shape (n_targets, n_levels)
        Share of the rows up to each level.
    history_ : dict of str to ndarray
        One number per epoch: "loss" is the sum over members, "valid_loss" the mean over
        held-out rows of -log p(y | x) in scaled units.
    n_iter_ : int
        Epochs run.
    device_ : str
        Where the energy lives.
    n_features_in_ : int
        Columns seen in ``fit``.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Their names, if X was a DataFrame with string names.

    Raises
    ------
    DivergenceError
        If training diverges twice; the learning rate is halved in between.

    Warns
    -----
    InterruptedFitWarning
        If Ctrl-C ends training: the last whole epoch is kept and ``fit`` finished.

    Notes
    -----
    Equal rows are merged and their weights added before training, so a weight of 2 is
    the same as the row twice, and a weight of 0 the same as no row. Beyond the range of
    the training rows the networks see the nearest edge of it, and the linear part of mu
    goes on. Limits: for several targets log Z(x) has an error that grows with their
    number, about 0.01 nats up to four, and intervals are those of each target by
    itself.

    References
    ----------
    .. [1] Gustafsson, Danelljan, Bhat, Schon (2020), Energy-based models for deep
       probabilistic regression, ECCV.
    .. [2] Chernozhukov, Wuthrich, Zhu (2021), Distributional conformal prediction,
       Proceedings of the National Academy of Sciences 118.
    .. [3] Barber, Candes, Ramdas, Tibshirani (2021), Predictive inference with the
       jackknife+, Annals of Statistics 49.

    Examples
    --------
    >>> import numpy as np
    >>> from skebm import EBMRegressor
    >>> rng = np.random.default_rng(0)
    >>> X = rng.uniform(size=(200, 1))
    >>> y = 2 * X[:, 0] + 0.2 * rng.normal(size=200)
    >>> model = EBMRegressor(hidden=8, max_iter=3, random_state=0).fit(X, y)
    >>> low, high = model.predict_interval([[0.5]], coverage=0.9)[0]
    >>> bool(0.5 < low < 0.8), bool(1.2 < high < 1.5)
    (True, True)
    """

    _parameter_constraints: dict = {
        "prediction": [StrOptions({"mean", "median", "mode"})],
        "hidden": [Interval(Integral, 1, None, closed="left"), tuple, list],
        "tilt": ["boolean", StrOptions({"auto"})],
        "n_tilts": [Interval(Integral, 1, None, closed="left")],
        "n_members": [Interval(Integral, 2, None, closed="left")],
        "calibration": [StrOptions({"conformal"}), None],
        "learning_rate": [
            Interval(Real, 0, None, closed="neither"),
            StrOptions({"auto"}),
        ],
        "weight_decay": [Interval(Real, 0, None, closed="left"), StrOptions({"auto"})],
        "dropout": [Interval(Real, 0, 1, closed="left"), StrOptions({"auto"})],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "early_stopping": ["boolean"],
        "device": [str],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        *,
        prediction="mean",
        hidden=(64, 64),
        tilt="auto",
        n_tilts=32,
        n_members=5,
        calibration="conformal",
        learning_rate="auto",
        weight_decay="auto",
        dropout="auto",
        batch_size=256,
        max_iter="auto",
        early_stopping=True,
        device="auto",
        random_state=None,
    ):
        self.prediction = prediction
        self.hidden = hidden
        self.tilt = tilt
        self.n_tilts = n_tilts
        self.n_members = n_members
        self.calibration = calibration
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.dropout = dropout
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.early_stopping = early_stopping
        self.device = device
        self.random_state = random_state

    @with_callbacks
    @fit_context
    def fit(self, X, y, sample_weight=None):
        """Train the members from each start; keep the likeliest on held-out rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training rows.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Targets.
        sample_weight : array-like of shape (n_samples,) or None, default=None
            How often each row counts, >= 0; None is once.

        Returns
        -------
        self : EBMRegressor
            The fitted estimator.
        """
        x, z, weight = self._begin(X, y, sample_weight)
        self._begin_tasks(1)
        device, params = torch.device(self.device_), self.get_params(False)
        trained, rows = train_response(x, z, weight, params, self._fit_seed, device)
        self._settle(trained, rows, weight)
        self._end_task("training")
        return self._end_tasks()

    def _begin(self, X, y, sample_weight):
        """Forget the last fit; return scaled rows and targets, merged, and weights."""
        self.__dict__.pop("energy_", None)
        rows, y, weight = check_targets(self, X, y, sample_weight)
        refuse_few(self, len(rows))
        if self.prediction == "mode" and y.ndim == 2 and y.shape[1] > 1:
            raise ValueError(
                f"Got prediction='mode' and {y.shape[1]} targets, but the mode is "
                "that of one. Pass prediction='mean' or 'median'."
            )
        self._y_ndim = y.ndim
        self._set_device_and_seed()
        both = np.column_stack([rows, y]).astype(np.float64)
        both, weight = merged(both, weight)
        x, z = np.split(both, [rows.shape[1]], axis=1)
        self._location, self._scale = column_location_and_scale(x)
        self._y_location, self._y_scale = column_location_and_scale(z)
        if len(x) < 2:
            # A member needs a row that another one holds out.
            x, z, weight = (np.repeat(a, 2, axis=0) for a in (x, z, weight / 2))
        x = scaled(x, self._location, self._scale)
        return x, scaled(z, self._y_location, self._y_scale), weight

    def _settle(self, trained, rows, weight):
        """Take a trained energy as the model."""
        history = trained.history
        if trained.interrupted:
            warnings.warn(
                f"fit was interrupted: the model is that of epoch {history.n_iter}. "
                "Fit again for the whole training, or lower max_iter.",
                InterruptedFitWarning,
                stacklevel=4,
            )
        self.history_ = {k: np.asarray(v) for k, v in history.history.items()}
        self.n_iter_ = history.n_iter
        self.tilted_, self.linear_ = trained.candidate
        share = weight / weight.sum()
        units = np.log(self._y_scale).sum()
        self.held_out_log_density_ = float(trained.log_density @ share - units)
        levels = to_numpy(held_out_levels(trained.energy, rows)).T
        order = np.argsort(levels, axis=1, kind="stable")
        self.levels_ = np.take_along_axis(levels, order, axis=1)
        self.level_shares_ = weight[order].cumsum(1) / (weight.sum() + 1)
        self.energy_ = trained.energy
