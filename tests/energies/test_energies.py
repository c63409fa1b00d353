"""Every energy through the same questions."""

import inspect
import pickle
import random

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch.testing import assert_close

import skebm.energies
from skebm.energies import (
    MLP,
    RBM,
    AnomalyEnergy,
    BernoulliUnits,
    Bowl,
    Box,
    CategoricalUnits,
    Checkpointed,
    ClassPatterns,
    Conditioned,
    Constrained,
    ContextRBM,
    Convolutional,
    Denoiser,
    Energy,
    ExponentialFamily,
    Frozen,
    Gaussians,
    GaussianUnits,
    Guided,
    Interpolated,
    Invariant,
    JointNetwork,
    JointPatterns,
    JointTilted,
    LatentVariable,
    LocalMemory,
    Memory,
    MemoryBag,
    MixedUnits,
    Mixture,
    Module,
    NoisyMLP,
    OfLabel,
    Penalized,
    Quadratic,
    Readout,
    Rescaled,
    ResidualMLP,
    ResponseEnergy,
    Scaled,
    SetEnergy,
    Sum,
    Tilted,
    Transformer,
)
from skebm.exceptions import NotNormalizableError


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def table(n, seed=0):
    x = torch.randn(n, 3, generator=generator(seed), dtype=torch.float64)
    return x * torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)


def quadratic(seed=0):
    root = table(3, seed) + 2 * torch.eye(3, dtype=torch.float64)
    return Quadratic().match(table(1, seed + 1)[0], root @ root.T)


def memory():
    return Memory(beta=2.0).store(table(20))


def memory4():
    return Memory(beta=2.0).store(torch.cat([table(20), table(20, seed=1)[:, :1]], 1))


def gaussians():
    parts = [quadratic(0), quadratic(4)]
    roots = [p.lower.tril(-1) + p.log_diagonal.exp().diag() for p in parts]
    covariances = torch.stack([torch.cholesky_inverse(r.detach()) for r in roots])
    means = torch.stack([p.mean.detach() for p in parts])
    return Gaussians().match(torch.tensor([0.3, 0.7]).double(), means, covariances)


def built(energy):
    """Build for the table, with weights that make no energy nearly constant."""
    energy.build(3, generator=generator()).double()
    with torch.no_grad():
        for weight in energy.parameters():
            weight += 0.3 * torch.randn(weight.shape, generator=generator())
    return energy


class Squares:
    """Statistics x and x^2 of each column, and a network of one layer."""

    def __repr__(self):
        return f"{type(self).__name__}()"

    def __call__(self, x):
        return torch.cat([x, x.square()], 1)


class OneLayer(Squares):
    def __call__(self, n_features):
        layer = torch.nn.Linear(n_features, 4)
        return torch.nn.Sequential(layer, torch.nn.Tanh(), torch.nn.Linear(4, 1))


class Layer(Squares):
    def __call__(self, n_features):
        return torch.nn.Sequential(torch.nn.Linear(n_features, 4), torch.nn.Tanh())


def patterns():
    shares = torch.rand(20, 3, generator=generator(), dtype=torch.float64)
    return ClassPatterns().store(table(20), shares / shares.sum(1, keepdim=True))


def joint_network():
    return built(JointNetwork(MLP((8,)), classes=3))


CYCLES = ((0, 1, 2), (1, 2, 0), (2, 0, 1))


ENERGIES = {
    "quadratic": quadratic,
    "memory": memory,
    "local_memory": lambda: LocalMemory(n_neighbors=4, n_tangent=8).store(table(70)),
    "local_memory_plain": lambda: LocalMemory(rescaling=0.0, tangent_weight=0.0).store(
        table(70)
    ),
    "memory_bag": lambda: MemoryBag(n_members=4, member_size=16).store(
        table(70), generator=generator()
    ),
    "anomaly_clean": lambda: AnomalyEnergy().store(table(70), generator=generator()),
    "anomaly_mixed": lambda: AnomalyEnergy(clean=False).store(
        table(70), generator=generator()
    ),
    "sum": lambda: Sum(quadratic(), memory()),
    "scaled": lambda: Scaled(memory(), -0.5),
    "frozen": lambda: Frozen(quadratic()),
    "checkpointed": lambda: Checkpointed(memory()),
    "gaussians": lambda: gaussians(),
    "tilted": lambda: Tilted(gaussians(), memory(), reach=9.0),
    "conditioned": lambda: Conditioned(memory4(), columns=(1,), values=(0.5,)),
    "rescaled": lambda: Rescaled(
        memory(), (1.0, -2.0, 0.0), (0.5, 3.0, 1.0), constant=0.7
    ),
    "mixture": lambda: Mixture((quadratic(), memory()), (0.3, 0.7), (None, 1.5)),
    "interpolated": lambda: Interpolated(quadratic(), memory(), t=0.3),
    "guided": lambda: Guided(quadratic(), memory(), weight=0.5),
    "constrained": lambda: Constrained(memory(), Box(low=-30.0, high=30.0)),
    "penalized": lambda: Penalized(memory(), "sum_to_one", weight=2.0),
    "mlp": lambda: built(MLP((16, 8))),
    "mlp_spectral": lambda: built(MLP((16, 8), spectral_norm=True)),
    "residual": lambda: built(ResidualMLP(8, 2, "tanh")),
    "denoiser": lambda: built(Denoiser((16,), sigma=0.5)),
    "image_denoiser": lambda: built(
        Denoiser((6,), sigma=0.5, image_shape=(1, 3), channels=(4, 5))
    ),
    "noisy_mlp": lambda: built(NoisyMLP((16,), sigma=0.5)),
    "at_level": lambda: built(NoisyMLP((16,)).at(0.3)),
    "convolutional": lambda: built(Convolutional((1, 3), (4, 6), residual=True)),
    "transformer": lambda: built(Transformer(8, 2, 2)),
    "bowl": lambda: built(Bowl(0.5)),
    "exponential_family": lambda: built(ExponentialFamily(Squares(), 6)),
    "latent": lambda: built(LatentVariable(Sum(Quadratic(), Bowl()), 1, n_nodes=32)),
    "invariant": lambda: built(Invariant(MLP((16,)), CYCLES)),
    "set": lambda: built(SetEnergy(hidden=(8,))),
    "module": lambda: built(Module(OneLayer())),
    "readout": lambda: built(Readout(Layer())),
    "class_patterns": patterns,
    "joint_network": joint_network,
    "joint_tilted": lambda: built(
        JointTilted(gaussians(), JointNetwork(MLP((8,))), reach=9.0)
    ),
    "joint_patterns": lambda: built(JointPatterns(patterns(), MLP((8,)))),
    "of_label": lambda: OfLabel(joint_network(), 1),
    "context_rbm": lambda: built(ContextRBM(1, 5, GaussianUnits())),
    "response": lambda: built(ResponseEnergy(hidden=(8,), n_tilts=4)),
    "responses": lambda: built(ResponseEnergy(2, 2, hidden=(8,), n_tilts=4)),
    "rbm": lambda: built(RBM(5)),
    "rbm_gaussian": lambda: built(RBM(5, GaussianUnits())),
    "rbm_mixed": lambda: built(
        RBM(5, MixedUnits([(GaussianUnits(), 1), (BernoulliUnits(), 2)]))
    ),
    "rbm_codes": lambda: built(RBM(5, CategoricalUnits((2, 4, 3)))),
}
WEIGHTLESS = {"bowl"}
SINGLE_PRECISION = {"memory_bag", "anomaly_mixed"}
STEPPED = {"anomaly_clean", "anomaly_mixed", "rbm_codes"}
SMOOTH = sorted(set(ENERGIES) - SINGLE_PRECISION - STEPPED)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request):
    return torch.device(request.param)


@pytest.fixture(params=sorted(ENERGIES))
def name(request):
    return request.param


def finite_differences(energy, x, step):
    gradient = torch.empty_like(x)
    for j in range(x.shape[1]):
        shift = torch.zeros_like(x)
        shift[:, j] = step
        gradient[:, j] = (energy(x + shift) - energy(x - shift)) / (2 * step)
    return gradient


# Their rows are bits or codes, so they have tests of their own.
OF_BITS_AND_CODES = {
    skebm.energies.Boltzmann,
    skebm.energies.Chain,
    skebm.energies.ClassRBM,
    skebm.energies.DeepBelief,
    skebm.energies.DeepBoltzmann,
    skebm.energies.OrdinalRBM,
    skebm.energies.RatedRows,
    skebm.energies.Similarity,
}


def test_public_energies_are_in_the_battery():
    public = [getattr(skebm.energies, name) for name in skebm.energies.__all__]
    energies = {value for value in public if issubclass(value, Energy)}
    energies = {energy for energy in energies if not inspect.isabstract(energy)}
    battery = {type(build()) for build in ENERGIES.values()}
    assert battery == energies - OF_BITS_AND_CODES


@pytest.mark.parametrize("n", [1, 9])
def test_one_finite_value_per_row(name, n):
    e = ENERGIES[name]()(table(n, seed=5))
    assert e.shape == (n,)
    assert e.isfinite().all()


@pytest.mark.parametrize("name", SMOOTH)
def test_grad_equals_finite_differences(name):
    energy, x = ENERGIES[name](), table(9, seed=5)
    assert_close(
        energy.grad(x), finite_differences(energy, x, 1e-6), rtol=1e-6, atol=1e-7
    )


def test_grad_equals_finite_differences_in_single_precision():
    energy, x = ENERGIES["memory_bag"](), table(9, seed=5)
    assert_close(
        energy.grad(x), finite_differences(energy, x, 1e-2), rtol=1e-2, atol=1e-2
    )


@pytest.mark.parametrize("name", SMOOTH)
def test_grad_equals_autograd(name):
    energy, x = ENERGIES[name](), table(9, seed=5).requires_grad_(True)
    (expected,) = torch.autograd.grad(energy(x).sum(), x)
    gradient = energy.grad(x)
    assert_close(gradient, expected, rtol=1e-10, atol=1e-12)
    assert gradient.shape == x.shape
    assert x.grad is None


@pytest.mark.parametrize("name", SMOOTH)
def test_grad_works_without_grad_mode(name):
    energy, x = ENERGIES[name](), table(4, seed=5)
    with torch.no_grad():
        assert_close(energy.grad(x), energy.grad(x.clone()))
    assert not x.requires_grad


def test_pickle_keeps_every_bit(name):
    energy, x = ENERGIES[name](), table(9, seed=5)
    again = pickle.loads(pickle.dumps(energy))
    assert torch.equal(again(x), energy(x))
    assert repr(again) == repr(energy)


def test_repr_is_the_call_that_makes_an_equal_value(name):
    energy = ENERGIES[name]()
    again = eval(repr(energy), vars(skebm.energies) | globals())
    assert type(again) is type(energy)
    assert repr(again) == repr(energy)


def test_clone_keeps_hyperparameters_and_drops_weights(name):
    energy = ENERGIES[name]()
    weights = {key: value.clone() for key, value in energy.state_dict().items()}
    again = clone(energy)
    assert repr(again) == repr(energy)
    assert again is not energy
    if name != "frozen":
        assert bool(weights) == (name not in WEIGHTLESS)
        assert not again.state_dict()
    assert_close(dict(energy.state_dict()), weights, rtol=0, atol=0)


def test_frozen_keeps_its_weights_through_clone():
    x = table(9, seed=5)
    frozen = ENERGIES["frozen"]()
    energy = Sum(frozen, quadratic(3))
    again = clone(energy)
    assert torch.equal(again.left(x), frozen(x))
    assert list(again.state_dict()) == [f"left.{key}" for key in frozen.state_dict()]
    before = frozen(x)
    with torch.no_grad():
        again.left.part.mean += 1.0
    assert torch.equal(frozen(x), before)


def test_frozen_takes_no_gradient_and_passes_the_law_on():
    frozen = Frozen(quadratic())
    assert not any(weight.requires_grad for weight in frozen.parameters())
    assert not frozen.part.training
    assert frozen.log_partition(2.0) == quadratic().log_partition(2.0)


def test_build_reaches_both_parts_and_spares_frozen():
    kept = quadratic()
    energy = (Quadratic() + 2.0 * Quadratic() + Frozen(kept)).build(3)
    assert energy.left.left.mean.shape == (3,)
    assert energy.left.right.part.mean.shape == (3,)
    assert energy.right.part is kept
    assert torch.equal(kept.mean, quadratic().mean)


def test_get_and_set_nested_hyperparameters():
    energy = Sum(Memory(2.0), Scaled(LocalMemory(), 0.5))
    params = energy.get_params()
    assert params["left__beta"] == 2.0
    assert params["right__part__n_neighbors"] == 5
    assert set(energy.get_params(deep=False)) == {"left", "right"}
    energy.set_params(left__beta=3.0, right__factor=4.0, right__part__rescaling=0.0)
    assert energy.left.beta == 3.0
    assert energy.right.factor == 4.0
    assert energy.right.part.rescaling == 0.0
    with pytest.raises(ValueError, match="Invalid parameter 'middle' for Sum"):
        energy.set_params(middle__beta=1.0)


def test_every_hyperparameter_can_be_set_to_its_own_value(name):
    energy = ENERGIES[name]()
    params = energy.get_params()
    assert energy.set_params(**params) is energy
    assert energy.get_params() == params


def test_rows_do_not_meet_each_other(name):
    energy, x = ENERGIES[name](), table(9, seed=5)
    order = torch.randperm(9, generator=generator())
    tolerance = 1e-5 if name in SINGLE_PRECISION else 1e-11
    assert_close(energy(x[order]), energy(x)[order], rtol=tolerance, atol=tolerance)
    alone = torch.cat([energy(row[None]) for row in x])
    assert_close(alone, energy(x), rtol=tolerance, atol=tolerance)


def test_forward_and_grad_leave_the_rows_as_they_are(name):
    energy, x = ENERGIES[name](), table(9, seed=5)
    before = x.clone()
    energy(x)
    assert torch.equal(x, before)
    assert not x.requires_grad


def test_global_random_state_and_settings_are_untouched(name):
    def state():
        numpy_state = np.random.get_state()  # noqa: NPY002
        return (
            torch.get_rng_state().tolist(),
            [np.asarray(part).tolist() for part in numpy_state],
            random.getstate(),
            torch.get_num_threads(),
            torch.get_float32_matmul_precision(),
            torch.get_default_dtype(),
        )

    before = state()
    energy = ENERGIES[name]()
    energy(table(9))
    energy.build(3, generator=generator())
    clone(energy)
    assert state() == before


def test_samples_take_randomness_from_the_generator_alone():
    before = torch.get_rng_state()
    drawn = [
        [
            memory().sample(4, generator=generator(seed)),
            quadratic().sample(4, generator=generator(seed)),
            ENERGIES["anomaly_mixed"]().sample(4, 1.0, generator(seed)),
        ]
        for seed in (0, 0, 1)
    ]
    for first, same, other in zip(*drawn, strict=True):
        assert torch.equal(first, same)
        assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_device_agrees_with_cpu(name, device):
    x = table(9, seed=5)
    expected = ENERGIES[name]()(x)
    e = ENERGIES[name]().to(device)(x.to(device))
    assert e.device.type == device.type
    assert_close(e.cpu(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("clean", [True, False])
def test_anomaly_energy_is_stored_on_the_device_of_its_rows(clean, device):
    x = table(70).to(device)
    energy = AnomalyEnergy(clean).store(x, generator=generator())
    assert {buffer.device.type for buffer in energy.buffers()} == {device.type}
    expected = AnomalyEnergy(clean).store(table(70), generator=generator())
    assert_close(
        energy.stored_energy.cpu(), expected.stored_energy, rtol=1e-3, atol=1e-3
    )
    assert energy.sample(3, 1.0, generator()).device.type == "cpu"


def test_operators_make_sums_and_temperatures():
    a, b = quadratic(), memory()
    x = table(9, seed=5)
    assert torch.equal((a + b)(x), a(x) + b(x))
    assert torch.equal((0.5 * a)(x), 0.5 * a(x))
    assert torch.equal((a * 2)(x), 2 * a(x))
    assert torch.equal((-a)(x), -a(x))
    assert torch.equal((a - b)(x), a(x) - b(x))
    assert (-b).log_partition() is None
    assert (a + b).log_partition() is None
    with pytest.raises(NotNormalizableError, match="positive definite"):
        (-a).log_partition()
    for wrong in (
        lambda: a + 1,
        lambda: a - 1,
        lambda: a * "2",
        lambda: "2" * a,
        lambda: a * b,
    ):
        with pytest.raises(TypeError):
            wrong()


def test_grad_of_an_energy_that_ignores_the_rows_is_zero():
    class Flat(Energy):
        def forward(self, x):
            return torch.where(x[:, 0] > 0, 0.0, torch.inf)

    x = table(4)
    e, gradient = Flat().value_and_grad(x)
    assert torch.equal(e, Flat()(x))
    assert torch.equal(gradient, torch.zeros_like(x))
