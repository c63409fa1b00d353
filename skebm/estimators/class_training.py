"""How long and how fast a classification RBM is trained."""

import math

import torch

from skebm._torch import make_generator
from skebm.estimators.rbm_training import PATIENCE, RBMRun
from skebm.estimators.splits import holdout
from skebm.objectives import ClassLikelihood, RBMLikelihood
from skebm.trainer import Trainer

LEAST_RATE, MOST_RATE, PATH = 4e-3, 2e-2, 48.0
"""Largest rate of the steps that AdamW scales: PATH over the updates, within bounds."""

N_UPDATES = 12_000
"""Updates of a whole training."""

MOST_EPOCHS = 200
"""Epochs of a small table, which needs fewer updates."""

LEAST_UPDATES = 1000
"""Updates of a tiny table, however many epochs that takes."""

N_WARMUP = 500
"""Updates over which the rate rises."""

N_LOOKS = 40
"""Looks at held-out rows in a whole training."""


def train_classifier(rbm, table, params, seed):
    """Train a machine in place.

    Parameters
    ----------
    rbm : ClassRBM
        Built, on its device.
    table : Counted
        Training rows, the codes of their labels last.
    params : dict
        Parameters of `RBMClassifier`.
    seed : int
        Of all randomness.

    Returns
    -------
    History
        Of the run.
    """
    rows = torch.from_numpy(table.rows).to(rbm.weight.device, torch.float32)
    x, x_valid = rows, None
    if params["early_stopping"]:
        places = holdout(table, params["validation_fraction"], seed)
        x, x_valid = (rows[torch.from_numpy(p).to(rows.device)] for p in places)
    if params["training"] == "generative":
        run = RBMRun(rbm, RBMLikelihood(), _named_as_in_rbm(params), seed)
        return run.fit(x, x_valid, None)
    rbm.match(x)
    share = params["generative_weight"] if params["training"] == "hybrid" else 0.0
    objective = ClassLikelihood(float(share), float(params["dropout"]))
    generator = make_generator(seed, rows.device)
    return _trainer(params, len(x)).run(
        rbm, objective, x, x_valid=x_valid, generator=generator
    )


def _named_as_in_rbm(params):
    """Return parameters with the names that `RBMRun` reads."""
    return params | {"n_iter": params["max_iter"]}


def _trainer(params, n_rows):
    """Return the trainer with the settings that fit the rows."""
    rate, n_epochs = params["learning_rate"], params["max_iter"]
    n_batches = math.ceil(n_rows / params["batch_size"])
    if n_epochs == "auto":
        most = max(MOST_EPOCHS, LEAST_UPDATES // n_batches)
        n_epochs = min(most, max(1, N_UPDATES // n_batches))
    if rate == "auto":
        rate = min(MOST_RATE, max(LEAST_RATE, PATH / (n_epochs * n_batches)))
    return Trainer(
        max_iter=n_epochs,
        batch_size=params["batch_size"],
        learning_rate=float(rate),
        n_warmup_steps=N_WARMUP,
        clip_norm=math.inf,
        early_stopping=params["early_stopping"],
        n_iter_no_change=PATIENCE,
        valid_every=max(1, n_epochs // N_LOOKS),
        checkpoint=params["checkpoint"],
    )
