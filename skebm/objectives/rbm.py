"""The likelihood gradient of an RBM, written by hand: data against Gibbs chains."""

import math
from dataclasses import dataclass
from numbers import Integral

import torch
from torch import Generator, Tensor, nn

from skebm._params import refuse
from skebm._torch import bernoulli
from skebm.energies import RBM, BernoulliUnits, Energy
from skebm.objectives.centering import follow
from skebm.objectives.objective import Loss, Objective
from skebm.objectives.penalty import adaptive_decay
from skebm.objectives.rbm_phases import GibbsState, Offsets, Phases, filled
from skebm.partition import AnnealedGibbs, LayerSum
from skebm.partition.rbm import MOST_BITS, smaller_layer_bits
from skebm.samplers import AnnealedLayers
from skebm.samplers.ladder import ladder_step

CHAINS = "persistent", "data", "tempered"

N_JUDGES = 32
"""Annealed chains each way behind a held-out likelihood: few and long are surer."""

N_JUDGE_PLACES = 1200
"""Places on their path."""

LARGE_PRODUCT = 8e6
"""Multiplications per product from which bfloat16 pays."""


@dataclass
class RBMLikelihood(Objective):
    """Ascent on the mean log-likelihood of an RBM.

    d log p / dW = <h phi(v)'>_data - <h phi(v)'>_model: hidden means given the data
    against those of Gibbs chains. Gradients are centred [1]_,
    dW = <(h - m)(phi - u)'>_data - <(h - m)(phi - u)'>_model with moving means m and u,
    db = <phi>_data - <phi>_model - dW'm and dc = <h>_data - <h>_model - dW u, which is
    the gradient after a change of coordinates: flipping a bit of the data changes
    nothing. The gradients are set by the call itself; the loss carries none.

    Parameters
    ----------
    chains : {"persistent", "data", "tempered"}, default="persistent"
        Where the k steps of the negative phase start: where they ended (PCD [2]_), at
        the batch (CD-k), or, tempered, where they ended in a ladder of models between
        independent columns and the RBM whose neighbours exchange rows [3]_.
    n_steps : int, default=1
        k, >= 0; CD-0 has gradient zero.
    n_chains : int, default=100
        Chains, >= 1, whatever the batch size; CD-k has as many as batch rows.
    n_levels : int, default=10
        Places of the tempered ladder, >= 2.
    centered : bool, default=True
        Whether to centre.
    weight_decay : "auto" or float, default="auto"
        Factor, >= 0, on |W|^2 / 2 per row. "auto" is 1 / (n (mean W^2 + 0.1)), at
        most 0.1: the weights are normal with a variance that is learned, so that
        few rows mean small weights and many leave them free.
    sparsity_target : float or None, default=None
        Wanted mean of the hidden bits, in (0, 1).
    sparsity_cost : float, default=0.1
        How strongly it is wanted, >= 0.
    precision : {"auto", "float32", "bfloat16"}, default="auto"
        Type of the matrix products; weights, sums and noise stay float32. "auto" takes
        bfloat16 for large layers where the processor multiplies it in hardware.
    bias_factor : float or None, default=None
        Factor, > 0, on the gradient of the centred visible biases, which are curved
        less than the weights and can move faster. None is 1; estimators that choose the
        learning rate choose it too.

    Notes
    -----
    Rows with NaN entries have these drawn by 5 Gibbs steps given the others. The
    held-out criterion is the negative log-likelihood, log Z by a sum over the smaller
    layer or the higher of two annealed estimates, from ahead and back from the chains.
    Limits: persistent chains that stop mixing bias the gradient; lower the learning
    rate, take more steps, or temper.

    References
    ----------
    .. [1] Melchior, Fischer, Wiskott (2016), How to center deep Boltzmann machines,
       Journal of Machine Learning Research 17(99).
    .. [2] Tieleman (2008), Training restricted Boltzmann machines using approximations
       to the likelihood gradient, ICML.
    .. [3] Desjardins, Courville, Bengio, Vincent, Delalleau (2010), Tempered Markov
       chain Monte Carlo for training of restricted Boltzmann machines, AISTATS.

    Examples
    --------
    >>> import torch
    >>> from skebm.energies import RBM
    >>> from skebm.objectives import RBMLikelihood
    >>> x, g = torch.ones(20, 3), torch.Generator().manual_seed(0)
    >>> rbm, objective = RBM(2).build(3), RBMLikelihood()
    >>> state = objective.init(rbm, x, generator=g)
    >>> loss = objective(rbm, x, state, generator=g)
    >>> rbm.weight.grad.shape
    torch.Size([2, 3])
    """

    chains: str = "persistent"
    n_steps: int = 1
    n_chains: int = 100
    n_levels: int = 10
    centered: bool = True
    weight_decay: str | float = "auto"
    sparsity_target: float | None = None
    sparsity_cost: float = 0.1
    precision: str = "auto"
    bias_factor: float | None = None

    def init(self, energy: Energy, x: Tensor, *, generator: Generator) -> GibbsState:
        """Return chains at draws of the independent columns, and the means of the rows.

        Raises
        ------
        ValueError
            If a parameter is out of range.
        """
        rbm = checked(energy)
        self._refuse_bad_parameters()
        layer = rbm.layer
        start = layer.base_fields(x)
        n = self.n_chains * (self.n_levels if self.chains == "tempered" else 1)
        with torch.no_grad():
            rows = layer.sample(start.expand(n, -1), generator=generator)
            fields = rbm.hidden_fields(layer.statistics(rows[: self.n_chains]))
            bits = bernoulli(fields.sigmoid_(), generator)
            visible = layer.mean(start[None])[0].clone()
        hidden = torch.full_like(rbm.hidden_bias.detach(), 0.5)
        return GibbsState(rows, bits, (visible, hidden), start, len(x))

    def is_replayable(self, energy: Energy, x: Tensor) -> bool:
        """Tell whether the rows are complete bits: no others are to be looked for."""
        bits = isinstance(checked(energy).layer, BernoulliUnits)
        return bits and not bool(x.isnan().any())

    def __call__(
        self, energy: Energy, batch: Tensor, state: nn.Module, *, generator: Generator
    ) -> Loss:
        """Set the gradients of the energy's weights; move the chains in train mode."""
        rbm = checked(energy)
        assert isinstance(state, GibbsState)
        with torch.no_grad():
            layers = AnnealedLayers(rbm, state.start, self._dtype(rbm, len(batch)))
            batch = filled(layers, batch, generator)
            ends = self._negatives(layers, batch, state, generator)
            n_model = len(batch) if self.chains == "data" else self.n_chains
            phases = Phases(layers, batch, ends[:n_model])
            self._keep(state, ends, phases.h[1], generator)
            offsets = self._offsets(state, phases.phi[0], phases.h[0])
            decay, (gap, error) = self._look(rbm, phases, state)
            self._make_sparse(phases.h[0])
            phases.set_gradients(rbm, offsets, self.bias_factor or 1.0)
            if ends is batch and self.sparsity_target is None:
                _forget_rounding(rbm)
            if self.weight_decay != 0.0 and rbm.weight.grad is not None:
                rbm.weight.grad.addcmul_(rbm.weight, decay)
        return Loss(gap, {"reconstruction_error": error})

    def criterion(
        self, energy: Energy, rows: Tensor, state: nn.Module, *, generator: Generator
    ) -> float:
        """Return the mean negative log-likelihood of the held-out rows, in nats."""
        rbm = checked(energy)
        assert isinstance(state, GibbsState)
        with torch.no_grad():
            e = float(rbm(filled(AnnealedLayers(rbm), rows, generator)).mean())
        if smaller_layer_bits(rbm) <= MOST_BITS // 2:
            return e + LayerSum()(rbm).value
        ahead, behind = AnnealedGibbs(
            N_JUDGES, n_temperatures=N_JUDGE_PLACES
        ).both_ways(
            rbm,
            base=rbm.independent(),
            generator=generator,
            x=state.chains[: self.n_chains],
        )
        assert behind is not None
        n = math.log(N_JUDGES)
        low = float(ahead.logsumexp((0, 1))) - n
        high = n - float((-behind).logsumexp((0, 1)))
        # A path that misses a mode flatters from ahead alone.
        return e + max(low, high)

    def _dtype(self, rbm: RBM, n: int) -> torch.dtype | None:
        """Return the type of the products, None for that of the weights."""
        if self.precision != "auto":
            return getattr(torch, self.precision)  # type: ignore[no-any-return]
        large = n * rbm.weight.numel() >= LARGE_PRODUCT
        plain = rbm.weight.dtype == torch.float32
        return (
            torch.bfloat16
            if large and plain and has_bfloat16(rbm)
            else rbm.weight.dtype
        )

    def _negatives(
        self, layers: AnnealedLayers, batch: Tensor, state: GibbsState, g: Generator
    ) -> Tensor:
        """Return rows of the model: of all levels, the model itself first."""
        if self.chains == "data":
            ends = batch
            for _ in range(self.n_steps):
                ends = layers.move(ends, generator=g)
            return ends
        if self.chains == "tempered":
            chains = state.chains
            for _ in range(self.n_steps):
                chains = ladder_step(layers, chains, self.n_levels, generator=g)
            return chains
        if not self.n_steps:
            return state.chains
        # The bits were drawn after the last update: one product less than from rows.
        chains = layers.visible_draw(state.bits, generator=g)
        for _ in range(self.n_steps - 1):
            chains = layers.move(chains, generator=g)
        return chains

    def _keep(self, state: GibbsState, ends: Tensor, h: Tensor, g: Generator) -> None:
        """Keep the chains, and draw their hidden bits for the next call."""
        if self.chains == "data" or not state.training:
            return
        state.chains.copy_(ends)
        if self.chains == "persistent":
            bernoulli(state.bits.copy_(h), g)

    def _offsets(self, state: GibbsState, phi: Tensor, h: Tensor) -> Offsets:
        """Return the moving means, moved towards the batch in train mode."""
        if not self.centered:
            return Offsets(torch.zeros_like(phi[0]), torch.zeros_like(h[0]))
        if state.training:
            follow(state.visible_offset, phi.mean(0))
            follow(state.hidden_offset, h.mean(0))
        return Offsets(state.visible_offset, state.hidden_offset)

    def _make_sparse(self, h: Tensor) -> None:
        """Pull hidden means of the data towards the wanted mean, in place."""
        if self.sparsity_target is not None:
            h.add_(self.sparsity_cost * (self.sparsity_target - h.mean(0)))

    def _look(
        self, rbm: RBM, phases: Phases, state: GibbsState
    ) -> tuple[Tensor, Tensor]:
        """Return the penalty's factor, and energy gap and reconstruction error."""
        if not state.is_due():
            return state.decay, state.seen.clone()
        decay = self._decay(rbm, state)
        seen = phases.probe()
        if state.training:
            state.decay.copy_(decay)
            state.seen.copy_(seen)
        return decay, seen

    def _decay(self, rbm: RBM, state: GibbsState) -> Tensor:
        """Return the factor on W in the gradient of the penalty."""
        if isinstance(self.weight_decay, str):
            norm: Tensor = rbm.weight.detach().norm()
            spread = norm.double().square() / rbm.weight.numel()
            decay = adaptive_decay(spread, float(state.n_rows))
            return decay.to(state.decay).expand_as(state.decay)
        return torch.full_like(state.decay, float(self.weight_decay))

    def _refuse_bad_parameters(self) -> None:
        """Raise if a parameter is out of its range."""
        decay, target = self.weight_decay, self.sparsity_target
        rules = {
            "chains": (self.chains in CHAINS, f"one of {CHAINS}"),
            "n_steps": (_is_whole(self.n_steps, 0), "an integer >= 0"),
            "n_chains": (_is_whole(self.n_chains, 1), "an integer >= 1"),
            "n_levels": (_is_whole(self.n_levels, 2), "an integer >= 2"),
            "weight_decay": (
                decay == "auto" if isinstance(decay, str) else decay >= 0,
                '"auto" or a number >= 0',
            ),
            "sparsity_target": (target is None or 0 < target < 1, "in (0, 1) or None"),
            "bias_factor": (
                self.bias_factor is None or self.bias_factor > 0,
                "a number > 0 or None",
            ),
            "sparsity_cost": (self.sparsity_cost >= 0, "a number >= 0"),
            "precision": (
                self.precision in ("auto", "float32", "bfloat16"),
                "'auto', 'float32' or 'bfloat16'",
            ),
        }
        refuse(self, rules)


def checked(energy: Energy) -> RBM:
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
            f"RBMLikelihood needs an RBM, but got {type(energy).__name__}. Use "
            "ContrastiveDivergence for other energies."
        )
    return energy


def has_bfloat16(rbm: RBM) -> bool:
    """Tell whether the device of an RBM multiplies bfloat16 in hardware.

    Parameters
    ----------
    rbm : RBM
        Built.

    Returns
    -------
    bool
        True or False.
    """
    if rbm.weight.device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _is_whole(value: object, least: int) -> bool:
    """Tell whether a value is an integer of at least ``least``."""
    return isinstance(value, Integral) and int(value) >= least


def _forget_rounding(rbm: RBM) -> None:
    """Set gradients of equal phases, which differ by rounding alone, to zero."""
    for parameter in rbm.parameters():
        if parameter.grad is not None:
            parameter.grad.zero_()
