"""g_y(x) = w_y'x + v_y'phi(x) + c_y: a linear classifier with learned features."""

from typing import Self

import torch
from torch import Generator, Tensor, nn

from skebm.energies.features import FeatureEnergy
from skebm.energies.networks import seeded


class Logits(nn.Module):
    """g_y(x) = w_y'x + v_y'phi(x) + c_y and a temperature.

    Parameters
    ----------
    backbone : FeatureEnergy or None
        Whose features phi are; unbuilt. None: g is linear.
    n_classes : int
        Classes, >= 2.

    Attributes
    ----------
    last : Linear
        w, v and c, after `build`.
    temperature : Tensor of shape ()
        T in p(y | x) = softmax_y(s_y(x) / T), 1 until it is calibrated.
    """

    temperature: Tensor

    def __init__(self, backbone: FeatureEnergy | None, n_classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.n_classes = n_classes

    def build(self, n_features: int, *, generator: Generator | None = None) -> Self:
        """Make the layers; those that end in g start at zero.

        Parameters
        ----------
        n_features : int
            Columns.
        generator : Generator or None, default=None
            Source of the backbone's weights.

        Returns
        -------
        self : Logits
            Built.
        """
        width, device = n_features, seeded(generator).device
        if self.backbone is not None:
            self.backbone.build(n_features, generator=generator)
            width += self.backbone.n_outputs
        with torch.random.fork_rng([]):
            self.last = nn.Linear(width, self.n_classes, device=device)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)
        self.register_buffer("temperature", torch.ones((), device=device))
        return self

    def features(self, x: Tensor) -> Tensor:
        """Return phi(x), or x where there is no backbone.

        Parameters
        ----------
        x : Tensor of shape (n, d)
            Rows.

        Returns
        -------
        Tensor of shape (n, n_outputs)
            Features.
        """
        return x if self.backbone is None else self.backbone.features(x)

    def forward(self, x: Tensor) -> Tensor:
        """Return g, shape (n, n_classes)."""
        seen = x if self.backbone is None else torch.cat([x, self.features(x)], 1)
        g: Tensor = self.last(seen)
        return g
