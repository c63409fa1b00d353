"""Block Gibbs steps on the way from independent columns to an RBM."""

import torch
from torch import Generator, Tensor

from skebm._torch import bernoulli, probabilities
from skebm.energies import RBM


class AnnealedLayers:
    """The layers of an RBM at any place t of the path from independent columns.

    E_t(v, h) = A(v) - ((1 - t) b_0 + t b)'phi(v) - t h'(c + W phi(v)): at t = 0 the
    columns are independent with fields b_0 and the hidden bits are fair coins, at
    t = 1 it is the RBM. Weights are read once: make a new one after a change.

    Parameters
    ----------
    rbm : RBM
        Built.
    start : Tensor of shape (n_statistics,) or None, default=None
        b_0; None means b.
    dtype : dtype or None, default=None
        Type in which products with W are computed; None is that of W. Sums and noise
        keep the type of W.

    References
    ----------
    .. [1] Salakhutdinov, Murray (2008), On the quantitative analysis of deep belief
       networks, ICML.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import RBM
    >>> from skebm.samplers import AnnealedLayers
    >>> layers, g = AnnealedLayers(RBM(4).build(3)), torch.Generator().manual_seed(0)
    >>> layers.move(torch.zeros(5, 3), generator=g).shape
    torch.Size([5, 3])
    """

    def __init__(
        self, rbm: RBM, start: Tensor | None = None, dtype: torch.dtype | None = None
    ) -> None:
        self.layer = rbm.layer
        self.weight = rbm.weight.detach()
        self.hidden_bias = rbm.hidden_bias.detach()
        self.visible_bias = rbm.visible_bias.detach()
        self.start = self.visible_bias if start is None else start
        self.dtype = self.weight.dtype if dtype is None else dtype
        self._rounded = self.weight.to(self.dtype)

    def hidden_fields(self, phi: Tensor) -> Tensor:
        """Return c + W phi at t = 1, shape (n, n_hidden).

        Parameters
        ----------
        phi : Tensor
            Visible statistics.

        Returns
        -------
        Tensor
            C + W phi at t = 1, shape (n, n_hidden).
        """
        return self._product(phi, self._rounded.T, self.hidden_bias)

    def visible_fields(self, h: Tensor) -> Tensor:
        """Return b + W'h at t = 1, shape (n, n_statistics).

        Parameters
        ----------
        h : Tensor
            Hidden bits.

        Returns
        -------
        Tensor
            B + W'h at t = 1, shape (n, n_statistics).
        """
        return self._product(h, self._rounded, self.visible_bias)

    @torch.no_grad()
    def move(
        self, v: Tensor, t: float | Tensor = 1.0, *, generator: Generator
    ) -> Tensor:
        """Return rows after drawing h given v and v given h under E_t.

        Parameters
        ----------
        v : Tensor of shape (n, d)
            Rows.
        t : float or Tensor of shape (n, 1), default=1.0
            Place on the path, in [0, 1].
        generator : Generator
            Source of randomness, on the device of v.

        Returns
        -------
        Tensor of shape (n, d)
            New rows.
        """
        fields = self.hidden_fields(self.layer.statistics(v))
        h = bernoulli(probabilities(fields.mul_(t)), generator)
        return self.visible_draw(h, t, generator=generator)

    def visible_draw(
        self, h: Tensor, t: float | Tensor = 1.0, *, generator: Generator
    ) -> Tensor:
        """Return draws of v given hidden bits under E_t, shape (n, d).

        Parameters
        ----------
        h : Tensor
            Hidden bits.
        t : float or Tensor
            Place on the path, in [0, 1].
        generator : Generator
            Source of randomness, on the device of the rows.

        Returns
        -------
        Tensor
            Draws of v given hidden bits under E_t, shape (n, d).
        """
        fields = self.visible_fields(h)
        if not isinstance(t, float) or t != 1.0:
            fields = fields * t + (1 - t) * self.start
        return self.layer.sample(fields, generator=generator)

    def _product(self, x: Tensor, matrix: Tensor, bias: Tensor) -> Tensor:
        """Return x @ matrix + bias in the type of the weights."""
        if self.dtype == self.weight.dtype:
            return torch.addmm(bias, x, matrix)
        return (x.to(self.dtype) @ matrix).to(bias.dtype).add_(bias)
