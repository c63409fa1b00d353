"""AdamW on a clipped gradient, its learning rate, and the average of the weights."""

import math
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor
from torch.optim.adamw import adamw

AVERAGING_DELAY = 9
"""The average forgets as t / (t + 9) at first: step i then weighs about i^8."""

EPSILON = 1e-8
"""Added to the root of AdamW's second moment."""


class Descent:
    """Steps down a loss, and the running average of where they led.

    w <- AdamW(w, g min(1, clip_norm / |g|)), with |g| over all weights at once [1]_;
    a <- d a + (1 - d) w with d = min(ema, t / (t + 9)) in step t = 0, 1, ... Without
    the second term a short run would average in the weights that it started from [2]_.

    Parameters
    ----------
    decayed : list of Tensor
        Weights to train.
    undecayed : list of Tensor
        Weights to train without weight decay.
    betas : tuple of float
        Decay of AdamW's two moments.
    weight_decay : float
        AdamW's decay.
    clip_norm : float
        Largest norm of the whole gradient.
    ema : float
        Decay of the average, in [0, 1).

    References
    ----------
    .. [1] Loshchilov, Hutter (2019), Decoupled weight decay regularization, ICLR.
    .. [2] Shamir, Zhang (2013), Stochastic gradient descent for non-smooth
       optimization, ICML (polynomial-decay averaging).
    """

    def __init__(
        self,
        decayed: list[Tensor],
        undecayed: list[Tensor],
        *,
        betas: tuple[float, float],
        weight_decay: float,
        clip_norm: float,
        ema: float,
    ) -> None:
        self.weights = decayed + undecayed
        self.average = [w.detach().clone() for w in self.weights]
        self.moments = [_Moments.of(w) for w in self.weights]
        n = len(decayed)
        self.groups = [(slice(0, n), weight_decay), (slice(n, None), 0.0)]
        if not weight_decay:  # one group is one kernel call
            self.groups = [(slice(None), 0.0)]
        self.betas, self.clip_norm, self.ema = betas, clip_norm, ema

    def step(self, loss: Tensor, t: int, rate: float) -> Tensor:
        """Take one step.

        Parameters
        ----------
        loss : Tensor of shape ()
            What to descend.
        t : int
            Number of the step, from 0.
        rate : float
            Learning rate.

        Returns
        -------
        Tensor of shape ()
            Norm of the gradient before it was clipped.
        """
        self._drop_gradients()
        torch.autograd.backward(loss)
        with torch.no_grad():
            norm = self._clip()
            for members, weight_decay in self.groups:
                self._update(members, rate, weight_decay)
            decay = min(self.ema, t / (t + AVERAGING_DELAY))
            torch._foreach_lerp_(self.average, self.weights, 1 - decay)
        return norm

    def _drop_gradients(self) -> None:
        """Forget the gradients of the weights."""
        for w in self.weights:
            w.grad = None

    def _clip(self) -> Tensor:
        """Shorten the whole gradient to ``clip_norm``; return its norm before."""
        gradients = [w.grad for w in self.weights if w.grad is not None]
        norm: Tensor = torch.stack(torch._foreach_norm(gradients)).norm()
        torch._foreach_mul_(gradients, (self.clip_norm / norm).clamp(max=1.0))
        return norm

    def _update(self, members: slice, rate: float, weight_decay: float) -> None:
        """Move the weights that have a gradient."""
        pairs = zip(self.weights[members], self.moments[members], strict=True)
        moved = [(w, w.grad, m) for w, m in pairs if w.grad is not None]
        if not moved:
            return
        weights, gradients, moments = zip(*moved, strict=True)
        means, squares, counts = zip(*moments, strict=True)
        # The function behind torch.optim.AdamW: the class spends a second on loading
        # torch's compiler, once in every process.
        adamw(
            list(weights),
            list(gradients),
            list(means),
            list(squares),
            [],
            list(counts),
            fused=weights[0].device.type in ("cpu", "cuda"),
            amsgrad=False,
            beta1=self.betas[0],
            beta2=self.betas[1],
            lr=rate,
            weight_decay=weight_decay,
            eps=EPSILON,
            maximize=False,
        )

    def use_average(self) -> None:
        """Put the average in the place of the weights."""
        with torch.no_grad():
            torch._foreach_copy_(self.weights, self.average)

    def is_finite(self) -> bool:
        """Tell whether all weights are finite, in place and averaged.

        Returns
        -------
        bool
            False if one is not, or if the sum of a tensor's squares overflows.
        """
        with torch.no_grad():
            norms = torch._foreach_norm(self.weights + self.average)
        return bool(torch.stack(norms).isfinite().all())

    def state_dict(self) -> dict[str, list[Tensor]]:
        """Return the moments and the average; not the weights.

        Returns
        -------
        dict of str to list of Tensor
            The tensors themselves, no copies.
        """
        means, squares, counts = zip(*self.moments, strict=True)
        return {
            "average": self.average,
            "means": list(means),
            "squares": list(squares),
            "counts": list(counts),
        }

    def load_state_dict(self, state: dict[str, list[Tensor]]) -> None:
        """Take the numbers of `state_dict`, and drop all gradients.

        Parameters
        ----------
        state : dict of str to list of Tensor
            Copied from.
        """
        for name, tensors in self.state_dict().items():
            torch._foreach_copy_(tensors, state[name])
        self._drop_gradients()


class _Moments(NamedTuple):
    """What AdamW knows of one weight: means of g and g^2, and its steps so far."""

    mean: Tensor
    square: Tensor
    n_steps: Tensor

    @classmethod
    def of(cls, weight: Tensor) -> Self:
        """Return the moments before the first step."""
        mean = torch.zeros_like(weight, requires_grad=False)
        return cls(mean, mean.clone(), torch.zeros((), device=weight.device))


def learning_rate(
    t: int, n_steps: int, *, peak: float, n_warmup_steps: int, schedule: str
) -> float:
    """Return the rate of step t of n_steps.

    With w = min(n_warmup_steps, n_steps // 10): peak (t + 1) / w for t < w, then peak,
    or with the cosine schedule peak (1 + cos(pi (t - w) / (n_steps - w))) / 2.

    Parameters
    ----------
    t : int
        Step, in [0, n_steps).
    n_steps : int
        Steps in all.
    peak : float
        Largest rate.
    n_warmup_steps : int
        Steps over which the rate rises; at most a tenth of all.
    schedule : {"cosine", "constant"}
        The rate after that.

    Returns
    -------
    float
        The learning rate.
    """
    n_warmup = min(n_warmup_steps, n_steps // 10)
    if t < n_warmup:
        return peak * (t + 1) / n_warmup
    if schedule == "constant":
        return peak
    return peak * (1 + math.cos(math.pi * (t - n_warmup) / (n_steps - n_warmup))) / 2


def copied(tree: Any) -> Any:
    """Return nested dicts and lists with copies of the tensors in them.

    Parameters
    ----------
    tree : object
        Dicts, lists, tensors and values that never change.

    Returns
    -------
    object
        The same, sharing nothing that can change.
    """
    if isinstance(tree, Tensor):
        return tree.detach().clone()
    if isinstance(tree, dict):
        return {key: copied(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [copied(value) for value in tree]
    return tree
