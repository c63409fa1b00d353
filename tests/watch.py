"""What a call leaves behind: warnings, global state, a training that was stopped."""

import os
import random
import warnings

import numpy as np
import torch

from skebm.exceptions import DivergenceError
from skebm.training.learner import Learner


def told_by(train, X):
    """Return the messages of the warnings of a training, or of its DivergenceError."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            train(X)
        except DivergenceError as error:
            return [str(error)]
    return [str(warning.message) for warning in caught]


def global_state():
    """Return what a library must leave as it was."""
    kind, keys, *rest = np.random.get_state()  # noqa: NPY002
    return {
        "numpy": (kind, keys.tobytes(), *rest),
        "numpy errors": np.geterr(),
        "random": random.getstate(),
        "torch": torch.get_rng_state().numpy().tobytes(),
        "dtype": torch.get_default_dtype(),
        "threads": torch.get_num_threads(),
        "precision": torch.get_float32_matmul_precision(),
        "grad": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "environment": dict(os.environ),
    }


def stop_training(monkeypatch, fault, at_step):
    """Let the trainer raise ``fault`` in one of its steps."""
    step, steps = Learner._step, []

    def stopped(self, *args):
        steps.append(self)
        if len(steps) == at_step:
            raise fault
        return step(self, *args)

    monkeypatch.setattr(Learner, "_step", stopped)
    return steps
