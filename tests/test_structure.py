"""The walls of the house: imports, sizes, what is public and where it is shown."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
from numpydoc.docscrape import get_doc_object

import skebm
from skebm.base import BaseEBM
from skebm.estimators.rbm_kinds import KindRBM

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "skebm").rglob("*.py"))

# From the ground up: a room imports from rooms below it, and from its own files.
FLOORS = [
    ["exceptions", "_version"],
    ["_params"],
    ["_torch", "_graphs"],
    ["energies"],
    ["samplers"],
    ["partition"],
    ["objectives"],
    ["training"],
    ["trainer"],
    ["calibration", "explain", "metrics", "_check", "_labels", "table"],
    ["cells", "sentinels", "settings"],
    ["base", "columns"],
    ["estimators", "reasons"],
    ["__init__"],
    ["detection", "figures", "plots", "pyod"],
    ["report"],
    ["cli"],
    ["__main__"],
]
FLOOR = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}
ALONE = {"calibration", "explain"}
HEAVY = ["matplotlib", "pandas", "pyarrow", "pyod", "rich", "typer"]


def room_of(path: Path) -> str:
    parts = path.relative_to(ROOT / "skebm").with_suffix("").parts
    return parts[0]


def rooms_imported(source: str, package: list[str]) -> set[str]:
    """Return the rooms that a file in ``package`` (dotted parts) imports."""
    modules = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules += [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            head = package[: len(package) - node.level + 1] if node.level else []
            head += node.module.split(".") if node.module else []
            modules += [[*head, alias.name] for alias in node.names]
    ours = [module for module in modules if module[0] == "skebm"]
    return {m[1] if len(m) > 1 and m[1] in FLOOR else "__init__" for m in ours}


def floor_faults(path: Path) -> list[str]:
    room = room_of(path)
    package = ["skebm", *path.relative_to(ROOT / "skebm").parts[:-1]]
    others = rooms_imported(path.read_text(encoding="utf-8"), package) - {room}
    allowed = {r for r, floor in FLOOR.items() if floor < FLOOR[room]}
    if room in ALONE:
        allowed = {"exceptions"}
    return sorted(others - allowed)


def n_code_lines(source: str) -> int:
    """Return the lines that are no docstring, comment or blank."""
    in_docstrings = set()
    for node in ast.walk(ast.parse(source)):
        holds_one = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        if holds_one and ast.get_docstring(node, clean=False) is not None:
            text = node.body[0]
            in_docstrings |= set(range(text.lineno, text.end_lineno + 1))
    lines = enumerate(source.splitlines(), start=1)
    code = [
        n for n, line in lines if line.strip() and not line.lstrip().startswith("#")
    ]
    return len(set(code) - in_docstrings)


def test_code_lines_are_counted_without_docstrings():
    assert n_code_lines('"""One.\n\nTwo."""\n\nx = 1  # one\n# two\ny = 2\n') == 2


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_are_short(path):
    assert n_code_lines(path.read_text(encoding="utf-8")) <= 400


def test_import_is_light():
    """Measured beyond what scikit-learn's callbacks and torch bring themselves."""
    code = (
        "import sys, scipy.stats, sklearn.callback, torch; before = set(sys.modules);"
        f"import skebm; print(sorted(set({HEAVY}) & (set(sys.modules) - before)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def documented_names() -> list[str]:
    """Return the dotted names in the autosummary tables of docs/api.rst."""
    names, module, inside = [], "", False
    for line in (ROOT / "docs/api.rst").read_text(encoding="utf-8").splitlines():
        if line.startswith(".. currentmodule:: "):
            module = line.removeprefix(".. currentmodule:: ").strip()
        if line and not line.startswith(" "):
            inside = line.startswith(".. autosummary::")
        elif inside and re.fullmatch(r" +\w+", line):
            names.append(f"{module}.{line.strip()}")
    return names


def resolve(name: str) -> object:
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


@pytest.mark.parametrize(
    "module",
    [
        "skebm",
        "skebm.energies",
        "skebm.samplers",
        "skebm.objectives",
        "skebm.partition",
        "skebm.plots",
        "skebm.metrics",
        "skebm.calibration",
        "skebm.pyod",
    ],
)
def test_public_names_are_in_the_api_page(module):
    names = [name.rpartition(".") for name in documented_names()]
    listed = {attribute for home, _, attribute in names if home == module}
    assert public_names(module) == listed


def public_names(name: str) -> set[str]:
    """Return ``__all__``, or else what the module itself defines in public."""
    module = importlib.import_module(name)
    if hasattr(module, "__all__"):
        return set(module.__all__)
    own = {k for k, v in vars(module).items() if getattr(v, "__module__", "") == name}
    return {k for k in own if not k.startswith("_")}


@pytest.mark.parametrize("name", skebm.__all__)
def test_public_names_are_in_an_example(name):
    examples = sorted((ROOT / "examples").glob("plot_*.py"))
    texts = [path.read_text(encoding="utf-8") for path in examples]
    assert any(re.search(rf"\b{name}\b", text) for text in texts)


@pytest.mark.parametrize("name", skebm.__all__)
def test_public_names_construct_with_defaults(name):
    """A meta-estimator has one argument without a default, as VotingClassifier has."""
    public = getattr(skebm, name)
    needed = [
        p.name
        for p in inspect.signature(public).parameters.values()
        if p.default is p.empty
    ]
    assert needed in ([], ["estimators"])
    estimator = public(*([] for _ in needed))
    assert repr(estimator) == f"{name}({', '.join(f'{n}=[]' for n in needed)})"


@pytest.mark.parametrize("name", documented_names())
def test_documented_classes_have_an_example_and_a_reference(name):
    """A named tuple has neither: the function that returns it has."""
    thing = resolve(name)
    if not isinstance(thing, type) or issubclass(thing, tuple):
        return
    doc = get_doc_object(thing)
    n_sections = (thing.__doc__ or "").count("Examples\n    --------\n")
    # Energy shows how to write a subclass; other abstract classes need not.
    assert n_sections == 1 or (n_sections == 0 and inspect.isabstract(thing))
    assert doc["References"]


def test_readme_example_prints_what_it_says(capsys):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    code, output = re.search(
        r"```python\n(.*?)```\s+```text\n(.*?)```", text, re.DOTALL
    ).groups()
    assert len([line for line in code.splitlines() if line]) <= 12
    exec(compile(code, "README.md", "exec"), {"__name__": "readme"})
    assert capsys.readouterr().out == output


def test_bases_without_their_hooks_cannot_be_made():
    """An estimator that forgets a hook fails where it is made, not in ``fit``."""
    for base in (BaseEBM, KindRBM):
        with pytest.raises(TypeError, match="abstract"):
            base()
