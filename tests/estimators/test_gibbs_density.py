"""The diagnosis that every machine shares."""

import numpy as np
import pytest
import torch

from skebm import BernoulliRBM, BoltzmannMachine
from skebm.exceptions import ForkedProcessError

ROWS = np.random.default_rng(0).integers(0, 2, (60, 4)).astype(float)
MACHINES = [BernoulliRBM(2, n_iter=3), BoltzmannMachine(n_iter=3)]


@pytest.fixture(params=MACHINES, ids=lambda m: type(m).__name__)
def fitted(request):
    return request.param.set_params(random_state=0).fit(ROWS)


def test_seed_of_the_chains(fitted):
    first, again, other = (fitted.diagnose(8, random_state=s) for s in (1, 1, 2))
    assert first.equals(again)
    assert not first["mean"].equals(other["mean"])


def test_forked_processes_are_refused(fitted, monkeypatch):
    """A child says so before it touches torch, where it would hang."""
    monkeypatch.setattr("skebm._torch._FORKED_FROM", [1])
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)

    def touched(*args):
        raise AssertionError("chains were run in a forked process")

    monkeypatch.setattr(type(fitted), "_run_chains", touched)
    with pytest.raises(ForkedProcessError):
        fitted.diagnose(8)
