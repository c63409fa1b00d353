"""The same energy, its activations computed again instead of kept."""

from typing import Self

import torch
from torch import Generator, Tensor
from torch.utils.checkpoint import checkpoint

from skebm.energies.energy import Energy
from skebm.energies.form import QuadraticForm


class Checkpointed(Energy):
    """E(x) = E_part(x), with activations kept for one block of rows at a time.

    Rows never meet in an energy, so the batch is cut into blocks. The forward pass
    keeps the rows of each block only; the backward pass computes one block's
    activations again, uses them and lets them go. Activations then take 1 / n_blocks of
    the memory, for one more forward pass. (One block would save nothing: it is needed
    whole in the backward pass.)

    Parameters
    ----------
    part : Energy
        The energy; it must not draw random numbers.
    n_blocks : int, default=4
        Blocks of rows, >= 1.

    Notes
    -----
    Limits: objectives that differentiate dE/dx once more (score matching, gradient
    penalties) stay exact but keep most of their memory.

    References
    ----------
    .. [1] Chen, Xu, Zhang, Guestrin (2016), Training deep nets with sublinear memory
       cost, arXiv:1604.06174.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import Quadratic
    >>> from skebm.energies.checkpointed import Checkpointed
    >>> energy = Checkpointed(Quadratic(), n_blocks=2).build(2)
    >>> energy(torch.ones(3, 2)).tolist()
    [1.0, 1.0, 1.0]
    """

    def __init__(self, part: Energy, n_blocks: int = 4) -> None:
        super().__init__()
        self.part = part
        self.n_blocks = n_blocks

    def build(self, n_features: int, *, generator: Generator | None = None) -> Self:
        """Build the part."""
        self.part.build(n_features, generator=generator)
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Return the part's energy, shape (n,)."""
        if self.n_blocks < 1:
            raise ValueError(
                f"Got n_blocks={self.n_blocks!r}, but expected an integer >= 1."
            )
        if not torch.is_grad_enabled():
            e: Tensor = self.part(x)
            return e
        return torch.cat(
            [self._kept_rows_only(rows) for rows in x.chunk(self.n_blocks)]
        )

    def _kept_rows_only(self, x: Tensor) -> Tensor:
        """Return the energies of one block (m, d), its activations dropped."""
        e: Tensor = checkpoint(
            self.part, x, use_reentrant=False, preserve_rng_state=False
        )
        return e

    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return E(x) and dE/dx of the part, block by block, both detached."""
        blocks = [self.part.value_and_grad(rows) for rows in x.chunk(self.n_blocks)]
        e, gradient = zip(*blocks, strict=True)
        return torch.cat(e), torch.cat(gradient)

    def as_quadratic(self) -> QuadraticForm | None:
        """Return the part's polynomial, if it is one."""
        return self.part.as_quadratic()

    def log_partition(self, temperature: float = 1.0) -> float | None:
        """Return the part's log Z."""
        return self.part.log_partition(temperature)
