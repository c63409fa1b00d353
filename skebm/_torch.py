"""The torch side of the door: device, generator, fixed-size chunks, back to numpy."""

import copy
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor, nn

from skebm._params import Params
from skebm.exceptions import ForkedProcessError

CHUNK_VALUES = 2**20
"""Values of the largest matrix of one chunk: 4 MB in float32, near a core's cache."""

ALIGNED = 16
"""Numbers from one row of a chunk to the next are a multiple of this: 64 bytes."""

LARGE = 4096
"""Values from which on a fresh generator pays for its start."""

LEAST_FIELD = -80.0
"""Below -87 a sigmoid in single precision is denormal, which slows products tenfold."""

_FORKED_FROM: list[int] = []

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: _FORKED_FROM.append(os.getppid()))


def refuse_forked_process() -> None:
    """Raise where torch's thread pool was left behind in the parent process."""
    if _FORKED_FROM and torch.get_num_threads() > 1:
        raise ForkedProcessError(
            "This process was forked after torch was imported; its thread pool stayed "
            "in the parent, so the first matrix product would hang. Start workers with "
            "loky (scikit-learn's n_jobs does) or 'spawn', or call "
            "torch.set_num_threads(1) first in the forked process."
        )


def resolve_device(device: str) -> torch.device:
    """Return the torch device that ``device`` names; "auto" takes CUDA if present."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except RuntimeError:
        raise ValueError(
            f"Got device={device!r}, but expected 'auto', 'cpu', 'cuda' or 'cuda:0'."
        ) from None
    if resolved.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"Got device={device!r}, but torch sees no CUDA device. "
            'Pass device="cpu" or device="auto".'
        )
    return resolved


def make_generator(seed: int, device: torch.device | str = "cpu") -> Generator:
    """Return a generator on ``device``; the global generator stays untouched."""
    return torch.Generator(device).manual_seed(seed)


def normal_like(x: Tensor, generator: Generator) -> Tensor:
    """Return standard normal numbers of the shape, dtype and device of ``x``."""
    return torch.empty_like(x).normal_(generator=generator)


def uniform_like(x: Tensor, generator: Generator) -> Tensor:
    """Return numbers uniform in [0, 1) of the shape, dtype and device of ``x``."""
    return torch.empty_like(x).uniform_(generator=generator)


def probabilities(fields: Tensor) -> Tensor:
    """Return 1 / (1 + exp(-f)) in the memory of the fields f, at least exp(-80)."""
    return fields.clamp_(min=LEAST_FIELD).sigmoid_()


def bernoulli(p: Tensor, generator: Generator) -> Tensor:
    """Return bits that are 1 with probability ``p``, of its shape and dtype.

    ``p`` is used up. On the CPU the noise is NumPy's SFC64, at a quarter of the time of
    torch's generator.
    """
    if p.device.type != "cpu" or p.numel() < LARGE or p.dtype != torch.float32:
        return p.sub_(uniform_like(p, generator)).ceil_().abs_()
    seed = int(torch.randint(2**62, (), generator=generator))
    noise = np.random.Generator(np.random.SFC64(seed)).random(p.shape, np.float32)
    return p.sub_(torch.from_numpy(noise)).ceil_().abs_()


def chunk_rows(n_stored: int, n_features: int) -> int:
    """Return the rows per chunk of a memory: 32 to 128, a multiple of 16.

    The vectors of the CPU then never end inside a row, so no row is computed by the
    scalar code that finishes a vector loop.
    """
    width = max(n_stored, 20 * n_features, 2**13)
    return max(32, CHUNK_VALUES // width // 16 * 16)


def in_chunks(
    function: Callable[..., tuple[Tensor, ...]], size: int, *columns: Tensor
) -> tuple[Tensor, ...]:
    """Apply ``function`` to chunks of exactly ``size`` rows.

    The last chunk is padded, numbers with 0 and indices with -1, and rows of numbers
    begin at multiples of 64 bytes, so that every row meets the same kernels alone, in
    any order and in any batch.

    Parameters
    ----------
    function : callable
        Maps tensors of ``size`` rows to a tuple of tensors of ``size`` rows.
    size : int
        Rows per chunk.
    *columns : Tensor of shape (n, ...)
        Arguments of ``function``, row by row, n >= 1.

    Returns
    -------
    tuple of Tensor
        The results, n rows each, in order.
    """
    parts = []
    for start in range(0, len(columns[0]), size):
        chunk = [_padded(column[start : start + size], size) for column in columns]
        parts.append(function(*chunk))
    n = len(columns[0])
    return tuple(torch.cat(pieces)[:n] for pieces in zip(*parts, strict=True))


def _padded(rows: Tensor, size: int) -> Tensor:
    """Return ``rows`` filled up to ``size`` rows; rows of a table begin aligned."""
    if rows.ndim == 2 and rows.is_floating_point():
        # A matrix product rounds a row of odd width by where it lies in memory.
        width = -(-rows.shape[1] // ALIGNED) * ALIGNED
        table = rows.new_zeros(size, width)[:, : rows.shape[1]]
        table[: len(rows)] = rows
        return table
    short = size - len(rows)
    if not short:
        return rows
    fill = 0 if rows.is_floating_point() else -1
    return torch.cat([rows, rows.new_full((short, *rows.shape[1:]), fill)])


def to_numpy(values: Tensor) -> np.ndarray:
    """Return a float64 numpy copy: the door out."""
    return values.detach().to("cpu", torch.float64, copy=True).numpy()


def on_cpu(value: Any) -> Any:
    """Return a value with its tensors on the CPU; what holds none is returned as it is.

    Parameters
    ----------
    value : Any
        Modules and samplers are copied, tensors moved.

    Returns
    -------
    Any
        A value of the same kind.
    """
    if isinstance(value, Tensor):
        return value.cpu()
    if isinstance(value, nn.Module):
        return copy.deepcopy(value).cpu()
    if isinstance(value, Params):
        parts = value.get_params(deep=False)
        return type(value)(**{name: on_cpu(part) for name, part in parts.items()})
    return value
