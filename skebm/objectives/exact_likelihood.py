"""The exact likelihood gradient of an RBM whose hidden states can be listed."""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from skebm._params import refuse
from skebm.energies import RBM, Energy
from skebm.objectives.centering import follow
from skebm.objectives.objective import Loss, Objective
from skebm.objectives.penalty import adaptive_decay
from skebm.objectives.rbm import checked
from skebm.samplers.annealing import AnnealedLayers
from skebm.samplers.clamped import MOST_HIDDEN, Table, draw_missing, hidden_table

SPREAD_FLOOR = 1.0
"""Added to the mean square of the weights in the penalty: with less, few rows would
hold the weights at zero, where the likelihood has a saddle."""


class ExactState(nn.Module):
    """What the exact likelihood keeps: moving means that centre, draws to look at.

    Parameters
    ----------
    chains : Tensor of shape (n_chains, d)
        Draws of the model; they train nothing.
    visible_offset : Tensor of shape (n_statistics,)
        Moving mean of phi.
    hidden_offset : Tensor of shape (n_hidden,)
        Moving mean of h.
    n_rows : int
        Training rows.
    """

    chains: Tensor
    visible_offset: Tensor
    hidden_offset: Tensor
    n_rows: Tensor

    def __init__(
        self,
        chains: Tensor,
        visible_offset: Tensor,
        hidden_offset: Tensor,
        n_rows: int,
    ) -> None:
        super().__init__()
        self.register_buffer("chains", chains)
        self.register_buffer("visible_offset", visible_offset)
        self.register_buffer("hidden_offset", hidden_offset)
        self.register_buffer("n_rows", torch.tensor(float(n_rows)))


@dataclass
class ExactLikelihood(Objective):
    """Ascent on the log-likelihood of an RBM, its negative phase without chains.

    d log p / dW = <h phi(v)'>_data - sum_h p(h) h E[phi(v) | h]', with
    p(h) = exp(c'h + Psi(b + W'h)) / Z over all 2^n_hidden hidden states [1]_. The
    gradients are centred as in `RBMLikelihood` and set by the call itself; the loss
    carries none, and its value is the mean negative log-likelihood of the batch.

    Parameters
    ----------
    n_chains : int, default=100
        Draws of the model that the state keeps, >= 1; they train nothing.
    weight_decay : "auto" or float, default="auto"
        Factor, >= 0, on |W|^2 / 2 per row. "auto" is 1 / (n (mean W^2 + 1)).

    Notes
    -----
    Cost O(2^n_hidden (n_hidden + n_statistics)) per step beside the batch's own. NaN
    entries are drawn from their exact law given the others. Limits: at most 16 hidden
    bits; cheaper than chains up to about 10.

    References
    ----------
    .. [1] Freund, Haussler (1991), Unsupervised learning of distributions on binary
       vectors using two layer networks, NeurIPS.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import RBM
    >>> from skebm.objectives import ExactLikelihood
    >>> x, g = torch.ones(20, 3), torch.Generator().manual_seed(0)
    >>> rbm, objective = RBM(2).build(3, generator=g), ExactLikelihood()
    >>> loss = objective(rbm, x, objective.init(rbm, x, generator=g), generator=g)
    >>> round(loss.value.item(), 1)  # about 3 log 2
    2.1
    """

    n_chains: int = 100
    weight_decay: str | float = "auto"

    def init(self, energy: Energy, x: Tensor, *, generator: Generator) -> ExactState:
        """Return the means of the rows, and draws of independent columns.

        Raises
        ------
        ValueError
            If a parameter is out of range or the hidden layer too large.
        """
        rbm = checked(energy)
        self._refuse(rbm)
        layer = rbm.layer
        start = layer.base_fields(x)
        with torch.no_grad():
            rows = layer.sample(start.expand(self.n_chains, -1), generator=generator)
            visible = layer.mean(start[None])[0].clone()
        hidden = torch.full_like(rbm.hidden_bias.detach(), 0.5)
        return ExactState(rows, visible, hidden, len(x))

    def __call__(
        self, energy: Energy, batch: Tensor, state: nn.Module, *, generator: Generator
    ) -> Loss:
        """Set the gradients of the energy's weights; renew the draws in train mode."""
        rbm = checked(energy)
        assert isinstance(state, ExactState)
        with torch.no_grad():
            if batch.isnan().any():
                batch = draw_missing(rbm, batch, generator=generator)
            table = hidden_table(rbm)
            log_p = table.bias + table.log_normalizers.sum(1)
            p = log_p.softmax(0)
            error = _set_gradients(rbm, batch, table, p, state)
            assert rbm.weight.grad is not None
            rbm.weight.grad.add_(rbm.weight, alpha=self._decay(rbm, state))
            loss = rbm(batch).mean() + log_p.logsumexp(0)
            if state.training:
                which = torch.multinomial(
                    p.nan_to_num(1.0), self.n_chains, True, generator=generator
                )
                layers = AnnealedLayers(rbm)
                draws = layers.visible_draw(table.h[which], generator=generator)
                state.chains.copy_(draws)
        return Loss(loss, {"reconstruction_error": error})

    def criterion(
        self, energy: Energy, rows: Tensor, state: nn.Module, *, generator: Generator
    ) -> float:
        """Return the mean negative log-likelihood of the held-out rows, in nats."""
        rbm = checked(energy)
        with torch.no_grad():
            if rows.isnan().any():
                rows = draw_missing(rbm, rows, generator=generator)
            table = hidden_table(rbm)
            log_z = (table.bias + table.log_normalizers.sum(1)).logsumexp(0)
            return float(rbm(rows).mean() + log_z)

    def _decay(self, rbm: RBM, state: ExactState) -> float:
        """Return the factor on W in the gradient of the penalty."""
        if not isinstance(self.weight_decay, str):
            return float(self.weight_decay)
        spread = float(rbm.weight.detach().square().mean())
        return adaptive_decay(spread, float(state.n_rows), SPREAD_FLOOR)

    def _refuse(self, rbm: RBM) -> None:
        """Raise if a parameter is out of its range, or the layer too large."""
        decay = self.weight_decay
        fits = decay == "auto" if isinstance(decay, str) else decay >= 0
        rules = {
            "n_chains": (self.n_chains >= 1, "an integer >= 1"),
            "weight_decay": (fits, "'auto' or a number >= 0"),
        }
        refuse(self, rules)
        if rbm.n_hidden > MOST_HIDDEN:
            raise ValueError(
                f"Got an RBM of {rbm.n_hidden} hidden bits, but ExactLikelihood lists "
                f"the states of at most {MOST_HIDDEN}. Use RBMLikelihood."
            )


def _set_gradients(
    rbm: RBM, batch: Tensor, table: Table, p: Tensor, state: ExactState
) -> Tensor:
    """Set the gradients of the negative log-likelihood; return a mean square error."""
    layer = rbm.layer
    phi, phi_model = layer.statistics(batch), layer.mean(table.fields)
    h = rbm.hidden_fields(phi).sigmoid_()
    if state.training:
        follow(state.visible_offset, phi.mean(0))
        follow(state.hidden_offset, h.mean(0))
    u, m = state.visible_offset, state.hidden_offset
    expected = (p[:, None] * (table.h - m)).T @ (phi_model - u)
    weight = expected - (h - m).T @ (phi - u) / len(batch)
    rbm.visible_bias.grad = p @ phi_model - phi.mean(0) - m @ weight
    rbm.hidden_bias.grad = p @ table.h - h.mean(0) - weight @ u
    rbm.weight.grad = weight
    fields = rbm.visible_fields(h)
    own = list(layer.parameters())
    if own:
        with torch.inference_mode(False), torch.enable_grad():
            psi = layer.log_normalizers(table.fields.clone()).sum(1)
            models = torch.autograd.grad(p.clone() @ psi, own)
        data = layer.gradients(batch, fields)
        for parameter, positive, negative in zip(own, data, models, strict=True):
            parameter.grad = negative - positive
    return (phi - layer.mean(fields)).square().mean()
