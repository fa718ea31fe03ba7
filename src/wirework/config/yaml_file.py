"""YAML files of settings, read in bounded time and memory.

An alias repeats the content of its anchor, so a few lines can expand to more values than fit in
memory, or contain themselves. Before values are built, the nodes are counted with every alias
expanded.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from wirework.errors import InputError, quoted, translated_errors
from wirework.files import read_whole

if TYPE_CHECKING:
    from yaml.nodes import MappingNode, Node, ScalarNode

_BYTES = 1 << 19
"""Maximum size of a file: about a hundred times that of a file with all settings."""
_NODES = 50_000
"""Maximum number of names and values, with every alias expanded."""
_DEPTH = 40
_DIGITS = 400
"""Maximum characters of a number; the longest float needs some 310 digits."""


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML file of settings.

    Raises:
        InputError: the file is missing, too large, not YAML or not a mapping of names to values, or
            a name occurs twice.
    """
    import yaml

    text = read_whole(Path(path), _BYTES)
    with translated_errors(f"{path} is not YAML"):
        try:
            node = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark
            where = "" if mark is None else f", line {mark.line + 1}, column {mark.column + 1}"
            words = " ".join(part for part in (error.context, error.problem) if part)
            raise InputError(f"{path} is not YAML: {words}{where}") from error
    if node is None:
        return {}
    _size(node, str(path), {}, 0)
    with translated_errors(f"{path} is not YAML"):
        values = yaml.SafeLoader("").construct_document(node)
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected settings (name: value), got {type(values).__name__}")
    return {str(name): value for name, value in values.items()}


def _size(node: Node, where: str, sizes: dict[int, int], depth: int) -> int:
    """Return the number of nodes below one, with aliases expanded.

    Args:
        node: the node.
        where: the file, for messages.
        sizes: sizes of counted nodes by their `id`; 0 for a node that is being counted.
        depth: depth of the node.

    Raises:
        InputError: there are too many nodes or levels, a node contains itself, a name occurs twice,
            or a number has too many digits.
    """
    import yaml

    if id(node) in sizes:
        if not sizes[id(node)]:
            raise InputError(f"{where}: a value holds itself (line {node.start_mark.line + 1})")
        return sizes[id(node)]
    if depth > _DEPTH:
        raise InputError(f"{where}: values are nested more than {_DEPTH} deep")
    sizes[id(node)] = 0
    size = 1
    if isinstance(node, yaml.ScalarNode):
        _check_number(node, where)
    elif isinstance(node, yaml.SequenceNode):
        size += sum(_size(one, where, sizes, depth + 1) for one in node.value)
    elif isinstance(node, yaml.MappingNode):
        _check_names(node, where)
        size += sum(_size(one, where, sizes, depth + 1) for pair in node.value for one in pair)
    if size > _NODES:
        raise InputError(f"{where}: more than {_NODES:,} values, those behind aliases counted too")
    sizes[id(node)] = size
    return size


def _check_names(node: MappingNode, where: str) -> None:
    """Refuse a name that occurs twice: YAML would silently use the last value."""
    named: set[str] = set()
    for name, _ in node.value:
        if not isinstance(name.value, str):
            continue
        if name.value in named:
            line = name.start_mark.line + 1
            raise InputError(f"{where}, line {line}: {quoted(name.value)} is given twice")
        named.add(name.value)


def _check_number(node: ScalarNode, where: str) -> None:
    if node.tag.endswith((":int", ":float")) and len(node.value) > _DIGITS:
        line = node.start_mark.line + 1
        raise InputError(f"{where}, line {line}: too long for a number: {quoted(node.value)}")
