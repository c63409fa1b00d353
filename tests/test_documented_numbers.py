"""Numbers in docstrings, guide and README are the numbers that run."""

import inspect
import re
from pathlib import Path

import pytest

import skebm
from skebm import energies, objectives, partition, samplers
from skebm.base import N_REFERENCES
from skebm.calibration import FALSE_ALARM_RATE
from skebm.energies import boltzmann, deep_belief, deep_boltzmann
from skebm.energies.response_nodes import N_PANELS, N_PER_PANEL, N_QUASI
from skebm.estimators import (
    bases,
    boltzmann_training,
    choices,
    class_training,
    conditional_rbm,
    contrastive_encoder,
    joint_settings,
    joint_training,
    kinds,
    member_stopping,
    normalizing,
    rating_side,
    rbm_tables,
    rbm_training,
    recipes,
    response_training,
    runs,
    splits,
)
from skebm.estimators import deep_belief as belief_training
from skebm.estimators import deep_boltzmann as deep_training
from skebm.estimators import outlier as outlier_training
from skebm.partition.rbm import MOST_BITS
from skebm.samplers import clamped, state_law
from skebm.samplers import conditional_rbm as conditional_draws
from skebm.trainer import Trainer

ROOT = Path(__file__).parents[1]

FALSE_ALARMS = f"false-alarm rate of {FALSE_ALARM_RATE:.0%} on normal rows"

STOPPING = (
    f"Evaluate held-out rows {rbm_training.N_LOOKS} times",
    f"stop when {rbm_training.PATIENCE} evaluations",
)

BITS = (*STOPPING, FALSE_ALARMS)

TABLES = (
    f"{rbm_tables.RATE[True]} with the exact gradient",
    f"{rbm_tables.RATE[False]} with chains",
    f"{rbm_tables.N_UPDATES[True]:,} updates with the exact gradient",
    f"{rbm_tables.N_UPDATES[False]:,} with chains",
    f"at most {rbm_training.MOST_EPOCHS:,} epochs",
    f"exact up to {rbm_tables.MOST_EXACT} hidden bits",
    f"{clamped.MOST_HIDDEN} hidden bits",
    f"{MOST_BITS} {{}}bits",
    *BITS,
)

CLAIMS = {
    "BernoulliRBM": [
        f"/ (1 + sqrt(n_components k) / {rbm_training.HALVING})",
        f"{rbm_training.N_UPDATES:,} updates",
        f"at most {rbm_training.MOST_EPOCHS:,} epochs",
        f"has up to {MOST_BITS} bits",
        f'"sum" goes to {partition.LayerSum().most_bits} bits',
        f"exactly up to {clamped.MOST_HIDDEN} hidden bits",
        *BITS,
    ],
    "CategoricalRBM": [c.format("") for c in TABLES],
    "GaussianRBM": [
        *(c.format("hidden ") for c in TABLES),
        f"at least {kinds.LEAST_VARIANCE} of the column's",
    ],
    "MixedRBM": [
        *(c.format("") for c in TABLES),
        f"up to {kinds.MOST_CODES} distinct integers",
    ],
    "BoltzmannMachine": [
        f"Hidden bits, in [0, {boltzmann.MOST_HIDDEN}]",
        f"{boltzmann_training.EXACT_SPEED:g} times that",
        f"{boltzmann_training.CHAIN_UPDATES:,} updates with chains",
        f"else {boltzmann_training.EXACT_UPDATES:,}, with",
        f"hidden bits {boltzmann_training.HIDDEN_UPDATES:,}.",
        f"exact, up to {state_law.MOST_UNITS} units",
        f"summed exactly up to {state_law.MOST_UNITS} units",
        *BITS,
    ],
    "DeepBeliefNetwork": [
        f"{belief_training.UPPER_SPEED:.0%} of it in upper layers",
        f"{rbm_training.N_UPDATES // 4:,} updates",
        f"at most {rbm_training.MOST_EPOCHS // 4:,} epochs",
        f"bound of {deep_belief.N_DRAWS} draws",
        f"{belief_training.N_CANDIDATES:,} draws of the hidden layers",
        f"to {MOST_BITS} bits",
        *BITS,
    ],
    "DeepBoltzmannMachine": [
        f"at most {deep_training.LARGEST_RATE}",
        f"{deep_training.N_UPDATES:,} updates",
        f"at most {deep_training.MOST_EPOCHS:,} epochs",
        f"has up to {deep_boltzmann.MOST_LISTED} bits",
        f"have up to {MOST_BITS} bits",
        *BITS,
    ],
    "ConditionalRBM": [
        f"{conditional_rbm.N_UPDATES:,} updates",
        f"at most {conditional_rbm.MOST_EPOCHS:,} epochs",
        f"up to {objectives.ConditionalLikelihood().most_states} visible states",
        f"CD-{objectives.ConditionalLikelihood().n_steps}",
        f"stop when {Trainer().n_iter_no_change} epochs",
        f"up to {conditional_draws.MOST_STATES:,} states",
        f"{conditional_rbm.N_ANNEALED} rows set the threshold",
        FALSE_ALARMS,
    ],
    "RBMClassifier": [
        f'"auto" is {class_training.PATH:g} over',
        f"between {class_training.LEAST_RATE} and {class_training.MOST_RATE}",
        f"{class_training.N_UPDATES:,} updates or {class_training.MOST_EPOCHS} epochs",
        f"least {class_training.LEAST_UPDATES:,} updates",
        f"Evaluate held-out rows {class_training.N_LOOKS} times",
        f"({rbm_training.N_LOOKS} in generative training)",
        f"stop when {rbm_training.PATIENCE} evaluations",
    ],
    "RatingRBM": [
        f'"auto" is {rating_side.LEARNING_RATE}',
        f"enough for {rating_side.N_UPDATES} updates",
        f"between {rating_side.LEAST_EPOCHS} and {rating_side.MOST_EPOCHS}",
    ],
    "JEMClassifier": [
        f'{joint_settings.WEIGHTS["tilted"]:g} for "tilted"',
        f'{joint_settings.WEIGHTS["network"]} for "network"',
        f"and {joint_settings.WEIGHTS['langevin']} without",
        f"{joint_settings.N_UPDATES} updates",
        f"{joint_settings.N_LANGEVIN_UPDATES:,} for",
        f"at least {joint_training.LEAST_EPOCHS} epochs",
        f"stop when {joint_training.PATIENCE * joint_training.VALID_EVERY}",
        "{}-{} SiLU units".format(*choices.BACKBONES["mlp"].hidden),
        "{}-{} for".format(*joint_settings.LANGEVIN_BACKBONE.hidden),
    ],
    "DeepEBM": [
        f"{recipes.N_LARGE:,} rows on",
        f"below {recipes.N_LARGE:,} rows",
        f"less than {runs.EPOCH_ROWS:,} rows",
        f"{recipes.SMALL['n_steps']:,} to {recipes.N_STEPS_SINGLE:,} steps",
        f"{recipes.LARGE['learning_rate'] * 1e3:g}e-3",
        f"{recipes.SMALL['learning_rate'] * 1e3:g}e-3 below",
        f"has not fallen for {recipes.PATIENCE['n_iter_no_change']} epochs",
        f"at least {bases.FLOOR**0.5:g} standard",
        FALSE_ALARMS,
    ],
    "ProductOfExperts": [
        f"below {splits.N_FEWEST} rows",
        f"up to {normalizing.N_ROWS[1]:,} energies",
        FALSE_ALARMS,
    ],
    "EBMRegressor": [
        f"{response_training.SMALL_RATE} below {response_training.N_SMALL} rows",
        f"{response_training.LARGE_RATE} above",
        f"({response_training.DECAY_ROWS} / n)^2",
        f"({response_training.DROPOUT_ROWS} / n)^2",
        f"at least {response_training.LEAST_EPOCH_ROWS}",
        f"at most {response_training.MOST_EPOCH_ROWS}",
        f"{response_training.TRAINING_ROWS:,} rows in all",
        f"at least {response_training.FEWEST_EPOCHS} epochs",
        f"{response_training.PATIENCE_ROWS:,} rows of training",
        f"likelier by {member_stopping.LEAST_GAIN}",
        f"over {N_QUASI} points",
    ],
    "EnergyContrastiveEncoder": [
        f"{contrastive_encoder.N_UPDATES:,} steps",
        f"at most {contrastive_encoder.MOST_EPOCHS} epochs",
        f"{choices.AUGMENTATIONS['corruption'].share:.0%} of the entries",
        f"deviation {choices.AUGMENTATIONS['noise'].sigma} on",
    ],
    "EnergyOutlierDetector": [
        FALSE_ALARMS,
        f"{1 - FALSE_ALARM_RATE:.0%} quantile",
        f"finished on {outlier_training.AFTER_INTERRUPT:,} rows at most",
    ],
    "ChainLabeler": [],
}
"""What the docstring of an estimator says of constants, in words that hold them."""

METHODS = {
    skebm.DeepEBM.explain: [
        f"against {N_REFERENCES} typical",
        f"Costs {2 * N_REFERENCES} (n_features + 1)",
    ],
    skebm.EBMRegressor.sample: [f"{N_PANELS * N_PER_PANEL} of a"],
    skebm.BernoulliRBM.sample: [
        f"up to {clamped.MOST_HIDDEN} hidden",
        f"{clamped.N_STEPS} Gibbs steps",
    ],
}

GUIDE = {
    "docs/user_guide/boltzmann_machines.rst": [f"Up to {MOST_BITS} bits"],
    "docs/user_guide/energy_regression.rst": [
        f"{N_PANELS * N_PER_PANEL} points",
        f"over {N_QUASI} points",
    ],
    "docs/user_guide/density_estimation.rst": [
        f"From {recipes.N_LARGE:,} rows on",
        f"at least {bases.FLOOR**0.5:g} standard deviations",
        f"fewer than {splits.N_FEWEST} rows",
    ],
    "docs/user_guide/outlier_detection.rst": [
        f"k = {energies.LocalMemory().n_neighbors}`",
        f"a = {energies.LocalMemory().rescaling}`",
        f"b = {energies.LocalMemory().tangent_weight}`",
        f"over {energies.MemoryBag().n_members} small",
        f"holds {energies.MemoryBag().member_size} rows",
        f"finds {energies.MemoryBag().trim:.0%} of its memory",
        f"marking {FALSE_ALARM_RATE:.0%} of the normal rows",
        f"{2 * N_REFERENCES} energies for every column",
        f"({skebm.EnergyOutlierDetector().max_memory:,})",
    ],
    "docs/user_guide/contrastive_features.rst": [
        f"{choices.AUGMENTATIONS['corruption'].share:.0%} of the entries"
    ],
    "README.md": [f"({skebm.EnergyOutlierDetector().max_memory:,})"],
}

PUBLIC = [
    getattr(module, name)
    for module in (skebm, energies, objectives, partition, samplers)
    for name in module.__all__
]

BUDGETS = r"updates|steps|epochs|evaluations|looks"


def squeezed(text):
    return " ".join(text.split())


def counts_in(text):
    """Return the numbers that a text gives as a budget of training."""
    text = text.split("Notes -----")[0]
    return set(re.findall(rf"\d[\d,]*(?= (?:{BUDGETS}))", text))


def test_every_public_estimator_has_an_entry():
    assert set(CLAIMS) == set(skebm.__all__)


@pytest.mark.parametrize("name", CLAIMS)
def test_docstrings_of_estimators_say_what_runs(name):
    doc = squeezed(getattr(skebm, name).__doc__)
    assert [claim for claim in CLAIMS[name] if claim not in doc] == []


@pytest.mark.parametrize("name", CLAIMS)
def test_budgets_in_docstrings_are_all_compared(name):
    found = counts_in(squeezed(getattr(skebm, name).__doc__))
    compared = {n for claim in CLAIMS[name] for n in re.findall(r"\d[\d,]*", claim)}
    assert found - compared == set()


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.__qualname__)
def test_docstrings_of_methods_say_what_runs(method):
    doc = squeezed(method.__doc__)
    assert [claim for claim in METHODS[method] if claim not in doc] == []


@pytest.mark.parametrize("path", GUIDE)
def test_guide_and_readme_say_what_runs(path):
    text = squeezed((ROOT / path).read_text(encoding="utf-8"))
    assert [claim for claim in GUIDE[path] if claim not in text] == []


def documented_defaults(thing):
    """Return the defaults that a docstring names, as it writes them."""
    doc = inspect.getdoc(thing) or ""
    return re.findall(r"^(\w+) : .*default=(.+)$", doc, re.MULTILINE)


@pytest.mark.parametrize("thing", PUBLIC, ids=lambda thing: thing.__name__)
def test_documented_defaults_are_those_of_the_signature(thing):
    things = [thing]
    if inspect.isclass(thing):
        things += [
            f
            for n, f in inspect.getmembers(thing, inspect.isfunction)
            if not n.startswith("_") and f.__module__.startswith("skebm")
        ]
    for documented in things:
        found = documented_defaults(documented)
        known = inspect.signature(documented).parameters if found else {}
        for name, text in found:
            default = known[name].default
            if repr(default) == "<factory>":
                default = getattr(documented(), name)
            assert repr(eval(text, vars(samplers))) == repr(default)


def test_readme_lists_every_estimator():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == sorted(
        skebm.__all__
    )


def test_the_documented_rate_of_an_rbm_is_the_rate_that_runs():
    torch = pytest.importorskip("torch")
    phi = torch.zeros(10, 4)
    rate = rbm_training.stable_rate(phi, torch.Generator().manual_seed(0), 64 * 16)
    doc = squeezed(skebm.BernoulliRBM.__doc__)
    highest = float(re.search(r"([\d.]+) / \(1 \+ sqrt", doc).group(1))
    assert rate == pytest.approx(highest / (1 + (64 * 16 * 4) ** 0.5 / 64))
