"""Each member of an energy regression at the epoch that held-out rows like best."""

import torch

from skebm._torch import make_generator
from skebm.energies.response_nodes import shifted_nodes
from skebm.objectives.objective import HELD_OUT_BATCH
from skebm.objectives.response_likelihood import held_out_log_density

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
        self.energy, self.rows, self.patience = energy, rows, patience
        members = torch.arange(energy.n_members, device=rows.device)
        self.share = (members[:, None] == rows[:, -2]) * rows[:, -1]
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
                held_out_log_density(self.energy, batch, self.nodes)
                for batch in torch.split(self.rows, HELD_OUT_BATCH)
            ]
        )
        return self.share @ log_p
