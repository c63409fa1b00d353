"""One loop: minibatches, an objective, an optimizer; the averaged weights are kept."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

from torch import Generator, Tensor, nn

from skebm._params import Params
from skebm.energies import Energy
from skebm.exceptions import DivergenceError
from skebm.objectives.objective import Objective
from skebm.training.checkpoints import Checkpoint, description, digest
from skebm.training.descent import AdamW, Descent, Momentum, learning_rate
from skebm.training.learner import (
    Diverged,
    Learner,
    Record,
    learning,
    refuse_growth,
)
from skebm.training.rules import refuse_bad_rows, refuse_bad_settings

OnEpoch = Callable[[int, Record], bool | None]

START: dict[str, Any] = {
    "epoch": 0,
    "history": {},
    "factor": 1.0,
    "least_loss": math.inf,
    "n_stale": 0,
    "stopped": False,
}
"""Progress before the first epoch: ``factor`` multiplies the learning rate, ``n_stale``
counts epochs without a lower held-out loss."""


class History(NamedTuple):
    """What `Trainer.run` did.

    Attributes
    ----------
    history : dict of str to list of float
        One number per epoch: "loss", "grad_norm" (before clipping) and the objective's
        metrics, means over the rows; "learning_rate" of the last step; "valid_loss" if
        there are held-out rows and the objective is a criterion.
    n_iter : int
        Epochs run.
    interrupted : bool
        Whether Ctrl-C ended training.
    state : Module
        What the objective learned beside the energy, such as log Z.
    """

    history: dict[str, list[float]]
    n_iter: int
    interrupted: bool
    state: nn.Module


@dataclass
class Trainer(Params):
    """Train an energy on an objective.

    Step t = 0, 1, ... of T, with w warm-up steps (at most T / 10), has the rate
    learning_rate (t + 1) / w for t < w, and then learning_rate (1 + cos(pi s)) / 2
    with the cosine schedule, s = (t - w) / (T - w), or learning_rate / 100^s with the
    exponential one. The model is the average of the weights,
    a <- d a + (1 - d) w_t with d = min(ema, t / (t + 9)): without the second term a
    short run would average in its starting weights [2]_.

    An epoch is cut into ceil(n / batch_size) batches of sizes that differ by at most
    one, so that every row is used and no batch is tiny. A non-finite loss, gradient
    or weight, or energies whose squares overflow, roll back to the last whole epoch,
    optimizer included, and halve the rate, once.

    Parameters
    ----------
    max_iter : int, default=100
        Epochs, >= 1.
    batch_size : int, default=256
        Largest number of rows per step, >= 1.
    learning_rate : float, default=4e-3
        Largest rate, > 0.
    optimizer : {"adamw", "momentum"}, default="adamw"
        AdamW [1]_, or steps along a running mean of the gradient.
    betas : tuple of float, default=(0.9, 0.99)
        Decay of AdamW's two moments, in [0, 1); the first one is also the momentum.
    weight_decay : float, default=0.0
        Decay of the weights, >= 0.
    n_warmup_steps : int, default=100
        Steps over which the rate rises, >= 0.
    schedule : {"cosine", "constant", "exponential"}, default="cosine"
        The rate after warm-up.
    clip_norm : float, default=5.0
        Largest norm of the whole gradient, > 0; longer ones are shortened. May be
        infinite.
    ema : float, default=0.999
        Decay of the average of the weights per step, in [0, 1); 0 keeps the last ones.
    early_stopping : bool, default=False
        Stop when the held-out loss has not fallen for ``n_iter_no_change`` looks.
    n_iter_no_change : int, default=10
        Patience in looks at the held-out loss, >= 1.
    valid_every : int, default=1
        Epochs between two looks, >= 1; the last epoch is looked at too.
    tol : float, default=1e-4
        A smaller fall than this counts as none, >= 0.
    checkpoint : str, path or None, default=None
        File to resume from and to write to.
    checkpoint_every : int, default=1
        Epochs between two writes, >= 1.

    References
    ----------
    .. [1] Loshchilov, Hutter (2019), Decoupled weight decay regularization, ICLR.
    .. [2] Shamir, Zhang (2013), Stochastic gradient descent for non-smooth
       optimization, ICML (polynomial-decay averaging).

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import Quadratic
    >>> from skebm.objectives import ScoreMatching
    >>> from skebm.trainer import Trainer
    >>> energy, g = Quadratic().build(2), torch.Generator().manual_seed(0)
    >>> x = torch.randn(100, 2, generator=g)
    >>> Trainer(max_iter=5).run(energy, ScoreMatching(), x, generator=g).n_iter
    5
    """

    max_iter: int = 100
    batch_size: int = 256
    learning_rate: float = 4e-3
    optimizer: str = "adamw"
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0
    n_warmup_steps: int = 100
    schedule: str = "cosine"
    clip_norm: float = 5.0
    ema: float = 0.999
    early_stopping: bool = False
    n_iter_no_change: int = 10
    valid_every: int = 1
    tol: float = 1e-4
    checkpoint: str | PathLike[str] | None = None
    checkpoint_every: int = 1

    def run(
        self,
        energy: Energy,
        objective: Objective,
        x: Tensor,
        *,
        x_valid: Tensor | None = None,
        generator: Generator,
        on_epoch: OnEpoch | None = None,
    ) -> History:
        """Train ``energy`` in place and leave it in eval mode.

        It ends with the averaged weights of the last whole epoch, or of the one with
        the least held-out loss where that is known: also after Ctrl-C, and finite also
        after an error. Interrupted before the first epoch is whole, it has the weights
        it came with.

        Parameters
        ----------
        energy : Energy
            Built, on the device of x.
        objective : Objective
            What is minimised.
        x : Tensor of shape (n, d)
            Training rows, n >= 1.
        x_valid : Tensor of shape (m, d) or None, default=None
            Held-out rows. The objective is evaluated on them after every epoch, with
            the same random numbers each time.
        generator : Generator
            Source of all randomness, on the device of x.
        on_epoch : callable or None, default=None
            Called as ``on_epoch(epoch, record)`` after each whole epoch, counted from
            0, with the averaged weights in the energy; returning True ends training.

        Returns
        -------
        History
            The numbers of every epoch, and the objective's state.

        Raises
        ------
        DivergenceError
            If training diverges a second time, at half the rate.
        ValueError
            If a parameter is out of its range, or ``checkpoint`` is damaged or of
            other rows or parameters.
        """
        refuse_bad_settings(self)
        refuse_bad_rows(objective, x, x_valid, self.early_stopping)
        run = _Run(self, energy, objective, x, x_valid, generator)
        interrupted = False
        try:
            run.resume()
            run.epochs(on_epoch)
        except KeyboardInterrupt:
            interrupted = True
        finally:
            run.settle()
        progress, state = run.kept["progress"], run.learner.state
        history = dict(progress["history"])
        return History(history, progress["epoch"], interrupted, state)


class _Run:
    """One call of `Trainer.run`.

    ``kept`` is the last whole epoch. It is replaced in one assignment, so an interrupt
    at any point finds either the old one or the new one; and every epoch starts from
    it, so a resumed run does what an unbroken one does.
    """

    def __init__(
        self,
        trainer: Trainer,
        energy: Energy,
        objective: Objective,
        x: Tensor,
        x_valid: Tensor | None,
        generator: Generator,
    ) -> None:
        state = objective.init(energy, x, generator=generator)
        descent = _descent(trainer, energy, state)
        self.trainer = trainer
        self.x_valid = x_valid if objective.is_criterion else None
        self.learner = Learner(
            energy, objective, state, descent, x, trainer.batch_size, generator
        )
        self.valid_seed = self.learner.draw_seed()
        self.checkpoint: Checkpoint | None = None
        self.kept = self.learner.snapshot() | {"progress": dict(START), "best": None}

    @property
    def finished(self) -> bool:
        """Whether no epoch is left to run."""
        progress = self.kept["progress"]
        return bool(progress["stopped"] or progress["epoch"] >= self.trainer.max_iter)

    @property
    def _looks(self) -> bool:
        """Whether the epoch under way ends with a look at the held-out loss."""
        epoch, trainer = self.kept["progress"]["epoch"] + 1, self.trainer
        return bool(epoch % trainer.valid_every == 0 or epoch == trainer.max_iter)

    def resume(self) -> None:
        """Go on from the checkpoint, if there is one."""
        if self.trainer.checkpoint is None:
            return
        learner = self.learner
        plain = replace(self.trainer, checkpoint=None, checkpoint_every=1)
        fingerprint = {
            "rows": digest(learner.x),
            "held-out rows": digest(self.x_valid),
            "device": learner.x.device.type,
            "trainer": description(plain),
            "energy": description(learner.energy, learner.energy),
            "objective": description(learner.objective, learner.state),
        }
        self.checkpoint = Checkpoint(Path(self.trainer.checkpoint), fingerprint)
        found = self.checkpoint.load()
        if found is not None:
            self.valid_seed = found["valid_seed"]
            learner.generator.set_state(found["kept"]["generator"])
            self.kept = found["kept"]

    def epochs(self, on_epoch: OnEpoch | None) -> None:
        """Train until the last epoch or a stop."""
        while not self.finished:
            try:
                self.kept, record = self._epoch()
            except Diverged as fault:
                self._slow_down(fault)
                continue
            self._write()
            epoch = self.kept["progress"]["epoch"] - 1
            if on_epoch is not None and on_epoch(epoch, record):
                self.kept["progress"]["stopped"] = True
                self._write()

    def settle(self) -> None:
        """Put the model's weights in place."""
        self.learner.restore(self.kept)
        self.learner.use_average()
        if self.kept["best"] is not None:
            self.learner.load_modules(self.kept["best"])

    def _epoch(self) -> tuple[dict[str, Any], Record]:
        """Return the next whole epoch and its numbers; the average is in the energy."""
        learner = self.learner
        learner.restore(self.kept)
        first = self.kept["progress"]["epoch"] * learner.n_batches
        record = learner.epoch(first, self._rate)
        losses = self.kept["progress"]["history"].get("loss", [record["loss"]])
        refuse_growth(losses[0], record["loss"])
        kept = learner.snapshot()
        learner.use_average()
        learner.refuse_explosion()
        if self.x_valid is not None and self._looks:
            record["valid_loss"] = learner.evaluate(self.x_valid, self.valid_seed)
        return kept | self._judge(record), record

    def _rate(self, t: int) -> float:
        """Return the learning rate of step t."""
        trainer = self.trainer
        factor: float = self.kept["progress"]["factor"]
        # Searches pass numpy's numbers, which a checkpoint does not hold.
        return factor * learning_rate(
            t,
            self.learner.n_batches * trainer.max_iter,
            peak=float(trainer.learning_rate),
            n_warmup_steps=trainer.n_warmup_steps,
            schedule=trainer.schedule,
        )

    def _judge(self, record: Record) -> dict[str, Any]:
        """Return the progress after an epoch, and the best weights so far."""
        old, best, trainer = self.kept["progress"], self.kept["best"], self.trainer
        history = old["history"]
        new = old | {
            "epoch": old["epoch"] + 1,
            "history": history
            | {k: [*history.get(k, []), v] for k, v in record.items()},
        }
        if "valid_loss" not in record:
            return {"progress": new, "best": best}
        loss = record["valid_loss"]
        if loss < old["least_loss"]:
            best, new["least_loss"] = self.learner.modules(), loss
        fell = loss < old["least_loss"] - trainer.tol
        new["n_stale"] = 0 if fell else old["n_stale"] + 1
        impatient = new["n_stale"] >= trainer.n_iter_no_change
        new["stopped"] = bool(trainer.early_stopping and impatient)
        return {"progress": new, "best": best}

    def _slow_down(self, fault: Diverged) -> None:
        """Halve the rate for the next attempt, once."""
        progress = self.kept["progress"]
        if progress["factor"] < 1.0:
            raise DivergenceError(
                f"Training diverged twice: {fault}, in epoch {progress['epoch']} at "
                f"learning_rate={self.trainer.learning_rate / 2:g} (halved once). The "
                "energy has the weights of the last whole epoch. Lower learning_rate "
                "or scale the columns."
            ) from None
        progress["factor"] = 0.5

    def _write(self) -> None:
        """Write the checkpoint if it is due."""
        due = self.kept["progress"]["epoch"] % self.trainer.checkpoint_every == 0
        if self.checkpoint is not None and (due or self.finished):
            self.checkpoint.save({"kept": self.kept, "valid_seed": self.valid_seed})


def _descent(trainer: Trainer, energy: Energy, state: nn.Module) -> Descent:
    """Return the optimizer of the energy and of what the objective learns."""
    weights = learning(energy)
    if not weights:
        raise ValueError(
            f"Got {energy!r} without parameters that learn. Train an energy that has "
            "some, such as MLP(), built first and not frozen as a whole."
        )
    own = {id(weight) for weight in weights}
    # Decay would bias a learned log Z.
    others = [weight for weight in learning(state) if id(weight) not in own]
    averaging = {
        "weight_decay": trainer.weight_decay,
        "clip_norm": trainer.clip_norm,
        "ema": trainer.ema,
    }
    if trainer.optimizer == "momentum":
        return Momentum(weights, others, momentum=trainer.betas[0], **averaging)
    return AdamW(weights, others, betas=trainer.betas, **averaging)
