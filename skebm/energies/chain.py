"""E(x, y): a linear chain of labels over the rows of a sequence, and its exact sums."""

from typing import Self

import torch
from torch import Generator, Tensor, nn

from skebm._torch import uniform_like
from skebm.energies.energy import Energy
from skebm.energies.networks import LAST_SCALE, perceptron, seeded

NEVER = -1e30
"""Stands for log 0: minus infinity has no gradient."""


class Chain(Energy):
    """The energy of a sequence with its labels; each label meets the one before it.

    E(x, y) = -sum_t u(x_t, y_t) - sum_t A[y_(t-1), y_t] - s[y_1] - e[y_T], a
    linear-chain conditional random field [1]_. Given x, everything about the labels is
    exact at a cost of T K^2: log Z(x) = log sum_y exp(-E(x, y)) and p(y_t | x) by the
    forward-backward recursions in log space, the likeliest y by Viterbi's, draws from
    the last label back [2]_.

    A batch is a tensor of shape (n, T, d + 1): rows x_t with the code of y_t last, -1
    after the end of a sequence. The recursions take u time first, (T, K, n), with the
    lengths of the sequences, (n,): a step is the same operation whatever T is, so that
    padding changes no bit.

    Parameters
    ----------
    n_labels : int, default=2
        K >= 2.
    hidden : tuple of int, default=()
        Units of each hidden layer of the network u, >= 1; () makes u linear in x_t.

    Attributes
    ----------
    network : Sequential
        u, from d columns to K labels.
    transitions : Parameter of shape (n_labels, n_labels)
        A; a row for the label before, a column for the label after.
    start, end : Parameter of shape (n_labels,)
        s and e.

    References
    ----------
    .. [1] Lafferty, McCallum, Pereira (2001), Conditional random fields: probabilistic
       models for segmenting and labeling sequence data, ICML.
    .. [2] Rabiner (1989), A tutorial on hidden Markov models and selected applications
       in speech recognition, Proceedings of the IEEE 77(2).

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import Chain
    >>> chain = Chain(n_labels=3).build(2)
    >>> chain(torch.zeros(4, 6, 2)).shape  # 4 sequences of 6 rows
    torch.Size([4])
    """

    network: nn.Sequential
    transitions: nn.Parameter
    start: nn.Parameter
    end: nn.Parameter

    def __init__(self, n_labels: int = 2, hidden: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.n_labels = n_labels
        self.hidden = hidden

    def build(self, n_features: int, *, generator: Generator | None = None) -> Self:
        """Make the weights for rows of ``n_features`` columns, the label included."""
        source, k = seeded(generator), self.n_labels
        self.network = perceptron(
            (n_features - 1, *self.hidden, k),
            "silu",
            generator=source,
            last_scale=LAST_SCALE if self.hidden else 0.0,
        )
        self.transitions = nn.Parameter(torch.zeros(k, k, device=source.device))
        self.start = nn.Parameter(torch.zeros(k, device=source.device))
        self.end = nn.Parameter(torch.zeros(k, device=source.device))
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Return E(x, y) of sequences with the codes of their labels last, (n,)."""
        u, y, length = self.split(x)
        return self.joint(u, y, length)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return what the recursions take.

        Parameters
        ----------
        x : Tensor of shape (n, T, d + 1)
            Sequences with the codes of their labels last, -1 after the end.

        Returns
        -------
        u : Tensor of shape (T, K, n)
            The network's output.
        y : Tensor of shape (T, n)
            Codes, 0 after the end.
        length : Tensor of shape (n,)
            Rows of each sequence.
        """
        u = self.network(x[..., :-1]).permute(1, 2, 0)
        y = x[..., -1].T.long()
        return u, y.clamp(min=0), (y >= 0).sum(0)

    def joint(self, u: Tensor, y: Tensor, length: Tensor) -> Tensor:
        """Return E(x, y).

        Parameters
        ----------
        u : Tensor of shape (T, K, n)
            The network's output.
        y : Tensor of shape (T, n)
            Codes of the labels; any code after the end.
        length : Tensor of shape (n,)
            Rows of each sequence.

        Returns
        -------
        Tensor of shape (n,)
            Low means that the labels fit.
        """
        own = u.gather(1, y[:, None])[:, 0]
        steps = torch.cat([self.start[y[:1]], self.transitions[y[:-1], y[1:]]])
        last = _last(length)
        # A running sum adds in the order of time, whatever follows after the end.
        total = (own + steps).cumsum(0).gather(0, last)
        return -(total + self.end[y.gather(0, last)])[0]

    def log_normalizer(self, u: Tensor, length: Tensor) -> Tensor:
        """Return log Z(x) = log sum_y exp(-E(x, y)).

        Parameters
        ----------
        u : Tensor of shape (T, K, n)
            The network's output.
        length : Tensor of shape (n,)
            Rows of each sequence.

        Returns
        -------
        Tensor of shape (n,)
            In nats.
        """
        return (self._forward_sums(u, length)[-1] + self.end[:, None]).logsumexp(0)

    def log_normalizer_by_halves(self, u: Tensor, length: Tensor) -> Tensor:
        """Return log Z(x) by products of neighbouring steps, in log T rounds.

        For few labels and few, long sequences this is much faster than a step after
        another. The rounding depends on T.

        Parameters
        ----------
        u : Tensor of shape (T, K, n)
            The network's output.
        length : Tensor of shape (n,)
            Rows of each sequence.

        Returns
        -------
        Tensor of shape (n,)
            In nats.
        """
        time = torch.arange(1, len(u), device=u.device)[:, None, None, None]
        nothing = torch.full_like(self.transitions, NEVER).fill_diagonal_(0.0)
        nothing = nothing[None, :, :, None].expand(1, -1, -1, u.shape[2])
        steps = self.transitions[:, :, None] + u[1:, None]
        steps = torch.cat([torch.where(time < length, steps, nothing), nothing])
        while len(steps) > 1:
            if len(steps) % 2:
                steps = torch.cat([steps, nothing])
            steps = (steps[::2, :, :, None] + steps[1::2, None]).logsumexp(2)
        first, last = self.start[:, None] + u[0], self.end[:, None]
        return (first[:, None] + steps[0] + last).flatten(0, 1).logsumexp(0)

    def marginals(self, u: Tensor, length: Tensor) -> Tensor:
        """Return p(y_t | x).

        Parameters
        ----------
        u : Tensor of shape (T, K, n)
            The network's output.
        length : Tensor of shape (n,)
            Rows of each sequence.

        Returns
        -------
        Tensor of shape (T, K, n)
            Sums to one over K; without meaning after the end.
        """
        ahead = torch.stack(self._forward_sums(u, length))
        end = self.end[:, None].expand_as(u[0])
        behind = [end]
        for t in range(len(u) - 2, -1, -1):
            inside = u[t + 1] + behind[-1]
            b = (self.transitions[:, :, None] + inside).logsumexp(1)
            behind.append(torch.where(t < length - 1, b, end))
        return (ahead + torch.stack(behind[::-1])).softmax(1)

    def decode(self, u: Tensor, length: Tensor) -> Tensor:
        """Return the labels of least energy.

        Parameters
        ----------
        u : Tensor of shape (T, K, n)
            The network's output.
        length : Tensor of shape (n,)
            Rows of each sequence.

        Returns
        -------
        Tensor of shape (T, n)
            Codes; the last one is repeated after the end.
        """
        best = self.start[:, None] + u[0]
        stay = torch.arange(self.n_labels, device=u.device)[:, None].expand_as(best)
        came_from = []
        for t in range(1, len(u)):
            inside = t < length
            most, before = (best[:, None] + self.transitions[:, :, None]).max(0)
            best = torch.where(inside, most + u[t], best)
            came_from.append(torch.where(inside, before, stay))
        path = [(best + self.end[:, None]).argmax(0)]
        for before in reversed(came_from):
            path.append(before.gather(0, path[-1][None])[0])
        return torch.stack(path[::-1])

    def draw(self, u: Tensor, length: Tensor, *, generator: Generator) -> Tensor:
        """Return labels drawn from p(y | x), exactly.

        Parameters
        ----------
        u : Tensor of shape (T, K, n)
            The network's output.
        length : Tensor of shape (n,)
            Rows of each sequence.
        generator : Generator
            Source of randomness, on the device of u.

        Returns
        -------
        Tensor of shape (T, n)
            Codes; the last one is repeated after the end.
        """
        ahead = self._forward_sums(u, length)
        path = [_drawn(ahead[-1] + self.end[:, None], generator)]
        for t in range(len(u) - 1, 0, -1):
            before = _drawn(ahead[t - 1] + self.transitions[:, path[-1]], generator)
            path.append(torch.where(t < length, before, path[-1]))
        return torch.stack(path[::-1])

    def _forward_sums(self, u: Tensor, length: Tensor) -> list[Tensor]:
        """Return log sum exp(-E) over the labels before t, T times (K, n).

        After the end of a sequence its last sums are repeated.
        """
        sums = [self.start[:, None] + u[0]]
        for t in range(1, len(u)):
            a = (sums[-1][:, None] + self.transitions[:, :, None]).logsumexp(0) + u[t]
            sums.append(torch.where(t < length, a, sums[-1]))
        return sums


def _last(length: Tensor) -> Tensor:
    """Return the places of the last rows, shape (1, n)."""
    return (length - 1).clamp(min=0)[None]


def _drawn(logits: Tensor, generator: Generator) -> Tensor:
    """Return a code per column of logits (K, n), by the Gumbel trick."""
    noise = uniform_like(logits, generator).log().neg().log().neg()
    return (logits + noise).argmax(0)
