import importlib
import os
import pty
import subprocess
import sys
from functools import partial

import numpy as np
import pandas as pd
import pytest

import skebm
from skebm import EnergyOutlierDetector, cli, detection
from skebm.columns import TableEncoder
from skebm.detection import Settings, detect
from skebm.table import InputError

ADDED = ["energy", "p_value", "is_outlier", "reason"]


def make_table(n_rows=150):
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.normal(size=(n_rows, 3)), columns=["x", "y", "z"])
    table["colour"] = rng.choice(["red", "green"], n_rows)
    table["label"] = rng.choice(["good", "bad"], n_rows)
    table.loc[4, "x"] = 9.0
    table.loc[7, "colour"] = "teal"
    table.loc[[10, 20], "y"] = np.nan
    table.loc[30, "colour"] = None
    return table


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run the command in a directory with ``t.csv``; give code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    make_table().to_csv("t.csv", index=False)

    def run(*arguments):
        code = cli.main([str(a) for a in arguments])
        return code, *capsys.readouterr()

    return run


def test_scored_table_and_report(run, tmp_path):
    code, out, err = run(
        *("detect", "t.csv", "--ignore", "label", "--output", "s.csv"),
        *("--report", "r.html"),
    )
    assert (code, err) == (0, "")
    scored = pd.read_csv("s.csv", keep_default_na=False, na_values={"y": [""]})
    original = pd.read_csv("t.csv", keep_default_na=False, na_values={"y": [""]})
    pd.testing.assert_frame_equal(scored[list(original)], original)
    assert list(scored)[-4:] == ADDED
    assert scored["p_value"].between(0, 1, inclusive="right").all()
    assert np.isfinite(scored["energy"]).all()
    assert ((scored["reason"] != "") == scored["is_outlier"]).all()
    assert scored.loc[4, "reason"].startswith("x = 9 (high)")
    assert scored.loc[7, "reason"].startswith("colour = teal (rare)")
    assert "150 rows, 4 columns used" in out
    assert "ignored as asked: label" in out
    assert f"flagged: {scored['is_outlier'].sum()} of 150" in out
    assert "wrote s.csv\nwrote r.html\n" in out
    assert sorted(p.name for p in tmp_path.iterdir()) == ["r.html", "s.csv", "t.csv"]


def test_top_rows_on_stdout_and_how_to_write_files(run):
    code, out, _ = run("detect", "t.csv")
    assert code == 0
    table = out.split("highest energy\n")[1].splitlines()
    rows = [int(line.split()[0]) for line in table[1:6]]
    found = detect(make_table(), Settings())
    assert rows == list(found.top(5))
    assert "--output scored.csv" in out
    assert "--report" in out


def test_same_seed_same_file(run, tmp_path):
    for name in ("one", "two"):
        run("detect", "t.csv", "--output", f"{name}.csv")
    assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "two.csv").read_bytes()


def test_parquet_in_and_out(run):
    make_table().to_parquet("t.parquet")
    run("detect", "t.csv", "--output", "from_csv.parquet")
    code, _, err = run("detect", "t.parquet", "--output", "s.parquet")
    assert (code, err) == (0, "")
    scored = pd.read_parquet("s.parquet")
    assert scored["is_outlier"].dtype == bool
    again = pd.read_parquet("from_csv.parquet")
    np.testing.assert_array_equal(scored["energy"], again["energy"])


def test_contamination_sets_the_share(run):
    run("detect", "t.csv", "--contamination", 0.2, "--output", "s.csv")
    assert pd.read_csv("s.csv")["is_outlier"].sum() == 30


def test_ignored_columns_do_not_count(run):
    table = make_table()
    table.loc[50, "z"] = 1e6
    table.to_csv("u.csv", index=False)
    run("detect", "u.csv", "--ignore", "z", "--ignore", "label", "--output", "s.csv")
    table["z"] = 0.5
    table.to_csv("v.csv", index=False)
    run("detect", "v.csv", "--ignore", "z", "--ignore", "label", "--output", "w.csv")
    s, w = pd.read_csv("s.csv"), pd.read_csv("w.csv")
    np.testing.assert_array_equal(s["energy"], w["energy"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.csv"], "no such file: none.csv"),
        (["t.csv", "--ignore", "lbel"], "did you mean 'label'?"),
        (["empty.csv"], "no rows"),
        (["one.csv"], "one row"),
        (["twice.csv"], "two columns are called 'a'"),
        (["constant.csv"], "no column can be used"),
        (["broken.csv"], "cannot read broken.csv"),
        (["scored.csv"], "a column called 'energy'"),
        (["t.txt"], "does not end in .csv or .parquet"),
        (["t.csv", "--contamination", "0.7"], "in (0, 0.5]; got 0.7"),
        (["t.csv", "--contamination", "nan"], "in (0, 0.5]; got nan"),
        (["t.csv", "--contamination", "0"], "in (0, 0.5]; got 0"),
        (["t.csv", "--fdr", "1"], "in (0, 1); got 1"),
        (["t.csv", "--fdr", ".1", "--contamination", ".1"], "not both"),
        (["none.csv", "--fdr", ".1"], "no false discovery control"),
        (["t.csv", "--fdr", ".1"], "--clean CLEAN.csv, or flag a share"),
        (["t.csv", "--clean", "none.csv"], "no such file: none.csv"),
        (["t.csv", "--clean", "empty.csv"], "no rows"),
        (["t.csv", "--clean", "x.csv"], "'y' is in the table but not in the clean"),
        (["x.csv", "--clean", "t.csv"], "'y' is in the clean rows but not in the"),
        (["words.csv", "--clean", "x.csv"], "none here (got 'red'); write it the same"),
        (["t.csv", "--clean", "x.csv", "--output", "./x.csv"], "would replace x.csv"),
        (["t.csv", "--seed", "-1"], "--seed is an integer"),
        (["t.csv", "--device", "abacus"], "--device abacus cannot be used"),
        (["t.csv", "--output", "s.xlsx"], "does not end in .csv or .parquet"),
        (["t.csv", "--output", "none/s.csv"], "no such directory: none"),
        (["t.csv", "--output", "./t.csv"], "would replace t.csv"),
        (["t.csv", "--report", "r.pdf"], "does not end in .html or .htm"),
        (["t.csv", "--contamination", "much"], "Invalid value for '--contamination'"),
        (["t.csv", "--unknown"], "--unknown"),
        ([], "Missing argument"),
    ],
)
def test_errors_are_one_line_with_code_2(run, tmp_path, arguments, message):
    files = {
        "empty.csv": "a,b\n",
        "one.csv": "a,b\n1,2\n",
        "twice.csv": "a,a\n1,2\n3,4\n",
        "constant.csv": "a,b\n1,2\n1,2\n",
        "broken.csv": 'a,b\n"1,2\n3,4\n',
        "scored.csv": "a,energy\n1,2\n3,5\n",
        "t.txt": "",
        "x.csv": "x\n1\n3\n2\n",
        "words.csv": "x\nred\nblue\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    before = sorted(tmp_path.iterdir())
    code, out, err = run("detect", *arguments)
    assert code == 2
    assert out == ""
    assert message in err
    assert err.startswith("skebm: ")
    assert err.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


def test_error_of_the_detector_is_one_line(run, monkeypatch):
    def fail(self, X, y=None):
        raise ValueError("two\nlines")

    monkeypatch.setattr(skebm.EnergyOutlierDetector, "fit", fail)
    assert run("detect", "t.csv") == (2, "", "skebm: two lines\n")


def test_programming_errors_are_not_hidden(run, monkeypatch):
    monkeypatch.setattr(detection, "_to_explain", None)
    with pytest.raises(TypeError):
        run("detect", "t.csv")


def test_interrupt(run, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(detection, "_to_explain", interrupt)
    assert run("detect", "t.csv")[0] == 130


def test_warnings_become_notes(run, monkeypatch):
    fit = skebm.EnergyOutlierDetector.fit

    def warn(self, X, y=None):
        import warnings

        warnings.warn("look\nhere", UserWarning, stacklevel=1)
        warnings.warn("for developers", FutureWarning, stacklevel=1)
        return fit(self, X)

    monkeypatch.setattr(skebm.EnergyOutlierDetector, "fit", warn)
    _, out, err = run("detect", "t.csv")
    assert "note: look here\n" in out
    assert "developers" not in out + err


def test_version_and_help(run):
    assert run("--version") == (0, f"skebm {skebm.__version__}\n", "")
    code, out, _ = run()
    assert code == 0
    assert "detect" in out


def test_without_the_extra(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "typer", None)
    try:
        importlib.reload(cli)
        assert run("detect", "t.csv") == (
            2,
            "",
            'skebm: the command line needs its extra: pip install "skebm[cli]"\n',
        )
    finally:
        monkeypatch.undo()
        importlib.reload(cli)


def test_progress_goes_to_a_terminal_only(run, tmp_path):
    main, side = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-m", "skebm", "detect", "t.csv"],
        stdout=subprocess.PIPE,
        stderr=side,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TERM": "xterm"},
        check=True,
    )
    os.close(side)
    drawn = os.read(main, 100_000).decode()
    os.close(main)
    assert "EnergyOutlierDetector" in drawn
    assert "Explaining" in drawn
    assert "\x1b" not in done.stdout.decode()
    assert done.stdout.startswith(b"t.csv: 150 rows")


def test_contributions_sum_to_the_energy_above_the_baseline():
    found = detect(make_table(), Settings())
    for row, parts in found.contributions.items():
        assert len(parts) == 5
        total = found.energy[row] - found.baseline
        assert parts.sum() == pytest.approx(total, rel=1e-6, abs=1e-9)
    assert set(found.top()) <= set(found.contributions)
    assert set(np.flatnonzero(found.is_outlier)) <= set(found.contributions)


def test_p_values_of_a_table_larger_than_the_memory(monkeypatch):
    """Only the stored rows are left out of their own count."""
    small = partial(EnergyOutlierDetector, max_memory=60)
    monkeypatch.setattr(detection, "EnergyOutlierDetector", small)
    table = pd.DataFrame(np.random.default_rng(0).normal(size=(150, 3)))
    rows = table.to_numpy()
    expected = small(random_state=0).fit(rows).p_values(rows)
    np.testing.assert_allclose(detect(table, Settings()).p_value, expected)


def make_normal(rng, n_rows, n_strange=0):
    """Rows of four normal columns, the first ones far out, and a category."""
    table = pd.DataFrame(rng.normal(size=(n_rows, 4)), columns=list("abcd"))
    strange = rng.choice([-9, 9], size=(n_strange, 4))
    table.iloc[:n_strange] += strange + 3 * rng.normal(size=(n_strange, 4))
    return table.assign(kind=rng.choice(["u", "v"], n_rows))


def test_fdr_with_clean_rows_bounds_the_false_share():
    """Benjamini-Hochberg on conformal p-values: E FDP <= q times the ordinary share."""
    n_tables, n_strange, q = 24, 20, 0.2
    false_share, n_found = [], 0
    for seed in range(n_tables):
        rng = np.random.default_rng(seed)
        clean, table = make_normal(rng, 250), make_normal(rng, 200, n_strange)
        found = detect(table, Settings(fdr=q), clean=clean, explain_flagged=False)
        flagged = found.is_outlier
        assert found.energy[flagged].min() == found.threshold
        false_share.append(flagged[n_strange:].sum() / flagged.sum())
        n_found += flagged[:n_strange].sum()
    error = np.std(false_share) / np.sqrt(n_tables)
    assert np.mean(false_share) <= q * (1 - n_strange / 200) + 3 * error
    assert n_found >= 0.95 * n_tables * n_strange


def test_p_values_of_clean_tables_against_clean_rows():
    """At most .05 of the rows have p <= .05, up to three errors over 12 pairs."""
    share = []
    for seed in range(12):
        rng = np.random.default_rng(100 + seed)
        clean, table = make_normal(rng, 250), make_normal(rng, 200)
        found = detect(table, Settings(), clean=clean, explain_flagged=False)
        share.append((found.p_value <= 0.05).mean())
    assert np.mean(share) <= 0.05 + 3 * np.std(share) / np.sqrt(len(share))


def test_scores_against_clean_rows_are_those_of_the_estimator():
    rng = np.random.default_rng(0)
    clean, table = make_normal(rng, 120), make_normal(rng, 80, 5)
    found = detect(table, Settings(seed=3), clean=clean)
    encoder = TableEncoder().fit(clean)
    detector = EnergyOutlierDetector(novelty=True, random_state=3)
    detector.fit(encoder.transform(clean))
    rows = encoder.transform(table)
    np.testing.assert_array_equal(found.energy, detector.energy(rows))
    np.testing.assert_array_equal(found.p_value, detector.p_values(rows))
    np.testing.assert_array_equal(found.is_outlier, detector.predict(rows) == -1)
    for row, parts in found.contributions.items():
        total = found.energy[row] - found.baseline
        assert parts.sum() == pytest.approx(total, rel=1e-6, abs=1e-9)


def test_contamination_counts_the_clean_rows():
    rng = np.random.default_rng(0)
    clean, table = make_normal(rng, 200), make_normal(rng, 80, 40)
    found = detect(table, Settings(contamination=0.1), clean=clean)
    assert found.is_outlier[:40].all()
    assert found.is_outlier[40:].mean() <= 0.25
    assert found.rule() == "energy above that of all but 0.1 of the clean rows"


def test_clean_rows_from_the_command(run):
    clean = make_table(300).drop(index=[4, 7, 10, 20, 30])
    clean["x"] = clean["x"].map(lambda v: f"{v:.6f}".replace(".", ","))
    clean["extra"] = 1
    clean.to_csv("clean.csv", index=False)
    arguments = ("--clean", "clean.csv", "--ignore", "extra", "--fdr", 0.2)
    table = make_table().assign(extra=2)
    table.loc[[4, 50, 60, 70], "x"] = [9.0, 90.0, -80.0, 70.0]
    table.to_csv("u.csv", index=False)
    code, out, err = run("detect", "u.csv", *arguments, "--output", "s.csv")
    assert (code, err) == (0, "")
    assert "learned from: 295 clean rows" in out
    assert "at most 0.2 of the flagged rows" in out
    scored = pd.read_csv("s.csv")
    assert scored.loc[[50, 60, 70], "is_outlier"].all()
    assert scored.loc[50, "reason"].startswith("x = 90 (high)")


def test_new_categories_are_said_to_be_rare():
    rng = np.random.default_rng(0)
    clean, table = make_normal(rng, 100), make_normal(rng, 30)
    table.loc[3, "kind"] = "w"
    found = detect(table, Settings(), clean=clean)
    kind = [column.name for column in found.columns].index("kind")
    assert found.columns[kind].reason(3) == "kind = w (rare)"


def test_notes_on_clean_rows_say_so():
    rng = np.random.default_rng(0)
    clean, table = make_normal(rng, 100), make_normal(rng, 30)
    clean["a"] = clean["a"].astype(object)
    clean.loc[5, "a"] = "?"
    table["d"] = clean["d"] = "same"
    table.loc[3, "b"] = None
    found = detect(table, Settings(), clean=clean)
    assert found.notes() == [
        "column d is not used: one value in every row (in the clean rows)",
        "clean rows: `a`: 1 of 100 cells is no number, taken as missing",
    ]


def test_fdr_with_novelty_flags_none_and_names_the_way_out(run):
    code, out, _ = run("detect", "t.csv", "--novelty", "--fdr", 0.1)
    assert code == 0
    assert "flagged: 0 of 150" in out
    assert "--fdr can flag none; give ordinary rows with --clean" in out


def test_p_values_under_novelty_are_ranks_in_the_table():
    table = make_table()
    found = detect(table, Settings(novelty=True))
    np.testing.assert_allclose(
        np.sort(found.p_value), np.arange(1, len(table) + 1) / len(table)
    )
    order = np.argsort(-found.energy)
    assert (np.diff(found.p_value[order]) > 0).all()
    for row, parts in found.contributions.items():
        total = found.energy[row] - found.baseline
        assert parts.sum() == pytest.approx(total, rel=1e-6, abs=1e-9)


def test_more_flagged_rows_than_are_explained(monkeypatch):
    monkeypatch.setattr(detection, "MAX_EXPLAINED", 25)
    found = detect(make_table(), Settings(contamination=0.3))
    assert len(found.contributions) == 25
    reasons = found.scored()["reason"]
    unexplained = reasons.str.startswith("not explained")
    assert unexplained.sum() == found.is_outlier.sum() - 25
    assert not unexplained[found.top(25)].any()
    assert "the 25 with the highest energy" in found.notes()[0]


def test_without_reasons_only_the_top_rows_are_explained():
    found = detect(make_table(), Settings(contamination=0.3), explain_flagged=False)
    assert list(found.contributions) == list(found.top(20))
    assert found.notes() == []


def test_control_characters_do_not_reach_the_terminal():
    table = make_table()
    table.loc[7, "colour"] = "\x1b[31mteal\n" + "x" * 80
    found = detect(table, Settings())
    assert "\x1b" not in found.reason(7)
    assert "\n" not in found.reason(7)
    assert "…" in found.reason(7)


@pytest.mark.parametrize(
    "setting", [{"fdr": 2.0, "novelty": True}, {"fdr": 0.1}, {"contamination": -0.1}]
)
def test_settings_are_checked(setting):
    with pytest.raises(InputError):
        detect(make_table(), Settings(**setting))
