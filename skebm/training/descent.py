"""Steps on a clipped gradient, their learning rate, and the average of the weights."""

import math
from abc import ABC, abstractmethod
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor
from torch.optim.adamw import adamw

AVERAGING_DELAY = 9
"""The average forgets as t / (t + 9) at first: step i then weighs about i^8."""

LEAST_RATE = 0.01
"""Share of the largest rate at which the exponential schedule ends."""

EPSILON = 1e-8
"""Added to the root of AdamW's second moment."""

Number = float | Tensor


class Descent(ABC):
    """Steps down a loss, and the running average of where they led.

    w <- step(w, g min(1, clip_norm / |g|)), with |g| over all weights at once;
    a <- d a + (1 - d) w with d = min(ema, t / (t + 9)) in step t = 0, 1, ... Without
    the second term a short run would average in the weights that it started from [1]_.

    Parameters
    ----------
    decayed : list of Tensor
        Weights to train.
    undecayed : list of Tensor
        Weights to train without weight decay.
    weight_decay : float
        Decay of the first ones.
    clip_norm : float
        Largest norm of the whole gradient; infinite leaves it alone.
    ema : float
        Decay of the average, in [0, 1).

    References
    ----------
    .. [1] Shamir, Zhang (2013), Stochastic gradient descent for non-smooth
       optimization, ICML (polynomial-decay averaging).
    """

    def __init__(
        self,
        decayed: list[Tensor],
        undecayed: list[Tensor],
        *,
        weight_decay: float,
        clip_norm: float,
        ema: float,
    ) -> None:
        self.weights = decayed + undecayed
        self.average = [w.detach().clone() for w in self.weights]
        n = len(decayed)
        self.groups = [(slice(0, n), weight_decay), (slice(n, None), 0.0)]
        if not weight_decay:  # one group is one kernel call
            self.groups = [(slice(None), 0.0)]
        self.clip_norm, self.ema = clip_norm, ema

    def step(self, loss: Tensor, t: Number, rate: Number) -> Tensor:
        """Take one step.

        Parameters
        ----------
        loss : Tensor of shape ()
            What to descend. One without a graph says that the gradients are set.
        t : int or Tensor of shape ()
            Number of the step, from 0.
        rate : float or Tensor of shape ()
            Learning rate. Tensors are read by the device alone.

        Returns
        -------
        Tensor of shape ()
            Norm of the gradient before it was clipped; with an infinite ``clip_norm``
            that of the last weight alone.
        """
        if loss.requires_grad:
            self._drop_gradients()
            torch.autograd.backward(loss)
        with torch.no_grad():
            norm = self._clip()
            for members, weight_decay in self.groups:
                moved = _places(members, self.weights)
                if moved:
                    self._update(moved, rate, weight_decay)
            self._follow(t)
        return norm

    def _follow(self, t: Number) -> None:
        """Move the average towards the weights."""
        decay = t / (t + AVERAGING_DELAY)
        if isinstance(decay, Tensor):
            share = [1 - decay.clamp(max=self.ema)] * len(self.weights)
            torch._foreach_lerp_(self.average, self.weights, share)
        else:
            torch._foreach_lerp_(self.average, self.weights, 1 - min(self.ema, decay))

    @abstractmethod
    def _update(self, moved: list[int], rate: Number, weight_decay: float) -> None:
        """Move the weights at the places ``moved``, which have gradients."""

    @abstractmethod
    def state_dict(self) -> dict[str, list[Tensor]]:
        """Return the moments and the average, no copies; not the weights."""

    def _drop_gradients(self) -> None:
        """Forget the gradients of the weights."""
        for w in self.weights:
            w.grad = None

    def _clip(self) -> Tensor:
        """Shorten the whole gradient to ``clip_norm``; return its norm before."""
        gradients = [w.grad for w in self.weights if w.grad is not None]
        if self.clip_norm == math.inf:  # the norm would cost a pass over all weights
            last: Tensor = gradients[-1].norm()
            return last
        norm: Tensor = torch.stack(torch._foreach_norm(gradients)).norm()
        torch._foreach_mul_(gradients, (self.clip_norm / norm).clamp(max=1.0))
        return norm

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


class AdamW(Descent):
    """Steps scaled by running moments of the gradient, decay apart from them [1]_.

    Parameters
    ----------
    decayed, undecayed : list of Tensor
        Weights to train, with and without decay.
    betas : tuple of float
        Decay of the two moments.
    **averaging : dict
        Of `Descent`.

    References
    ----------
    .. [1] Loshchilov, Hutter (2019), Decoupled weight decay regularization, ICLR.
    """

    def __init__(
        self,
        decayed: list[Tensor],
        undecayed: list[Tensor],
        *,
        betas: tuple[float, float],
        **averaging: float,
    ) -> None:
        super().__init__(decayed, undecayed, **averaging)
        self.betas = betas
        self.moments = [_Moments.of(w) for w in self.weights]

    def _update(self, moved: list[int], rate: Number, weight_decay: float) -> None:
        """Take an AdamW step."""
        moments = [self.moments[i] for i in moved]
        means, squares, counts = zip(*moments, strict=True)
        weights = [self.weights[i] for i in moved]
        # The function behind torch.optim.AdamW: the class spends a second on loading
        # torch's compiler, once in every process.
        adamw(
            weights,
            [gradient_of(w) for w in weights],
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


class Momentum(Descent):
    """Steps along a running mean of the gradient.

    u <- m u + (1 - m) (g + weight_decay w), w <- w - rate u [1]_: rate is that of plain
    gradient descent, whatever m.

    Parameters
    ----------
    decayed, undecayed : list of Tensor
        Weights to train, with and without decay.
    momentum : float
        m in [0, 1).
    **averaging : dict
        Of `Descent`.

    References
    ----------
    .. [1] Polyak (1964), Some methods of speeding up the convergence of iteration
       methods, USSR Computational Mathematics and Mathematical Physics 4(5).
    """

    def __init__(
        self,
        decayed: list[Tensor],
        undecayed: list[Tensor],
        *,
        momentum: float,
        **averaging: float,
    ) -> None:
        super().__init__(decayed, undecayed, **averaging)
        self.momentum = momentum
        self.means = [torch.zeros_like(w, requires_grad=False) for w in self.weights]

    def _update(self, moved: list[int], rate: Number, weight_decay: float) -> None:
        """Take a step along the running mean."""
        weights = [self.weights[i] for i in moved]
        means = [self.means[i] for i in moved]
        gradients = [gradient_of(w) for w in weights]
        if weight_decay:
            gradients = list(torch._foreach_add(gradients, weights, alpha=weight_decay))
        if self.momentum:
            torch._foreach_lerp_(means, gradients, 1 - self.momentum)
            gradients = means
        if isinstance(rate, Tensor):
            torch._foreach_add_(weights, torch._foreach_mul(gradients, -rate))
        else:
            torch._foreach_add_(weights, gradients, alpha=-rate)

    def state_dict(self) -> dict[str, list[Tensor]]:
        """Return the running means and the average; not the weights.

        Returns
        -------
        dict of str to list of Tensor
            The tensors themselves, no copies.
        """
        return {"average": self.average, "means": self.means}


def gradient_of(weight: Tensor) -> Tensor:
    """Return the gradient of a weight that has one.

    Parameters
    ----------
    weight : Tensor
        A parameter.

    Returns
    -------
    Tensor
        Of its shape.
    """
    assert weight.grad is not None
    return weight.grad


def _places(members: slice, weights: list[Tensor]) -> list[int]:
    """Return the places of the members that have a gradient."""
    places = range(len(weights))[members]
    return [i for i in places if weights[i].grad is not None]


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

    With w = min(n_warmup_steps, n_steps // 10): peak (t + 1) / w for t < w, then peak
    c(s) with s = (t - w) / (n_steps - w): c = 1, (1 + cos(pi s)) / 2, or 100^-s.

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
    schedule : {"cosine", "constant", "exponential"}
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
    done = (t - n_warmup) / (n_steps - n_warmup)
    if schedule == "exponential":
        return float(peak * LEAST_RATE**done)
    return peak * (1 + math.cos(math.pi * done)) / 2


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
