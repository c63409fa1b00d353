"""Which energy and objective the settings of a joint energy classifier stand for."""

from sklearn.base import clone

from skebm.energies import MLP, ClassPatterns
from skebm.estimators.choices import BACKBONES, GENERATIVE, OBJECTIVES, resolve
from skebm.objectives import ContrastiveDivergence, NoiseContrastive
from skebm.samplers import ULA

LANGEVIN = ContrastiveDivergence(
    n_steps=20,
    sampler=ULA(step_size=0.01),
    persistent=True,
    energy_penalty=0.01,
)
"""Persistent contrastive divergence by Langevin steps."""

LANGEVIN_BACKBONE = MLP(hidden=(128, 128))
"""What "mlp" means there: it has to learn labels of noisy rows, and where rows are."""

WEIGHTS = {"tilted": 1.0, "network": 0.1, "langevin": 0.03}
"""What ``generative_weight="auto"`` means."""

N_UPDATES, N_LANGEVIN_UPDATES = 400, 1000
"""Updates of a training; chains need more until they see what is far from the rows."""


def settings_of(params, rows):
    """Return an estimator's parameters with its strings resolved.

    Parameters
    ----------
    params : dict
        Of `JEMClassifier`.
    rows : callable
        Maps rows in the units of X, which an objective may hold, to scaled ones.

    Returns
    -------
    dict
        For `JointRecipe`.

    Raises
    ------
    ValueError
        If an objective is given for an energy that has nothing to train with it.
    """
    backbone, generative = params["backbone"], params["generative"]
    if isinstance(generative, str):
        generative = GENERATIVE[generative]
    objective, weight = params["objective"], params["generative_weight"]
    n_updates, kind = N_UPDATES, None
    if generative is None or isinstance(generative, ClassPatterns):
        _refuse_objective(params)
        objective, weight = None, 0.0
    else:
        kind = "network" if generative == "network" else "tilted"
        if objective == "auto" and kind == "network":
            kind, n_updates = "langevin", N_LANGEVIN_UPDATES
        usual = LANGEVIN if kind == "langevin" else NoiseContrastive()
        objective = usual if objective == "auto" else resolve(objective, OBJECTIVES)
        weight = WEIGHTS[kind] if weight == "auto" else float(weight)
    langevin = kind == "langevin"
    if isinstance(backbone, str):
        wide = langevin and backbone == "mlp"
        backbone = LANGEVIN_BACKBONE if wide else BACKBONES[backbone]
    return params | {
        "backbone": None if backbone is None else clone(backbone),
        "generative": generative,
        "objective": None if objective is None else clone(objective).prepared(rows),
        "generative_weight": weight,
        "n_updates": n_updates,
        "noisy": langevin,
    }


def _refuse_objective(params):
    """Raise where an objective or its weight is given and nothing is trained by it."""
    for name in ("objective", "generative_weight"):
        value = params[name]
        if not isinstance(value, str) or value != "auto":
            raise ValueError(
                f"Got {name}={value!r} with generative={params['generative']!r}, whose "
                "p(x) is not trained. Pass generative='tilted' or 'network', or leave "
                f"{name}='auto'."
            )
