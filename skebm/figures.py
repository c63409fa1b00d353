"""Figures of the report as inline SVG: plain text, no plotting library.

Colours come from the classes in the page's style sheet.
"""

import math

import numpy as np
from scipy.stats import beta

from skebm.reasons import number_text

_WIDTH, _HEIGHT = 1000, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 12, 34, 50
_SIDE = 420
_MAX_POINTS = 400


def histogram(energy, threshold):
    """Histogram of the energies, the ones above the threshold in the accent colour.

    Parameters
    ----------
    energy : ndarray of shape (n_samples,)
        Energies of the rows.
    threshold : float or None
        Where to draw the line; None draws none.

    Returns
    -------
    svg : str
        The figure.
    n_beyond : int
        How many rows lie beyond the end of the axis and are drawn in its last bar.
    """
    edges, n_beyond = _bins(energy, threshold)
    counts, _ = np.histogram(np.minimum(energy, edges[-1]), edges)
    x = _scale(edges[0], edges[-1], _LEFT, _WIDTH - _RIGHT)
    y = _scale(0, counts.max() * 1.05, _HEIGHT - _BOTTOM, _TOP)
    parts = [*_x_axis(x, edges[0], edges[-1]), *_y_axis(y, counts.max())]
    cut = math.inf if threshold is None else threshold
    for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True):
        if count:
            kind = "hot" if low > cut - 1e-9 * abs(cut) else "cool"
            top = min(y(count), y(0) - 2)
            box = _box(x(low) + 0.5, top, x(high) - x(low) - 1, y(0) - top)
            rows = "row" if count == 1 else "rows"
            title = f"{count} {rows}, energy {low:.3g} to {high:.3g}"
            parts.append(f'<rect class="{kind}" {box}><title>{title}</title></rect>')
    if threshold is not None:
        parts += _threshold_mark(x(threshold), threshold)
    if n_beyond:
        right = _WIDTH - _RIGHT
        parts.append(_text(right, _TOP - 12, f"{n_beyond} beyond the axis →", "end"))
    parts.append(_text((_LEFT + _WIDTH) / 2, _HEIGHT - 8, "energy", "middle"))
    parts.append(_text(8, _TOP - 12, "rows", "start"))
    label = "Histogram of the energies of all rows, with the threshold"
    return _svg(_WIDTH, _HEIGHT, label, parts), n_beyond


def calibration_plot(p_value):
    """Share of rows with a p-value of at most p, against p.

    Parameters
    ----------
    p_value : ndarray of shape (n_samples,)
        P-values of the rows.

    Returns
    -------
    str
        The figure: the curve, the diagonal and the band in which 95% of the points
        fall when every p-value is uniform.
    """
    n = len(p_value)
    rank = np.unique(np.linspace(1, n, min(n, _MAX_POINTS)).round().astype(int))
    x = _scale(0, 1, _LEFT, _SIDE - _RIGHT)
    y = _scale(0, 1, _SIDE - _BOTTOM, _RIGHT)
    low, high = beta.ppf([[0.025], [0.975]], rank, n + 1 - rank)
    ends = ([0.0], [1.0])
    band = _points(
        [*ends[0], *low, *ends[1], *high[::-1]],
        [*ends[0], *(rank / n), *ends[1], *(rank[::-1] / n)],
        x,
        y,
    )
    curve = _points(
        [0.0, *np.sort(p_value)[rank - 1], 1.0], [0.0, *(rank / n), 1.0], x, y
    )
    parts = [f'<polygon class="band" points="{band}"/>']
    for tick in (0, 0.25, 0.5, 0.75, 1):
        parts += [_grid_x(x(tick), y(0), y(1)), _grid_y(y(tick), x(0), x(1))]
        parts.append(_text(x(tick), y(0) + 20, f"{tick:g}", "middle"))
        parts.append(_text(x(0) - 8, y(tick) + 5, f"{tick:g}", "end"))
    diagonal = _points([0, 1], [0, 1], x, y)
    parts.append(f'<polyline class="diagonal" points="{diagonal}"/>')
    parts.append(f'<polyline class="curve" points="{curve}"/>')
    parts.append(_text((x(0) + x(1)) / 2, _SIDE - 8, "p", "middle"))
    label = "Share of rows with a p-value of at most p, against the diagonal"
    return _svg(_SIDE, _SIDE, label, parts)


def bar(value, largest):
    """Horizontal bar of one contribution.

    Parameters
    ----------
    value : float
        The contribution; a negative one is drawn in the neutral colour.
    largest : float
        The contribution that fills the width.

    Returns
    -------
    str
        The figure.
    """
    share = min(abs(value) / largest, 1.0) if largest > 0 else 0.0
    kind = "hot" if value > 0 else "cool"
    rect = f'<rect class="{kind}" {_box(0, 0, max(100 * share, 1), 10)} rx="1"/>'
    title = f"contribution {value:+.3g}"
    return (
        '<svg class="bar" role="img" viewBox="0 0 100 10" preserveAspectRatio="none">'
        f"<title>{title}</title>{rect}</svg>"
    )


def ticks(low, high, n=6):
    """Round numbers in a range.

    Parameters
    ----------
    low, high : float
        The range.
    n : int, default=6
        About how many numbers.

    Returns
    -------
    list of float
        Multiples of 1, 2 or 5 times a power of ten.

    Examples
    --------
    >>> from skebm.figures import ticks
    >>> ticks(-0.3, 4.1, 4)
    [0.0, 1.0, 2.0, 3.0, 4.0]
    """
    rough = (high - low) / n
    power = 10.0 ** math.floor(math.log10(rough))
    step = min((f * power for f in (1, 2, 5, 10)), key=lambda s: abs(s - rough))
    first, last = math.ceil(low / step), math.floor(high / step)
    return [float(f"{k * step:.12g}") for k in range(first, last + 1)]


def _bins(energy, threshold):
    """Edges of the bars, one of them the threshold, and the rows beyond the last."""
    low, q1, q3 = np.quantile(energy, [0, 0.25, 0.75])
    spread = max(q3 - q1, 1e-6 * max(abs(q3), 1.0))
    cap = max(q3 + 12 * spread, -math.inf if threshold is None else threshold + spread)
    high = min(float(energy.max()), cap)
    start = low if threshold is None else threshold
    high = max(high, start + 0.1 * spread)
    n_bars = int(np.clip(2 * math.sqrt(len(energy)), 10, 60))
    width = (high - low) / n_bars or spread / n_bars
    first = math.floor((low - start) / width)
    last = max(math.ceil((high - start) / width), first + 1)
    edges = start + width * np.arange(first, last + 1)
    return edges, int((energy > edges[-1]).sum())


def _threshold_mark(at, threshold):
    """Line and label of the threshold, the label on the side that has room."""
    on_left = at > 0.7 * _WIDTH
    shift, anchor = (-8, "end") if on_left else (8, "start")
    label = _text(
        at + shift, _TOP + 6, f"threshold {number_text(threshold)}", anchor, "mark"
    )
    y1, y2 = _TOP - 6, _HEIGHT - _BOTTOM
    line = f'<line class="cut" x1="{at:.1f}" x2="{at:.1f}" y1="{y1}" y2="{y2}"/>'
    return [line, label]


def _x_axis(x, low, high):
    """Ticks below the bars."""
    base = _HEIGHT - _BOTTOM
    parts = [_grid_y(base, _LEFT, _WIDTH - _RIGHT)]
    for tick in ticks(low, high, 8):
        parts.append(_text(x(tick), base + 20, f"{tick:g}", "middle"))
    return parts


def _y_axis(y, highest):
    """Grid lines and counts."""
    parts = []
    for tick in ticks(0, highest, 4):
        if tick == int(tick):
            parts.append(_grid_y(y(tick), _LEFT, _WIDTH - _RIGHT))
            parts.append(_text(_LEFT - 8, y(tick) + 5, f"{tick:g}", "end"))
    return parts


def _scale(low, high, start, end):
    """Map from data to pixels."""
    return lambda value: start + (value - low) / (high - low) * (end - start)


def _points(xs, ys, x, y):
    """Pixels of a line."""
    return " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in zip(xs, ys, strict=True))


def _box(left, top, width, height):
    """Attributes of a rectangle."""
    return f'x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{height:.1f}"'


def _grid_x(at, start, end):
    """Vertical grid line."""
    return f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{start}" y2="{end}"/>'


def _grid_y(at, start, end):
    """Horizontal grid line."""
    return f'<line class="grid" x1="{start}" x2="{end}" y1="{at:.1f}" y2="{at:.1f}"/>'


def _text(x, y, text, anchor, kind="tick"):
    """Label at a place."""
    at = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text class="{kind}" {at}>{text}</text>'


def _svg(width, height, label, parts):
    """Whole figure with its title."""
    return (
        f'<svg role="img" aria-label="{label}" viewBox="0 0 {width} {height}">'
        f"<title>{label}</title>{''.join(parts)}</svg>"
    )
