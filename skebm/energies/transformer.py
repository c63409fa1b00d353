"""E(x) = network(x) with one token per column."""

from typing import Self

import torch
from torch import Generator, Tensor, nn

from skebm.energies.features import FeatureEnergy
from skebm.energies.networks import LAST_SCALE, linear, perceptron, seeded


class AttentionBlock(nn.Module):
    """h + attention(norm(h)), then h + perceptron(norm(h)).

    Attention is written out: the fused kernels of torch have no second derivative,
    which score matching needs.

    Parameters
    ----------
    width : int
        Numbers per token, a multiple of ``n_heads``.
    n_heads : int
        Heads.
    activation : str
        Activation of the perceptron.
    generator : Generator
        Source of the weights.
    """

    def __init__(
        self, width: int, n_heads: int, activation: str, generator: Generator
    ) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.attention_norm = nn.LayerNorm(width, device=generator.device)
        self.queries_keys_values = linear(
            width, 3 * width, generator=generator, scale=0.5
        )
        self.mix = linear(width, width, generator=generator, scale=0.5)
        self.network_norm = nn.LayerNorm(width, device=generator.device)
        self.network = perceptron(
            (width, 2 * width, width), activation, generator=generator, last_scale=0.5
        )

    def forward(self, h: Tensor) -> Tensor:
        """Return the next tokens, shape (n, d, width)."""
        h = h + self.mix(self._attend(self.attention_norm(h)))
        out: Tensor = h + self.network(self.network_norm(h))
        return out

    def _attend(self, h: Tensor) -> Tensor:
        """Return softmax(q k' / sqrt(width / n_heads)) v over the tokens of a row."""
        each = self.queries_keys_values(h).unflatten(2, (3, self.n_heads, -1))
        q, k, v = each.permute(2, 0, 3, 1, 4)
        similarity = q @ k.mT / q.shape[-1] ** 0.5
        seen: Tensor = similarity.softmax(-1) @ v
        return seen.transpose(1, 2).flatten(2)


class Transformer(FeatureEnergy):
    """A transformer over the columns of a table as the energy.

    Column j enters as the token x_j u_j + c_j with learned vectors u_j and c_j, which
    tell the columns apart; E(x) = w' mean_j norm(h_j) + b over the last tokens h_j. The
    last layer starts a hundred times smaller than the others: E starts near a constant.

    Parameters
    ----------
    width : int, default=64
        Numbers per token, a multiple of ``n_heads``.
    n_heads : int, default=4
        Attention heads, >= 1.
    n_layers : int, default=2
        Blocks of attention and perceptron, >= 0.
    activation : {"silu", "softplus", "gelu", "tanh", "elu", "relu"}, default="silu"
        Activation of the perceptrons; smooth ones keep the gradient continuous.

    Attributes
    ----------
    slope, intercept : Parameter of shape (d, width)
        u_j and c_j.
    blocks : Sequential
        The layers.

    Raises
    ------
    ValueError
        From `build`, if ``width`` is no multiple of ``n_heads``.

    Notes
    -----
    Cost O(n d^2 width): for tens of columns, not for thousands. The normalised tokens
    are bounded, and so is E: add a `Bowl` or tilt a base density, or exp(-E) has no
    finite integral.

    References
    ----------
    .. [1] Gorishniy, Rubachev, Khrulkov, Babenko (2021), Revisiting deep learning
       models for tabular data, NeurIPS.
    .. [2] Gladstone et al. (2025), Energy-based transformers are scalable learners and
       thinkers, arXiv:2507.02092.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import Transformer
    >>> energy = Transformer(width=16, n_heads=2).build(3)
    >>> energy(torch.zeros(5, 3)).shape
    torch.Size([5])
    """

    slope: nn.Parameter
    intercept: nn.Parameter
    blocks: nn.Sequential

    def __init__(
        self,
        width: int = 64,
        n_heads: int = 4,
        n_layers: int = 2,
        activation: str = "silu",
    ) -> None:
        super().__init__()
        self.width = width
        self.n_heads = n_heads
        self.n_layers = n_layers
        self.activation = activation

    def build(self, n_features: int, *, generator: Generator | None = None) -> Self:
        """Draw the weights from ``generator``; None stands for the seed 0."""
        if self.n_heads < 1 or self.width < 1 or self.width % self.n_heads:
            raise ValueError(
                f"Got width={self.width} and n_heads={self.n_heads}, but expected "
                "width to be a multiple of n_heads >= 1, as 64 is of 4."
            )
        generator = seeded(generator)
        drawn = torch.empty(2, n_features, self.width, device=generator.device)
        drawn.uniform_(-1, 1, generator=generator)
        self.slope, self.intercept = (nn.Parameter(part.clone()) for part in drawn)
        self.blocks = nn.Sequential(
            *[
                AttentionBlock(self.width, self.n_heads, self.activation, generator)
                for _ in range(self.n_layers)
            ]
        )
        self.norm = nn.LayerNorm(self.width, device=generator.device)
        self.last = linear(self.width, 1, generator=generator, scale=LAST_SCALE)
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Return the network's output, shape (n,)."""
        e: Tensor = self.last(self.features(x)).squeeze(1)
        return e

    def features(self, x: Tensor) -> Tensor:
        """Return the mean of the last tokens, shape (n, width)."""
        tokens = x[:, :, None] * self.slope + self.intercept
        out: Tensor = self.norm(self.blocks(tokens)).mean(1)
        return out

    @property
    def n_outputs(self) -> int:
        """Numbers per token."""
        return self.width
