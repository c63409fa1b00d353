"""Perceptrons of one shape, as batched products."""

import math
from itertools import pairwise

import torch
from torch import Generator, Tensor, nn


class MemberLayers(nn.Module):
    """Perceptrons of one shape, one for each member, as batched products.

    Parameters
    ----------
    n_members : int
        Perceptrons.
    widths : tuple of int
        Input, hidden and output widths.
    activation : Module
        Between two layers.
    generator : Generator
        Source of the weights.
    last_scale : float
        Factor on the initial weights of the last layer.
    """

    def __init__(
        self,
        n_members: int,
        widths: tuple[int, ...],
        activation: nn.Module,
        *,
        generator: Generator,
        last_scale: float,
    ) -> None:
        super().__init__()
        self.activation = activation
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for i, (n_in, n_out) in enumerate(pairwise(widths)):
            last = i == len(widths) - 2
            bound = (last_scale if last else 1.0) / math.sqrt(max(1, n_in))
            for rows, found in ((n_in, self.weights), (1, self.biases)):
                values = torch.empty(n_members, rows, n_out, device=generator.device)
                values.uniform_(-bound, bound, generator=generator)
                found.append(nn.Parameter(values))

    def forward(self, h: Tensor, dropout: float = 0.0) -> Tensor:
        """Return the outputs for h of shape (n_members, n, widths[0])."""
        layers = list(zip(self.weights, self.biases, strict=True))
        for weight, bias in layers[:-1]:
            h = self.activation(torch.baddbmm(bias, h, weight))
            h = nn.functional.dropout(h, dropout, self.training)
        weight, bias = layers[-1]
        return torch.baddbmm(bias, h, weight)
