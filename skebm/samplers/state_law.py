"""All states of a few coupled bits as a table, and bits drawn given others."""

import torch
from torch import Generator, Tensor

from skebm._torch import bernoulli
from skebm.energies import Boltzmann
from skebm.energies.boltzmann import bit_states, quadratic_form
from skebm.samplers.unit_gibbs import AnnealedUnits

MOST_UNITS = 20
"""Bits up to which a sum over all states takes a few hundredths of a second."""

N_TEMPERATURES = 200
"""Sweeps on the path from independent bits, where the states are too many to list."""

N_STEPS = 100
"""Sweeps at the machine itself, after annealing, before a state is kept."""


class StateLaw:
    """The law of all states of some coupled bits, as a table over two halves of them.

    With s = (l, r), s'Ls/2 + a's = f(l) + g(r) + l'L_lr r: one product of two tables of
    2^(d/2) rows gives the log weights of all 2^d states.

    Parameters
    ----------
    couplings : Tensor of shape (d, d)
        L.
    bias : Tensor of shape (d,)
        a.

    Attributes
    ----------
    log_partition : Tensor of shape ()
        log Z, in float64.
    p : Tensor of shape (2 ** (d // 2), 2 ** (d - d // 2))
        Probabilities of the states, left halves in rows.

    References
    ----------
    .. [1] Ackley, Hinton, Sejnowski (1985), A learning algorithm for Boltzmann
       machines, Cognitive Science 9(1).

    Examples
    --------
    >>> import torch
    >>> from skebm.samplers import StateLaw
    >>> law = StateLaw(torch.zeros(2, 2), torch.zeros(2))
    >>> round(law.log_partition.item(), 4)  # 2 log 2
    1.3863
    """

    def __init__(self, couplings: Tensor, bias: Tensor) -> None:
        L, a = couplings.double(), bias.double()
        k = len(a) // 2
        self.left, self.right = bit_states(k, a), bit_states(len(a) - k, a)
        own_left = quadratic_form(L[:k, :k], a[:k], self.left)
        own_right = quadratic_form(L[k:, k:], a[k:], self.right)
        log_weights = (
            own_left[:, None] + own_right + self.left @ L[:k, k:] @ self.right.T
        )
        self.log_partition = log_weights.logsumexp((0, 1))
        self.p = (log_weights - self.log_partition).exp()

    def moments(self) -> tuple[Tensor, Tensor]:
        """Return the means (d,) and second moments (d, d) of the bits.

        Returns
        -------
        tuple[Tensor, Tensor]
            The means (d,) and second moments (d, d) of the bits.
        """
        left, right, p = self.left, self.right, self.p
        cross = left.T @ (p @ right)
        above = torch.cat([left.T @ (p.sum(1)[:, None] * left), cross], 1)
        below = torch.cat([cross.T, right.T @ (p.sum(0)[:, None] * right)], 1)
        second = torch.cat([above, below])
        return second.diagonal(), second

    def sample(self, n_samples: int, *, generator: Generator) -> Tensor:
        """Return independent draws.

        Parameters
        ----------
        n_samples : int
            Number of rows.
        generator : Generator
            Source of randomness, on the device of the couplings.

        Returns
        -------
        Tensor of shape (n_samples, d)
            States, in float64.
        """
        which = torch.multinomial(
            self.p.flatten(), n_samples, replacement=True, generator=generator
        )
        width = len(self.right)
        return torch.cat([self.left[which // width], self.right[which % width]], 1)


def law_of(machine: Boltzmann) -> StateLaw:
    """Return the law of all states of a machine, visible and hidden.

    Parameters
    ----------
    machine : Boltzmann
        Built; of at most 20 units, or memory runs out.

    Returns
    -------
    StateLaw
        Without a graph.
    """
    with torch.no_grad():
        return StateLaw(machine.matrix(), machine.bias)


def draw_units(machine: Boltzmann, rows: Tensor, *, generator: Generator) -> Tensor:
    """Draw the missing entries of rows, and the hidden bits, given the observed ones.

    Exact where all rows are the same and up to 20 bits are drawn; else annealed from
    independent bits over 200 sweeps, then 100 sweeps at the machine.

    Parameters
    ----------
    machine : Boltzmann
        Built.
    rows : Tensor of shape (n, n_features)
        Rows; NaN is missing, a row of NaN alone is a draw of the machine.
    generator : Generator
        Source of randomness, on the device of the rows.

    Returns
    -------
    Tensor of shape (n, n_units)
        Visible bits, then hidden ones.
    """
    with torch.no_grad():
        hidden = rows.new_full((len(rows), machine.n_hidden), torch.nan)
        s = torch.cat([rows, hidden], 1)
        free = s.isnan()
        known = torch.where(free, 0.0, s)
        alike = bool((free == free[0]).all() and (known == known[0]).all())
        if alike and int(free[0].sum()) <= MOST_UNITS:
            return _exact(machine, known, free[0], generator)
        units = AnnealedUnits(machine, machine.start)
        start = bernoulli(units.start.sigmoid().repeat(len(s), 1), generator)
        s = torch.where(free, start, s)
        for i in range(N_TEMPERATURES + N_STEPS):
            t = min(1.0, (i + 1) / N_TEMPERATURES)
            s = units.move(s, t, generator=generator, free=free)
        return s


def _exact(machine: Boltzmann, s: Tensor, free: Tensor, generator: Generator) -> Tensor:
    """Return copies of one state with its free entries (n_units,) drawn."""
    couplings, kept = machine.matrix(), ~free
    bias = machine.bias[free] + couplings[free][:, kept] @ s[0, kept]
    law = StateLaw(couplings[free][:, free], bias)
    full = s.clone()
    full[:, free] = law.sample(len(s), generator=generator).to(s)
    return full
