"""What the settings of a training run may be, and its rows."""

import math
from typing import Any

from torch import Tensor

from skebm._params import refuse
from skebm.objectives.objective import Objective

SCHEDULES = "cosine", "constant", "exponential"
OPTIMIZERS = "adamw", "momentum"


def refuse_bad_settings(trainer: Any) -> None:
    """Raise if a parameter of a `Trainer` is out of its range.

    Parameters
    ----------
    trainer : Trainer
        What is checked.

    Raises
    ------
    ValueError
        With the name, the value and the range.
    """
    whole, positive = "an integer >= 1", "a number > 0"
    rules = {
        "max_iter": (trainer.max_iter >= 1, whole),
        "batch_size": (trainer.batch_size >= 1, whole),
        "learning_rate": (0 < trainer.learning_rate < math.inf, positive),
        "optimizer": (trainer.optimizer in OPTIMIZERS, f"one of {OPTIMIZERS}"),
        "betas": (all(0 <= b < 1 for b in trainer.betas), "two numbers in [0, 1)"),
        "weight_decay": (trainer.weight_decay >= 0, "a number >= 0"),
        "n_warmup_steps": (trainer.n_warmup_steps >= 0, "an integer >= 0"),
        "schedule": (trainer.schedule in SCHEDULES, f"one of {SCHEDULES}"),
        "clip_norm": (trainer.clip_norm > 0, positive),
        "ema": (0 <= trainer.ema < 1, "a number in [0, 1)"),
        "n_iter_no_change": (trainer.n_iter_no_change >= 1, whole),
        "valid_every": (trainer.valid_every >= 1, whole),
        "tol": (trainer.tol >= 0, "a number >= 0"),
        "checkpoint_every": (trainer.checkpoint_every >= 1, whole),
    }
    refuse(trainer, rules)


def refuse_bad_rows(
    objective: Objective, x: Tensor, x_valid: Tensor | None, early_stopping: bool
) -> None:
    """Raise if there is nothing to learn from or to stop by.

    Parameters
    ----------
    objective : Objective
        What is minimised.
    x : Tensor of shape (n, d)
        Training rows.
    x_valid : Tensor of shape (m, d) or None
        Held-out rows.
    early_stopping : bool
        Whether the held-out loss ends training.

    Raises
    ------
    ValueError
        If a table is empty, or there is no held-out loss to stop by.
    """
    if not len(x) or (x_valid is not None and not len(x_valid)):
        raise ValueError("Got no rows. Pass one or more in x, and in x_valid or None.")
    if early_stopping and (x_valid is None or not objective.is_criterion):
        raise ValueError(
            f"Got early_stopping=True with {objective!r} and "
            f"{'no' if x_valid is None else len(x_valid)} held-out rows, but it needs "
            "held-out rows, and an objective whose value on them tells how good an "
            "energy is, as that of chains or games does not. Pass both, or "
            "early_stopping=False."
        )
