"""Energies and objectives whose training is known in closed form."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import nn

from skebm.energies import Energy
from skebm.objectives.objective import Loss, Objective


class Point(Energy):
    """E(x) = 0.5 |x - w|^2, w = 0 at the start."""

    def build(self, n_features, *, generator=None):
        self.w = nn.Parameter(torch.zeros(n_features, dtype=torch.float64))
        return self

    def forward(self, x):
        return 0.5 * (x - self.w).square().sum(1)


class Net(Energy):
    """A small network with dropout."""

    def __init__(self, hidden=8, dropout=0.0):
        super().__init__()
        self.hidden = hidden
        self.dropout = dropout

    def build(self, n_features, *, generator=None):
        with torch.random.fork_rng([]):
            torch.manual_seed(torch.randint(2**31, (), generator=generator).item())
            self.layers = nn.Sequential(
                nn.Linear(n_features, self.hidden),
                nn.SiLU(),
                nn.Dropout(self.dropout),
                nn.Linear(self.hidden, 1),
            )
        return self

    def forward(self, x):
        return self.layers(x)[:, 0] + 0.05 * x.square().sum(1)


@dataclass
class Likelihood(Objective):
    """The negative log-likelihood of a Quadratic."""

    def __call__(self, energy, batch, state, *, generator):
        return Loss(energy(batch).mean() - energy.log_diagonal.sum(), {})


class Constant(nn.Module):
    def __init__(self, start):
        super().__init__()
        self.c = nn.Parameter(start)
        self.register_buffer("n_calls", torch.zeros(()))


@dataclass
class Contrast(Objective):
    """Logistic regression against normal noise, with a learned constant."""

    def init(self, energy, x, *, generator):
        return Constant(torch.zeros((), dtype=x.dtype, device=x.device))

    def __call__(self, energy, batch, state, *, generator):
        if state.training:
            state.n_calls += 1
        noise = torch.empty_like(batch).normal_(generator=generator)
        logit = -energy(torch.cat([batch, noise])) - state.c
        data, drawn = logit.split(len(batch))
        softplus = nn.functional.softplus
        value = softplus(-data).mean() + softplus(drawn).mean()
        return Loss(value, {"constant": state.c.detach()})


@dataclass(repr=False)
class Scripted(Objective):
    """The mean energy, changed by ``train(call, loss)``; ``valid`` on held-out rows."""

    train: Callable = lambda call, loss: loss
    valid: list = field(default_factory=list)
    judges: bool = True
    batches: list = field(default_factory=list)
    draws: list = field(default_factory=list)

    def __repr__(self):
        return "Scripted()"

    @property
    def is_criterion(self):
        return self.judges

    def __call__(self, energy, batch, state, *, generator):
        loss = energy(batch).mean()
        if not state.training:
            self.draws.append(torch.rand((), generator=generator).item())
            return Loss(0 * loss + self.valid[len(self.draws) - 1], {})
        self.batches.append(batch.clone())
        return Loss(self.train(len(self.batches) - 1, loss), {"n_rows": loss * 0 + 1})


def nan_at(*calls):
    """Return a script that makes the loss of these calls NaN."""
    return lambda call, loss: loss * math.nan if call in calls else loss


def generator(seed=0, device="cpu"):
    return torch.Generator(device).manual_seed(seed)


def table(n=100, d=2, seed=0):
    return torch.randn(n, d, generator=generator(seed), dtype=torch.float64) + 1.0


def weights(module):
    return {k: v.clone() for k, v in module.state_dict().items()}


def same(first, second):
    """Tell whether two state dicts agree bit for bit."""
    return first.keys() == second.keys() and all(
        torch.equal(first[k], second[k]) for k in first
    )
