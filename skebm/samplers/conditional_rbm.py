"""Draws of a conditional RBM given contexts: from all states, or annealed."""

import math
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from skebm._torch import bernoulli
from skebm.energies import ContextRBM

MOST_STATES = 4096
"""States of the visible or of the hidden layer up to which all are listed."""

CHUNK_VALUES = 2**22
"""Values of the largest tensor when contexts meet all states."""

CHUNK_ROWS = 256
"""Most contexts of one chunk."""

N_TEMPERATURES = 200
"""Places on an annealed path."""

N_STEPS = 100
"""Gibbs steps at the model itself, after annealing, before a row is kept."""


class States(NamedTuple):
    """All states of one layer of a conditional RBM.

    Attributes
    ----------
    rows : Tensor of shape (n_states, d) or (n_states, n_hidden)
        The states.
    visible : bool
        Whether they are those of v; else those of h.
    """

    rows: Tensor
    visible: bool

    def log_weights(self, energy: ContextRBM, u: Tensor) -> Tensor:
        """Return the log weight of every state in every context.

        Parameters
        ----------
        energy : ContextRBM
            Built.
        u : Tensor of shape (n, n_context)
            Contexts.

        Returns
        -------
        Tensor of shape (n, n_states)
            The other layer summed out; log-sum-exp over a row is log Z(u).
        """
        if self.visible:
            return energy.visible_log_weights(u, self.rows)
        return energy.hidden_log_weights(u, self.rows)

    def chunk_rows(self, energy: ContextRBM) -> int:
        """Return how many contexts fit in one chunk, >= 1.

        Parameters
        ----------
        energy : ContextRBM
            Built.

        Returns
        -------
        int
            The same for every number of contexts.
        """
        other = energy.n_hidden if self.visible else energy.layer.n_statistics
        fits = CHUNK_VALUES // (len(self.rows) * max(1, other))
        return max(1, min(CHUNK_ROWS, fits))


def listed_states(energy: ContextRBM, most: int = MOST_STATES) -> States | None:
    """Return all states of the layer with fewer of them.

    Parameters
    ----------
    energy : ContextRBM
        Built.
    most : int, default=4096
        Number of states that is still listed.

    Returns
    -------
    States or None
        None where both layers have more.
    """
    n_hidden = 2**energy.n_hidden
    visible = visible_states(energy, min(most, n_hidden))
    if visible is not None:
        return States(visible, True)
    if n_hidden > most:
        return None
    return States(_product([2] * energy.n_hidden, energy.machine.weight), False)


def visible_states(energy: ContextRBM, most: int = MOST_STATES) -> Tensor | None:
    """Return all visible rows.

    Parameters
    ----------
    energy : ContextRBM
        Built.
    most : int, default=4096
        Number of rows that is still listed.

    Returns
    -------
    Tensor of shape (n_states, d) or None
        None where there are more.
    """
    counts = energy.layer.states()
    if counts is None or math.prod(counts) > most:
        return None
    return _product(list(counts), energy.machine.weight)


def _product(sizes: list[int], like: Tensor) -> Tensor:
    """Return all rows of codes, shape (prod sizes, len(sizes)), as numbers like W."""
    rows = like.new_zeros(1, 0)
    for size in sizes:
        codes = torch.arange(size, device=like.device).to(like.dtype)
        block = codes.repeat(len(rows))[:, None]
        rows = torch.cat([rows.repeat_interleave(size, 0), block], 1)
    return rows


def draw_given(energy: ContextRBM, u: Tensor, *, generator: Generator) -> Tensor:
    """Draw one visible row for each context.

    Exact where the visible or the hidden layer has up to 4,096 states; else annealed
    from independent columns, then 100 Gibbs steps.

    Parameters
    ----------
    energy : ContextRBM
        Built.
    u : Tensor of shape (n, n_context)
        Contexts.
    generator : Generator
        Source of randomness, on the device of u.

    Returns
    -------
    Tensor of shape (n, d)
        Draws of p(v | u).
    """
    states = listed_states(energy)
    if states is None:
        v, _ = anneal_given(energy, u, generator=generator)
        x = torch.cat([u, v], 1)
        for _ in range(N_STEPS):
            x = energy.gibbs(x, generator=generator)
        return energy.split(x)[1]
    found = []
    for piece in torch.split(u, states.chunk_rows(energy)):
        p = states.log_weights(energy, piece).softmax(1)
        which = torch.multinomial(p, 1, generator=generator)[:, 0]
        found.append(states.rows[which])
    drawn = torch.cat(found)
    if states.visible:
        return drawn
    fields = energy.biases(u)[0] + drawn @ energy.machine.weight
    return energy.layer.sample(fields, generator=generator)


def anneal_given(
    energy: ContextRBM,
    u: Tensor,
    n_temperatures: int = N_TEMPERATURES,
    *,
    generator: Generator,
) -> tuple[Tensor, Tensor]:
    """Walk one chain per context from independent columns to p(v | u).

    Along E_t(v, h; u) = A(v) - ((1 - t) b_0 + t (b + F u))'phi(v)
    - t h'(c + G u + W phi(v)), b_0 the fields of `ContextRBM.match`.

    Parameters
    ----------
    energy : ContextRBM
        Built.
    u : Tensor of shape (n, n_context)
        Contexts, one per chain.
    n_temperatures : int, default=200
        Places on the path, >= 1.
    generator : Generator
        Source of randomness, on the device of u.

    Returns
    -------
    v : Tensor of shape (n, d)
        Ends of the chains.
    log_weights : Tensor of shape (n,)
        E[exp(log w)] is Z(u).

    References
    ----------
    .. [1] Salakhutdinov, Murray (2008), On the quantitative analysis of deep belief
       networks, ICML.
    """
    layer, weight, start = energy.layer, energy.machine.weight, energy.machine.start
    visible, hidden = energy.biases(u)
    v = layer.sample(start.expand(len(u), -1), generator=generator)
    log_z = layer.log_normalizers(start[None]).sum() + energy.n_hidden * math.log(2)
    log_w = log_z.expand(len(u))
    softplus = torch.nn.functional.softplus
    for i in range(n_temperatures):
        now, then = i / n_temperatures, (i + 1) / n_temperatures
        phi = layer.statistics(v)
        field = hidden + phi @ weight.T
        log_w = log_w + (softplus(then * field) - softplus(now * field)).sum(1)
        log_w = log_w + (then - now) * (phi * (visible - start)).sum(1)
        h = bernoulli((then * field).sigmoid(), generator)
        field = then * (visible + h @ weight) + (1 - then) * start
        v = layer.sample(field, generator=generator)
    return v, log_w
