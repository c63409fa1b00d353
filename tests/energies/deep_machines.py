"""Boltzmann machines, plain, deep and in layers, with random weights."""

import torch

from skebm.energies import Boltzmann, DeepBelief, DeepBoltzmann
from tests.energies.machines import generator, randomized


def machine(d=6, n_hidden=0, scale=1.0, seed=0):
    return randomized(Boltzmann(n_hidden).build(d), scale, seed)


def deep(*sizes, scale=1.0, seed=0):
    return randomized(DeepBoltzmann(sizes[1:]).build(sizes[0]), scale, seed)


def belief(*sizes, scale=1.0, seed=0):
    network = DeepBelief(sizes[1:]).build(sizes[0], generator=generator())
    return randomized(network, scale, seed)


def every_pair(v, h):
    """Return all pairs of rows side by side, v changing slowest."""
    return torch.cat([v.repeat_interleave(len(h), 0), h.repeat(len(v), 1)], 1)


def layered_energies(dbm, s):
    """Return E of states of all layers, term by term."""
    layers = s.split(dbm.sizes, 1)
    e = -sum(h @ b for h, b in zip(layers, dbm.biases, strict=True))
    for i, weight in enumerate(dbm.weights):
        e = e - torch.einsum("ni,ij,nj->n", layers[i + 1], weight, layers[i])
    return e
