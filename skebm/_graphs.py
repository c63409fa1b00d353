"""CUDA graphs: a function's kernels, captured once and launched all at once."""

from collections.abc import Callable

import torch
from torch import Generator, Tensor

N_EAGER = 3
"""Eager calls before a capture, in which libraries and caches of tensors are set up."""

Move = Callable[[], None]
"""Reads and writes tensors that stay in place, and asks the GPU for no number."""

Capture = Callable[[Move, Generator], Move]
"""Maps a function and the source of its randomness to its replay."""


def captured(move: Move, generator: Generator) -> Move:  # pragma: no cover
    """Return the replay of a function on the generator's CUDA device [1]_.

    Parameters
    ----------
    move : callable
        Reads and writes tensors that stay in place.
    generator : Generator
        Source of its randomness; each replay moves it on.

    Returns
    -------
    callable
        Runs the kernels again.

    References
    ----------
    .. [1] Nguyen, Ngo, Feng, et al. (2021), Accelerating PyTorch with CUDA graphs,
       PyTorch blog.
    """
    graph = torch.cuda.CUDAGraph()
    graph.register_generator_state(generator)
    with torch.cuda.device(generator.device), torch.cuda.graph(graph):
        move()
    return graph.replay


def is_capturing(x: Tensor) -> bool:
    """Tell whether kernels are being captured, and no number can be asked for.

    Parameters
    ----------
    x : Tensor
        Tells the device.

    Returns
    -------
    bool
        False on a CPU.
    """
    return x.is_cuda and torch.cuda.is_current_stream_capturing()
