"""-log p(y | x) of the members that do not hold a row out."""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from skebm.energies import Energy
from skebm.energies.response import Heads, ResponseEnergy
from skebm.energies.response_nodes import (
    N_DRAWS,
    Nodes,
    drawn_nodes,
    log_sum,
    shifted_nodes,
)
from skebm.objectives.objective import HELD_OUT_BATCH, Loss, Objective


@dataclass
class ResponseLikelihood(Objective):
    """Likelihood of the targets of a `ResponseEnergy`, members cross-fitted.

    Rows are x, y, the number of the member that must not see the row (-1: none), and
    a weight v. The loss is the sum over members j of the mean of
    v (E_j(x, y) + log Z_j(x)), over rows that j may see. For one target Z_j(x) is a
    quadrature with a random shift, and the loss exact up to its small error of mean
    zero. For several, Z_j is an average of exp(-E) / q over ``n_noise`` draws of a
    heavy-tailed q around mu(x) and over the row's own y: the loss is then
    noise-contrastive ranking [1]_ of y among the draws, plus the log-density of q that
    keeps the draws near the targets. On held-out rows the loss is -log p(y | x) under
    the one member that did not see the row.

    Parameters
    ----------
    n_noise : int, default=512
        Draws, >= 1, shared by the rows of a batch.

    References
    ----------
    .. [1] Ma, Collins (2018), Noise contrastive estimation and negative sampling for
       conditional models, EMNLP.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import ResponseEnergy
    >>> from skebm.objectives import ResponseLikelihood
    >>> rows = torch.tensor([[0.0, 1.0, -1.0, 1.0]])
    >>> g = torch.Generator().manual_seed(0)
    >>> energy, objective = ResponseEnergy(n_members=1).build(2), ResponseLikelihood()
    >>> state = objective.init(energy, rows, generator=g)
    >>> objective(energy, rows, state, generator=g).value.shape
    torch.Size([])
    """

    n_noise: int = N_DRAWS

    def init(self, energy: Energy, x: Tensor, *, generator: Generator) -> nn.Module:
        """Return nothing to keep.

        Raises
        ------
        TypeError
            If the energy is of another kind.
        ValueError
            If ``n_noise`` is below 1 or the rows lack their last two columns.
        """
        response = _checked(energy)
        wanted = response.coef.shape[1] + response.n_targets + 2
        if self.n_noise < 1 or x.shape[1] != wanted:
            raise ValueError(
                f"Got {self!r} and rows of {x.shape[1]} columns, but expected n_noise "
                f">= 1 and {wanted} columns: x, y, the member that holds the row out, "
                "and a weight."
            )
        return nn.Module()

    def __call__(
        self, energy: Energy, batch: Tensor, state: nn.Module, *, generator: Generator
    ) -> Loss:
        """Return the weighted loss of the members that may see each row."""
        response = _checked(energy)
        x, y = response.split(batch)
        heads = response.heads(x)
        r = response.residuals(heads, y)
        e = response.member_energies(heads, r)
        if response.n_tilts == 0:
            log_z = torch.zeros_like(e)
        elif response.n_targets == 1:
            terms = response.node_energies(heads, shifted_nodes(x, generator))
            log_z = log_sum(terms)
        else:
            log_z = self._contrasted(response, heads, r, e, generator)
        members = torch.arange(response.n_members, device=batch.device)
        share = (members[:, None] != batch[:, -2]) * batch[:, -1]
        each = share.sum(1).clamp(min=torch.finfo(share.dtype).tiny)
        return Loss((((e + log_z) * share).sum(1) / each).sum(), {})

    def criterion(
        self, energy: Energy, rows: Tensor, state: nn.Module, *, generator: Generator
    ) -> float:
        """Return the weighted mean of -log p(y | x), each row by the member without."""
        response, total = _checked(energy), 0.0
        with torch.no_grad():
            nodes = None
            if response.n_targets == 1:
                nodes = shifted_nodes(rows, generator)
            for batch in torch.split(rows, HELD_OUT_BATCH):
                log_p = held_out_log_density(response, batch, nodes)
                total -= float((log_p * batch[:, -1]).sum())
        return total / float(rows[:, -1].sum())

    def _contrasted(
        self,
        response: ResponseEnergy,
        heads: Heads,
        r: Tensor,
        e: Tensor,
        generator: Generator,
    ) -> Tensor:
        """Return log of the mean of exp(-E) / q over draws and the row's own y."""
        k = response.n_targets
        nodes = drawn_nodes(r[0], self.n_noise, k, generator)
        terms = response.node_energies(heads, nodes)
        own_q = -1.5 * (2 + r * r).log().sum(2)
        own = (
            -e
            + heads.log_scale.sum(2)
            + response.log_volume()[:, None]
            - own_q
            - terms.new_tensor(self.n_noise).log()
        )
        shrink = terms.new_tensor(self.n_noise / (self.n_noise + 1)).log()
        return log_sum(torch.cat([terms, own[..., None]], 2)) + shrink


def held_out_log_density(
    energy: ResponseEnergy, rows: Tensor, nodes: Nodes | None = None
) -> Tensor:
    """Return log p(y | x) of the member that a row is held out from.

    Parameters
    ----------
    energy : ResponseEnergy
        Built.
    rows : Tensor of shape (n, d + k + 2)
        x, y, member or -1, weight.
    nodes : Nodes or None, default=None
        Of the integral Z(x); None is the finest.

    Returns
    -------
    Tensor of shape (n,)
        Of all members' mean where no member holds the row out.
    """
    log_p = energy.member_log_density(rows, nodes)
    member = rows[:, -2].long()
    own = log_p.gather(0, member.clamp(min=0)[None])[0]
    mean = log_p.logsumexp(0) - log_p.new_tensor(energy.n_members).log()
    return torch.where(member < 0, mean, own)


def _checked(energy: Energy) -> ResponseEnergy:
    """Return an energy that is a response energy; raise for any other."""
    if not isinstance(energy, ResponseEnergy):
        raise TypeError(
            f"ResponseLikelihood needs a ResponseEnergy, but got "
            f"{type(energy).__name__}. Use NoiseContrastive for other energies."
        )
    return energy
