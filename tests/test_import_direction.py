"""A module imports only modules of its own package and of packages below it.

Imports inside functions and under `TYPE_CHECKING` count too.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "wirework"

ORDER = """
    __main__ cli menu commands help_pages
    demo demo_plan studies doctor
    measures
    bridges
    circuits
    circuits.pipeline
    circuits.reading
    circuits.validation
    circuits.adversarial
    circuits.pruning
    circuits.path_patching
    circuits.scoring
    circuits.loading
    circuits.node_assembly circuits.held_out
    circuits.node_circuit
    circuits.masking
    circuits.calibration circuits.circuit circuits.circuit_views
    view
    interop
    training
    tasks
    model model_tensors
    nn
    data
    circuit_format
    config
    user_code tensor_files json_lines fastest memory parallel foreign
    renamed_flags renamed_names
    files locks leftovers file_system console live_bars signals summaries picture
    errors node_names partial_names redaction threads malloc block_pool cache_folder
""".strip().splitlines()
"""Packages and modules from top to bottom; those of one line may import each other."""

LEVELS = {name: level for level, line in enumerate(ORDER) for name in line.split()}
FILES = {
    ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(SOURCE.rglob("*.py"))
    if path != SOURCE / "__init__.py"
}


def imported(path: Path) -> Iterator[str]:
    """Yield the modules of wirework that a file imports, without the leading `wirework.`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            name = name.removeprefix("wirework.") if name.startswith("wirework.") else ""
            yield name if name in FILES else name.rpartition(".")[0]


def level(module: str) -> int:
    """Return the line of `ORDER` that a module, or the nearest package around it, is in."""
    while module not in LEVELS:
        assert "." in module, f"{module} has no place in ORDER: add it"
        module = module.rpartition(".")[0]
    return LEVELS[module]


def upward() -> set[tuple[str, str]]:
    """Return the imports that go up: (from, to)."""
    pairs = {(module, name) for module, path in FILES.items() for name in imported(path) if name}
    return {(module, name) for module, name in pairs if level(name) < level(module)}


def test_imports_go_down() -> None:
    assert upward() == set()


@pytest.mark.parametrize("package", ["view", "circuit_format", "config"])
def test_package_imports_no_torch(package: str) -> None:
    for path in (SOURCE / package).rglob("*.py"):
        roots = {
            name.partition(".")[0]
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            for name in (
                [node.module or ""] if isinstance(node, ast.ImportFrom) else
                [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            )
        }  # fmt: skip
        assert "torch" not in roots, path


def test_no_import_is_relative() -> None:
    for path in FILES.values():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            assert not (isinstance(node, ast.ImportFrom) and node.level), path
