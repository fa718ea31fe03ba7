"""The names that are visible at a place of a program, by the type of their value."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple


class Signature(NamedTuple):
    """A function that later code may call."""

    name: str
    parameters: tuple[str, ...]
    """Types of the arguments that a call gives."""
    returns: str | None
    """Type of the result; None for a procedure."""


class Style(NamedTuple):
    """Habits of the author of one program."""

    double_quotes: float
    """Share of strings in double quotes."""
    annotated: bool
    """Whether parameters have type annotations."""
    docstrings: float
    """Share of functions with a docstring."""


@dataclass(slots=True)
class Scope:
    """Visible names of one block. A nested block sees them; its own names end with it."""

    rng: Random
    style: Style
    variables: dict[str, tuple[str, ...]]
    """Type to the names of the variables of this type."""
    imports: set[str]
    """Modules that the program uses; shared by all scopes of a program."""
    functions: list[Signature]
    """Functions defined so far; shared by all scopes of a program."""
    frozen: frozenset[str] = frozenset()
    """Variables that control a loop or condition and are not changed in its block."""
    depth: int = 0
    """Number of blocks around this one."""
    expression_depth: int = 0
    loop: str | None = None
    """`for` or `while`, the innermost loop; None outside loops."""
    taken: set[str] = field(default_factory=set)
    """Names that are in use, which no new variable gets."""
    pending: list[tuple[str, str]] = field(default_factory=list)
    """(type, name) of the new variables of the line that is being drawn."""
    used: list[str] = field(default_factory=list)
    """Variables that the line reads or changes."""

    def nested(self, loop: str | None, frozen: frozenset[str]) -> "Scope":
        """Return the scope of a block inside this one."""
        return Scope(
            rng=self.rng,
            style=self.style,
            variables=self.variables.copy(),
            imports=self.imports,
            functions=self.functions,
            frozen=self.frozen | frozen,
            depth=self.depth + 1,
            loop=loop or self.loop,
            taken=self.taken.copy(),
        )

    def fresh(self) -> "Scope":
        """Return the scope of a function's body: it sees no variables of the program."""
        return Scope(
            rng=self.rng,
            style=self.style,
            variables={},
            imports=self.imports,
            functions=self.functions,
            taken={signature.name for signature in self.functions},
        )

    def declare(self, kind: str, name: str) -> None:
        """Make a new variable visible."""
        self.variables[kind] = (*self.variables.get(kind, ()), name)
        self.taken.add(name)

    def restore(self, variables: Mapping[str, tuple[str, ...]]) -> None:
        """Undo all declarations since a moment, of a production that cannot be used.

        Args:
            variables: a copy of `variables` of that moment.
        """
        for kind, names in self.variables.items():
            self.taken.difference_update(names[len(variables.get(kind, ())) :])
        self.variables = dict(variables)
        self.pending.clear()
        self.used.clear()

    def hide(self, kind: str, name: str) -> None:
        """Make a visible variable of a type invisible; its name stays in use."""
        names = self.variables[kind]
        i = names.index(name)
        self.variables[kind] = names[:i] + names[i + 1 :]

    def variable(self, kind: str, *, changed: bool, other_than: Collection[str]) -> str | None:
        """Return a variable of a type, recent ones more often; None if there is none.

        Args:
            kind: the type.
            changed: whether its value is changed, which excludes frozen variables.
            other_than: names that are not returned.
        """
        names = self.variables.get(kind)
        if not names:
            return None
        random = self.rng.random
        for _ in range(3):
            name = names[-1 - int(len(names) * random() ** 1.5)]
            if name not in other_than and not (changed and name in self.frozen):
                self.used.append(name)
                return name
        return None
