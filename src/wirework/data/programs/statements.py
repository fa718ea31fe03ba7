"""Statements of the programs: productions of the grammar with their blocks."""

from wirework.data.programs.grammar import Line, Production, draw_line
from wirework.data.programs.scope import Scope
from wirework.data.programs.slots import BLOCK, STATEMENT, rules

_TRIES = 12
_MOST_BLOCKS = 2
"""Largest depth of blocks inside blocks of a function or program."""
_COMPOUND = 0.4
"""Share of statements that have a block."""


def block(scope: Scope, most: int) -> list[str]:
    """Return one to `most` statements, as lines."""
    lines: list[str] = []
    for _ in range(1 + int(most * scope.rng.random())):
        lines += statement(scope)
    return lines


def statement(scope: Scope) -> list[str]:
    """Return the lines of one statement, or of a few that belong together."""
    is_compound = scope.depth < _MOST_BLOCKS and scope.rng.random() < _COMPOUND
    return drawn(scope, "block_statement" if is_compound else "statement")


def drawn(scope: Scope, rule: str) -> list[str]:
    """Return the lines of a production of a rule that can be used here."""
    productions = rules()[rule].productions
    for _ in range(_TRIES):
        production = productions[int(len(productions) * scope.rng.random())]
        if (lines := _lines(production, scope)) is not None:
            return lines
    return [f"print({len(scope.taken)})"]


def _lines(production: Production, scope: Scope) -> list[str] | None:
    """Return the lines of a production, or None if a slot has no text here.

    The names of a line become visible after it: in its own block, or for a line that opens a block,
    inside that block.
    """
    if len(production) == 1:  # most productions: no blocks, and nothing to undo but this line
        return _single_line(production[0], scope)
    before = dict(scope.variables)
    scopes, labels, lines = [scope], dict[str, str](), list[str]()
    for line in production:
        inner = scopes[min(line.depth, len(scopes) - 1)]  # less inside a literal of several lines
        del scopes[line.depth + 1 :]
        text = draw_line(line, inner, labels)
        if text is None:
            scope.taken.difference_update([name for _, name in inner.pending])
            scope.restore(before)
            return None
        if text in (BLOCK, STATEMENT):
            most = 3 - min(inner.depth, 2) if text == BLOCK else 1
            text_lines = block(inner, most)
            lines += [line.indent + inner_line for inner_line in text_lines]
            continue
        lines.append(line.indent + text)
        target = inner
        if line.opens:
            keyword = text.split(" ", 1)[0]
            loop = keyword if keyword in ("for", "while") else None
            frozen = frozenset((*labels.values(), *inner.used)) if loop else frozenset[str]()
            target = inner.nested(loop, frozen)
            scopes.append(target)
        for kind, name in inner.pending:
            target.declare(kind, name)
        inner.pending.clear()
        inner.used.clear()
    return lines


def _single_line(line: Line, scope: Scope) -> list[str] | None:
    """Return the line of a production without blocks, or None if a slot has no text here."""
    text = draw_line(line, scope, {})
    if text is None:
        scope.taken.difference_update([name for _, name in scope.pending])
        scope.pending.clear()
        scope.used.clear()
        return None
    for kind, name in scope.pending:
        scope.declare(kind, name)
    scope.pending.clear()
    scope.used.clear()
    return [text]
