"""Importance sampling, annealing and particles against known log Z."""

import math
import warnings

import pytest
import torch
from sklearn.base import clone

from skebm.energies import (
    Box,
    Constrained,
    Gaussians,
    Quadratic,
    Scaled,
    Tilted,
)
from skebm.exceptions import PartitionWarning
from skebm.partition import (
    AIS,
    SMC,
    Enumeration,
    ImportanceSampling,
    Quadrature,
    fit_base,
)
from tests.partition.systems import (
    GAUSSIAN_LOG_Z,
    Formula,
    bowl,
    gaussian,
    generator,
    normal,
    ring,
)

SMALL = {
    "importance": ImportanceSampling(20_000),
    "quadrature": Quadrature(),
    "ais": AIS(256, n_temperatures=20),
    "ais_forward": AIS(256, n_temperatures=20, bracket=False),
    "smc": SMC(512, effective=0.95),
}
ANNEALED = {"ais": AIS(), "smc": SMC()}


@pytest.fixture(params=sorted(SMALL))
def small(request):
    return SMALL[request.param]


@pytest.fixture(params=sorted(ANNEALED))
def annealed(request):
    return ANNEALED[request.param]


def base_of(energy):
    return fit_base(energy.sample(5000, generator=generator(1)))


def estimate_of(method, energy, base, seed=0):
    return method(energy, base=base, generator=generator(seed))


@pytest.mark.parametrize("method", [*SMALL.values(), Enumeration(3)], ids=repr)
def test_values_clone_print_and_set(method):
    copy = clone(method)
    assert repr(copy) == repr(method)
    assert copy.get_params() == method.get_params()
    name, value = next(iter(method.get_params().items()))
    assert getattr(copy.set_params(**{name: value + 1}), name) == value + 1


def test_small_estimates_are_near(small):
    estimate = estimate_of(small, normal(2, 0.6), normal(2))
    assert estimate.value == pytest.approx(math.log(2 * math.pi * 0.6), abs=0.1)
    assert estimate.interval[0] <= estimate.value <= estimate.interval[1]
    assert estimate.ess > 100
    assert estimate.method == repr(small)


def test_a_constant_shifts_log_z(small):
    base = normal(2, 6.0)
    low = estimate_of(small, bowl(), base)
    high = estimate_of(small, Formula(lambda x: bowl()(x) + 3.25), base)
    assert high.value == pytest.approx(low.value - 3.25, abs=1e-6)
    assert high.interval[1] == pytest.approx(low.interval[1] - 3.25, abs=1e-6)


def test_stretched_columns_add_their_log_scale(small):
    """E(x / s) over the stretched base has log Z + d log s."""
    plain = estimate_of(small, normal(2, 0.6), normal(2))
    stretched = Formula(lambda x: normal(2, 0.6)(x / 3))
    scaled = estimate_of(small, stretched, normal(2, 9.0))
    assert scaled.value == pytest.approx(plain.value + 2 * math.log(3), abs=1e-6)


def test_temperature_law(small):
    """A Gaussian at temperature T has log Z + (d / 2) log T."""
    hot = estimate_of(small, Scaled(normal(2), 1 / 1.5), normal(2, 1.5))
    expected = math.log(2 * math.pi) + math.log(1.5)
    assert hot.value == pytest.approx(expected, abs=1e-9)


def test_base_itself_is_exact(small):
    """All weights are equal, whatever the base."""
    for base in (normal(2, 3.0), ring()):
        estimate = estimate_of(small, base, base)
        assert estimate.value == pytest.approx(base.log_partition(), abs=1e-6)


def test_same_generator_same_estimate(small):
    before = torch.get_rng_state()
    first, same, other = (
        estimate_of(small, bowl(), normal(1, 4.0), s) for s in (0, 0, 1)
    )
    assert first == same
    assert isinstance(small, Quadrature) or first.value != other.value
    assert torch.equal(torch.get_rng_state(), before)


def test_energy_and_base_stay_as_they_are(small):
    energy, base = Quadratic().build(2), Quadratic().build(2)
    energy.train()
    estimate_of(small, energy, base)
    assert energy.training
    assert base.mean.dtype == torch.float32
    assert all(p.requires_grad for p in [*energy.parameters(), *base.parameters()])
    assert all(p.grad is None for p in energy.parameters())


def test_energies_in_single_precision(small):
    energy = Quadratic().match(torch.zeros(2), 0.6 * torch.eye(2))
    double = estimate_of(small, normal(2, 0.6), normal(2))
    single = estimate_of(small, energy, Quadratic().build(2))
    assert single.value == pytest.approx(double.value, abs=0.02)


def test_estimates_on_a_device(small, device):
    energy, base = normal(2, 0.6).to(device), normal(2).to(device)
    estimate = small(
        energy, base=base, generator=torch.Generator(device).manual_seed(0)
    )
    assert estimate.value == pytest.approx(math.log(2 * math.pi * 0.6), abs=0.1)


def test_importance_weights_divide_by_the_proposal_density():
    """Unlike sum exp(-E) over points, the estimate ignores where they come from."""
    expected = math.log(2 * math.pi)
    shifted = Quadratic().match(torch.ones(2), torch.diag(torch.tensor([3.0, 2.0])))
    for base in (normal(2, 1.5), normal(2, 9.0), shifted):
        estimate = estimate_of(ImportanceSampling(100_000), normal(2), base)
        assert estimate.value == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize(("d", "z"), [(1, 1.2038), (2, 4 * math.pi / math.e)])
def test_importance_of_a_bowl(d, z):
    estimate = estimate_of(ImportanceSampling(100_000), bowl(), normal(d, 4.0))
    assert estimate.value == pytest.approx(math.log(z), abs=0.02)


def test_importance_effective_sample_size():
    """For N(0, 1) weighed from N(0, s^2): n / ESS = s^2 / sqrt(2 s^2 - 1)."""
    estimate = estimate_of(ImportanceSampling(400_000), normal(1), normal(1, 4.0))
    expected = 400_000 * math.sqrt(7) / 4
    assert estimate.ess == pytest.approx(expected, rel=0.01)
    half = (estimate.interval[1] - estimate.interval[0]) / 2
    assert half == pytest.approx(1.96 * math.sqrt(1 / expected - 1 / 400_000), rel=0.02)


def test_few_effective_draws_warn():
    with pytest.warns(PartitionWarning, match="effective of 1000 draws"):
        estimate_of(ImportanceSampling(1000), normal(5, 1e-3), normal(5))


@pytest.mark.parametrize("variance", [1.0, 4.0, 100.0])
@pytest.mark.parametrize("rotated", [False, True])
def test_gaussian_of_condition_100_from_a_poor_base(annealed, variance, rotated):
    estimate = estimate_of(annealed, gaussian(rotated), normal(10, variance))
    assert estimate.value == pytest.approx(GAUSSIAN_LOG_Z, abs=0.05)


def test_gaussian_of_condition_100_from_a_fitted_base(annealed):
    for method in (annealed, ImportanceSampling()):
        estimate = estimate_of(method, gaussian(), base_of(gaussian()))
        assert estimate.value == pytest.approx(GAUSSIAN_LOG_Z, abs=0.02)


def test_eight_gaussians(annealed):
    for method in (annealed, ImportanceSampling()):
        estimate = estimate_of(method, ring(), base_of(ring()))
        assert estimate.value == pytest.approx(0.0, abs=0.02)
        assert estimate.interval[0] < 0.0 < estimate.interval[1]


HARD = [AIS(), AIS(bracket=False), SMC(), ImportanceSampling(50_000)]


@pytest.mark.parametrize("method", HARD, ids=repr)
def test_hard_constraint(method):
    """A normal law cut to a quadrant: Z = (2 pi) / 4."""
    quadrant = Constrained(normal(2), Box(low=0.0, high=None))
    estimate = estimate_of(method, quadrant, normal(2, 1.5))
    assert estimate.value == pytest.approx(math.log(math.pi / 2), abs=0.1)
    assert estimate.interval[0] < math.log(math.pi / 2) < estimate.interval[1]


def test_tilted_base():
    """Tilting N(0, I) by a'x multiplies Z by exp(|a|^2 / 2)."""
    a = torch.tensor([0.6, -0.8], dtype=torch.float64)
    tilted = Tilted(normal(2), Formula(lambda x: -x @ a))
    for method in (*ANNEALED.values(), ImportanceSampling()):
        estimate = estimate_of(method, tilted, normal(2))
        assert estimate.value == pytest.approx(0.5, abs=0.02)


def test_particles_are_draws_of_the_energy():
    estimate, particles = SMC().populate(
        gaussian(), base=normal(10), generator=generator()
    )
    assert estimate == estimate_of(SMC(), gaussian(), normal(10))
    weights = particles.log_weights.exp()
    assert float(weights.sum()) == pytest.approx(1.0)
    variance = weights @ particles.x.square()
    expected = torch.logspace(0, 2, 10, dtype=torch.float64)
    assert float((variance / expected - 1).abs().max()) < 0.15
    rows = particles.resample(3000, generator=generator())
    assert rows.shape == (3000, 10)
    assert float((rows.var(0) / expected - 1).abs().max()) < 0.2


def test_reweighed_particles_find_their_modes():
    """Weights .9 and .1 of two modes 8 sd apart."""
    two = Gaussians().match(
        torch.tensor([0.9, 0.1]), torch.tensor([[-4.0], [4.0]]), torch.ones(2, 1, 1)
    )
    estimate, particles = SMC().populate(
        two, base=normal(1, 16.0), generator=generator()
    )
    assert estimate.value == pytest.approx(0.0, abs=0.03)
    share = float(particles.log_weights.exp() @ (particles.x[:, 0] > 0).double())
    assert share == pytest.approx(0.1, abs=0.02)


def test_ways_that_disagree_warn_and_the_interval_spans_them():
    """A mode that the base cannot reach, but the rows show."""
    two = Gaussians().match(
        torch.tensor([0.5, 0.5]), torch.tensor([[0.0], [60.0]]), torch.ones(2, 1, 1)
    )
    rows = two.sample(500, generator=generator())
    method = AIS(256, n_temperatures=20)
    blind = estimate_of(method, two, normal(1))
    assert blind.value == pytest.approx(math.log(0.5), abs=0.02)
    with pytest.warns(PartitionWarning, match="these disagree"):
        seen = method(two, base=normal(1), generator=generator(), x=rows)
    assert seen.interval[0] < 0.0 < seen.interval[1]


def test_rows_of_the_data_start_the_way_back():
    rows = ring().sample(500, generator=generator()).float()
    estimate = AIS(512)(ring(), base=base_of(ring()), generator=generator(), x=rows)
    assert estimate.value == pytest.approx(0.0, abs=0.06)


def test_a_path_too_short_warns():
    with pytest.warns(PartitionWarning):
        estimate_of(AIS(256, n_temperatures=2), gaussian(), normal(10))


@pytest.mark.parametrize("name", ["ais", "smc", "importance"])
def test_unusable_energies_and_bases_are_refused(name):
    method, base = SMALL[name], normal(1)
    for e, message in ((math.nan, "NaN or -inf"), (math.inf, "meets the region")):
        with pytest.raises(ValueError, match=message):
            estimate_of(method, Formula(lambda x, e=e: x[:, 0] * 0 + e), base)
    with pytest.raises(ValueError, match="expected a density with sample"):
        estimate_of(method, base, Scaled(base, 2.0))


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (ImportanceSampling(1), "n_samples=1"),
        (AIS(n_chains=8), "n_chains=8"),
        (AIS(n_temperatures=0), "n_temperatures=0"),
        (AIS(n_steps=0), "n_steps=0"),
        (SMC(n_particles=8), "n_particles=8"),
        (SMC(n_steps=0), "n_steps=0"),
        (SMC(effective=1.0), r"effective=1\.0"),
    ],
)
def test_wrong_parameters_are_refused(method, message):
    with pytest.raises(ValueError, match=message):
        estimate_of(method, normal(1), normal(1))


def test_fitted_base_has_the_moments_and_is_wider():
    x = gaussian().sample(20_000, generator=generator())
    base = fit_base(x.float(), widening=1.5)
    rows = base.sample(20_000, generator=generator(1))
    assert base.mean.dtype == torch.float64
    assert float((rows.var(0) / x.var(0) / 1.5 - 1).abs().max()) < 0.05


def test_fitted_base_of_few_and_of_constant_rows():
    x = torch.randn(5, 20, generator=generator())
    assert math.isfinite(fit_base(x).log_partition())
    x[:, 3] = 7.0
    assert math.isfinite(fit_base(x).log_partition())
    assert math.isfinite(fit_base(torch.ones(3, 2)).log_partition())
    for wrong in (x[:1], torch.tensor([[1.0], [math.nan]])):
        with pytest.raises(ValueError, match="at least 2 rows"):
            fit_base(wrong)


@pytest.mark.parametrize(
    "method",
    [
        AIS(256, n_temperatures=50),
        AIS(256, n_temperatures=50, bracket=False),
        SMC(512, n_steps=1, effective=0.95),
        ImportanceSampling(4000),
    ],
    ids=repr,
)
def test_interval_is_as_wide_as_seeds_differ(method):
    energy, base = normal(3, 0.1), normal(3)
    found = [estimate_of(method, energy, base, seed) for seed in range(20)]
    spread = float(torch.tensor([estimate.value for estimate in found]).std())
    halves = [estimate.interval[1] - estimate.value for estimate in found]
    assert 1.96 * spread == pytest.approx(sum(halves) / 20, rel=0.5)


COVERED = {"importance": ImportanceSampling(20_000), "ais": AIS(), "smc": SMC()}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(COVERED))
@pytest.mark.parametrize("system", ["gaussian", "ring"])
def test_interval_covers_the_truth_in_90_of_100_seeds(name, system):
    energy, truth, poor = {
        "gaussian": (gaussian(), GAUSSIAN_LOG_Z, normal(10)),
        "ring": (ring(), 0.0, normal(2, 8.0)),
    }[system]
    base = base_of(energy) if name == "importance" else poor
    covered = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PartitionWarning)
        for seed in range(100):
            low, high = estimate_of(COVERED[name], energy, base, seed).interval
            covered += low <= truth <= high
    assert covered >= 90
