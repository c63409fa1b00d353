"""E(x, y) = E(x) - log p(y | x): predictions that know what they have not seen."""

from numbers import Integral, Real

from sklearn.callback import with_callbacks
from sklearn.mixture import GaussianMixture

from skebm._check import Interval, StrOptions, fit_context
from skebm.energies import ClassPatterns, FeatureEnergy
from skebm.estimators.choices import BACKBONES, GENERATIVE, NORMALIZERS, OBJECTIVES
from skebm.estimators.joint_density import JointDensity
from skebm.objectives import Objective
from skebm.partition import Normalizer


class JEMClassifier(JointDensity):
    """A classifier and a density in one energy: p(y | x), p(x), and rows of a class.

    E(x, y) = E(x) - log p(y | x), so E(x) = -log sum_y exp(-E(x, y)): one function
    tells both. By default p(x) is the density of the stored training rows,
    q(x) = sum_y exp(b_y(x)) with b_y(x) = log (1/n) sum_{i: y_i = y} N(x; x_i, h^2 I),
    and p(y | x) = softmax_y((a log (exp(b_y(x)) / q(x)) + d_y(x) + g_y(x)) / T) with
    a share d of a linear discriminant, in closed form, and the logits g of a network:
    neighbours, discriminant and network vote. Then Z = 1, and training is that of a
    classifier. T is calibrated on rows left out of the fit.

    Parameters
    ----------
    backbone : {"mlp", "residual", "transformer", "linear"} or FeatureEnergy, \
            default="mlp"
        Whose features the logits read beside the row itself: `MLP`, `Convolutional`,
        `Readout` of any torch module, ... "mlp" has 64-64 SiLU units, 128-128 for
        "network" without an objective; "linear" has none, g is linear.
    generative : {"patterns", "tilted", "network"}, ClassPatterns, GaussianMixture or \
            None, default="patterns"
        What p(x) is. "patterns": as above; a `ClassPatterns` sets bandwidth and
        ``image_shape``. "tilted": a mixture of Gaussians b, or the one given, tilted by
        the network, p(x) = b(x) sum_y exp(g_y(x)) / Z. "network":
        E(x) = -log sum_y exp(g_y(x)), as in [1]_; without an objective, labels are
        learned of rows with noise on them, as large as the rows are apart. None: the
        same energy, trained on labels alone.
    objective : str or Objective, default="auto"
        What trains E(x) beside the labels, for "tilted" and "network": a string of
        `DeepEBM` or a value of `skebm.objectives`. "auto" is noise-contrastive
        estimation for "tilted" and persistent contrastive divergence by Langevin steps
        for "network".
    generative_weight : float or "auto", default="auto"
        Weight >= 0 of the objective beside -log p(y | x). "auto": 1 for "tilted", 0.1
        for "network" with an objective and 0.03 without. Patterns are no matter of
        training and have no weight.
    normalizer : str, Normalizer or None, default="auto"
        "importance", "quadrature", "ais", "smc", or a value of `skebm.partition`, for
        log Z. "auto": patterns know it, "tilted" has it estimated, and "network" and
        None leave it unknown: exp(-E) need not have a finite integral.
    alpha : float, default=3.0
        Strength of the penalty alpha / 2n times the sum of squared weights, >= 0, as
        1 / C in scikit-learn's LogisticRegression.
    calibration : {"temperature"} or None, default="temperature"
        T at which mean confidence is accuracy in three-fold cross-fitting [2]_, or 1.
    max_iter : int or "auto", default="auto"
        Epochs, >= 1. "auto": 400 updates, 1,000 for "network" without an
        objective; at least 10 epochs.
    batch_size : int, default=128
        Rows per update, >= 1.
    learning_rate : float, default=2e-3
        Largest rate of AdamW, > 0.
    early_stopping : bool, default=False
        Hold out a tenth of the labelled rows, keep the best epoch and stop when 20
        epochs bring no better one.
    class_weight : dict, "balanced" or None, default=None
        Factors on the loss of the classes, as in scikit-learn.
    device : str, default="auto"
        "cpu", "cuda", "cuda:1", ...; "auto" takes a CUDA device if there is one.
    random_state : int, RandomState or None, default=None
        Seed of the weights, folds, batches and draws.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels.
    energy_ : JointEnergy
        Fitted energy of scaled rows, on ``device_``, in double precision.
    temperature_ : float
        T.
    log_partition_ : float or None
        log Z in the units of X, nats; None if it is unknown.
    log_partition_interval_ : tuple of float or None
        95% interval of ``log_partition_``.
    log_partition_ess_ : float or None
        Effective sample size behind it; infinite where exact.
    history_ : dict of str to ndarray
        One number per epoch: "loss", "label_loss", ...
    n_iter_ : int
        Epochs run.
    location_, scale_ : ndarray of shape (n_features_in_,)
        Middle and a quarter of the range of the columns; columns in one unit, such as
        pixels, share them.
    device_ : str
        Where the energy lives.
    n_features_in_ : int
        Columns seen in ``fit``.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Their names, if X was a DataFrame with string names.

    Raises
    ------
    ValueError
        If X holds NaN, or y fewer than two classes.
    DivergenceError
        If training diverges twice; the learning rate is halved in between.

    Warns
    -----
    InterruptedFitWarning
        If Ctrl-C ends training: the last whole epoch is kept and ``fit`` finished.

    Notes
    -----
    Rows without a label have y = -1, NaN or None (-1 is a label where the others are
    all alike). With patterns they count in p(x), and labels spread to them over a graph
    of neighbours; else they train E(x) alone. Cost with patterns: n^2 d in ``fit`` and
    n d per row after it, and the model keeps the training rows. Limits: p(x) of
    patterns learns nothing about x, so rows need a scale on which near means alike; for
    images pass ``ClassPatterns(image_shape=...)`` and a `Convolutional` backbone.

    References
    ----------
    .. [1] Grathwohl, Wang, Jacobsen, Duvenaud, Norouzi, Swersky (2020), Your classifier
       is secretly an energy based model and you should treat it like one, ICLR.
    .. [2] Clarte, Loureiro, Krzakala, Zdeborova (2023), Expectation consistency for
       calibration of neural networks, UAI.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skebm import JEMClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> model = JEMClassifier(random_state=0).fit(X, y)
    >>> model.score(X, y) > 0.95
    True
    >>> bool(model.score_samples(X + 10).max() < model.score_samples(X).min())
    True
    """

    _parameter_constraints: dict = {
        "backbone": [StrOptions(set(BACKBONES)), FeatureEnergy],
        "generative": [
            StrOptions(set(GENERATIVE)),
            ClassPatterns,
            GaussianMixture,
            None,
        ],
        "objective": [StrOptions({"auto", *OBJECTIVES}), Objective],
        "generative_weight": [
            StrOptions({"auto"}),
            Interval(Real, 0, None, closed="left"),
        ],
        "normalizer": [StrOptions({"auto", *NORMALIZERS}), Normalizer, None],
        "alpha": [Interval(Real, 0, None, closed="left")],
        "calibration": [StrOptions({"temperature"}), None],
        "max_iter": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "early_stopping": ["boolean"],
        "class_weight": [dict, StrOptions({"balanced"}), None],
        "device": [str],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        backbone="mlp",
        *,
        generative="patterns",
        objective="auto",
        generative_weight="auto",
        normalizer="auto",
        alpha=3.0,
        calibration="temperature",
        max_iter="auto",
        batch_size=128,
        learning_rate=2e-3,
        early_stopping=False,
        class_weight=None,
        device="auto",
        random_state=None,
    ):
        self.backbone = backbone
        self.generative = generative
        self.objective = objective
        self.generative_weight = generative_weight
        self.normalizer = normalizer
        self.alpha = alpha
        self.calibration = calibration
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.early_stopping = early_stopping
        self.class_weight = class_weight
        self.device = device
        self.random_state = random_state

    @with_callbacks
    @fit_context
    def fit(self, X, y, sample_weight=None):
        """Train the classifier and the density.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training rows; finite numbers.
        y : array-like of shape (n_samples,)
            Labels of two classes or more; -1, NaN or None where a row has none. To
            ``score`` and cross-validate, pass rows with labels.
        sample_weight : array-like of shape (n_samples,) or None, default=None
            Weights >= 0; a weight of two is the row twice.

        Returns
        -------
        self : JEMClassifier
            The fitted estimator.
        """
        self.__dict__.pop("energy_", None)
        rows = self._begin(X, y, sample_weight)
        self._begin_tasks(2)
        recipe = self._recipe()
        energy, history = recipe.fit(rows)
        self._end_task("training")
        self._settle(energy, history, recipe.interrupted)
        self._end_task("normalizer")
        return self._end_tasks()

    @fit_context
    def partial_fit(self, X, y, classes=None, sample_weight=None):
        """Train for one epoch on rows of a stream.

        The first rows set the scale, and the base of "tilted"; patterns grow with every
        call. T is that of the last ``fit``, or 1.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.
        y : array-like of shape (n_samples,)
            Labels; -1, NaN or None where a row has none.
        classes : array-like of shape (n_classes,) or None, default=None
            All labels of the stream, needed in the first call.
        sample_weight : array-like of shape (n_samples,) or None, default=None
            Weights >= 0.

        Returns
        -------
        self : JEMClassifier
            The estimator after the rows.
        """
        if self.class_weight == "balanced":
            raise ValueError(
                "Got class_weight='balanced', but a part of a stream does not tell how "
                "frequent classes are. Pass their weights as a dict, or use fit."
            )
        if hasattr(self, "energy_"):
            rows = self._more(X, y, classes, sample_weight)
            recipe = self._recipe()
            energy, history = self.energy_, recipe.continued(self.energy_, rows)
        else:
            rows = self._begin(X, y, sample_weight, classes, partial=True)
            recipe = self._recipe()
            energy, history = recipe.started(rows)
        self._settle(energy, history, recipe.interrupted)
        return self
