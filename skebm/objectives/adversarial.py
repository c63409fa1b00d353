"""Negatives from a generator network that follows the energy."""

from dataclasses import dataclass
from typing import cast

from torch import Generator, Tensor, nn

from skebm.energies import Energy
from skebm.objectives.flow import Flow
from skebm.objectives.objective import Loss, Objective


@dataclass
class Adversarial(Objective):
    """Maximum likelihood with negatives from a generator instead of chains.

    A generator network G draws x^- = G(z) with density q. Two players share one loss,

    max over E, min over q of  -mean E(x) + mean_q E(x^-) - H(q),

    H the entropy. For fixed E the generator minimises KL(q | exp(-E) / Z), so at
    q = exp(-E) / Z the gradient for E is that of the log-likelihood. Without H the
    generator would collapse on the lowest energy. G is a flow of affine couplings,
    whose entropy is exact; it starts at the Gaussian with the moments of the rows.

    Parameters
    ----------
    n_layers : int, default=4
        Couplings of the generator, >= 0; with 0, or one column, it is Gaussian.
    n_hidden : int, default=64
        Units of the two hidden layers of each coupling, >= 1.

    Notes
    -----
    Each batch costs three evaluations of E and one of the generator. In the metrics
    ``log_partition_bound`` = H(q) - mean_q E is a lower bound on log Z. The value of
    the loss is no criterion. Limits: a flow covers modes that are far apart with a
    bridge between them, and E pays for the bridge.

    References
    ----------
    .. [1] Kim, Bengio (2016), Deep directed generative models with energy-based
       probability estimation, arXiv:1606.03439.
    .. [2] Grathwohl, Kelly, Hashemi, Norouzi, Swersky, Duvenaud (2021), No MCMC for me:
       amortized sampling for fast and stable training of energy-based models, ICLR.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import Quadratic
    >>> from skebm.objectives import Adversarial
    >>> x, g = torch.randn(100, 2), torch.Generator().manual_seed(0)
    >>> energy, objective = Quadratic().build(2), Adversarial(n_layers=2, n_hidden=16)
    >>> state = objective.init(energy, x, generator=g)
    >>> objective(energy, x, state, generator=g).value.backward()
    """

    n_layers: int = 4
    n_hidden: int = 64

    is_criterion = False

    def init(self, energy: Energy, x: Tensor, *, generator: Generator) -> Flow:
        """Return the generator network.

        Raises
        ------
        ValueError
            If a size is out of range.
        """
        if self.n_layers < 0 or self.n_hidden < 1:
            raise ValueError(
                f"Got n_layers={self.n_layers!r} and n_hidden={self.n_hidden!r}, but "
                "expected n_layers >= 0 and n_hidden >= 1."
            )
        return Flow(x, self.n_layers, self.n_hidden, generator)

    def __call__(
        self, energy: Energy, batch: Tensor, state: nn.Module, *, generator: Generator
    ) -> Loss:
        """Return the energy's loss, with the generator's gradient added to it."""
        drawn, surprise = cast(Flow, state)(len(batch), generator=generator)
        ends, entropy = drawn.detach(), surprise.mean()
        low, high = energy(batch).mean(), energy(ends).mean()
        # Along E's gradient at the draws, so that no weight of E sees this term.
        follow = (energy.grad(ends) * drawn).sum(1).mean() - entropy
        gap = (high - low).detach()
        bound = (entropy - high).detach()
        metrics = {"energy": low.detach(), "gap": gap, "log_partition_bound": bound}
        return Loss(low - high + (follow - follow.detach()), metrics)
