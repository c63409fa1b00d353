"""The report of ``skebm detect``: one HTML file that needs nothing but itself."""

from datetime import datetime
from html import escape
from string import Template

import numpy as np

from skebm import __version__
from skebm.detection import N_TOP
from skebm.figures import bar, calibration_plot, histogram
from skebm.reasons import number_text, plain_text
from skebm.table import write_whole

N_BARS = 5
LEVELS = (0.001, 0.01, 0.05, 0.1)


def write_report(found, path, *, name, notes=()):
    """Write the report of a detection.

    Parameters
    ----------
    found : Detection
        Scores and contributions.
    path : Path
        The HTML file.
    name : str
        What to call the table.
    notes : sequence of str, default=()
        Lines to add under the summary.
    """
    page = render_report(found, name=name, notes=notes, date=datetime.now())
    write_whole(path, lambda file: file.write_text(page, encoding="utf-8"))


def render_report(found, *, name, notes=(), date):
    """HTML of the report.

    Parameters
    ----------
    found : Detection
        Scores and contributions.
    name : str
        What to call the table.
    notes : sequence of str, default=()
        Lines to add under the summary.
    date : datetime
        When the report was made.

    Returns
    -------
    str
        A page without links, scripts or fonts from outside.
    """
    figure, n_beyond = histogram(found.energy, found.threshold)
    top = found.top(N_TOP)
    cards = [_card(found, rank, row) for rank, row in enumerate(top, start=1)]
    return _PAGE.substitute(
        style=_STYLE,
        name=escape(plain_text(name, 120)),
        lead=_lead(found),
        facts=_facts(found, date),
        notes=_notes(notes),
        histogram=figure,
        histogram_text=_histogram_text(found, n_beyond),
        n_top=len(top),
        cards="\n".join(cards),
        calibration=calibration_plot(found.p_value),
        calibration_text=_calibration_text(found),
        levels=_levels(found.p_value),
        reading=_reading_text(found.settings),
        baseline=number_text(found.baseline),
    )


def _lead(found):
    """First sentence: what was found."""
    n_rows, n_flagged = len(found.energy), int(found.is_outlier.sum())
    if n_flagged == 0:
        return f"None of the {n_rows:,} rows is flagged."
    verb = "row is" if n_flagged == 1 else "rows are"
    return (
        f"<strong>{n_flagged:,}</strong> of {n_rows:,} {verb} flagged "
        f"({n_flagged / n_rows:.1%})."
    )


def _facts(found, date):
    """List settings and counts."""
    settings = found.settings
    threshold = "none" if found.threshold is None else number_text(found.threshold)
    facts = {
        "Rows": f"{len(found.energy):,}",
        "Columns used": f"{len(found.columns)} of {found.table.shape[1]}",
        "Training rows": _training_text(found),
        "Flagged": f"{int(found.is_outlier.sum()):,}",
        "Energy threshold": threshold,
        "Seed": settings.seed,
        "Date": f"{date:%Y-%m-%d %H:%M}",
        "Version": f"skebm {__version__}",
        "Rule": found.rule(),
    }
    items = [
        f"<div><dt>{k}</dt><dd>{escape(str(v))}</dd></div>" for k, v in facts.items()
    ]
    return "".join(items)


def _training_text(found):
    """Say which rows the detector learned from."""
    if found.settings.clean:
        return f"{found.n_clean:,} clean rows"
    if found.settings.novelty:
        return "this table, all ordinary"
    return "this table, may hold anomalies"


def _notes(notes):
    """List the notes, if there are any."""
    items = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return f'<ul class="notes">{items}</ul>' if items else ""


def _histogram_text(found, n_beyond):
    """Caption of the histogram."""
    text = "Each bar counts rows; a higher energy means a stranger row."
    if found.threshold is not None:
        text += " Rows right of the line, in the accent colour, are flagged."
    if n_beyond:
        rows = "row lies" if n_beyond == 1 else "rows lie"
        text += (
            f" The axis is cut: {n_beyond} {rows} beyond it, drawn in its last bar; "
            f"the highest energy is {number_text(found.energy.max())}."
        )
    return text


def _card(found, rank, row):
    """One anomaly: its scores and the columns that make it one."""
    flagged = '<span class="tag">flagged</span>' if found.is_outlier[row] else ""
    label = escape(found.label(row))
    return f"""<article class="card">
<header><span class="rank">{rank}</span><h3>Row {label}</h3>{flagged}
<p class="scores">energy <b>{number_text(found.energy[row])}</b>
<span>p <b>{found.p_value[row]:.2g}</b></span></p></header>
<table><caption class="unseen">Columns that raise the energy of row {label}</caption>
<thead><tr><th scope="col">Column</th><th scope="col">Value</th>
<th scope="col" colspan="2">Contribution</th></tr></thead>
<tbody>{_parts(found, row)}</tbody>
<tfoot><tr><th scope="row" colspan="3">Sum: energy above the baseline</th>
<td>{_signed(found.contributions[row].sum())}</td></tr></tfoot></table>
</article>"""


def _parts(found, row):
    """Rows of a card's table: the first columns and the sum of the others."""
    parts = found.contributions[row]
    shown = found.drivers(row, N_BARS)
    rest = parts.sum() - parts[shown].sum()
    largest = max(parts[shown], default=0.0)
    lines = []
    for j in shown:
        column = found.columns[j]
        verdict = column.verdict(row)
        lines.append(
            f'<tr><th scope="row">{escape(column.name)}'
            f"<small>typical {escape(column.typical_text())}</small></th>"
            f"<td>{escape(column.value_text(row))}<small>{verdict}</small></td>"
            f"<td>{bar(parts[j], largest)}</td><td>{_signed(parts[j])}</td></tr>"
        )
    n_others = len(parts) - len(shown)
    if n_others:
        columns = "other column" if n_others == 1 else "other columns"
        lines.append(
            f'<tr class="rest"><th scope="row" colspan="3">'
            f"{n_others} {columns}</th><td>{_signed(rest)}</td></tr>"
        )
    return "".join(lines)


def _calibration_text(found):
    """Say how to read the calibration plot, and what it cannot show."""
    if found.settings.clean:
        how = (
            "Each row is compared with the clean rows, so the ordinary rows of the "
            "table follow the diagonal, and a rise above the band at the left is made "
            "of rows unlike the clean ones."
        )
        limit = (
            "The p-values are valid if the clean rows are ordinary and come from where "
            "the ordinary rows of this table come from."
        )
    else:
        how = (
            "Each row is ranked among the rows of this table, so the curve keeps to "
            "the diagonal by construction, and anomalies do not show as a step. A "
            "small p-value says that few rows of the table are stranger, no more."
        )
        limit = (
            "The p-values were computed on the table that they judge and control no "
            "false discoveries. For that, give rows known to be ordinary: "
            "<code>skebm detect --clean CLEAN.csv</code>, or in Python "
            "<code>EnergyOutlierDetector.calibrate</code>."
        )
    return (
        "<p>The curve is the share of rows with a p-value of at most p. Where all rows "
        f"are ordinary it follows the dashed diagonal inside the grey band. {how}</p>"
        f"<p>{limit}</p>"
    )


def _reading_text(settings):
    """Say how to read energies, p-values, contributions and typical values."""
    if settings.clean:
        return _READING.substitute(
            reference="clean rows",
            promise="an ordinary row has p ≤ 0.05 in at most 5 of 100 cases.",
            training="clean rows",
        )
    return _READING.substitute(
        reference="rows of this table",
        promise="of the rows of a table, at most 5 in 100 have p ≤ 0.05.",
        training="table",
    )


def _signed(value):
    """Write a contribution with its sign."""
    text = f"{value:+.2f}" if abs(value) < 100 else f"{value:+.4g}"
    return text.replace("-", "−")


def _levels(p_value):
    """Count the small p-values, found and expected."""
    lines = []
    for level in LEVELS:
        n_found = int(np.sum(p_value <= level))
        lines.append(
            f'<tr><th scope="row">p ≤ {level:g}</th><td>{n_found:,}</td>'
            f"<td>{level * len(p_value):,.1f}</td></tr>"
        )
    return "".join(lines)


_READING = Template("""<ul>
<li><b>Energy</b> says how far a row lies from the $reference. Its unit is
the spread of the ordinary rows; it is no probability.</li>
<li><b>p</b> is the share of the $reference that are at least as strange, the row itself
counted: $promise Among many rows some small p-values come by chance;
<code>--fdr</code> with <code>--clean</code> bounds the share of such false alarms.</li>
<li><b>Contributions</b> split the energy above the baseline over the columns. They say
what the score rests on, not what caused the row to be strange.</li>
<li><b>typical</b> is the range that holds the middle 90% of a column's values in the
$training, or its most frequent category there. <b>unusual combination</b>: the value
alone is typical, beside the row's other values it is not.</li>
</ul>
<h3>Limits</h3>
<ul>
<li>A strange row is not a wrong row, and a wrong value that looks ordinary is not
found. Judge flagged rows with knowledge of the data.</li>
<li>The p-values mean this if ordinary rows are exchangeable. Time order, groups or
repeated measurements break that.</li>
<li>Columns count alike whether or not they matter to the question; leave out
identifiers and labels with <code>--ignore</code>.</li>
</ul>""")

_STYLE = """
:root { --ink: #1d2733; --soft: #55616e; --line: #e1e5ea; --wash: #f6f7f9;
  --cool: #8b9aab; --hot: #b5411c; }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: #fff; color: var(--ink); font: 16px/1.55 system-ui,
  -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 56px 32px 72px; }
h1, h2, h3, p, dl, ul, figure { margin: 0; }
h1 { font-size: 34px; line-height: 1.2; letter-spacing: -.01em;
  overflow-wrap: anywhere; }
h2 { font-size: 22px; margin: 64px 0 6px; }
h3 { font-size: 17px; }
small { display: block; color: var(--soft); font-size: 12.5px; font-weight: 400; }
.over { color: var(--hot); font-weight: 600; font-size: 14px; margin-bottom: 6px; }
.lead { font-size: 20px; margin-top: 10px; }
.lead strong { color: var(--hot); }
.text { color: var(--soft); max-width: 72ch; margin-bottom: 18px; }
.facts { display: grid; grid-template-columns: repeat(4, 1fr); gap: 18px 28px;
  margin-top: 28px; padding: 22px 0; border: solid var(--line); border-width: 1px 0; }
.facts div:last-child { grid-column: 1 / -1; }
dt { color: var(--soft); font-size: 13px; }
dd { margin: 0; font-weight: 600; }
.facts div:last-child dd { font-weight: 400; }
.notes { margin-top: 18px; padding-left: 20px; color: var(--soft); font-size: 14px;
  overflow-wrap: anywhere; }
svg { display: block; width: 100%; height: auto; }
.hot { fill: var(--hot); } .cool { fill: var(--cool); }
.grid { stroke: var(--line); } .cut { stroke: var(--hot); stroke-width: 1.5;
  stroke-dasharray: 5 4; }
.tick { font-size: 13px; fill: var(--soft); } .mark { font-size: 14px;
  font-weight: 600; fill: var(--hot); }
.band { fill: #e9edf2; } .diagonal { stroke: var(--soft); stroke-dasharray: 4 4; }
.curve { fill: none; stroke: var(--hot); stroke-width: 2.2; }
.wide { overflow-x: auto; } .wide svg { min-width: 680px; }
.cards { display: grid; grid-template-columns: 1fr 1fr; gap: 24px; }
.card { border: 1px solid var(--line); border-radius: 10px; padding: 18px 20px 14px;
  min-width: 0; break-inside: avoid; }
.card header { display: flex; flex-wrap: wrap; align-items: center; gap: 4px 10px; }
.card h3 { overflow-wrap: anywhere; }
.rank { min-width: 28px; height: 28px; border-radius: 14px; background: var(--wash);
  text-align: center; line-height: 28px; font-size: 14px; font-weight: 600; }
.tag { color: var(--hot); border: 1px solid; border-radius: 9px; padding: 0 8px;
  font-size: 12px; line-height: 18px; }
.scores { margin-left: auto; font-size: 14px; color: var(--soft); }
.scores span { margin-left: 10px; } .scores b { color: var(--ink); }
.card table { margin-top: 8px; } tfoot th { color: var(--soft); }
table { width: 100%; border-collapse: collapse; font-size: 14px; line-height: 1.4;
  font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: 6px 10px 6px 0;
  border-top: 1px solid var(--line); font-weight: 400; overflow-wrap: anywhere; }
thead th { border: 0; color: var(--soft); font-size: 12.5px; padding-bottom: 2px; }
tbody th { font-weight: 600; } .rest th { font-weight: 400; color: var(--soft); }
td:nth-child(2) { width: 22%; } .card td:nth-child(3) { width: 22%; }
.card td:last-child { width: 60px; text-align: right; padding-right: 0;
  white-space: nowrap; }
.bar { height: 10px; margin-top: 5px; }
.unseen { position: absolute; width: 1px; height: 1px; overflow: hidden;
  clip-path: inset(50%); }
.pair { display: grid; grid-template-columns: 420px 1fr; gap: 40px; }
.pair p { margin-bottom: 16px; } .pair table { max-width: 420px; }
.reading { max-width: 76ch; } .reading ul { padding-left: 20px; }
.reading li { margin: 8px 0; } .reading h3 { margin-top: 22px; }
@media (max-width: 860px) { main { padding: 32px 16px 48px; }
  .facts { grid-template-columns: 1fr 1fr; }
  .cards, .pair { grid-template-columns: minmax(0, 1fr); } h1 { font-size: 27px; }
  h2 { margin-top: 48px; } .card { padding: 14px; } .pair svg { max-width: 420px; } }
@media print { body { font-size: 12px; print-color-adjust: exact;
  -webkit-print-color-adjust: exact; } main { padding: 0; max-width: none; }
  h2 { break-after: avoid; margin-top: 32px; } figure, .pair { break-inside: avoid; } }
"""

_PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Anomalies in $name</title>
<style>$style</style>
</head>
<body><main>
<p class="over">Anomaly report</p>
<h1>$name</h1>
<p class="lead">$lead</p>
<dl class="facts">$facts</dl>
$notes
<section><h2>Energies of all rows</h2>
<p class="text">$histogram_text</p>
<figure class="wide">$histogram</figure></section>
<section><h2>The $n_top rows with the highest energy</h2>
<p class="text">Bars show how much each column adds to the energy, relative to the
largest in the same card; contributions and the baseline $baseline sum to the
energy. Rows are counted from 0, the header not included.</p>
<div class="cards">
$cards
</div></section>
<section><h2>Calibration of the p-values</h2>
<div class="pair"><figure>$calibration</figure><div>
$calibration_text
<table><thead><tr><th scope="col"></th><th scope="col">rows found</th>
<th scope="col">expected by chance</th></tr></thead><tbody>$levels</tbody></table>
</div></div></section>
<section class="reading"><h2>How to read this</h2>
$reading</section>
</main></body>
</html>
""")
