"""The two phases of an RBM's likelihood gradient, in one product."""

from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn

from skebm._graphs import is_capturing
from skebm._torch import probabilities
from skebm.energies import RBM
from skebm.samplers import AnnealedLayers

PROBE = 8
"""Rows of a batch on which the loss is read: it trains nothing."""

LOOK_EVERY = 8
"""Updates between two looks at the loss."""

N_FILL = 5
"""Gibbs steps that fill the missing entries of a row before its positive phase."""


class Offsets(NamedTuple):
    """Means that centre the gradient.

    Attributes
    ----------
    visible : Tensor of shape (n_statistics,)
        u.
    hidden : Tensor of shape (n_hidden,)
        m.
    """

    visible: Tensor
    hidden: Tensor


class GibbsState(nn.Module):
    """What the likelihood of an RBM keeps: chains, moving means, base rates.

    Parameters
    ----------
    chains : Tensor of shape (n_levels * n_chains, d)
        Rows of the chains, those at the model itself first.
    bits : Tensor of shape (n_chains, n_hidden)
        Hidden bits drawn for the rows of the chains at the model itself.
    offsets : tuple of Tensor
        Moving means of phi (n_statistics,) and of h (n_hidden,).
    start : Tensor of shape (n_statistics,)
        Fields of independent columns with the base rates of the rows.
    n_rows : int
        Training rows.
    """

    chains: Tensor
    bits: Tensor
    visible_offset: Tensor
    hidden_offset: Tensor
    start: Tensor
    n_rows: Tensor
    n_calls: Tensor
    decay: Tensor
    seen: Tensor

    def __init__(
        self,
        chains: Tensor,
        bits: Tensor,
        offsets: tuple[Tensor, Tensor],
        start: Tensor,
        n_rows: int,
    ) -> None:
        super().__init__()
        self.register_buffer("chains", chains)
        self.register_buffer("bits", bits)
        self.register_buffer("visible_offset", offsets[0])
        self.register_buffer("hidden_offset", offsets[1])
        self.register_buffer("start", start)
        self.register_buffer("n_rows", torch.tensor(float(n_rows)))
        self.register_buffer("n_calls", torch.tensor(0))
        self.register_buffer("decay", torch.zeros_like(start[:1]))
        self.register_buffer("seen", torch.zeros_like(chains[0, 0]).repeat(2))

    def is_due(self) -> bool:
        """Tell whether this call looks at the loss and at the size of the weights.

        Returns
        -------
        bool
            True in every eighth call in train mode, from the first on; in every call
            of a CUDA graph, whose kernels are always the same.
        """
        if not self.training or is_capturing(self.chains):
            return True
        n = int(self.n_calls)
        self.n_calls += 1
        return n % LOOK_EVERY == 0


class Phases:
    """Statistics of data rows and of model rows, and the gradient between them.

    Parameters
    ----------
    layers : AnnealedLayers
        The RBM as of now.
    batch : Tensor of shape (n, d)
        Data rows.
    ends : Tensor of shape (m, d)
        Model rows.
    """

    def __init__(self, layers: AnnealedLayers, batch: Tensor, ends: Tensor) -> None:
        self.layers, self.rows, self._n = layers, (batch, ends), len(batch)
        self._phi = layers.layer.statistics(torch.cat([batch, ends]))
        self._h = probabilities(layers.hidden_fields(self._phi))

    @property
    def phi(self) -> tuple[Tensor, Tensor]:
        """Visible statistics of both.

        Returns
        -------
        tuple of Tensor
            Of data and model, of shape (n, n_statistics) and (m, n_statistics).
        """
        return self._phi[: self._n], self._phi[self._n :]

    @property
    def h(self) -> tuple[Tensor, Tensor]:
        """Hidden means of both.

        Returns
        -------
        tuple of Tensor
            Of data and model, of shape (n, n_hidden) and (m, n_hidden).
        """
        return self._h[: self._n], self._h[self._n :]

    def set_gradients(self, rbm: RBM, offsets: Offsets, factor: float = 1.0) -> None:
        """Set the gradients of the negative log-likelihood.

        dW = -<(h - m)(phi - u)'>_data + <(h - m)(phi - u)'>_model,
        db = k (<phi>_model - <phi>_data) - dW'm, dc = <h>_model - <h>_data - dW u.

        Parameters
        ----------
        rbm : RBM
            The machine.
        offsets : Offsets
            u and m.
        factor : float, default=1.0
            k.
        """
        u, m = offsets
        n, dtype = self._n, self.layers.dtype
        signs = self._phi.new_full((len(self._phi),), 1 / (len(self._phi) - n))
        signs[:n] = -1 / n
        # One product of both phases: a difference of two would lose bfloat16's digits.
        hidden = (self._h - m).mul_(signs[:, None])
        visible = (self._phi - u).to(dtype)
        weight = product_into(rbm.weight.grad, hidden.to(dtype).T, visible, rbm.weight)
        visible_gap, hidden_gap = (torch.mv(s.T, signs) for s in (self._phi, self._h))
        rbm.visible_bias.grad = visible_gap.mul_(factor).sub_(torch.mv(weight.T, m))
        rbm.hidden_bias.grad = hidden_gap.sub_(torch.mv(weight, u))
        rbm.weight.grad = weight
        own = list(self.layers.layer.parameters())
        if own:
            layer, pairs = self.layers.layer, zip(self.rows, self.h, strict=True)
            data, model = (
                layer.gradients(v, self.layers.visible_fields(h)) for v, h in pairs
            )
            for parameter, positive, negative in zip(own, data, model, strict=True):
                parameter.grad = negative - positive

    def probe(self) -> Tensor:
        """Return the energy gap of a few rows, and their reconstruction error.

        Returns
        -------
        Tensor of shape (2,)
            Both numbers.
        """
        data, model = (
            self._mean_energy(v[:PROBE], phi[:PROBE])
            for v, phi in zip(self.rows, self.phi, strict=True)
        )
        h, phi = self.h[0][:PROBE], self.phi[0][:PROBE]
        back = self.layers.layer.mean(self.layers.visible_fields(h))
        return torch.stack([data - model, (phi - back).square().mean()])

    def _mean_energy(self, v: Tensor, phi: Tensor) -> Tensor:
        """Return the mean free energy of a few rows, shape ()."""
        own = self.layers.layer.self_energies(v).sum()
        hidden = nn.functional.softplus(self.layers.hidden_fields(phi)).sum()
        return (own - (phi @ self.layers.visible_bias).sum() - hidden) / len(v)


def product_into(
    old: Tensor | None, left: Tensor, right: Tensor, like: Tensor
) -> Tensor:
    """Return a product in the memory of an old one: fresh pages cost as much as it.

    Parameters
    ----------
    old : Tensor of shape (n, m) or None
        Written over, if given.
    left, right : Tensor of shape (n, k), Tensor of shape (k, m)
        Factors.
    like : Tensor of shape (n, m)
        Gives the type of the product.

    Returns
    -------
    Tensor of shape (n, m)
        left @ right.
    """
    if old is None:
        return (left @ right).to(like.dtype)
    if left.dtype == old.dtype:
        return torch.mm(left, right, out=old)
    return old.copy_(left @ right)


def filled(layers: AnnealedLayers, rows: Tensor, generator: Generator) -> Tensor:
    """Return rows with their NaN entries drawn given the others.

    Parameters
    ----------
    layers : AnnealedLayers
        The machine as of now.
    rows : Tensor
        Rows; NaN is missing. A CUDA graph takes complete rows.
    generator : Generator
        Source of randomness, on the device of the rows.

    Returns
    -------
    Tensor
        Rows with their NaN entries drawn given the others.
    """
    # The sum takes a tenth of the time of looking at every entry.
    if is_capturing(rows) or not rows.sum().isnan():
        return rows
    missing = rows.isnan()
    guess = layers.layer.predict(layers.start[None])
    v = torch.where(missing, guess, rows)
    for _ in range(N_FILL):
        v = torch.where(missing, layers.move(v, generator=generator), rows)
    return v
