"""Gradients of E at the rows that stay in the graph of the weights."""

from collections.abc import Callable

import torch
from torch import Tensor


def grad_in_graph(
    energy: Callable[..., Tensor], *inputs: Tensor
) -> tuple[tuple[Tensor, ...], Tensor, tuple[Tensor, ...]]:
    """Return E and its gradients, differentiable once more by inputs and weights.

    Works where the caller has switched gradients off, as in an evaluation.

    Parameters
    ----------
    energy : callable
        Maps the inputs to energies (n,).
    *inputs : Tensor of shape (n, ...)
        Rows (n, d), and what else the gradient is taken by.

    Returns
    -------
    leaves : tuple of Tensor
        The inputs, as what the gradients were taken by.
    e : Tensor of shape (n,)
        Energies.
    gradients : tuple of Tensor
        dE by each input, of its shape.
    """
    with torch.inference_mode(False), torch.enable_grad():
        leaves = tuple(x.detach().clone().requires_grad_(True) for x in inputs)
        e = energy(*leaves)
        gradients = torch.autograd.grad(
            e.sum(), leaves, create_graph=True, materialize_grads=True
        )
    return leaves, e, gradients


def hessian_products(gradient: Tensor, leaf: Tensor, directions: Tensor) -> Tensor:
    """Return H(x) v for k directions per row, from one batched backward pass.

    Parameters
    ----------
    gradient : Tensor of shape (n, d)
        dE/dx from `grad_in_graph`.
    leaf : Tensor of shape (n, d)
        The rows from `grad_in_graph`.
    directions : Tensor of shape (k, n, d)
        v.

    Returns
    -------
    Tensor of shape (k, n, d)
        Products with each row's Hessian, differentiable by the weights; zero where the
        gradient is constant.
    """
    products = None
    if gradient.requires_grad:
        (products,) = torch.autograd.grad(
            gradient,
            leaf,
            directions,
            create_graph=True,
            is_grads_batched=True,
            allow_unused=True,
        )
    return torch.zeros_like(directions) if products is None else products
