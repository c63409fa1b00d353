"""E(x, x') = -f(x)'f(x') / T, low for two views of one row: features without labels."""

import math
import warnings
from numbers import Integral, Real
from os import PathLike

import numpy as np
import torch
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.callback import with_callbacks
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from skebm._check import Interval, StrOptions, check_rows, fit_context
from skebm._torch import (
    in_chunks,
    make_generator,
    refuse_forked_process,
    to_numpy,
)
from skebm.base import Fitting
from skebm.energies import Similarity
from skebm.estimators.boltzmann_training import layer_sizes
from skebm.estimators.choices import AUGMENTATIONS, resolve
from skebm.estimators.scaling import location_and_scale, scaled
from skebm.exceptions import InterruptedFitWarning
from skebm.objectives import InfoNCE
from skebm.trainer import Trainer

MOST_EPOCHS = 200
"""Epochs of a small table, whose rows are soon known one by one."""

CHUNK = 64
"""Rows per chunk of the readers."""

N_UPDATES = 1000
"""Updates of a whole training."""

MOST_GROWTH, LEAST_SHARE = 5.0, 0.1
"""Growth of the weights (1.0 to 1.7 at rates up to 0.01) with which a bound below this
share of log n is put down to the learning rate."""


class EnergyContrastiveEncoder(
    ClassNamePrefixFeaturesOutMixin, TransformerMixin, Fitting
):
    """Features of rows, learned without labels by telling rows apart (InfoNCE).

    E(x, x') = -f(x)'f(x') / T with a network f and |f(x)| = 1. A random view x' of a
    row must be picked out among the views of all rows of a batch, by
    p(j | x) = softmax_j(-E(x, x'_j)). To do so where x' lacks many columns of x, the
    network learns which columns tell about which. `transform` returns the layer below
    the last two, as in [1]_ and [2]_, for linear models that have few labels.

    Parameters
    ----------
    n_components : int, default=256
        Features, >= 1.
    hidden_layer_sizes : int or tuple of int, default=(256, 256)
        Units of the layers before them, each >= 1; () for none.
    n_projection : int, default=256
        Units of the two layers above, which only training and `energy` use, >= 1.
    passthrough : bool, default=True
        Whether `transform` returns the scaled columns of X too, so that nothing is
        lost.
    augmentation : {"corruption", "noise"} or callable, default="corruption"
        The view. "corruption": 60% of the entries replaced by those of other rows,
        column by column [1]_; "noise": Gaussian noise of standard deviation 0.5 on
        scaled columns. Control is in a `skebm.objectives.FeatureCorruption` or
        `skebm.objectives.GaussianNoise`, or any function of a tensor of scaled rows
        and a ``torch.Generator`` that returns the views.
    temperature : float, default=0.2
        T > 0. Lower weighs the rows that are hard to tell apart more.
    learning_rate : float, default=0.001
        Largest rate of AdamW, > 0.
    batch_size : int, default=256
        Rows per step, >= 2, among which a view is sought.
    max_iter : int or "auto", default="auto"
        Epochs, >= 1. "auto": 1,000 steps, but at most 200 epochs.
    checkpoint : str, path or None, default=None
        File to write to during training. A fit with the same data and parameters goes
        on from it, to the same bits.
    device : str, default="auto"
        "cpu", "cuda", "cuda:1", ...; "auto" takes a CUDA device if there is one.
    random_state : int, RandomState or None, default=None
        Seed of weights, batches and views.

    Attributes
    ----------
    energy_ : Similarity
        The energy of pairs of scaled rows, side by side, in double precision, on
        ``device_``.
    history_ : dict of str to ndarray
        One number per epoch: "loss" and "bound" in nats, "learning_rate", "grad_norm".
    n_iter_ : int
        Epochs run.
    location_, scale_ : ndarray of shape (n_features_in_,)
        Mean and standard deviation of the columns; columns in one unit share one.
    device_ : str
        Where the energy lives.
    n_features_in_ : int
        Columns seen in ``fit``.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Their names, if X was a DataFrame with string names.

    Raises
    ------
    ValueError
        If X holds NaN or fewer than two rows.
    DivergenceError
        If training diverges twice; the learning rate is halved in between.

    Warns
    -----
    InterruptedFitWarning
        If Ctrl-C ends training: the last whole epoch is kept and ``fit`` finished.
    UserWarning
        If ``learning_rate`` is too large: over the last quarter of the epochs the bound
        is below a tenth of log n, n = ``batch_size`` or the rows if they are fewer, and
        the root mean square of the weights is above five times its start.

    Notes
    -----
    Some 2 to 10 s on one core. Limits: the gain comes from columns that depend on each
    other, and from rows without labels; where a linear model of X is nearly right there
    is none. One-hot codes are corrupted column by column, which makes rows that cannot
    be.

    References
    ----------
    .. [1] Bahri, Jiang, Tay, Metzler (2022), SCARF: self-supervised contrastive
       learning using random feature corruption, ICLR.
    .. [2] Chen, Kornblith, Norouzi, Hinton (2020), A simple framework for contrastive
       learning of visual representations, ICML.
    .. [3] van den Oord, Li, Vinyals (2018), Representation learning with contrastive
       predictive coding, arXiv:1807.03748.

    Examples
    --------
    >>> import numpy as np
    >>> from skebm import EnergyContrastiveEncoder
    >>> X = np.random.default_rng(0).normal(size=(100, 4))
    >>> encoder = EnergyContrastiveEncoder(8, max_iter=5, random_state=0).fit(X)
    >>> encoder.transform(X).shape
    (100, 12)
    """

    _parameter_constraints: dict = {
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "hidden_layer_sizes": [
            "array-like",
            Interval(Integral, 1, None, closed="left"),
        ],
        "n_projection": [Interval(Integral, 1, None, closed="left")],
        "passthrough": ["boolean"],
        "augmentation": [StrOptions(set(AUGMENTATIONS)), callable],
        "temperature": [Interval(Real, 0, None, closed="neither")],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "batch_size": [Interval(Integral, 2, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "checkpoint": [str, PathLike, None],
        "device": [str],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        n_components=256,
        *,
        hidden_layer_sizes=(256, 256),
        n_projection=256,
        passthrough=True,
        augmentation="corruption",
        temperature=0.2,
        learning_rate=1e-3,
        batch_size=256,
        max_iter="auto",
        checkpoint=None,
        device="auto",
        random_state=None,
    ):
        self.n_components = n_components
        self.hidden_layer_sizes = hidden_layer_sizes
        self.n_projection = n_projection
        self.passthrough = passthrough
        self.augmentation = augmentation
        self.temperature = temperature
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.checkpoint = checkpoint
        self.device = device
        self.random_state = random_state

    @with_callbacks
    @fit_context
    def fit(self, X, y=None):
        """Train the network.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training rows, at least two; finite numbers. Labels are not needed, so all
            rows at hand belong here.
        y : Ignored
            For scikit-learn's signature.

        Returns
        -------
        self : EnergyContrastiveEncoder
            The fitted estimator.
        """
        energy, x = self._begin(X)
        start = _size(energy)
        self._begin_tasks(1)
        history = self._trainer(len(x)).run(
            energy,
            self._objective(),
            torch.cat([x, x], 1),
            generator=make_generator(self._fit_seed, self.device_),
        )
        self._settle(energy, history, x)
        self._warn_if_nothing_learned(_size(energy) / start, len(x))
        self._end_task("training")
        return self._end_tasks()

    def transform(self, X):
        """Return the features of rows, and the scaled columns beside them.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows, with the columns seen in ``fit``.

        Returns
        -------
        ndarray of shape (n_samples, n_components + n_features)
            In the floating type of X; of shape (n_samples, n_components) without
            ``passthrough``. Over the training rows, features have mean 0 and together
            the variance of n_features standardised columns.
        """
        rows = self._rows(X)
        units = self._measure(self.energy_.represent, rows)
        features = scaled(units, *self._units)
        if self.passthrough:
            z = scaled(rows, self.location_, self.scale_)
            features = np.hstack([features, z])
        return features.astype(rows.dtype)

    def energy(self, X, X_other):
        """Return E(x, x') of pairs of rows; low means views of one row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows x.
        X_other : array-like of shape (n_samples, n_features)
            Their partners x'.

        Returns
        -------
        ndarray of shape (n_samples,)
            In [-1 / temperature, 1 / temperature], float64.
        """
        left, right = self._rows(X), self._rows(X_other)
        check_consistent_length(left, right)
        return self._measure(
            lambda a, b: self.energy_(torch.cat([a, b], 1)), left, right
        )

    def score(self, X, y=None):
        """Return the InfoNCE bound on the information between rows and their views.

        The mean of log n - L over batches of n = ``batch_size`` rows, with views drawn
        from one seed: a lower bound on the mutual information of a row and its view,
        at most log n. Comparable between encoders with the same ``augmentation`` and
        ``batch_size``.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.
        y : Ignored
            For scikit-learn's signature.

        Returns
        -------
        float
            In nats; higher is better.
        """
        x = self._scaled(self._rows(X))
        generator = make_generator(self._fit_seed, self.device_)
        n_batches = math.ceil(len(x) / self.batch_size)
        total, objective = 0.0, self._objective()
        with torch.inference_mode():
            for batch in x.tensor_split(n_batches):
                pairs = torch.cat([batch, batch], 1)
                loss = objective(self.energy_, pairs, None, generator=generator)
                total += len(batch) / len(x) * float(loss.metrics["bound"])
        return total

    def _begin(self, X):
        """Forget the last fit; return an energy and scaled rows."""
        self.__dict__.pop("energy_", None)
        rows = check_rows(self, X, reset=True)
        sizes = self.hidden_layer_sizes
        hidden = layer_sizes(sizes) if np.size(sizes) else ()
        self._set_device_and_seed()
        self.location_, self.scale_ = location_and_scale(rows)
        energy = Similarity(
            self.n_components, hidden, self.n_projection, self.temperature
        )
        energy.build(2 * rows.shape[1], generator=make_generator(self._fit_seed))
        return energy.to(self.device_), self._scaled(rows).float()

    def _objective(self):
        """Return what training minimises."""
        if callable(self.augmentation):
            return InfoNCE(self.augmentation)
        return InfoNCE(resolve(self.augmentation, AUGMENTATIONS))

    def _trainer(self, n_rows):
        """Return the trainer with the settings that fit the rows."""
        n_epochs = self.max_iter
        if n_epochs == "auto":
            n_batches = math.ceil(n_rows / self.batch_size)
            n_epochs = min(MOST_EPOCHS, math.ceil(N_UPDATES / n_batches))
        return Trainer(
            max_iter=n_epochs,
            batch_size=self.batch_size,
            learning_rate=float(self.learning_rate),
            checkpoint=self.checkpoint,
        )

    def _settle(self, energy, history, x):
        """Take a trained energy as the model."""
        if history.interrupted:
            warnings.warn(
                f"fit was interrupted: the encoder is that of epoch {history.n_iter}. "
                "Fit again for the whole training, or lower max_iter.",
                InterruptedFitWarning,
                stacklevel=5,
            )
        self.history_ = {k: np.asarray(v) for k, v in history.history.items()}
        self.n_iter_ = history.n_iter
        self._n_features_out = self.n_components + x.shape[1] * self.passthrough
        energy.double().requires_grad_(False).eval()
        with torch.inference_mode():
            (units,) = in_chunks(lambda x: (energy.represent(x),), CHUNK, x.double())
        center, spread = units.mean(0), units.std(0, correction=0).norm()
        scale = spread / math.sqrt(x.shape[1])
        self._units = to_numpy(center), float(scale if spread > 0 else 1.0)
        self.energy_ = energy

    def _warn_if_nothing_learned(self, growth, n_rows):
        """Warn if the weights grew wild and the bound of the last epochs is near 0."""
        bounds = self.history_.get("bound", [])
        last = bounds[-math.ceil(len(bounds) / 4) :]
        most = math.log(min(n_rows, self.batch_size))
        if growth > MOST_GROWTH and np.mean(last) < LEAST_SHARE * most:
            warnings.warn(
                f"Training taught the encoder little: it knows {np.mean(last):.2f} of "
                f"at most {most:.2f} nats about a row's view, and its weights grew "
                f"{growth:.0f}-fold at learning_rate={self.learning_rate:g}. Lower "
                "learning_rate.",
                stacklevel=5,
            )

    def _rows(self, X):
        """Return X checked against the columns of ``fit``."""
        check_is_fitted(self)
        refuse_forked_process()
        return check_rows(self, X, reset=False)

    def _scaled(self, rows):
        """Return scaled rows as a tensor on the device, in double precision."""
        z = scaled(rows, self.location_, self.scale_)
        return torch.from_numpy(z).to(self.device_)

    def _measure(self, function, *tables):
        """Return a function of scaled rows, computed in chunks of one size."""
        columns = [self._scaled(rows) for rows in tables]
        with torch.inference_mode():
            return to_numpy(
                in_chunks(lambda *rows: (function(*rows),), CHUNK, *columns)[0]
            )

    def __sklearn_is_fitted__(self):
        """Tell whether the last fit came to its end."""
        return hasattr(self, "energy_")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _size(energy):
    """Return the root mean square of the weights of an energy."""
    weights = torch.cat([w.detach().flatten() for w in energy.parameters()])
    return float(weights.double().square().mean().sqrt())
