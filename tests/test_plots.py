import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.compose import make_column_transformer
from sklearn.exceptions import NotFittedError
from sklearn.mixture import GaussianMixture
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from skebm import BernoulliRBM, DeepEBM, EnergyOutlierDetector
from skebm.energies import Box, Constrained, Quadratic
from skebm.partition import ImportanceSampling
from skebm.plots import (
    ChainTraceDisplay,
    EnergyLandscapeDisplay,
    SampleDisplay,
    TrainingHistoryDisplay,
)
from skebm.samplers import HMC, run_chains

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
pyplot = pytest.importorskip("matplotlib.pyplot")


@pytest.fixture(autouse=True)
def _closed_figures():
    yield
    pyplot.close("all")


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        rng.normal(size=(200, 3)) * [1.0, 20.0, 0.1] + [0.0, 100.0, -3.0],
        columns=["near", "wide", "thin"],
    )


@pytest.fixture(scope="module")
def model(table):
    return DeepEBM(
        base="gaussian",
        max_iter=2,
        normalizer=ImportanceSampling(4000),
        random_state=0,
    ).fit(table)


@pytest.fixture(scope="module")
def detector(table):
    return EnergyOutlierDetector(random_state=0).fit(table)


def chains(names=2, n_chains=64):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n_chains, names, generator=generator)
    energy = Quadratic().build(names)
    return run_chains(HMC(), energy, x, n_draws=40, generator=generator)


# Landscape


@pytest.mark.parametrize("name", ["model", "detector"])
def test_landscape_is_the_energy(name, table, request):
    """Every point of the grid, the median elsewhere, to the last bit."""
    estimator = request.getfixturevalue(name)
    display = EnergyLandscapeDisplay.from_estimator(
        estimator, table, features=("thin", 0), grid_resolution=4
    )
    for i, j in np.ndindex(4, 4):
        row = pd.DataFrame(
            {
                "near": [display.xx1[i, j]],
                "wide": [table["wide"].median()],
                "thin": [display.xx0[i, j]],
            }
        )
        assert estimator.energy(row)[0] == display.energy[i, j]
    assert (display.xlabel, display.ylabel) == ("thin", "near")
    assert display.xx0.min() < table["thin"].min() < table["thin"].max()
    assert table["near"].max() < display.xx1.max()


def test_landscape_holds_given_columns(model, table):
    display = EnergyLandscapeDisplay.from_estimator(
        model, table, features=(0, 1), given={"thin": -2.5}, grid_resolution=3
    )
    row = pd.DataFrame(
        {"near": [display.xx0[2, 1]], "wide": [display.xx1[2, 1]], "thin": [-2.5]}
    )
    assert model.energy(row)[0] == display.energy[2, 1]


def test_landscape_of_arrays_and_of_samples(table):
    """Columns without names; X=None asks the estimator for rows."""
    detector = EnergyOutlierDetector(random_state=0).fit(table.to_numpy()[:, :2])
    display = EnergyLandscapeDisplay.from_estimator(detector, grid_resolution=5)
    grid = np.column_stack([display.xx0.ravel(), display.xx1.ravel()])
    assert (detector.energy(grid) == display.energy.ravel()).all()
    assert (display.ax_.get_xlabel(), display.ax_.get_ylabel()) == ("x0", "x1")


def test_landscape_of_a_pipeline_with_categories(table):
    """Other columns that hold no numbers stay at their most frequent value."""
    table = table.assign(kind=np.where(table["near"] > 1, "rare", "usual"))
    columns = make_column_transformer(
        (OneHotEncoder(sparse_output=False), ["kind"]),
        (StandardScaler(), ["near", "wide", "thin"]),
    )
    density = make_pipeline(columns, GaussianMixture(reg_covar=1e-3))
    detector = EnergyOutlierDetector(density, random_state=0).fit(table)
    display = EnergyLandscapeDisplay.from_estimator(detector, table, grid_resolution=4)
    row = table.iloc[[0]].assign(
        near=display.xx0[1, 2],
        wide=display.xx1[1, 2],
        thin=table["thin"].median(),
        kind="usual",
    )
    assert detector.energy(row)[0] == pytest.approx(display.energy[1, 2], rel=1e-12)


def test_landscape_draws_walls_as_gaps():
    """+inf of a hard constraint is left blank, and the levels are finite."""
    energy = Constrained(Quadratic().build(2), Box(low=0.0, high=None)).double()
    xx0, xx1 = np.meshgrid(np.linspace(-2, 2, 9), np.linspace(-2, 2, 9))
    grid = torch.from_numpy(np.column_stack([xx0.ravel(), xx1.ravel()]))
    with torch.no_grad():
        e = energy(grid).numpy().reshape(9, 9)
    display = EnergyLandscapeDisplay(xx0=xx0, xx1=xx1, energy=e).plot()
    assert np.isinf(e).any()
    assert np.isfinite(display.surface_.levels).all()


def test_landscape_of_a_flat_energy():
    xx0, xx1 = np.meshgrid(np.arange(3.0), np.arange(3.0))
    display = EnergyLandscapeDisplay(xx0=xx0, xx1=xx1, energy=np.full((3, 3), 7.0))
    assert (np.diff(display.plot().surface_.levels) > 0).all()


def test_landscape_takes_contour_arguments():
    xx0, xx1 = np.meshgrid(np.arange(3.0), np.arange(3.0))
    display = EnergyLandscapeDisplay(xx0=xx0, xx1=xx1, energy=xx0 + xx1)
    display.plot(contour_kw={"levels": [0.0, 1.0, 4.0]})
    assert list(display.surface_.levels) == [0.0, 1.0, 4.0]


# History


def test_history_lines_are_the_history(model):
    display = TrainingHistoryDisplay.from_estimator(model)
    shown = dict(zip(model.history_, display.lines_, strict=True))
    for key, line in shown.items():
        assert (line.get_ydata() == model.history_[key]).all()
        assert list(line.get_xdata()) == [1, 2]
    assert [ax.get_ylabel() for ax in display.ax_] == list(model.history_)


def test_history_of_chosen_keys_on_given_axes(model):
    _, ax = pyplot.subplots()
    display = TrainingHistoryDisplay.from_estimator(model, ["loss"], ax=ax)
    assert display.ax_[0] is ax
    assert display.figure_ is ax.figure


def test_history_says_what_there_is(model, detector):
    with pytest.raises(ValueError, match=r"keys=\['speed'\].*'loss'"):
        TrainingHistoryDisplay.from_estimator(model, ["speed"])
    with pytest.raises(ValueError, match=r"EnergyOutlierDetector holds \[\]"):
        TrainingHistoryDisplay.from_estimator(detector)


# Chains


def test_traces_are_the_chains():
    run = chains()
    display = ChainTraceDisplay.from_chains(run, names=["a", "b"])
    drawn = np.stack([line.get_ydata() for line in display.lines_[1]], 1)
    assert (drawn == run.draws[:, :8, 1].double().numpy()).all()
    assert (display.draws[:, :, 2] == run.energies.double().numpy()).all()
    assert [ax.get_ylabel() for ax in display.ax_] == ["a", "b", "energy"]


def test_traces_state_the_rhat_of_all_chains():
    run = chains()
    run.draws[:, -1, 0] += 9  # a chain that is not drawn
    display = ChainTraceDisplay.from_chains(run)
    assert display.rhat[0] == run.rhat()[0] > 1.05
    assert display.ax_[0].get_title("right") == f"R-hat {display.rhat[0]:.3f}"


def test_traces_of_an_estimator_are_those_that_diagnose_reads(model):
    display = ChainTraceDisplay.from_estimator(model, n_draws=20, random_state=3)
    told = model.diagnose(n_draws=20, random_state=3)
    assert display.names == list(told.index)
    np.testing.assert_allclose(display.rhat, told["rhat"], rtol=1e-12)
    mean = display.draws.mean((0, 1))
    np.testing.assert_allclose(mean, told["mean"], rtol=1e-9, atol=1e-9)
    rows = pd.DataFrame(display.draws[-1, :, :3], columns=model.feature_names_in_)
    energy = model.energy(rows)
    np.testing.assert_allclose(energy, display.draws[-1, :, 3], rtol=1e-6, atol=1e-6)


def test_traces_of_a_machine_come_from_its_chains():
    rbm = BernoulliRBM(2, n_iter=1, random_state=0).fit(np.eye(4))
    with pytest.raises(TypeError, match="from_chains"):
        ChainTraceDisplay.from_estimator(rbm)


def test_traces_of_chosen_columns():
    display = ChainTraceDisplay.from_chains(chains(9))
    assert display.names == [*(f"x{j}" for j in range(6)), "energy"]
    run = chains(9)
    run.draws[:, -1, 7] += 9
    display = ChainTraceDisplay.from_chains(run, features=[7, 2])
    assert display.names == ["x7", "x2", "energy"]
    assert (display.draws[:, :, 0] == run.draws[:, :, 7].numpy()).all()
    assert display.rhat[0] > 1.05 > display.rhat[1]
    assert len(display.rhat) == 3


# Samples


def test_samples_of_two_columns_are_scattered(model, table):
    display = SampleDisplay.from_estimator(
        model, table, features=["thin", "near"], random_state=1
    )
    drawn = model.sample(len(table), random_state=1)
    shown = [ax.collections[0].get_offsets() for ax in display.ax_]
    assert (shown[0] == table[["thin", "near"]].to_numpy()).all()
    assert (shown[1] == drawn[["thin", "near"]].to_numpy()).all()
    assert [ax.get_title() for ax in display.ax_] == ["data", "samples"]


@pytest.mark.parametrize("name", ["model", "detector"])
def test_samples_of_other_tables_are_histograms(name, table, request):
    display = SampleDisplay.from_estimator(request.getfixturevalue(name), table)
    assert [ax.get_xlabel() for ax in display.ax_] == list(table)
    data, samples = display.ax_[1].patches
    for patch, rows in [(data, display.data), (samples, display.samples)]:
        edges = np.unique(patch.get_xy()[:, 0])
        heights, _ = np.histogram(rows[:, 1], edges, density=True)
        assert patch.get_xy()[:, 1].max() == pytest.approx(heights.max())
    assert (display.data == table.to_numpy()).all()
    assert len(display.samples) == len(table)


def test_histograms_share_their_bins():
    """One far sample does not decide what the rows look like."""
    rng = np.random.default_rng(0)
    samples = np.append(rng.normal(size=999), 1e9)[:, None]
    display = SampleDisplay(
        data=rng.normal(size=(1000, 1)), samples=samples, names=["x"]
    ).plot()
    ends = [np.unique(patch.get_xy()[:, 0]) for patch in display.ax_[0].patches]
    assert (ends[0] == ends[1]).all()
    assert ends[0][-1] < 10


# What all share


@pytest.mark.parametrize(
    "draw",
    [
        lambda e: EnergyLandscapeDisplay.from_estimator(e, np.zeros((2, 2))),
        TrainingHistoryDisplay.from_estimator,
        ChainTraceDisplay.from_estimator,
        lambda e: SampleDisplay.from_estimator(e, np.zeros((2, 2))),
    ],
)
def test_displays_need_a_fitted_estimator(draw):
    with pytest.raises(NotFittedError):
        draw(DeepEBM())


def test_unknown_columns_and_axes_are_refused(model, table):
    with pytest.raises(ValueError, match=r"'far'.*'near', 'wide', 'thin'"):
        EnergyLandscapeDisplay.from_estimator(model, table, features=("far", 0))
    with pytest.raises(ValueError, match="place below 3"):
        SampleDisplay.from_estimator(model, table, features=[3])
    with pytest.raises(ValueError, match="Got 1 axes, but expected 3"):
        ChainTraceDisplay.from_chains(chains(), ax=pyplot.gca())


def test_import_is_light_and_says_what_is_missing():
    code = (
        "import sys, skebm, skebm.plots as p; print('matplotlib' in sys.modules);"
        "sys.modules['matplotlib'] = None\n"
        "try: p.TrainingHistoryDisplay(history={'loss': [1.0]}).plot()\n"
        "except ImportError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[0] == "False"
    assert 'pip install "skebm[plots]"' in done.stdout
