"""log Z of an RBM: the sum over its smaller layer, or annealing by block Gibbs."""

import copy
import itertools
import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from skebm._torch import bernoulli, probabilities
from skebm.energies import RBM, Energy
from skebm.partition._reference import (
    CHUNK_ROWS,
    check_at_least,
    ess_of,
    warn_if_few,
)
from skebm.partition._spread import (
    N_ISLANDS,
    across_islands,
    bridge_estimate,
    forward_estimate,
    reverse_estimate,
)
from skebm.partition.annealed import bracketed
from skebm.partition.estimate import LogPartition, Normalizer
from skebm.samplers import AnnealedLayers

MOST_BITS = 22
"""Bits of the smaller layer up to which a sum over its states takes seconds."""

N_SETTLE = 20
"""Gibbs steps at the model itself before the chains walk back."""


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
class AnnealedGibbs(Normalizer):
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

    n_chains: int = 256
    n_temperatures: int = 1000
    bracket: bool = True

    def __call__(
        self,
        energy: Energy,
        *,
        base: Energy | None = None,
        generator: Generator,
        x: Tensor | None = None,
    ) -> LogPartition:
        """Return log Z of an RBM.

        Parameters
        ----------
        energy : RBM
            Built.
        base : RBM or None, default=None
            Its visible biases are b_0; None takes the base rates of ``x``, or the
            energy's own biases.
        generator : Generator
            Source of randomness, on the energy's device.
        x : Tensor of shape (n, d) or None, default=None
            Rows of the data.

        Returns
        -------
        LogPartition
            Estimate, interval, effective sample size, method.
        """
        ahead, behind = self.both_ways(energy, base=base, generator=generator, x=x)
        value, half = across_islands(forward_estimate, ahead)
        interval = value - half, value + half
        if behind is not None:
            value, half = across_islands(bridge_estimate, ahead, behind)
            back, width = across_islands(reverse_estimate, ahead, behind)
            both = interval, (back - width, back + width)
            interval = bracketed((value - half, value + half), both)
        ess = ess_of(half, ahead.numel())
        warn_if_few(ess, ahead.numel(), "Use more n_temperatures or n_chains.")
        return LogPartition(value, interval, ess, repr(self))

    def both_ways(
        self,
        energy: Energy,
        *,
        base: Energy | None = None,
        generator: Generator,
        x: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Return log weights, whose log mean exp is log Z: from the base and back.

        Parameters
        ----------
        energy, base, generator, x : object
            As in a call.

        Returns
        -------
        ahead : Tensor of shape (16, n_chains / 16)
            log w of chains from the base, in islands that share nothing.
        behind : Tensor of the same shape or None
            Minus log w of chains from the energy: E[exp(-behind)] = 1 / Z.
        """
        check_at_least(self, "n_chains", 2 * N_ISLANDS)
        check_at_least(self, "n_temperatures", 1)
        rbm = checked_rbm(energy)
        path = _Path(rbm, _start_fields(rbm, base, x), generator)
        n = self.n_chains // N_ISLANDS * N_ISLANDS
        times = torch.linspace(0, 1, self.n_temperatures + 1).tolist()
        with torch.no_grad():
            v, ahead = path.walk(path.start(n), times)
            if not self.bracket:
                return ahead.view(N_ISLANDS, -1), None
            if x is not None:
                rows = torch.randint(len(x), (n,), generator=generator, device=v.device)
                given = x.to(v)[rows]
                v = torch.where(given.isnan(), path.start(n), given)
            for _ in range(N_SETTLE):
                v = path.move(v, 1.0)
            _, back = path.walk(v, times[::-1])
        return ahead.view(N_ISLANDS, -1), (2 * path.log_start - back).view(
            N_ISLANDS, -1
        )


class _Path:
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

    def walk(self, v: Tensor, times: list[float]) -> tuple[Tensor, Tensor]:
        """Return the ends of chains along ``times`` and log Z_0 + their log w."""
        layers = self.layers
        log_w = torch.full((len(v),), self.log_start, dtype=torch.float64)
        log_w = log_w.to(v.device)
        softplus = torch.nn.functional.softplus
        for now, then in itertools.pairwise(times):
            phi = layers.layer.statistics(v)
            fields = layers.hidden_fields(phi)
            # E_now(v) - E_then(v), hidden bits summed out.
            rise = (softplus(then * fields) - softplus(now * fields)).sum(1)
            shift = phi @ (layers.visible_bias - layers.start)
            log_w += (rise + (then - now) * shift).double()
            if then > 0:
                h = bernoulli(probabilities(fields.mul_(then)), self.generator)
                v = layers.visible_draw(h, then, generator=self.generator)
        return v, log_w


def _start_fields(rbm: RBM, base: Energy | None, x: Tensor | None) -> Tensor:
    """Return the fields of the independent columns."""
    if isinstance(base, RBM):
        return base.visible_bias.detach().to(rbm.visible_bias)
    if x is not None:
        return rbm.layer.base_fields(x.to(rbm.weight.device)).to(rbm.visible_bias)
    return rbm.visible_bias.detach().clone()
