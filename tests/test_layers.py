"""The house stands: each layer imports only layers below it."""

import ast
from pathlib import Path

import pytest

import cryohydra

PACKAGE = Path(cryohydra.__file__).parent

LAYERS = (
    {"cli"},
    {"config"},
    {"explorer"},
    {"training", "analysis"},
    {"inference"},
    {"model"},
    {"data", "fields"},
    {"physics"},
    {"fourier"},
    {"geometry"},
    {"io"},
    {"_typing", "_registry", "_device", "errors"},
)
"""From the top; parts of one layer do not import each other."""

FLOOR = {part: number for number, parts in enumerate(reversed(LAYERS)) for part in parts}
ENTRANCES = {"__init__", "__main__"}


def part_of(module: Path) -> str:
    """The folder, or the single file, directly inside the package."""
    return module.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_parts(module: Path) -> set[str]:
    """Parts of the package that a module names in any import, also inside functions and type checks."""
    parts = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports by relative path; write cryohydra.<part>"
            if node.module == "cryohydra":
                parts |= {name.name for name in node.names if name.name in FLOOR}
            elif node.module and node.module.startswith("cryohydra."):
                parts.add(node.module.split(".")[1])
        if isinstance(node, ast.Import):
            parts |= {name.name.split(".")[1] for name in node.names if name.name.startswith("cryohydra.")}
    return parts


MODULES = sorted(path for path in PACKAGE.rglob("*.py") if part_of(path) not in ENTRANCES)


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_only_layers_below(module: Path) -> None:
    own = part_of(module)
    assert own in FLOOR, f"{own} has no place in the house; give it a line in LAYERS"
    higher = {part for part in imported_parts(module) - {own} if FLOOR[part] >= FLOOR[own]}
    peers_of_the_ground = LAYERS[-1] if own in LAYERS[-1] else set()
    assert not higher - peers_of_the_ground


def test_only_the_command_line_prints() -> None:
    def prints(module: Path) -> bool:
        calls = (node.func for node in ast.walk(ast.parse(module.read_text())) if isinstance(node, ast.Call))
        return any(isinstance(called, ast.Name) and called.id in {"print", "input"} for called in calls)

    assert [str(module) for module in MODULES if part_of(module) != "cli" and prints(module)] == []


def test_modules_use_annotations_that_can_be_checked() -> None:
    """Postponed annotations would hide shapes from the checker."""
    assert [str(m) for m in MODULES if "from __future__ import annotations" in m.read_text()] == []
