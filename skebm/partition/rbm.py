"""log Z of an RBM: the sum over its smaller layer, or annealing by block Gibbs."""

import copy
import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from skebm._torch import bernoulli, probabilities
from skebm.energies import RBM, Energy
from skebm.partition._gibbs import GibbsAnnealing, GibbsPath
from skebm.partition._reference import CHUNK_ROWS
from skebm.partition.estimate import LogPartition, Normalizer
from skebm.samplers import AnnealedLayers

MOST_BITS = 22
"""Bits of the smaller layer up to which a sum over its states takes seconds."""


def smaller_layer_bits(rbm: RBM) -> float:
    """Return log2 of the number of states of the layer with fewer of them.

    Parameters
    ----------
    rbm : RBM
        Built.

    Returns
    -------
    float
        Log2 of the number of states of the layer with fewer of them.
    """
    counts = rbm.layer.states()
    visible = math.inf if counts is None else sum(math.log2(k) for k in counts)
    return min(float(rbm.n_hidden), visible)


@dataclass
class LayerSum(Normalizer):
    """The exact log Z of an RBM, by a sum over the states of its smaller layer.

    Over hidden bits, Z = sum_h exp(c'h + Psi(b + W'h)); over visible states,
    Z = sum_v exp(-E(v)). In double precision.

    Parameters
    ----------
    most_bits : int, default=30
        Refuse larger layers.

    References
    ----------
    .. [1] Salakhutdinov, Murray (2008), On the quantitative analysis of deep belief
       networks, ICML.

    Examples
    --------
    >>> from skebm.energies import RBM
    >>> from skebm.partition import LayerSum
    >>> round(LayerSum()(RBM(3).build(2)).value, 2)  # about 5 log 2
    3.46
    """

    most_bits: int = 30

    def __call__(
        self,
        energy: Energy,
        *,
        base: Energy | None = None,
        generator: Generator | None = None,
    ) -> LogPartition:
        """Return the sum.

        Parameters
        ----------
        energy : RBM
            Built.
        base, generator : optional
            Unused.

        Returns
        -------
        LogPartition
            The exact value.

        Raises
        ------
        ValueError
            If both layers are larger than ``most_bits``.
        """
        rbm = copy.deepcopy(checked_rbm(energy)).double()
        if smaller_layer_bits(rbm) > self.most_bits:
            raise ValueError(
                f"Got an RBM whose smaller layer has {smaller_layer_bits(rbm):.0f} "
                f"bits, but LayerSum sums over at most {self.most_bits}. Use "
                "AnnealedGibbs()."
            )
        counts = rbm.layer.states()
        over_visible = counts is not None and sum(map(math.log2, counts)) < rbm.n_hidden
        sizes = list(counts or []) if over_visible else [2] * rbm.n_hidden
        term = _visible_term if over_visible else _hidden_term
        total = torch.full((), -torch.inf, dtype=torch.float64)
        with torch.no_grad():
            n_states = math.prod(sizes)
            for start in range(0, n_states, CHUNK_ROWS):
                index = torch.arange(start, min(start + CHUNK_ROWS, n_states))
                states = _digits(index, sizes).to(rbm.weight)
                total = torch.logaddexp(total, term(rbm, states).logsumexp(0).cpu())
        value = float(total)
        return LogPartition(value, (value, value), math.inf, repr(self))


def checked_rbm(energy: Energy) -> RBM:
    """Return an energy that is an RBM; raise for any other.

    Parameters
    ----------
    energy : Energy
        Built.

    Returns
    -------
    RBM
        An energy that is an RBM; raise for any other.
    """
    if not isinstance(energy, RBM):
        raise TypeError(
            f"Got {type(energy).__name__}, but expected an RBM. Use AIS() or SMC() for "
            "other energies."
        )
    return energy


def _digits(index: Tensor, sizes: list[int]) -> Tensor:
    """Return the mixed-radix digits of numbers, shape (n, len(sizes))."""
    places = [math.prod(sizes[:i]) for i in range(len(sizes))]
    pairs = zip(places, sizes, strict=True)
    return torch.stack([index // place % size for place, size in pairs], 1)


def _hidden_term(rbm: RBM, h: Tensor) -> Tensor:
    """Return log sum_v exp(-E(v, h)), shape (n,)."""
    fields = rbm.visible_fields(h)
    return h @ rbm.hidden_bias + rbm.layer.log_normalizers(fields).sum(1)


def _visible_term(rbm: RBM, v: Tensor) -> Tensor:
    """Return -E(v), shape (n,)."""
    e: Tensor = rbm(v)
    return -e


@dataclass
class AnnealedGibbs(GibbsAnnealing):
    """Annealed importance sampling of an RBM, from independent columns and back.

    Chains of block Gibbs steps walk from the model of independent columns with fields
    b_0 to the RBM along
    E_t(v, h) = A(v) - ((1 - t) b_0 + t b)'phi(v) - t h'(c + W phi(v)) [1]_, and from
    draws of the RBM back. The first way is low in expectation, the second high [2]_;
    with ``bracket`` the value is Bennett's acceptance ratio of the two, and
    `PartitionWarning` is raised where their 95% intervals do not meet.

    Parameters
    ----------
    n_chains : int, default=256
        Chains each way, >= 32, rounded down to a multiple of 16.
    n_temperatures : int, default=1000
        Places on the path, >= 1, evenly spread over t in (0, 1].
    bracket : bool, default=True
        Walk back too; else the value is the forward one.

    Notes
    -----
    Cost: two products with W per chain and place, in the energy's precision. Limits:
    modes that neither way visits are missed; the draws to walk back from start at
    ``x`` where rows are given, else at the ends of the forward chains.

    References
    ----------
    .. [1] Salakhutdinov, Murray (2008), On the quantitative analysis of deep belief
       networks, ICML.
    .. [2] Burda, Grosse, Salakhutdinov (2015), Accurate and conservative estimates of
       MRF log-likelihood using reverse annealing, AISTATS.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import RBM
    >>> from skebm.partition import AnnealedGibbs, LayerSum
    >>> rbm, g = RBM(4).build(6), torch.Generator().manual_seed(0)
    >>> estimate = AnnealedGibbs(64, n_temperatures=50)(rbm, generator=g)
    >>> abs(estimate.value - LayerSum()(rbm).value) < 0.01
    True
    """

    def _path(
        self,
        energy: Energy,
        base: Energy | None,
        x: Tensor | None,
        generator: Generator,
    ) -> GibbsPath:
        """Return the way from independent columns to an RBM.

        Their fields b_0 are the visible biases of ``base``, the base rates of ``x``, or
        the energy's own biases.
        """
        rbm = checked_rbm(energy)
        return _FromColumns(rbm, _start_fields(rbm, base, x), generator)


class _FromColumns(GibbsPath):
    """The way from independent columns to an RBM."""

    def __init__(self, rbm: RBM, start: Tensor, generator: Generator) -> None:
        self.layers, self.generator = AnnealedLayers(rbm, start), generator
        psi = float(rbm.layer.log_normalizers(start[None]).detach().double().sum())
        self.log_start = rbm.n_hidden * math.log(2) + psi

    def start(self, n: int) -> Tensor:
        """Return draws of the independent columns, shape (n, d)."""
        fields = self.layers.start.expand(n, -1)
        return self.layers.layer.sample(fields, generator=self.generator)

    def move(self, v: Tensor, t: float) -> Tensor:
        """Return rows after a Gibbs step of E_t."""
        return self.layers.move(v, t, generator=self.generator)

    def near(self, rows: Tensor) -> Tensor:
        """Return the rows, missing entries drawn from the independent columns."""
        return torch.where(rows.isnan(), self.start(len(rows)), rows)

    def leap(self, v: Tensor, now: float, then: float) -> tuple[Tensor, Tensor]:
        """Return E_now - E_then, hidden bits summed out, and rows after a step."""
        layers = self.layers
        softplus = torch.nn.functional.softplus
        phi = layers.layer.statistics(v)
        fields = layers.hidden_fields(phi)
        rise = (softplus(then * fields) - softplus(now * fields)).sum(1)
        shift = phi @ (layers.visible_bias - layers.start)
        if then > 0:
            h = bernoulli(probabilities(fields.mul_(then)), self.generator)
            v = layers.visible_draw(h, then, generator=self.generator)
        return rise + (then - now) * shift, v


def _start_fields(rbm: RBM, base: Energy | None, x: Tensor | None) -> Tensor:
    """Return the fields of the independent columns."""
    if isinstance(base, RBM):
        return base.visible_bias.detach().to(rbm.visible_bias)
    if x is not None:
        return rbm.layer.base_fields(x.to(rbm.weight.device)).to(rbm.visible_bias)
    return rbm.visible_bias.detach().clone()
