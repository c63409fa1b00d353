"""The benchmark of the samplers on small tasks."""

import importlib.util
from pathlib import Path

import pytest
import torch

PATH = Path(__file__).parents[2] / "benchmarks" / "samplers.py"


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("bench_samplers", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_table_of_the_default_and_of_absent_peers(bench, monkeypatch, capsys):
    def absent(target):
        raise ImportError

    def exact(target):
        return {"peer": lambda x, n: (x.expand(n, *x.shape).clone(), 1.0)}

    monkeypatch.setattr(bench, "PEERS", {"torchebm": absent, "ebmkit": exact})
    options = "--n-targets 1 --n-draws 100 --repeat 1 --n-steps 8 --pairs 1"
    bench.main(options.split())
    head, ours, missing, peer, *steps = capsys.readouterr().out.splitlines()
    assert len(ours.split()) == len(head.split()) + 1
    assert ours.split()[3:5] == ["skebm", "HMC()"]
    assert "torchebm is not installed" in missing
    assert peer.split()[:4] == ["10", "100", "aligned", "peer"]
    assert [line.split()[0] for line in steps[2:]] == ["Langevin,"] * 2 + ["denoising"]


def test_best_setting_is_the_fastest_of_the_right_ones(bench):
    def result(error, ess):
        return bench.Result(error, 1.0, 0.8, ess, ess, 2.0)

    results = {"wrong": result(0.5, 9.0), "slow": result(0.05, 2.0)}
    results["fast"] = result(0.05, 4.0)
    assert bench.best(results)[0] == "fast"
    assert bench.best(results)[1].rate == 2.0
    assert bench.best({"wrong": results["wrong"]})[0] == "wrong"


@pytest.mark.parametrize("rotated", [False, True])
def test_targets_have_the_condition(bench, rotated):
    target = bench.make_target(5, 100, rotated)
    values = target.covariance
    eigenvalues = torch.linalg.eigvalsh(values)
    assert (eigenvalues[-1] / eigenvalues[0]).item() == pytest.approx(100)
    is_diagonal = bool((values - values.diagonal().diag()).abs().max() < 1e-9)
    assert is_diagonal is not rotated
