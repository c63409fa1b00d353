import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import cdist
from scipy.special import logsumexp
from sklearn.cluster import KMeans
from sklearn.metrics import pairwise_distances
from sklearn.neighbors import LocalOutlierFactor

FOLDER = Path(__file__).parents[1] / "benchmarks"


def load_script(name):
    spec = importlib.util.spec_from_file_location(
        f"bench_{name}", FOLDER / f"{name}.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


adbench = load_script("adbench")
density = load_script("density")
digits = load_script("digits")
encoder = load_script("encoder")
joint = load_script("joint")
regression = load_script("regression")
scale = load_script("scale")


@pytest.fixture
def data(tmp_path):
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], [380, 20])
    X = rng.normal(size=(400, 4)) + 5 * y[:, None]
    np.savez(tmp_path / "1_first.npz", X=X.astype(np.float32), y=y)
    np.savez(tmp_path / "2_second.npz", X=X[::2], y=y[::2][:, None])
    return tmp_path


def nearest_neighbors_only(monkeypatch, script):
    monkeypatch.setattr(
        script, "DETECTORS", {"5 nearest neighbours": script.nearest_neighbors}
    )


def test_cap_keeps_anomalies(data):
    X, y = adbench.load(data / "1_first.npz", cap=100)
    assert X.shape == (100, 4)
    assert X.dtype == np.float64
    assert y.sum() == 20
    again, _ = adbench.load(data / "1_first.npz", cap=100)
    other, _ = adbench.load(data / "1_first.npz", cap=100, seed=1)
    np.testing.assert_array_equal(X, again)
    assert not np.array_equal(X, other)
    assert len(adbench.load(data / "1_first.npz")[0]) == 400


def test_one_class_split_is_disjoint_and_standardised(data):
    X, y = adbench.load(data / "1_first.npz")
    X_train, X_test, y_test = adbench.split(X, y, "one-class", 0)
    assert (len(X_train), len(X_test), y_test.sum()) == (190, 210, 20)
    np.testing.assert_allclose(X_train.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(X_train.std(axis=0), 1)
    assert pairwise_distances(X_train, X_test).min() > 0


def test_unsupervised_split_is_everything(data):
    X, y = adbench.load(data / "1_first.npz")
    X_train, X_test, y_test = adbench.split(X, y, "unsupervised", 0)
    np.testing.assert_array_equal(X_train, X_test)
    np.testing.assert_array_equal(y_test, y)


def test_nearest_neighbours_leave_the_own_copy_out():
    X = np.array([[0.0], [1.0], [2.0], [3.0], [4.0], [5.0]])
    train = adbench.nearest_neighbors(X, X, "unsupervised", 0)
    fresh = adbench.nearest_neighbors(X, X, "one-class", 0)
    np.testing.assert_allclose(train[[0, 2]], [3.0, 9 / 5])
    np.testing.assert_allclose(fresh[[0, 2]], [2.0, 6 / 5])


def test_adbench_on_made_data(data, monkeypatch, capsys):
    nearest_neighbors_only(monkeypatch, adbench)
    output, peers = data / "out.csv", data / "peers.csv"
    line = "Peer,{},one-class,0,0.5,0.1,1.0,\n"
    peers.write_text(
        ",".join(adbench.COLUMNS)
        + "\n"
        + line.format("1_first")
        + line.format("2_second")
        + "Partial,1_first,one-class,0,0.9,0.9,1.0,\n"
        + line.format("1_first").replace("one-class", "unsupervised")
    )
    argv = ["adbench.py", "--data", data, "--peers", peers, "--output", output]
    monkeypatch.setattr(sys, "argv", [*map(str, argv), "--verbose"])
    adbench.main()
    rows = pd.read_csv(output)
    assert list(rows.columns) == adbench.COLUMNS
    assert len(rows) == 2 * 2 * 2
    assert (rows["auc"] > 0.95).all()
    one_class, unsupervised = capsys.readouterr().out.split("\nunsupervised: ")
    assert "Peer " in one_class
    assert "Partial" not in one_class
    assert "Peer " not in unsupervised
    assert "1_first" in unsupervised


def test_adbench_counts_scores_that_are_not_finite(data, monkeypatch, capsys):
    def broken(X_train, X_test, setting, seed):
        return np.where(np.arange(len(X_test)) % 2, np.nan, 1.0)

    monkeypatch.setattr(adbench, "DETECTORS", {"broken": broken})
    paths = adbench.find_data(data, ["second"])
    adbench.run_all(paths, ["unsupervised"], [0], 5000, 1)
    assert "100 scores that are not finite" in capsys.readouterr().out


def test_adbench_picks_data_sets(data):
    assert [p.stem for p in adbench.find_data(data, ["sec"])] == ["2_second"]
    assert len(adbench.find_data(data, None)) == 2
    with pytest.raises(SystemExit, match="no data set"):
        adbench.find_data(data, ["absent"])


def test_digits_hold_out():
    y = np.repeat([0, 1, 2], 10)
    X = np.arange(30.0)[:, None]
    X_train, X_test, unseen = digits.hold_out(X, y, digit=1, seed=0)
    assert (len(X_train), len(X_test), unseen.sum()) == (10, 20, 10)
    np.testing.assert_array_equal(np.sort(np.r_[X_train, X_test], axis=0), X)
    np.testing.assert_array_equal(X_test[unseen], X[10:20])


def test_digits_table(monkeypatch):
    nearest_neighbors_only(monkeypatch, digits)
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(3), 40)
    table = digits.unseen_digit_auc(rng.normal(size=(120, 2)) + 20 * y[:, None], y, [0])
    assert table.index.tolist() == [0, 1, 2]
    assert (table == 1).all(axis=None)


def test_encoder_labels_are_few_and_of_every_class():
    y = np.repeat([0, 1, 2], [30, 8, 5])
    places = encoder.labelled(y, 6, np.random.default_rng(0))
    np.testing.assert_array_equal(np.bincount(y[places]), [6, 6, 5])
    assert len(set(places)) == 17


def test_encoder_on_made_data(monkeypatch, capsys):
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], 40)
    X = rng.normal(size=(80, 4)) + 9 * y[:, None]
    monkeypatch.setattr(encoder, "TABLES", {"made": lambda return_X_y: (X, y)})
    argv = ["encoder.py", "--seeds", "2", "--max-iter", "1", "--labels", "5"]
    monkeypatch.setattr(sys, "argv", argv)
    encoder.main()
    head, line = capsys.readouterr().out.strip("\n").split("\n")
    assert head.split() == ["columns", "scaled", "features", "both", "gain"]
    assert line.split()[:3] == ["made", "1.0000", "1.0000"]


def test_calibration_error_by_hand():
    """Of four rows at .9 three are right, of two at .6 one."""
    p = np.array([[0.9, 0.1]] * 4 + [[0.6, 0.4]] * 2)
    y = np.array([0, 0, 0, 1, 0, 1])
    expected = 4 / 6 * (0.9 - 0.75) + 2 / 6 * (0.6 - 0.5)
    assert joint.calibration_error(p, y) == pytest.approx(expected)


@pytest.mark.parametrize("part", ["tables", "labels"])
def test_joint_on_made_data(part, monkeypatch, capsys):
    X = np.random.default_rng(0).normal(size=(400, 3))
    y = np.repeat(np.arange(10), 40)
    X[:, 0] += 9 * y

    def load(return_X_y):
        return X, y

    monkeypatch.setattr(joint, "TABLES", {"made": load})
    monkeypatch.setattr(joint, "load_digits", load)
    monkeypatch.setattr(sys, "argv", ["joint.py", part, "--seeds", "1"])
    joint.main()
    lines = capsys.readouterr().out.splitlines()
    accuracy = next(float(v) for v in lines[-1].split() if v not in {"made", "min"})
    assert accuracy > 0.8


def test_scale_rows():
    X = scale.make_rows(500, 7, seed=1)
    assert X.shape == (500, 7)
    assert not np.array_equal(X, scale.make_rows(500, 7, seed=2))


def test_scale_measures_a_baseline():
    config = {
        "detector": "LocalOutlierFactor",
        "device": "cpu",
        "n": 300,
        "d": 3,
        "threads": 1,
        "repeat": 2,
        "novelty": False,
    }
    assert isinstance(scale.make_detector(config), LocalOutlierFactor)
    result = json.loads(json.dumps(scale.measure(config)))
    assert len(result["fit"]) == len(result["score"]) == 2
    assert min(result["fit"] + result["score"]) > 0
    assert 1 < result["start"] <= result["peak"]
    text = scale.line(config, result).split()
    assert text[:4] == ["300", "3", "LocalOutlierFactor", "cpu"]
    assert scale.line(config, "more than 3 s").endswith("cpu     more than 3 s")


def test_scale_ratios():
    fast, slow = {"fit": [1.0, 2.0, 9.0], "score": [1.0, 2.0, 9.0]}, "failed"
    results = {
        (scale.OURS, "cpu"): fast,
        (scale.OURS, "cuda"): {"fit": [0.1], "score": [0.1]},
        ("LocalOutlierFactor", "cpu"): {"fit": [5.0], "score": [3.0]},
        ("IsolationForest", "cpu"): slow,
    }
    assert scale.ratios(results) == [
        f"{scale.OURS} takes 0.50 times the time of LocalOutlierFactor",
        "cuda is 20.0 times as fast as cpu",
    ]
    assert scale.ratios({(scale.OURS, "cpu"): "failed"}) == []


def test_scale_configurations():
    both = scale.configurations(scale.parse(["--device", "cuda", "--baselines"]))
    assert both == [(scale.OURS, "cpu"), (scale.OURS, "cuda")]
    assert len(scale.configurations(scale.parse([]))) == 3


@pytest.mark.slow
def test_scale_in_a_fresh_process():
    command = [sys.executable, FOLDER / "scale.py", "--n", "500", "--d", "4"]
    done = subprocess.run(
        [*command, "--repeat", "1"], capture_output=True, text=True, check=True
    )
    assert "failed" not in done.stdout
    assert done.stdout.count("times the time of") == 2


@pytest.mark.parametrize("name", density.TOYS)
def test_toys_have_the_entropy_that_is_stated(name):
    """Against the mean log-density of fresh rows under the density that drew them."""
    make, entropy = density.TOYS[name]
    rows = make(20_000, np.random.default_rng(0))
    if name == "checkerboard":
        assert np.all(np.abs(rows) < 4)
        assert entropy == pytest.approx(np.log(32), abs=1e-3)
        return
    if name == "two moons":
        angle = np.linspace(0, np.pi, 2000)
        upper = np.column_stack([np.cos(angle), np.sin(angle)])
        centers, sd = np.vstack([upper, [1, 0.5] - upper]), 0.1
    elif name == "8 Gaussians":
        angle = np.arange(8) * np.pi / 4
        centers, sd = 4 * np.column_stack([np.cos(angle), np.sin(angle)]), 0.5
    else:
        drawn = make(200_000, np.random.default_rng(1))
        centers, sd = (
            KMeans(32, n_init=3, random_state=0).fit(drawn).cluster_centers_,
            0.3,
        )
    rows = rows[:4000]
    d = rows.shape[1]
    exponent = -0.5 * cdist(rows, centers, "sqeuclidean") / sd**2
    norm = np.log(len(centers)) + 0.5 * d * np.log(2 * np.pi * sd**2)
    log_density = logsumexp(exponent, axis=1) - norm
    error = 4 * log_density.std() / np.sqrt(len(rows))
    assert -log_density.mean() == pytest.approx(entropy, abs=error)


@pytest.mark.parametrize("name", regression.TOYS)
def test_regression_toys_have_the_law_that_is_stated(name):
    rows, log_density = regression.TOYS[name]
    X, y = rows(20_000, np.random.default_rng(0))
    grid = np.linspace(-60, 60, 60_001)
    for x in (-2.0, 0.5):
        p = np.exp(log_density(np.full((len(grid), 1), x), grid))
        assert np.sum(p) * 0.002 == pytest.approx(1, abs=1e-4)
        near = np.abs(X[:, 0] - x) < 0.1
        share = np.sum(p[grid > 0]) * 0.002
        assert np.mean(y[near] > 0) == pytest.approx(share, abs=0.05)


def test_regression_models_on_a_known_law(monkeypatch):
    monkeypatch.setattr(regression, "N_LOOKS", 10)
    rng = np.random.default_rng(0)
    X = rng.normal(size=(900, 2))
    y = 5 + X[:, 0] + 0.5 * rng.normal(size=900)
    entropy = 0.5 * np.log(2 * np.pi * np.e * 0.25)
    for name in regression.MODELS:
        if name != "EBMRegressor":
            model = regression.MODELS[name](0).fit(X[:600], y[:600])
            log_p, r2, low, high = regression.figures(model, X[600:], y[600:])
            assert log_p == pytest.approx(-entropy, abs=0.15)
            assert r2 == pytest.approx(0.8, abs=0.05)
            assert low == pytest.approx(0.9, abs=0.05)
            assert high > low


def test_regression_prints_a_line_each(monkeypatch, capsys):
    tiny = {"hidden": 4, "max_iter": 1, "n_members": 2}
    regression.run_toys(["heavy tails"], 100, tiny)
    assert "heavy tails" in capsys.readouterr().out
    models = ["ridge, Gaussian"]
    regression.run_tables(list(regression.TABLES), 2, models)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(regression.TABLES)
