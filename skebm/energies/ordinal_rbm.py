"""E(v): a restricted Boltzmann machine of the ratings that a row has."""

from typing import NamedTuple, Self

import torch
from torch import Generator, Tensor, nn

from skebm.energies.energy import Energy
from skebm.energies.networks import seeded

START_SCALE = 0.05
"""Length of an item's weights after `build`."""


class Ratings(NamedTuple):
    """Ratings of rows as a list: entry e is level[e] of column item[e] in row[e].

    Attributes
    ----------
    row, item, level : Tensor of shape (m,)
        Integers from 0.
    n_rows : int
        Rows, some perhaps without a rating.
    """

    row: Tensor
    item: Tensor
    level: Tensor
    n_rows: int


class OrdinalRBM(Energy):
    """The free energy of an RBM over ordered levels, unrated columns left out.

    Every row is a machine over the columns it rated; all share their weights [1]_. A
    rating of column i at level k = 0, ..., K - 1 has the value s_k, evenly spaced with
    mean 0 and variance 1, and pushes the hidden bits by s_k w_i [2]_; which n columns
    are rated pushes them too:
    f_j = c_j + sum_i (s_(v_i) w_ij + D_ij / sqrt(n)) over the rated columns, and
    E(v) = -sum_i b_(i, v_i) - sum_j log(1 + exp(f_j)), low for typical ratings of
    these columns. A further column q has
    p(v_q = k | v) = softmax_k(b_qk + sum_j log(1 + exp(f_j + s_k w_qj))), exact.

    Parameters
    ----------
    n_levels : int, default=5
        K >= 1.
    n_hidden : int, default=50
        Hidden bits, >= 1.

    Attributes
    ----------
    weight : Parameter of shape (n_features, n_hidden)
        w.
    rated_weight : Parameter of shape (n_features, n_hidden)
        D; zeros after `build`.
    level_bias : Parameter of shape (n_features, n_levels)
        b.
    hidden_bias : Parameter of shape (n_hidden,)
        c.

    References
    ----------
    .. [1] Salakhutdinov, Mnih, Hinton (2007), Restricted Boltzmann machines for
       collaborative filtering, ICML.
    .. [2] Truyen, Phung, Venkatesh (2009), Ordinal Boltzmann machines for
       collaborative filtering, UAI.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import OrdinalRBM
    >>> rbm = OrdinalRBM(n_levels=5, n_hidden=3).build(4)
    >>> nan = float("nan")
    >>> rbm(torch.tensor([[4.0, nan, 0.0, nan]])).shape
    torch.Size([1])
    """

    weight: nn.Parameter
    rated_weight: nn.Parameter
    level_bias: nn.Parameter
    hidden_bias: nn.Parameter
    scores: Tensor

    def __init__(self, n_levels: int = 5, n_hidden: int = 50) -> None:
        super().__init__()
        self.n_levels = n_levels
        self.n_hidden = n_hidden

    def build(self, n_features: int, *, generator: Generator | None = None) -> Self:
        """Make small random weights and zero biases."""
        source = seeded(generator)
        weight = torch.empty(n_features, self.n_hidden, device=source.device)
        scale = START_SCALE / self.n_hidden**0.5
        self.weight = nn.Parameter(weight.normal_(0, scale, generator=source))
        self.rated_weight = nn.Parameter(torch.zeros_like(weight))
        self.level_bias = nn.Parameter(weight.new_zeros(n_features, self.n_levels))
        self.hidden_bias = nn.Parameter(weight.new_zeros(self.n_hidden))
        scores = torch.linspace(-1, 1, self.n_levels, device=source.device)
        scores = scores - scores.mean()  # a single level has the value 0
        spread = scores.square().mean().sqrt().clamp(min=1e-6)
        self.register_buffer("scores", scores / spread)
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Return E(v) of rows of levels, NaN where unrated, shape (n,)."""
        row, item = (~x.isnan()).nonzero(as_tuple=True)
        return self.energies(Ratings(row, item, x[row, item].long(), len(x)))

    def energies(self, ratings: Ratings) -> Tensor:
        """Return E(v) of every row of a list, shape (n_rows,).

        Parameters
        ----------
        ratings : Ratings
            Ratings, a row per user.

        Returns
        -------
        Tensor
            E(v) of every row of a list, shape (n_rows,).
        """
        bias = self.level_bias[ratings.item, ratings.level]
        own = bias.new_zeros(ratings.n_rows).index_add(0, ratings.row, bias)
        return -own - nn.functional.softplus(self.hidden_fields(ratings)).sum(1)

    def pushes(self, item: Tensor, level: Tensor) -> Tensor:
        """Return s_level w_item of every entry, shape (m, n_hidden).

        Parameters
        ----------
        item : Tensor
            Places of the items.
        level : Tensor
            Levels, from 0.

        Returns
        -------
        Tensor
            S_level w_item of every entry, shape (m, n_hidden).
        """
        return self.scores[level][:, None] * self.weight[item]

    def hidden_fields(self, ratings: Ratings, pushes: Tensor | None = None) -> Tensor:
        """Return f of every row.

        Parameters
        ----------
        ratings : Ratings
            The rows.
        pushes : Tensor of shape (m, n_hidden) or None, default=None
            What each rating adds; None means `pushes` of it.

        Returns
        -------
        Tensor of shape (n_rows, n_hidden)
            Fields of the hidden bits.
        """
        row, item, n = ratings.row, ratings.item, ratings.n_rows
        if pushes is None:
            pushes = self.pushes(item, ratings.level)
        count = torch.bincount(row, minlength=n).to(pushes)
        pushes = pushes + self.rated_weight[item] * count[row].rsqrt()[:, None]
        return self.hidden_bias + pushes.new_zeros(n, self.n_hidden).index_add(
            0, row, pushes
        )

    def level_fields(self, fields: Tensor, item: Tensor) -> Tensor:
        """Return what the softmax over the levels of a column sees.

        Parameters
        ----------
        fields : Tensor of shape (m, n_hidden)
            f without the column asked for.
        item : Tensor of shape (m,)
            The columns.

        Returns
        -------
        Tensor of shape (m, n_levels)
            b_qk + sum_j log(1 + exp(f_j + s_k w_qj)).
        """
        steps = self.scores[:, None] * self.weight[item][:, None]
        hidden = nn.functional.softplus(fields[:, None] + steps).sum(2)
        return self.level_bias[item] + hidden


class RatedRows(Energy):
    """The energies of listed rows under an `OrdinalRBM`: x holds their places.

    A table of ratings is mostly holes; a list of rows lets a trainer draw batches of
    places instead of wide rows.

    Parameters
    ----------
    machine : OrdinalRBM
        Built.
    ratings : Ratings
        Sorted by row.

    References
    ----------
    .. [1] Salakhutdinov, Mnih, Hinton (2007), Restricted Boltzmann machines for
       collaborative filtering, ICML.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import OrdinalRBM, RatedRows, Ratings
    >>> ratings = Ratings(*torch.tensor([[0, 0, 1], [0, 2, 1], [4, 3, 0]]), 2)
    >>> RatedRows(OrdinalRBM().build(3), ratings)(torch.tensor([[0.0], [1.0]])).shape
    torch.Size([2])
    """

    def __init__(self, machine: OrdinalRBM, ratings: Ratings) -> None:
        super().__init__()
        self.machine = machine
        self.ratings = ratings
        self._counts = torch.bincount(ratings.row, minlength=ratings.n_rows)
        self._starts = self._counts.cumsum(0) - self._counts

    def forward(self, x: Tensor) -> Tensor:
        """Return E of the rows at places x (n, 1), shape (n,)."""
        return self.machine.energies(self.at(x))

    def at(self, x: Tensor) -> Ratings:
        """Return the ratings of the rows at places x (n, 1), rows counted anew.

        Parameters
        ----------
        x : Tensor
            Rows.

        Returns
        -------
        Ratings
            The ratings of the rows at places x (n, 1), rows counted anew.
        """
        places = x[:, 0].long()
        counts = self._counts[places]
        row = torch.arange(len(places), device=x.device).repeat_interleave(counts)
        first = self._starts[places] - (counts.cumsum(0) - counts)
        entry = torch.arange(len(row), device=x.device) + first[row]
        _, item, level, _ = self.ratings
        return Ratings(row, item[entry], level[entry], len(places))
