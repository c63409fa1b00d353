"""How an energy regression is trained: a few candidates, and one choice."""

import math
from numbers import Integral
from typing import NamedTuple

import numpy as np
import torch

from skebm._torch import in_chunks, make_generator
from skebm.energies import ResponseEnergy
from skebm.energies.response_law import response_law
from skebm.estimators.linear_laws import constant_law, linear_law
from skebm.estimators.member_stopping import MemberStopping
from skebm.objectives.response_likelihood import (
    ResponseLikelihood,
    held_out_log_density,
)
from skebm.trainer import History, Trainer

CHUNK = 64
"""Rows per chunk of the readers."""

LEAST_EPOCH_ROWS, MOST_EPOCH_ROWS, EPOCH_FACTOR = 2048, 8192, 4
"""Small tables are repeated, up to these bounds, in each epoch."""

TRAINING_ROWS, PATIENCE_ROWS, FEWEST_EPOCHS = 60 * 8192, 10 * 8192, 20
"""Rows of a small table's training, and those without a gain that end it;
epochs of a large table."""

N_SMALL = 2000
SMALL_RATE, LARGE_RATE = 2e-3, 8e-3
"""Learning rates of tables below and from ``N_SMALL`` rows on."""

DECAY_ROWS, DROPOUT_ROWS = 500, 300
"""Weight decay and dropout fall with the square of the rows over these."""

LEAST_DROPOUT = 0.01
"""Less is none: it would change nothing but cost its random numbers."""


class Candidate(NamedTuple):
    """How a training starts.

    Attributes
    ----------
    tilted : bool
        Whether the law is tilted.
    linear : bool
        Whether the mean starts as a ridge regression. From a constant, the tilt sees
        the targets themselves and can learn the shape of their own law, such as its
        ends.
    """

    tilted: bool
    linear: bool


CANDIDATES = {
    False: (Candidate(tilted=False, linear=True),),
    True: (Candidate(tilted=True, linear=True), Candidate(tilted=True, linear=False)),
}
"""Trainings to choose from, by ``tilt``."""


class Trained(NamedTuple):
    """A trained energy and what is known of it.

    Attributes
    ----------
    energy : ResponseEnergy
        In double precision, without gradients.
    candidate : Candidate
        How its training started.
    history : History
        Of the run that was kept.
    log_density : ndarray of shape (n,)
        Of each row under the member that did not see it.
    interrupted : bool
        Whether Ctrl-C ended the training.
    """

    energy: ResponseEnergy
    candidate: Candidate
    history: History
    log_density: np.ndarray
    interrupted: bool


def train_response(x, y, weight, params, seed, device):
    """Train the members from each candidate start; keep what held-out rows like best.

    Parameters
    ----------
    x, y : ndarray of shape (n, d), (n, k)
        Scaled rows and targets.
    weight : ndarray of shape (n,)
        Positive.
    params : dict
        Parameters of `EBMRegressor`.
    seed : int
        Of all randomness.
    device : device
        Where to train.

    Returns
    -------
    trained : Trained
        The members with the highest mean log-density of held-out rows.
    rows : Tensor of shape (n, d + k + 2)
        x, y, the member that held each row out, and its weight.
    """
    n_members = min(params["n_members"], len(x))
    member = np.random.default_rng(seed).permutation(len(x)) % n_members
    share = weight / weight.mean()
    rows = torch.from_numpy(np.column_stack([x, y, member, share])).to(device)
    tilt = params["tilt"]
    kinds = (False, True) if tilt == "auto" else (bool(tilt),)
    best = None
    for candidate in (c for kind in kinds for c in CANDIDATES[kind]):
        energy = _started(rows, n_members, y.shape[1], params, candidate, seed)
        trained = _run(energy, candidate, rows, params, seed)
        if best is None or _gains(trained, best, share):
            best = trained._replace(interrupted=trained.interrupted)
        if trained.interrupted:
            best = best._replace(interrupted=True)
            break
    return best, rows


def held_out_levels(energy, rows):
    """Return P(target <= y | x) of each row under the member that did not see it.

    Parameters
    ----------
    energy : ResponseEnergy
        Trained.
    rows : Tensor of shape (n, d + k + 2)
        Of `train_response`.

    Returns
    -------
    Tensor of shape (n, k)
        Uniform where the model is right.
    """
    with torch.inference_mode():
        return in_chunks(lambda chunk: (_levels(energy, chunk),), CHUNK, rows)[0]


def _levels(energy, rows):
    """Return P(target <= y | x) under the member that did not see each row."""
    x, y = energy.split(rows)
    p = response_law(energy, x).distribution(y[..., None])[..., 0]
    return p[rows[:, -2].long(), torch.arange(len(rows), device=p.device)]


def _started(rows, n_members, n_targets, params, candidate, seed):
    """Return an energy whose members are linear or constant, with Student residuals."""
    energy = ResponseEnergy(
        n_targets,
        n_members,
        hidden=_layers(params["hidden"]),
        n_tilts=params["n_tilts"] if candidate.tilted else 0,
        dropout=_dropout(params, len(rows)),
    )
    energy.build(rows.shape[1] - 2, generator=make_generator(seed))
    energy.to(rows.device)
    x, y = (part.cpu().numpy() for part in energy.split(rows))
    member, weight = rows[:, -2].cpu().numpy(), rows[:, -1].cpu().numpy()
    energy.reach.copy_(torch.from_numpy(np.abs(x).max(0)))
    for j in range(n_members):
        seen = member != j if n_members > 1 else member == j
        if candidate.linear:
            law = linear_law(x[seen], y[seen], weight[seen])
        else:
            law = constant_law(x.shape[1], y[seen], weight[seen])
        energy.start(j, *(torch.from_numpy(values) for values in law))
    return energy


def _run(energy, candidate, rows, params, seed):
    """Train an energy by likelihood; return it with its held-out log-densities."""
    x = rows.to(torch.float32)
    size = max(len(x), _epoch_rows(len(x)))
    repeated = x.repeat(math.ceil(size / len(x)), 1)[:size]
    patience = math.ceil(PATIENCE_ROWS / size) if params["early_stopping"] else None
    stopping = MemberStopping(energy, x, patience, seed)
    run = _trainer(params, len(x)).run(
        energy,
        ResponseLikelihood(),
        repeated,
        generator=make_generator(seed, rows.device),
        on_epoch=stopping,
    )
    stopping.settle()
    energy.double().requires_grad_(False).eval()
    with torch.inference_mode():
        log_p = in_chunks(lambda c: (held_out_log_density(energy, c),), CHUNK, rows)[0]
    run.history["valid_loss"] = stopping.losses
    return Trained(energy, candidate, run, log_p.cpu().numpy(), run.interrupted)


def _epoch_rows(n):
    """Return the rows of an epoch of a small table: few, for the looks between them."""
    return min(MOST_EPOCH_ROWS, max(LEAST_EPOCH_ROWS, EPOCH_FACTOR * n))


def _trainer(params, n):
    """Return the trainer with the settings that fit n rows."""
    rate, n_epochs = params["learning_rate"], params["max_iter"]
    decay = params["weight_decay"]
    if rate == "auto":
        rate = SMALL_RATE if n < N_SMALL else LARGE_RATE
    if n_epochs == "auto":
        n_epochs = max(FEWEST_EPOCHS, round(TRAINING_ROWS / max(n, _epoch_rows(n))))
    if decay == "auto":
        decay = min(1.0, (DECAY_ROWS / n) ** 2)
    return Trainer(
        max_iter=n_epochs,
        batch_size=params["batch_size"],
        learning_rate=float(rate),
        weight_decay=float(decay),
        n_warmup_steps=50,
        clip_norm=10.0,
        ema=0.99,
    )


def _layers(hidden):
    """Return the units of each hidden layer."""
    layers = (hidden,) if isinstance(hidden, Integral) else tuple(hidden)
    if not all(isinstance(units, Integral) and units >= 1 for units in layers):
        raise ValueError(f"Got hidden={hidden!r}, but expected integers >= 1.")
    return layers


def _dropout(params, n):
    """Return the share of hidden units to drop."""
    if params["dropout"] == "auto":
        share = min(0.2, (DROPOUT_ROWS / n) ** 2)
        return share if share >= LEAST_DROPOUT else 0.0
    return float(params["dropout"])


def _gains(new, old, share):
    """Tell whether held-out rows are likelier."""
    return bool(share @ (new.log_density - old.log_density) > 0)
