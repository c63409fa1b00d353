"""From labelled rows to a joint energy: what p(x) is, how long, at what temperature."""

import math

import numpy as np
import torch
from sklearn.base import clone
from sklearn.model_selection import KFold, StratifiedKFold

from skebm._torch import make_generator
from skebm.energies import ClassPatterns, JointNetwork, JointPatterns, JointTilted
from skebm.estimators.bases import base_of, fitted_base
from skebm.estimators.label_start import label_start
from skebm.estimators.partial_labels import label_shares
from skebm.estimators.recipes import LEAST_REACH
from skebm.estimators.scaling import row_spacing
from skebm.estimators.temperatures import consistent_temperature
from skebm.objectives import JointLikelihood
from skebm.trainer import Trainer

N_FOLDS = 3
"""Fits without a part of the rows, on which the temperature is read."""

LEAST_EPOCHS = 10
"""Of a training, however many updates that takes."""

ONE_EPOCH = {"max_iter": 1, "schedule": "constant", "n_warmup_steps": 0}
"""Of training on a part of a stream."""

LEAST_LOG_P = -1e4
"""Of a label by the patterns: a class may have no pattern but a row's own."""

HELD_OUT = 0.1
"""Share of the labelled rows that early stopping looks at."""

PATIENCE, VALID_EVERY = 10, 2
"""Looks at held-out rows without a gain before an early stop; epochs between looks."""


class JointRecipe:
    """How an estimator's settings make a joint energy of labelled rows.

    Parameters
    ----------
    params : dict
        Of `JEMClassifier`, its strings resolved: "backbone" is a FeatureEnergy or
        None, "generative" a ClassPatterns, a base of `bases`, "network" or None,
        "objective" an Objective or None; with
        "n_updates", what ``max_iter="auto"`` means, and "noisy", whether labels are
        learned of rows with noise on them.
    n_classes : int
        Classes.
    factors : ndarray of shape (n_classes,)
        Factors on the loss of each class.
    device : device
        Where to train.
    seed : int
        Of all randomness.
    """

    def __init__(self, params, n_classes, factors, device, seed):
        self.params, self.n_classes, self.factors = params, n_classes, factors
        self.device, self.seed = device, seed
        self.interrupted = False
        self._mixture = None  # chosen once, fitted in every training

    def fit(self, rows):
        """Return a trained energy with its temperature calibrated.

        Parameters
        ----------
        rows : LabelledRows
            Training rows.

        Returns
        -------
        energy : JointEnergy
            In double precision, in eval mode.
        history : History
            Of its training.
        """
        rows, temperature = self._counted(rows), 1.0
        if self.params["calibration"] is not None:
            temperature = self._temperature(rows)
        energy, history = self.trained(rows)
        energy.network.temperature.fill_(temperature)
        return energy, history

    def trained(self, rows):
        """Return an energy trained on rows.

        Parameters
        ----------
        rows : LabelledRows
            Training rows.

        Returns
        -------
        energy : JointEnergy
            In double precision, in eval mode.
        history : History
            Of its training.
        """
        held_out = rows.take(np.arange(0))
        if self.params["early_stopping"]:
            rows, held_out = without_some(rows, self.seed)
        energy, x, n_rows = self._untrained(rows)
        x_valid = self._unseen_rows(energy, held_out) if len(held_out.z) else None
        history = self.run(energy, x, n_rows, x_valid)
        return energy.double(), history

    def started(self, rows):
        """Return an energy after one epoch on the first rows of a stream.

        Parameters
        ----------
        rows : LabelledRows
            The rows.

        Returns
        -------
        energy : JointEnergy
            In double precision, in eval mode.
        history : History
            Of the epoch.
        """
        energy, x, n_rows = self._untrained(self._counted(rows))
        history = self.run(energy, x, n_rows, **ONE_EPOCH)
        return energy.double(), history

    def continued(self, energy, rows):
        """Train an energy for one epoch on more rows, in place.

        Parameters
        ----------
        energy : JointEnergy
            Trained; its patterns, if it has some, grow by the rows.
        rows : LabelledRows
            The rows; those without a label get the probabilities that the energy
            gives them.

        Returns
        -------
        History
            Of the epoch.
        """
        rows = self._counted(rows)
        z = torch.from_numpy(rows.z).to(self.device)
        shares = np.eye(self.n_classes)[np.maximum(rows.codes, 0)]
        with torch.no_grad():
            guess = energy.log_proba(z).exp().cpu().numpy()
        shares = np.where(rows.codes[:, None] < 0, guess, shares)
        given = None
        if self._n_given:
            n_before = len(energy.patterns.patterns)
            columns = torch.from_numpy(shares), torch.from_numpy(rows.weights)
            energy.patterns.extend(z, *(c.to(self.device) for c in columns))
            given = energy.patterns.left_out(n_before)
        energy.network.requires_grad_(True)
        x, n_rows = self._training_rows(energy, rows, shares, given)
        return self.run(energy, x, n_rows, **ONE_EPOCH)

    def run(self, energy, x, n_rows, x_valid=None, **settings):
        """Train an energy in place.

        Parameters
        ----------
        energy : JointEnergy
            Built, on the device.
        x : Tensor
            Rows of `JointLikelihood`.
        n_rows : float
            How many rows with a label they stand for.
        x_valid : Tensor or None, default=None
            Held-out rows.
        **settings : dict
            Fields of `Trainer` that replace the estimator's.

        Returns
        -------
        History
            Of the run.
        """
        params, n_given = self.params, self._n_given
        objective = JointLikelihood(
            None if n_given else params["objective"],
            weight=params["generative_weight"],
            alpha=params["alpha"] * len(x) / n_rows,
            n_given=n_given,
            noise=self._noise(x),
        )
        n_batches = math.ceil(len(x) / params["batch_size"])
        n_epochs = params["max_iter"]
        if n_epochs == "auto":
            n_epochs = max(LEAST_EPOCHS, math.ceil(params["n_updates"] / n_batches))
        known = {
            "max_iter": n_epochs,
            "batch_size": params["batch_size"],
            "learning_rate": params["learning_rate"],
            "ema": 0.0,
            "early_stopping": x_valid is not None,
            "n_iter_no_change": PATIENCE,
            "valid_every": VALID_EVERY,
        }
        generator = make_generator(self.seed, self.device)
        history = Trainer(**known | settings).run(
            energy, objective, x, x_valid=x_valid, generator=generator
        )
        self.interrupted |= history.interrupted
        return history

    def _noise(self, x):
        """Return the sd of noise on the rows of which labels are learned."""
        if not self.params["noisy"]:
            return 0.0
        return row_spacing(x[:, : -self.n_classes].cpu().numpy())

    def _counted(self, rows):
        """Return rows as p(x) learns them: a trained density counts rows."""
        counts = self.params["generative"] is not None and not self._n_given
        return rows.repeated() if counts else rows

    def _untrained(self, rows):
        """Return an energy of the rows, and the rows and their number for `run`."""
        shares = label_shares(rows, self.n_classes)
        energy, given = self._energy(rows, shares), None
        if self._n_given:
            given = energy.patterns.left_out()
            self._start(energy, rows, given)
        return energy, *self._training_rows(energy, rows, shares, given)

    def _training_rows(self, energy, rows, shares, given):
        """Return rows as `JointLikelihood` takes them, and how many have a label.

        Spread labels are labels where the density is that of patterns; else a row
        without a label has no target.
        """
        weights = rows.weights
        if given is None:
            weights = weights * (rows.codes >= 0)
        targets, n_rows = self._targets(shares, weights)
        return self._packed(energy, rows.z, given, targets), n_rows

    def _unseen_rows(self, energy, rows):
        """Return held-out rows as `JointLikelihood` takes them."""
        targets, _ = self._targets(np.eye(self.n_classes)[rows.codes], rows.weights)
        z = torch.from_numpy(rows.z).to(self.device)
        given = energy.patterns.log_joint(z) if self._n_given else None
        return self._packed(energy, rows.z, given, targets)

    def _targets(self, shares, weights):
        """Return weighted targets that sum to one per row on average, and their sum."""
        targets = shares * self.factors * weights[:, None]
        total = max(targets.sum(), np.finfo(float).tiny)
        return targets * (len(targets) / total), total

    def _packed(self, energy, z, given, targets):
        """Return rows, what is given and targets side by side."""
        weight = energy.network.last.weight
        columns = [torch.from_numpy(z), torch.from_numpy(targets)]
        if given is not None:
            columns.insert(1, given.log_softmax(1))
        return torch.cat([column.to(weight) for column in columns], 1)

    @property
    def _n_given(self):
        """Columns of log p(x, y) in the training rows."""
        patterns = isinstance(self.params["generative"], ClassPatterns)
        return self.n_classes if patterns else 0

    def _energy(self, rows, shares):
        """Return an energy, built, before its training."""
        generator = make_generator(self.seed)
        backbone, kind = self.params["backbone"], self.params["generative"]
        backbone = None if backbone is None else clone(backbone)
        z = torch.from_numpy(rows.z)
        if isinstance(kind, ClassPatterns):
            weights = torch.from_numpy(rows.weights)
            patterns = clone(kind).to(self.device)
            patterns.store(
                *(c.to(self.device) for c in (z, torch.from_numpy(shares), weights))
            )
            energy = JointPatterns(patterns, backbone)
        else:
            energy = JointNetwork(backbone, self.n_classes)
            if kind not in (None, "network"):
                energy = self._tilted(rows.z, energy)
        return energy.build(z.shape[1], generator=generator).to(self.device)

    def _start(self, energy, rows, given):
        """Set what the labelled rows tell before training."""
        known = (rows.codes >= 0) & (self.factors[rows.codes] > 0)
        if not known.any():
            return
        log_p = given.log_softmax(1)[torch.from_numpy(known)].double()
        log_p = log_p.clamp(min=LEAST_LOG_P).cpu().numpy()
        rows = rows.take(known)
        rows = rows._replace(weights=rows.weights * self.factors[rows.codes])
        start = label_start(rows, log_p, self.seed)
        slope, intercept = map(torch.from_numpy, (start.slope, start.intercept))
        energy.start_at(slope, intercept, start.trust)

    def _tilted(self, z, network):
        """Return a base of the rows, tilted by a network."""
        if self._mixture is None:
            folds = KFold(min(N_FOLDS, len(z)), shuffle=True, random_state=self.seed)
            base = self.params["generative"]
            if len(z) <= N_FOLDS and base == "auto":
                base = "gaussian"
            self._mixture = base_of(base, z, list(folds.split(z)), self.seed)
        law = fitted_base(self._mixture, z)
        reach = max(LEAST_REACH, 1.2 * float(np.abs(z).max()))
        return JointTilted(law, network, reach=reach)

    def _temperature(self, rows):
        """Return the temperature of rows that a fit did not see."""
        known = rows.take(rows.codes >= 0)
        fewest = np.bincount(known.codes, minlength=self.n_classes).min()
        if fewest < 2:
            return 1.0
        splitter = StratifiedKFold(
            min(N_FOLDS, fewest), shuffle=True, random_state=self.seed
        )
        places = np.flatnonzero(rows.codes >= 0)
        scores = torch.empty(len(places), self.n_classes, dtype=torch.float64)
        for _, test in splitter.split(known.z, known.codes):
            kept = np.ones(len(rows.codes), dtype=bool)
            kept[places[test]] = False
            energy, _ = self.trained(rows.take(kept))
            if self.interrupted:
                return 1.0
            z = torch.from_numpy(known.z[test]).to(self.device)
            with torch.no_grad():
                scores[test] = energy.scores(z).cpu()
        weights = known.weights * self.factors[known.codes]
        return consistent_temperature(scores, known.codes, weights)


def without_some(rows, seed):
    """Return rows without a tenth of the labelled ones, and these.

    Parameters
    ----------
    rows : LabelledRows
        At least two of them labelled.
    seed : int
        Of the split.

    Returns
    -------
    rows, held_out : LabelledRows
        Every class keeps a row where it has two.
    """
    places = np.flatnonzero(rows.codes >= 0)
    n_held_out = max(1, round(HELD_OUT * len(places)))
    codes, rng = rows.codes[places], np.random.default_rng(seed)
    order = rng.permutation(len(places))
    first = np.unique(codes[order], return_index=True)[1]
    free = np.delete(order, first)[:n_held_out]
    held_out = np.zeros(len(rows.codes), dtype=bool)
    held_out[places[free]] = True
    return rows.take(~held_out), rows.take(held_out)
