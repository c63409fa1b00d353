"""One epoch: minibatches of rows, an objective, and a look at what came of them."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Generator, Tensor, nn

from skebm._graphs import captured
from skebm._torch import make_generator
from skebm.energies import Energy
from skebm.objectives.objective import Objective
from skebm.training.descent import Descent, Number, copied
from skebm.training.replay import Numbers, ReplayedUpdate, Update

Record = dict[str, float]

STEPS_PER_LOOK = 32
"""Steps between looks at the loss where a look makes the host wait for the device."""

LARGEST_GROWTH = 1e4
"""An epoch whose mean loss is larger by this factor than its first loss, or than the
mean of the first epoch, diverged."""


class Diverged(Exception):
    """A number of the current epoch is out of range."""


class Learner:
    """An energy in training: all that an epoch changes, and its way back.

    Parameters
    ----------
    energy : Energy
        The energy, changed in place.
    objective : Objective
        What is minimised.
    state : Module
        What the objective keeps.
    descent : Descent
        Steps for the weights of ``energy`` and ``state``.
    x : Tensor of shape (n, d)
        Training rows.
    batch_size : int
        Largest number of rows per step.
    generator : Generator
        Source of all randomness.
    """

    def __init__(
        self,
        energy: Energy,
        objective: Objective,
        state: nn.Module,
        descent: Descent,
        x: Tensor,
        batch_size: int,
        generator: Generator,
    ) -> None:
        self.energy, self.objective, self.state = energy, objective, state
        self.descent, self.x, self.batch_size = descent, x, batch_size
        self.generator = generator
        self.n_batches = math.ceil(len(x) / batch_size)
        self._update: Update = self._step
        if x.is_cuda and objective.is_replayable(energy, x):
            self._update = ReplayedUpdate(self._step, generator, captured)

    def epoch(self, first: int, rate: Callable[[int], float]) -> Record:
        """Train on every row once, from step ``first`` on.

        Parameters
        ----------
        first : int
            Number of the first step.
        rate : callable
            Step to learning rate.

        Returns
        -------
        dict of str to float
            Means over the rows, and the last learning rate.

        Raises
        ------
        Diverged
            If a loss or gradient is not finite, or the loss grows ten thousandfold.
        """
        _train_mode(self.energy)
        _train_mode(self.state)
        n, device = len(self.x), self.x.device
        n_look = 1 if device.type == "cpu" else STEPS_PER_LOOK
        order = torch.randperm(n, generator=self.generator, device=device)
        batches = order.tensor_split(self.n_batches)
        steps: list[Numbers] = []
        with _own_global_generator(self.draw_seed(), device):
            for t, index in enumerate(batches, first):
                steps.append(self._update(self.x.index_select(0, index), t, rate(t)))
                if len(steps) % n_look == 0 or len(steps) == self.n_batches:
                    _refuse_non_finite(steps, n_look)
        losses = torch.stack([numbers["loss"] for numbers in steps])
        refuse_growth(float(losses[0]), float(losses.mean()))
        shares = [len(index) / n for index in batches]
        return _means(steps, shares) | {"learning_rate": rate(t)}

    def _step(self, batch: Tensor, t: Number, rate: Number) -> Numbers:
        """Take step t on a batch; return its numbers."""
        loss = self.objective(self.energy, batch, self.state, generator=self.generator)
        # A metric may be a weight itself, which the step is about to change.
        numbers = {k: v.detach().clone() for k, v in loss.metrics.items()}
        norm = self.descent.step(loss.value, t, rate)
        return numbers | {"loss": loss.value.detach(), "grad_norm": norm}

    def use_average(self) -> None:
        """Put the averaged weights into the modules, for evaluation."""
        self.descent.use_average()
        self.energy.eval()
        self.state.eval()

    def refuse_explosion(self) -> None:
        """Raise `Diverged` if the weights, or the energies they give, are too large."""
        if not self.descent.is_finite():
            raise Diverged("the weights are not finite")
        with torch.no_grad():
            # NaN is a missing entry, for the energies that know it.
            rows = self.objective.argument(self.energy, self.x[: self.batch_size])
            e = self.energy(rows.nan_to_num(0.0))
        largest = float(e.abs().max())
        if not largest < math.sqrt(torch.finfo(e.dtype).max):
            raise Diverged(f"the energies reach {largest:.3g}")

    def evaluate(self, rows: Tensor, seed: int) -> float:
        """Return the objective's criterion on held-out rows.

        Parameters
        ----------
        rows : Tensor of shape (m, d)
            Held-out rows.
        seed : int
            Equal seeds mean equal noise.

        Returns
        -------
        float
            Less is better.
        """
        generator = make_generator(seed, rows.device)
        return self.objective.criterion(
            self.energy, rows, self.state, generator=generator
        )

    def draw_seed(self) -> int:
        """Return a seed from the generator.

        Returns
        -------
        int
            In [0, 2^62).
        """
        source = self.generator
        return int(torch.randint(2**62, (), generator=source, device=source.device))

    def modules(self) -> dict[str, Any]:
        """Return copies of all tensors of the energy and the objective's state.

        Returns
        -------
        dict
            "energy" and "state": name to tensor.
        """
        tensors: dict[str, Any] = copied(
            {"energy": self.energy.state_dict(), "state": self.state.state_dict()}
        )
        return tensors

    def load_modules(self, tensors: dict[str, Any]) -> None:
        """Take the tensors of `modules`.

        Parameters
        ----------
        tensors : dict
            "energy" and "state": name to tensor.
        """
        self.energy.load_state_dict(tensors["energy"])
        self.state.load_state_dict(tensors["state"])

    def snapshot(self) -> dict[str, Any]:
        """Return a copy of all that an epoch changes.

        Returns
        -------
        dict
            Tensors, numbers, strings, and lists and dicts of them.
        """
        descent = copied(self.descent.state_dict())
        generator = self.generator.get_state().clone()
        return self.modules() | {"descent": descent, "generator": generator}

    def restore(self, kept: dict[str, Any]) -> None:
        """Go back to a snapshot, except for the generator, which goes on.

        Parameters
        ----------
        kept : dict
            What `snapshot` returned; left as it is.
        """
        self.load_modules(kept)
        self.descent.load_state_dict(kept["descent"])


def learning(module: nn.Module) -> list[Tensor]:
    """Return the parameters that take gradients.

    Parameters
    ----------
    module : Module
        An energy, or the state of an objective.

    Returns
    -------
    list of Tensor
        In the module's order.
    """
    return [p for p in module.parameters() if p.requires_grad]


def _train_mode(module: nn.Module) -> None:
    """Put a module in train mode, except for the parts that do not learn."""
    module.train()
    for part in module.modules():
        if not learning(part) and any(True for _ in part.parameters()):
            part.eval()


def refuse_growth(first: float, last: float) -> None:
    """Raise `Diverged` if a loss left the size that it began with.

    Parameters
    ----------
    first, last : float
        An earlier and a later loss.
    """
    if last > LARGEST_GROWTH * (1 + abs(first)):
        raise Diverged(f"the loss grew from {first:.3g} to {last:.3g}")


def _refuse_non_finite(steps: list[Numbers], n_new: int) -> None:
    """Raise if one of the last ``n_new`` losses and gradients is not finite."""
    new = sum(step["loss"] + step["grad_norm"] for step in steps[-n_new:])
    if not math.isfinite(float(new)):
        losses = ", ".join(f"{float(step['loss']):.4g}" for step in steps[-5:])
        norm = float(steps[-1]["grad_norm"])
        raise Diverged(f"last losses {losses}, last gradient norm {norm:.3g}")


def _means(steps: list[Numbers], shares: list[float]) -> Record:
    """Return the mean of every number of the steps, weighted by their shares."""
    columns = {
        name: torch.stack([step[name] for step in steps]).tolist() for name in steps[0]
    }
    return {
        name: sum(share * v for share, v in zip(shares, column, strict=True))
        for name, column in columns.items()
    }


@contextmanager
def _own_global_generator(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's global generator, for modules like Dropout, and put it back."""
    on_cuda = device.type == "cuda"
    with torch.random.fork_rng([device] if on_cuda else []):
        torch.default_generator.manual_seed(seed)
        if on_cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield
