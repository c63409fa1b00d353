"""The command line: ``skebm detect TABLE`` finds the anomalies in a table."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Annotated

try:
    import rich
    import typer
    from rich.console import Console
    from rich.progress import track as rich_track
except ModuleNotFoundError:
    typer = None  # type: ignore[assignment]

N_SHOWN = 5


def main(arguments=None):
    """Run the command line.

    Parameters
    ----------
    arguments : list of str or None, default=None
        The arguments; None means those of the process.

    Returns
    -------
    int
        The exit code: 0, 2 for a wrong argument or table, 130 after Ctrl-C.
    """
    if typer is None:
        return _fail('the command line needs its extra: pip install "skebm[cli]"')
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        app = _build_app()
        code = app(arguments or ["--help"], prog_name="skebm", standalone_mode=False)
    except (typer.Abort, KeyboardInterrupt):
        return _fail("interrupted", code=130)
    except Exception as error:
        if not isinstance(error, _expected_errors()):
            raise
        return _fail(_message(error))
    return code or 0


def _build_app():
    """Make the typer application."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.callback()(_root)
    app.command("detect")(detect)
    return app


def _expected_errors():
    """Types of the errors that a user can mend: usage, table, file."""
    from skebm.exceptions import SkebmError

    usage_error = typer.BadParameter.__base__
    return usage_error, SkebmError, OSError


def _message(error):
    """One line from an error."""
    if hasattr(error, "format_message"):
        return error.format_message()
    return str(error)


def _fail(message, code=2):
    """Print one line on stderr and return the exit code."""
    print(f"skebm: {' '.join(message.split())}", file=sys.stderr)
    return code


def _print_version(wanted: bool):
    """Print the version and leave."""
    if wanted:
        from skebm import __version__

        print(f"skebm {__version__}")
        raise typer.Exit


def _root(
    show_version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_print_version,
            is_eager=True,
            help="Print the version.",
        ),
    ] = False,
):
    """Energy-based models for tables."""


def detect(
    table: Annotated[Path, typer.Argument(help="A .csv or .parquet file.")],
    ignore: Annotated[
        list[str] | None,
        typer.Option(help="A column that the energy does not see; repeat for more."),
    ] = None,
    clean: Annotated[
        Path | None,
        typer.Option(help="Ordinary rows to learn from: .csv or .parquet."),
    ] = None,
    novelty: Annotated[
        bool, typer.Option("--novelty", help="Take all rows to be ordinary.")
    ] = False,
    contamination: Annotated[
        float | None,
        typer.Option(
            help="Share of rows to flag, in (0, 0.5]; of the clean rows with --clean."
        ),
    ] = None,
    fdr: Annotated[
        float | None,
        typer.Option(
            help="Expected share of false alarms among the flagged rows; needs --clean."
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Write the scored table: .csv or .parquet.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Write a report: one .html file.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the detector.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
):
    """Find the anomalies in a table, with calibrated p-values and reasons."""
    # Imported here so that --help and a wrong option need not wait for torch.
    from skebm.report import write_report
    from skebm.settings import Settings
    from skebm.table import read_table, write_table

    settings = Settings(
        ignore=tuple(ignore or ()),
        novelty=novelty,
        contamination=contamination,
        fdr=fdr,
        seed=seed,
        device=device,
        clean=clean is not None,
    )
    settings.check()
    _check_outputs(table, clean, output, report)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = _run(
            read_table(table),
            settings,
            clean=None if clean is None else read_table(clean),
            explain_flagged=output is not None,
        )
    notes = found.notes() + _warning_texts(caught)
    if output:
        write_table(found.scored(), output)
    if report:
        write_report(found, report, name=table.name, notes=notes)
    _print_summary(found, table.name, notes)
    _print_files(output, report)


def _check_outputs(table, clean, output, report):
    """Refuse output files that cannot be written, before any work."""
    from skebm.table import InputError, check_output

    if output:
        check_output(output)
        for path in (table, clean):
            if path and output.resolve() == path.resolve():
                raise InputError(f"--output would replace {path}; choose another name")
    if report:
        check_output(report, (".html", ".htm"))


def _run(table, settings, **options):
    """Detect, with progress on stderr where that is a terminal."""
    from sklearn.callback import ProgressBar

    from skebm.detection import detect as detect_anomalies

    if not sys.stderr.isatty():
        return detect_anomalies(table, settings, **options)
    # Scikit-learn's progress bar draws on rich's global console.
    rich.reconfigure(stderr=True)
    console = Console(stderr=True)
    return detect_anomalies(
        table,
        settings,
        **options,
        callbacks=[ProgressBar()],
        track=lambda items, label: rich_track(items, label, console=console),
    )


def _warning_texts(caught):
    """Texts of warnings for the user, each once; not those for developers."""
    silent = (DeprecationWarning, PendingDeprecationWarning, FutureWarning)
    texts = [str(w.message) for w in caught if not issubclass(w.category, silent)]
    return [" ".join(text.split()) for text in dict.fromkeys(texts)]


def _print_summary(found, name, notes):
    """Print what was found."""
    n_rows, n_flagged = len(found.table), int(found.is_outlier.sum())
    print(f"{name}: {n_rows:,} rows, {len(found.columns)} columns used")
    if found.settings.clean:
        print(f"learned from: {found.n_clean:,} clean rows")
    for note in notes:
        print(f"note: {note}")
    print(f"rule: {found.rule()}")
    if found.threshold is not None:
        print(f"threshold: energy {found.threshold:.4g}")
    print(f"flagged: {n_flagged:,} of {n_rows:,} rows ({n_flagged / n_rows:.1%})")
    top = found.top(N_SHOWN)
    labels = [found.label(row) for row in top]
    width = max(len("row"), *map(len, labels))
    print(f"\nhighest energy\n  {'row':>{width}}  {'p-value':>8}  reason")
    for row, label in zip(top, labels, strict=True):
        print(f"  {label:>{width}}  {found.p_value[row]:8.2g}  {found.reason(row)}")


def _print_files(output, report):
    """Print the files that were written, and how to get the others."""
    print()
    for path in (output, report):
        if path:
            print(f"wrote {path}")
    if not output:
        print("for the scores of all rows, add --output scored.csv")
    if not report:
        print("for a report with figures, add --report anomalies.html")
