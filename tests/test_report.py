import re
from datetime import datetime
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from skebm.detection import N_TOP, Settings, detect
from skebm.figures import bar, calibration_plot, histogram, ticks
from skebm.report import render_report, write_report

SCRIPT = "<script>alert('x')</script>"


def make_table(n_rows=120):
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.normal(size=(n_rows, 4)), columns=["a", "b", "c", "d"])
    table[f"{SCRIPT} & co"] = rng.choice(["red", "green"], n_rows)
    table.iloc[3, 0] = 14.0
    table.iloc[5, 4] = SCRIPT
    return table


@pytest.fixture(scope="module")
def found():
    return detect(make_table(), Settings())


@pytest.fixture(scope="module")
def page(found):
    name = f"{SCRIPT}.csv"
    return render_report(found, name=name, notes=[SCRIPT], date=datetime(2026, 1, 2))


class _Checker(HTMLParser):
    """Collects tags and attributes, and fails on tags that do not nest."""

    EMPTY = frozenset({"meta"})

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.links = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [v for k, v in attrs if k in ("href", "src", "xlink:href")]
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_page_is_well_formed_and_needs_nothing_else(page):
    checker = _Checker()
    checker.feed(page)
    assert checker.open == []
    assert checker.links == []
    assert not {"script", "link", "img", "iframe", "object"} & set(checker.tags)
    assert "http" not in page
    assert "url(" not in page
    assert "@import" not in page


def test_values_are_escaped(page):
    assert SCRIPT not in page
    assert "&lt;script&gt;" in page
    assert "&amp; co" in page


def test_page_shows_exactly_the_top_rows(found, page):
    rows = re.findall(r"<h3>Row (\d+)</h3>", page)
    expected = np.argsort(-found.energy, kind="stable")[:N_TOP]
    assert [int(row) for row in rows] == list(expected)
    assert page.count('class="card"') == 20


def test_fewer_rows_than_cards():
    found = detect(make_table().head(12), Settings())
    page = render_report(found, name="t", date=datetime(2026, 1, 2))
    assert page.count('class="card"') == 12


def test_page_states_settings_and_counts(found, page):
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))
    assert f"{found.is_outlier.sum()} of 120 rows" in text
    assert "Columns used 5 of 5" in text
    assert "Seed 0" in text
    assert "2026-01-02" in text
    assert "Limits" in text


def test_first_card_names_the_shifted_column(found, page):
    assert found.top(1)[0] in (3, 5)
    card = page.split('<article class="card">')[1 + list(found.top()).index(3)]
    assert re.search(r'<th scope="row">(.*?)<', card)[1] == "a"
    assert "typical" in card
    assert "high" in card


def test_card_sums_to_the_energy_above_the_baseline(found, page):
    for row, card in zip(
        found.top(), page.split('<article class="card">')[1:], strict=True
    ):
        cells = re.findall(r"<td>([+−][\d.]+)</td>", card)
        *parts, total = [float(cell.replace("−", "-")) for cell in cells]
        assert total == pytest.approx(
            found.energy[row] - found.baseline, rel=1e-3, abs=0.006
        )
        assert sum(parts) == pytest.approx(total, rel=1e-3, abs=0.04)


def test_page_is_written_in_utf8(found, tmp_path):
    path = tmp_path / "r.html"
    write_report(found, path, name="Tabelle ü.csv")
    assert "Tabelle ü.csv" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("setting", [{}, {"novelty": True}])
def test_a_table_that_is_its_own_reference_says_what_p_values_are(setting):
    found = detect(make_table(), Settings(**setting))
    page = render_report(found, name="t", date=datetime(2026, 1, 2))
    assert "by construction" in page
    assert "control no false discoveries" in page
    assert "--clean CLEAN.csv" in page
    assert "set aside" not in page
    assert "clean rows" not in page


def test_a_report_against_clean_rows_says_so():
    clean = make_table(200).drop(index=[3, 5])
    found = detect(make_table(), Settings(fdr=0.005), clean=clean)
    page = render_report(found, name="t", date=datetime(2026, 1, 2))
    assert "198 clean rows" in page
    assert "by construction" not in page
    assert "p ≤ 0.05 in at most 5 of 100 cases" in page
    assert not found.is_outlier.any()
    assert "None of the 120 rows" in page
    assert 'class="cut"' not in page
    assert "would have to share it" in found.notes()[0]
    assert "$" not in page


def _counts(svg):
    """Rows in the bars below and above the threshold."""
    pattern = r'class="(cool|hot)"[^>]*><title>(\d+) row'
    found = re.findall(pattern, svg)
    return [sum(int(n) for k, n in found if k == kind) for kind in ("cool", "hot")]


@pytest.mark.parametrize("seed", range(5))
def test_histogram_counts_rows_on_either_side_of_the_threshold(seed):
    rng = np.random.default_rng(seed)
    energy = rng.standard_t(2, size=300)
    threshold = float(np.quantile(energy, 0.93))
    svg, n_beyond = histogram(energy, threshold)
    below, above = _counts(svg)
    assert above == (energy >= threshold).sum()
    assert below + above == 300
    assert ("beyond the axis" in svg) == (n_beyond > 0)


def test_histogram_cuts_a_heavy_tail():
    energy = np.r_[np.random.default_rng(0).normal(size=500), 1e6]
    svg, n_beyond = histogram(energy, None)
    assert n_beyond == 1
    assert _counts(svg) == [501, 0]


@pytest.mark.parametrize("energy", [np.zeros(5), np.array([1.0, 2.0]), np.full(3, 1e9)])
@pytest.mark.parametrize("shift", [None, -1.0, 0.0, 5.0])
def test_histogram_of_few_or_equal_energies(energy, shift):
    svg, _ = histogram(energy, None if shift is None else energy[0] + shift)
    assert sum(_counts(svg)) == len(energy)
    assert "nan" not in svg


def test_calibration_curve_runs_along_the_diagonal():
    p_value = np.arange(1, 1001) / 1000
    svg = calibration_plot(p_value)
    curve = re.search(r'class="curve" points="([^"]+)"', svg)[1].split()
    assert len(curve) <= 402
    x, y = np.array([point.split(",") for point in curve], float).T
    np.testing.assert_allclose(x + y, x[0] + y[0], atol=2.5)


def test_bars_are_relative_to_the_largest():
    assert 'width="50.0"' in bar(1.0, 2.0)
    assert 'class="cool"' in bar(-1.0, 2.0)
    assert 'width="1.0"' in bar(0.0, 0.0)


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (-3.7, 12), (1e-6, 2e-6), (0, 41_000)]
)
def test_ticks_are_few_and_inside(low, high):
    found = ticks(low, high, 6)
    assert 3 <= len(found) <= 10
    assert low - 1e-12 <= min(found)
    assert max(found) <= high + 1e-12
    np.testing.assert_allclose(np.diff(found), found[1] - found[0])
