"""E(x_free | x_given): some columns held fixed."""

import torch
from torch import Tensor

from skebm.energies.energy import Energy


class Conditioned(Energy):
    """An energy over the free columns while the others keep given values.

    E(u) = E_part(x) with x[free] = u and x[given] = values. exp(-E(u)) is proportional
    to the conditional density p(x[free] | x[given] = values).

    Parameters
    ----------
    part : Energy
        The built joint energy over d columns.
    columns : tuple of int
        Places of the given columns, 0 <= place < d.
    values : tuple of float
        Their values, one per given column.

    References
    ----------
    .. [1] Du, Mordatch (2019), Implicit generation and modeling with energy-based
       models, NeurIPS.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import Conditioned, Quadratic
    >>> given = Conditioned(Quadratic().build(3), columns=(1,), values=(2.0,))
    >>> given(torch.zeros(1, 2)).item()
    2.0
    """

    def __init__(
        self, part: Energy, columns: tuple[int, ...], values: tuple[float, ...]
    ) -> None:
        super().__init__()
        self.part = part
        self.columns = columns
        self.values = values

    def complete(self, u: Tensor) -> Tensor:
        """Return whole rows.

        Parameters
        ----------
        u : Tensor of shape (n, d - n_given)
            Free columns, in order.

        Returns
        -------
        Tensor of shape (n, d)
            The same rows with the given columns in their places.
        """
        d = u.shape[1] + len(self.columns)
        given = [column % d for column in self.columns]
        free = [column for column in range(d) if column not in given]
        x = u.new_empty(len(u), d)
        x[:, free] = u
        x[:, given] = torch.tensor(self.values, dtype=u.dtype, device=u.device)
        return x

    def forward(self, x: Tensor) -> Tensor:
        """Return the joint energy of the completed rows, shape (n,)."""
        e: Tensor = self.part(self.complete(x))
        return e
