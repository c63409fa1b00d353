"""Each member of an energy regression at the epoch that held-out rows like best."""

import torch

from skebm._torch import make_generator
from skebm.energies.response_nodes import shifted_nodes
from skebm.objectives.objective import HELD_OUT_BATCH

LEAST_GAIN = 1e-3
"""A smaller rise of the mean held-out log-density, in nats, is not waited for."""


class MemberStopping:
    """Keeps each member's best weights; called by the trainer after each epoch.

    Members that stop at different times differ more, and their mean density gains from
    it what one common time would save in noise.

    Parameters
    ----------
    energy : ResponseEnergy
        In training.
    rows : Tensor of shape (n, d + k + 2)
        x, y, the member that each row is held out from, and its weight.
    patience : int or None
        Epochs without a gain of `LEAST_GAIN` after which training ends; None is never.
    seed : int
        Of the shift of the quadrature, the same at every look.

    Attributes
    ----------
    losses : list of float
        Mean of -log p(y | x) of the held-out rows after each epoch.
    """

    def __init__(self, energy, rows, patience, seed):
        self.energy, self.patience = energy, patience
        self.rows, self.share = _by_member(rows, energy.n_members)
        self.nodes = None
        if energy.n_targets == 1:
            self.nodes = shifted_nodes(rows, make_generator(seed, rows.device))
        self.weights = [p.detach().clone() for p in energy.parameters()]
        self.log_p = self._held_out()
        self.losses, self.n_stale = [], 0
        self.passed = self.log_p.sum()

    def __call__(self, epoch, record):
        """Look at the held-out rows; tell whether to stop.

        Parameters
        ----------
        epoch : int
            Counted from 0.
        record : dict
            The numbers of the epoch.

        Returns
        -------
        bool
            Whether patience is at its end.
        """
        found = self._held_out()
        better = found > self.log_p
        self.weights = [
            torch.where(better.view(-1, *[1] * (old.ndim - 1)), new.detach(), old)
            for old, new in zip(self.weights, self.energy.parameters(), strict=True)
        ]
        self.log_p = torch.where(better, found, self.log_p)
        self.losses.append(-float(found.sum() / self.share.sum()))
        gained = bool(self.log_p.sum() - self.passed > LEAST_GAIN * self.share.sum())
        self.passed = self.log_p.sum() if gained else self.passed
        self.n_stale = 0 if gained else self.n_stale + 1
        return self.patience is not None and self.n_stale >= self.patience

    @torch.no_grad()
    def settle(self):
        """Put the best weights into the energy."""
        for weight, best in zip(self.energy.parameters(), self.weights, strict=True):
            weight.copy_(best)

    @torch.no_grad()
    def _held_out(self):
        """Return the weighted sum of each member's held-out log-densities."""
        self.energy.eval()
        log_p = torch.cat(
            [
                self.energy.member_log_density(batch, self.nodes)
                for batch in torch.split(self.rows, HELD_OUT_BATCH, dim=1)
            ],
            dim=1,
        )
        return (self.share * log_p).sum(1)


def _by_member(rows, n_members):
    """Return the rows that each member holds out, and their weights.

    Shapes are (n_members, m, d + k + 2) and (n_members, m); members with fewer than m
    rows are filled up with rows of weight zero.
    """
    own = [rows[rows[:, -2] == j] for j in range(n_members)]
    found = rows[:1].repeat(n_members, max(map(len, own)), 1)
    share = torch.zeros_like(found[..., 0])
    for j, some in enumerate(own):
        found[j, : len(some)] = some
        share[j, : len(some)] = some[:, -1]
    return found, share
