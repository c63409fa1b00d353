"""Every objective through the same questions."""

import pickle

import pytest
import torch
from sklearn.base import clone
from torch.testing import assert_close

import skebm.energies
import skebm.objectives
import skebm.samplers
from skebm.energies import (
    RBM,
    Boltzmann,
    Chain,
    ClassRBM,
    ContextRBM,
    DeepBoltzmann,
    Frozen,
    Gaussians,
    GaussianUnits,
    JointNetwork,
    OrdinalRBM,
    Quadratic,
    RatedRows,
    Ratings,
    ResponseEnergy,
    Similarity,
    Tilted,
)
from skebm.energies.denoiser import NoisyMLP
from skebm.energies.perceptrons import MLP
from skebm.objectives import (
    Adversarial,
    BoltzmannLikelihood,
    ChainLikelihood,
    ClassLikelihood,
    ConditionalLikelihood,
    ContrastiveDivergence,
    DeepBoltzmannLikelihood,
    DenoisingScoreMatching,
    DrawnRowsLikelihood,
    ExactLikelihood,
    FeatureCorruption,
    InfoNCE,
    JointLikelihood,
    Margin,
    MaximumLikelihood,
    MultiNoiseScoreMatching,
    NoiseContrastive,
    OutlierExposure,
    PseudoLikelihood,
    RankingNoiseContrastive,
    RatingLikelihood,
    RBMLikelihood,
    Regularized,
    ResponseLikelihood,
    ScoreMatching,
    SlicedScoreMatching,
)
from skebm.samplers import MALA, ULA

OBJECTIVES = {
    "adversarial": Adversarial(n_layers=2, n_hidden=8),
    "boltzmann": BoltzmannLikelihood(),
    "boltzmann_chains": BoltzmannLikelihood("persistent", n_chains=20),
    "chain": ChainLikelihood(weight_decay=0.1),
    "classes": ClassLikelihood(generative_weight=0.3),
    "conditional": ConditionalLikelihood(),
    "contrastive_divergence": ContrastiveDivergence(n_steps=2, energy_penalty=0.1),
    "persistent": ContrastiveDivergence(persistent=True, n_replay=50, reinit=0.5),
    "unadjusted": ContrastiveDivergence(sampler=ULA(step_size=0.02)),
    "deep_boltzmann": DeepBoltzmannLikelihood(n_chains=20),
    "denoising": DenoisingScoreMatching(sigma=0.3),
    "drawn_rows": DrawnRowsLikelihood(n_chains=20),
    "exact": ExactLikelihood(),
    "joint": JointLikelihood(NoiseContrastive(), weight=0.5, alpha=1.0),
    "info_nce": InfoNCE(FeatureCorruption(0.5)),
    "info_nce_pairs": InfoNCE(symmetric=False),
    "margin": Margin(margin=2.0),
    "maximum_likelihood": MaximumLikelihood(n_steps=3),
    "multi_noise": MultiNoiseScoreMatching((0.1, 0.5, 1.0), level_weight=1.0),
    "noise_contrastive": NoiseContrastive(ratio=2),
    "outlier_exposure": OutlierExposure([[3.0, 3.0, 0.0], [-3.0, 5.0, 1.0]], -4.0, 2.0),
    "pseudo": PseudoLikelihood(),
    "ranking": RankingNoiseContrastive(n_noise=20),
    "ratings": RatingLikelihood(),
    "rbm": RBMLikelihood(n_chains=20),
    "rbm_data": RBMLikelihood(chains="data", n_steps=2, centered=False),
    "rbm_tempered": RBMLikelihood(chains="tempered", n_chains=9, sparsity_target=0.1),
    "regularized": Regularized(NoiseContrastive(), 0.1, 0.1, 0.1),
    "response": ResponseLikelihood(),
    "score_matching": ScoreMatching(),
    "sliced": SlicedScoreMatching(n_slices=2),
}
NO_OBJECTIVES = {
    "Augmentation",
    "FeatureCorruption",
    "GaussianNoise",
    "Loss",
    "Objective",
}
NO_CRITERION = {
    "adversarial",
    "contrastive_divergence",
    "maximum_likelihood",
    "persistent",
    "unadjusted",
}
NO_DRAWS = {"boltzmann", "chain", "exact", "info_nce_pairs", "pseudo", "score_matching"}
ENERGIES = {
    "boltzmann": Boltzmann(1),
    "boltzmann_chains": Boltzmann(1),
    "chain": Chain(2),
    "classes": ClassRBM(4, 2),
    "conditional": ContextRBM(1, 4, GaussianUnits()),
    "deep_boltzmann": DeepBoltzmann((4, 2)),
    "drawn_rows": RBM(4),
    "exact": RBM(4, GaussianUnits()),
    "joint": JointNetwork(MLP(hidden=(8,)), 2),
    "info_nce": Similarity(4, (8,), 3),
    "info_nce_pairs": Similarity(4, (8,), 3),
    "multi_noise": NoisyMLP(hidden=(8,)),
    "outlier_exposure": JointNetwork(MLP(hidden=(8,)), 2),
    "pseudo": Boltzmann(),
    "ratings": OrdinalRBM(n_hidden=4),
    "rbm": RBM(4, GaussianUnits()),
    "response": ResponseEnergy(n_members=2, hidden=(8,), n_tilts=4),
    "rbm_data": RBM(4, GaussianUnits()),
    "rbm_tempered": RBM(4, GaussianUnits()),
}
WIDTHS = {"joint": 1, "info_nce": 6, "info_nce_pairs": 6}
"""Columns of the energy, where they are not the three of the table."""

SETS_GRADIENTS = {
    "boltzmann",
    "boltzmann_chains",
    "classes",
    "deep_boltzmann",
    "drawn_rows",
    "exact",
    "rbm",
    "rbm_data",
    "rbm_tempered",
}
PAIRS = {"info_nce", "info_nce_pairs"}
BITS = {"boltzmann", "boltzmann_chains", "classes", "deep_boltzmann", "pseudo"}


@pytest.fixture(params=sorted(OBJECTIVES))
def name(request):
    return request.param


def generator(seed=0, device="cpu"):
    return torch.Generator(device).manual_seed(seed)


def table(n=40, dtype=torch.float64, seed=0):
    return torch.randn(n, 3, generator=generator(seed), dtype=dtype)


def rows_of(name, dtype=torch.float64, seed=0):
    x = table(dtype=dtype, seed=seed)
    if name == "ratings":
        return torch.arange(20, dtype=dtype)[:, None]
    if name == "chain":
        codes = (x[:, 2:] > 0).to(dtype)
        return torch.cat([x[:, :2], codes], 1).view(10, 4, 3)
    if name in PAIRS:
        return torch.cat([x, x + 0.1], 1)
    if name == "response":
        member = torch.arange(len(x), dtype=dtype)[:, None] % 2
        return torch.cat([x, member, torch.ones_like(member)], 1)
    if name == "drawn_rows":
        return x.sigmoid()
    return (x > 0).to(dtype) if name in BITS else x


def network(name, dtype=torch.float64):
    kind = ENERGIES.get(name, MLP(hidden=(8,)))
    energy = kind.build(WIDTHS.get(name, 3), generator=generator()).to(dtype)
    if name != "ratings":
        return energy
    entries = torch.arange(60)
    return RatedRows(energy, Ratings(entries // 3, entries % 3, entries % 5, 20))


def loss_and_gradients(name, x, energy=None, seed=5):
    objective, energy = OBJECTIVES[name], energy or network(name, x.dtype)
    energy.to(x.device)
    state = objective.init(energy, x, generator=generator(0, x.device))
    g = generator(seed, x.device)
    loss = objective(energy, x, state, generator=g)
    assert loss.value.requires_grad == (name not in SETS_GRADIENTS)
    if loss.value.requires_grad:
        loss.value.backward()
    return loss, [w.grad for w in [*energy.parameters(), *state.parameters()]]


def test_public_objectives_are_in_the_battery():
    classes = {type(objective).__name__ for objective in OBJECTIVES.values()}
    assert classes == set(skebm.objectives.__all__) - NO_OBJECTIVES


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_finite_number_with_finite_gradients(name, dtype):
    loss, gradients = loss_and_gradients(name, rows_of(name, dtype))
    assert loss.value.shape == ()
    assert loss.value.dtype == dtype
    assert loss.value.isfinite()
    moved = [g for g in gradients if g is not None]
    assert sum(float(g.abs().sum()) for g in moved) > 0
    assert all(g.isfinite().all() for g in moved)


def test_metrics_are_detached_numbers(name):
    loss, _ = loss_and_gradients(name, rows_of(name))
    for value in loss.metrics.values():
        assert value.shape == ()
        assert value.isfinite()
        assert not value.requires_grad


def test_randomness_comes_from_the_generator_alone(name):
    before = torch.get_rng_state()
    first, again, other = (
        torch.cat(
            [loss.value.detach().ravel(), *(g.ravel() for g in found if g is not None)]
        )
        for loss, found in (
            loss_and_gradients(name, rows_of(name), seed=s) for s in (5, 5, 6)
        )
    )
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (name in NO_DRAWS)
    assert torch.equal(torch.get_rng_state(), before)


def test_call_leaves_rows_and_gradients_alone(name):
    objective, energy, x = OBJECTIVES[name], network(name), rows_of(name)
    before = x.clone()
    state = objective.init(energy, x, generator=generator())
    objective(energy, x, state, generator=generator())
    assert torch.equal(x, before)
    assert not x.requires_grad
    if name not in SETS_GRADIENTS:
        assert all(w.grad is None for w in [*energy.parameters(), *state.parameters()])


@pytest.mark.parametrize("off", [torch.no_grad, torch.inference_mode])
def test_evaluation_changes_nothing_and_works_without_gradients(name, off):
    objective, energy, x = OBJECTIVES[name], network(name), rows_of(name)
    state = objective.init(energy, x, generator=generator()).eval()
    kept = {k: v.clone() for k, v in state.state_dict().items()}
    weights = {k: v.clone() for k, v in energy.state_dict().items()}
    with_grad = objective(energy, x, state, generator=generator(3)).value
    with off():
        without = objective(energy, x, state, generator=generator(3)).value
    assert_close(without, with_grad.detach(), rtol=1e-12, atol=1e-12)
    assert_close(dict(state.state_dict()), kept, rtol=0, atol=0)
    assert_close(dict(energy.state_dict()), weights, rtol=0, atol=0)


def test_state_is_saved_and_restored_by_its_tensors(name):
    objective, energy, x = OBJECTIVES[name], network(name), rows_of(name)
    state = objective.init(energy, x, generator=generator())
    other = objective.init(energy, rows_of(name, seed=9), generator=generator(9))
    objective(energy, x, state, generator=generator())
    other.load_state_dict(state.state_dict())
    again = pickle.loads(pickle.dumps(state))
    losses = [
        objective(energy, x, s.eval(), generator=generator(4)).value
        for s in (state, other, again)
    ]
    assert_close(losses[1], losses[0], rtol=0, atol=0)
    assert_close(losses[2], losses[0], rtol=0, atol=0)


def test_repr_clone_and_pickle_give_an_equal_value(name):
    objective = OBJECTIVES[name]
    names = vars(skebm.objectives) | vars(skebm.samplers) | vars(skebm.energies)
    copies = [
        eval(repr(objective), dict(names)),
        clone(objective),
        pickle.loads(pickle.dumps(objective)),
    ]
    for again in copies:
        assert again is not objective
        assert repr(again) == repr(objective)
    assert objective.set_params(**objective.get_params(deep=False)) is objective


def test_hyperparameters_nest():
    objective = Regularized(ContrastiveDivergence(sampler=MALA(step_size=0.1)))
    objective.set_params(objective__sampler__step_size=0.5, objective__n_steps=7)
    assert objective.objective.sampler.step_size == 0.5
    assert objective.objective.n_steps == 7


def test_clone_keeps_a_frozen_noise_and_drops_a_bare_one():
    bare, x = Quadratic().build(3).double(), table(4)
    with pytest.raises(ValueError, match="without weights"):
        clone(NoiseContrastive(bare)).init(network(""), x, generator=generator())
    frozen = clone(NoiseContrastive(Frozen(bare)))
    assert torch.equal(frozen.noise(x), bare(x))
    frozen.init(network(""), x, generator=generator())


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_criterion_is_what_measures_the_energy(name):
    assert OBJECTIVES[name].is_criterion is (name not in NO_CRITERION)
    assert Regularized(OBJECTIVES[name]).is_criterion is (name not in NO_CRITERION)


def test_device_agrees_with_cpu(name, device):
    x = rows_of(name).to(device)
    loss, _ = loss_and_gradients(name, x, network(name).to(device))
    assert loss.value.device.type == device
    assert loss.value.isfinite()
    if name in NO_DRAWS:
        expected = loss_and_gradients(name, rows_of(name))[0].value
        assert_close(loss.value.cpu(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (NoiseContrastive(ratio=0), "ratio=0"),
        (NoiseContrastive(ratio=1.5), "ratio=1.5"),
        (NoiseContrastive(noise=Quadratic()), "without weights"),
        (NoiseContrastive(noise=MLP((4,)).build(3)), "can be drawn from"),
        (RankingNoiseContrastive(n_noise=0), "n_noise=0"),
        (ChainLikelihood(weight_decay=-1.0), "weight_decay=-1.0"),
        (Margin(margin=0.0), "margin=0.0"),
        (ContrastiveDivergence(n_steps=-1), "n_steps=-1"),
        (ContrastiveDivergence(persistent=True, n_replay=0), "n_replay=0"),
        (ContrastiveDivergence(persistent=True, reinit=1.5), "reinit=1.5"),
        (ContrastiveDivergence(sampler=MALA()), "without a step size"),
        (MaximumLikelihood(sampler=MALA()), "without a step size"),
        (MaximumLikelihood(n_steps=0.5), "n_steps=0.5"),
        (DenoisingScoreMatching(sigma=0.0), "sigma=0.0"),
        (MultiNoiseScoreMatching(()), "at least one level"),
        (MultiNoiseScoreMatching((0.1, -1.0)), "sigma=-1.0"),
        (MultiNoiseScoreMatching(level_weight=-1.0), "level_weight=-1.0"),
        (SlicedScoreMatching(n_slices=0), "n_slices=0"),
        (Adversarial(n_layers=-1), "n_layers=-1"),
        (Adversarial(n_hidden=0), "n_hidden=0"),
        (Regularized(ScoreMatching(), energy=-1.0), "energy=-1.0"),
        (Regularized(ScoreMatching(), weight=float("nan")), "weight=nan"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_values_out_of_range_are_refused_before_training(objective, message):
    with pytest.raises(ValueError, match=message):
        objective.init(network(""), table(), generator=generator())


def test_multi_noise_needs_an_energy_with_levels():
    with pytest.raises(TypeError, match="takes a noise level"):
        MultiNoiseScoreMatching().init(network(""), table(), generator=generator())


@pytest.mark.parametrize(
    "x",
    [
        torch.ones(1, 3),
        torch.ones(20, 3),
        torch.arange(20.0)[:, None] * torch.tensor([1.0, 2.0, 0.0]),
        1e8 + torch.arange(20.0)[:, None] * torch.ones(3),
    ],
    ids=["one row", "constant", "collinear", "far"],
)
@pytest.mark.parametrize("objective", [NoiseContrastive(), Adversarial()])
def test_degenerate_rows_still_have_a_matched_gaussian(objective, x):
    energy = network("", torch.float32)
    state = objective.init(energy, x, generator=generator())
    assert objective(energy, x, state, generator=generator()).value.isfinite()


@pytest.mark.parametrize(
    "objective",
    [NoiseContrastive(), RankingNoiseContrastive(), Margin(), MaximumLikelihood(1)],
)
def test_base_of_a_tilted_energy_is_the_noise(objective):
    weights, means = torch.tensor([0.5, 0.5]), torch.tensor([[50.0] * 3, [70.0] * 3])
    base = Gaussians().match(weights, means, torch.eye(3).expand(2, 3, 3))
    energy = Tilted(base, MLP(hidden=(4,))).build(3, generator=generator())
    state = objective.init(energy, table(dtype=torch.float32), generator=generator())
    drawn = getattr(state, "noise", state).draw(energy, 9, generator=generator())
    assert drawn.shape == (9, 3)
    assert drawn.min() > 40
