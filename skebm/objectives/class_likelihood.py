"""log p(y | x) of a classification RBM, exact, and a share of log p(x, y)."""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from skebm._torch import uniform_like
from skebm.energies import ClassRBM, Energy
from skebm.objectives.objective import Loss, Objective
from skebm.objectives.rbm import RBMLikelihood

LEAST_SIGMOID = 1e-30
"""Floor under the logarithm of a sigmoid; fields below -69 count as -69."""


class ClassState(nn.Module):
    """What the class likelihood keeps: the chains of its generative share.

    Parameters
    ----------
    joint : Module or None
        The state of the joint likelihood.
    """

    def __init__(self, joint: nn.Module | None) -> None:
        super().__init__()
        self.joint = joint


@dataclass
class ClassLikelihood(Objective):
    """Ascent on log p(y | x) + alpha log p(x, y) of a classification RBM [1]_.

    The first part has an exact gradient: with r_y = p(y | x) - [y is the label] and
    s_yj = 1 / (1 + exp(-c_j - U_jy - W_j x)), the loss -log p(y | x) falls along
    dW_j = sum_y r_y s_yj x', dU_jy = r_y s_yj, dc_j = sum_y r_y s_yj, dd_y = r_y. The
    second is that of `RBMLikelihood`. The gradients are set by the call itself; the
    loss carries none.

    Parameters
    ----------
    generative_weight : float, default=0.0
        alpha >= 0; 0 is discriminative training.
    dropout : float, default=0.2
        Share of the entries of x, in [0, 1), that are set to zero before y is
        predicted, the others scaled by 1 / (1 - dropout); none on held-out rows.
    likelihood : RBMLikelihood or None, default=None
        How the chains of the generative share run; None means persistent chains, the
        gradient not centred and no weight decay, so that both parts are gradients of
        one loss. Its precision is that of all products.

    Notes
    -----
    Rows are d bits, or probabilities of bits, and the label's code last. Cost per row
    and label: one sigmoid and one logarithm per hidden bit, and two products with W
    per row; the generative share adds about five products.

    References
    ----------
    .. [1] Larochelle, Mandel, Pascanu, Bengio (2012), Learning algorithms for the
       classification restricted Boltzmann machine, Journal of Machine Learning
       Research 13.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import ClassRBM
    >>> from skebm.objectives import ClassLikelihood
    >>> rows, g = torch.ones(20, 4), torch.Generator().manual_seed(0)
    >>> rbm, objective = ClassRBM(3, n_classes=2).build(4), ClassLikelihood()
    >>> state = objective.init(rbm, rows, generator=g)
    >>> round(objective(rbm, rows, state, generator=g).value.item(), 1)  # log 2
    0.7
    """

    generative_weight: float = 0.0
    dropout: float = 0.2
    likelihood: RBMLikelihood | None = None

    def init(self, energy: Energy, x: Tensor, *, generator: Generator) -> ClassState:
        """Return the chains of the generative share, if it has weight.

        Raises
        ------
        ValueError
            If a parameter is out of range.
        """
        _checked(energy)
        if self.generative_weight < 0 or not 0 <= self.dropout < 1:
            raise ValueError(
                f"Got {self!r}, but expected generative_weight >= 0 and dropout in "
                "[0, 1)."
            )
        if not self.generative_weight:
            return ClassState(None)
        return ClassState(self._joint().init(energy, x, generator=generator))

    def __call__(
        self, energy: Energy, batch: Tensor, state: nn.Module, *, generator: Generator
    ) -> Loss:
        """Set the gradients of the energy's weights; move the chains in train mode."""
        rbm, metrics = _checked(energy), {}
        assert isinstance(state, ClassState)
        with torch.no_grad():
            share = self.generative_weight
            if share:
                assert state.joint is not None
                # First: it overwrites the gradients, the other part is added to them.
                joint = self._joint()(rbm, batch, state.joint, generator=generator)
                metrics = dict(joint.metrics)
            x, y = batch[:, :-1], batch[:, -1].long()
            if state.training and self.dropout:
                kept = uniform_like(x, generator) >= self.dropout
                x = x * kept / (1 - self.dropout)
            loss, errors, gradients = class_gradients(rbm, x, y, self._dtype(rbm, x))
            for weight, own in zip(_weights(rbm), gradients, strict=True):
                if share and weight.grad is not None:
                    own.add_(weight.grad, alpha=share)
                weight.grad = own
        return Loss(loss, {"training_error": errors} | metrics)

    def criterion(
        self, energy: Energy, rows: Tensor, state: nn.Module, *, generator: Generator
    ) -> float:
        """Return the mean of -log p(y | x) over the held-out rows, in nats."""
        rbm, total = _checked(energy), 0.0
        with torch.no_grad():
            for batch in torch.split(rows, 256):
                fields = rbm.class_fields(batch[:, :-1])
                y = batch[:, -1].long()
                total += float(nn.functional.cross_entropy(fields, y, reduction="sum"))
        return total / len(rows)

    def _joint(self) -> RBMLikelihood:
        """Return the likelihood of the generative share."""
        if self.likelihood is not None:
            return self.likelihood
        return RBMLikelihood(centered=False, weight_decay=0.0)

    def _dtype(self, rbm: ClassRBM, x: Tensor) -> torch.dtype:
        """Return the type of the products."""
        found = self._joint()._dtype(rbm, len(x))
        return rbm.weight.dtype if found is None else found


def class_gradients(
    rbm: ClassRBM, x: Tensor, y: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Return the mean of -log p(y | x), the share of wrong labels, the gradients.

    Parameters
    ----------
    rbm : ClassRBM
        Built.
    x : Tensor of shape (n, d)
        Rows.
    y : Tensor of shape (n,)
        Codes of their labels.
    dtype : dtype
        Of the products with W.

    Returns
    -------
    loss, errors : Tensor of shape ()
        In nats, and in [0, 1].
    gradients : list of Tensor
        Those of W and U, of b and d, of c.
    """
    k = rbm.n_classes
    weight, u = rbm.weight[:, :-k], rbm.weight[:, -k:].T
    low = x.to(dtype)
    fields = (low @ weight.to(dtype).T).to(rbm.weight.dtype).add_(rbm.hidden_bias)
    s = (fields[:, None] + u).sigmoid_()
    # softplus(f) = f - log sigmoid(f): half the time of softplus, s is needed anyway.
    total = fields.sum(1, keepdim=True) + u.sum(1)
    logits = total - s.clamp(min=LEAST_SIGMOID).log_().sum(2) + rbm.visible_bias[-k:]
    log_p = logits.log_softmax(1)
    loss = nn.functional.nll_loss(log_p, y)
    errors = (log_p.argmax(1) != y).to(loss).mean()
    r = log_p.exp().sub_(nn.functional.one_hot(y, k)).div_(len(x))
    pull = torch.bmm(r[:, None], s)[:, 0]
    by_label = torch.bmm(r.T[:, None], s.transpose(0, 1))[:, 0]
    by_bit = (pull.T.to(dtype) @ low).to(pull.dtype)
    bias = torch.cat([r.new_zeros(x.shape[1]), r.sum(0)])
    return loss, errors, [torch.cat([by_bit, by_label.T], 1), bias, pull.sum(0)]


def _weights(rbm: ClassRBM) -> list[nn.Parameter]:
    """Return W with U, b with d, and c."""
    return [rbm.weight, rbm.visible_bias, rbm.hidden_bias]


def _checked(energy: Energy) -> ClassRBM:
    """Return an energy that is a classification RBM; raise for any other."""
    if not isinstance(energy, ClassRBM):
        raise TypeError(
            f"ClassLikelihood needs a ClassRBM, but got {type(energy).__name__}. Use "
            "RBMLikelihood or ContrastiveDivergence for other energies."
        )
    return energy
