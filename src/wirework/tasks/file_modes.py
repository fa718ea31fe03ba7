"""Tasks on opening files. Source: Gao et al. 2025, Table 1."""

from random import Random

from wirework.tasks.snippets import FILE_NAMES, NAMES, code_before
from wirework.tasks.task import Pair

_READ_WRITE = (
    ("input", "output"),
    ("input", "output"),
    ("in", "out"),
    ("source", "result"),
    ("original", "copy"),
    ("old", "new"),
    ("template", "report"),
    ("read", "write"),
    ("load", "save"),
    ("raw", "processed"),
)
"""Words in file names that suggest reading, and writing."""

_NEUTRAL = tuple(name for name in NAMES if name not in FILE_NAMES)
"""Names that suggest neither reading nor writing."""

_ENDINGS = ("txt", "txt", "csv", "json", "log", "dat", "xml", "py")


def with_as(rng: Random) -> Pair:
    """Continue a `with` statement with ` as`, end an assignment with a line break.

    The prompts differ in the beginning of the statement. The call ends in a string: after it our
    tokenisers have the line break as a token of its own, whereas `)` after a name is one token with
    it. The pairs do not fit other tokenisers, such as the released one.
    """
    before, indent = code_before(rng)
    call, name = _closed_call(rng), rng.choice((*NAMES, "f", "fp", "handle", "stream"))
    head = f"{before}{indent}"
    return Pair((f"{head}with {call}", f"{head}{name} = {call}"), (" as", "\n"))


def with_open(rng: Random) -> Pair:
    """Open a file with the mode `r` or `w`, as its name suggests.

    The prompts differ in a word of the name. A space or `=` comes before the quote of the mode, so
    that the letter after the quote is a token of its own.
    """
    before, indent = code_before(rng)
    quote = rng.choice(("'", '"'))
    place = _file_place(rng, quote)
    mode = rng.choice((f", {quote}", f", {quote}", f", {quote}", f", mode={quote}"))
    head = f"{before}{indent}{rng.choice(('with ', 'with ', f'{rng.choice(_NEUTRAL)} = '))}open("
    read, write = rng.choice(_READ_WRITE)
    return Pair(
        (f"{head}{place.format(read)}{mode}", f"{head}{place.format(write)}{mode}"), ("r", "w")
    )


def _closed_call(rng: Random) -> str:
    """Return a call that opens a file and ends in a string."""
    quote = rng.choice(("'", '"'))
    mode = f"{quote}{rng.choice(('r', 'w', 'rb', 'wb', 'a'))}{quote}"
    name, other = rng.sample(NAMES, 2)
    file = f"{quote}{name}.{rng.choice(_ENDINGS)}{quote}"
    return rng.choice(
        (
            f"open({file})",
            f"open({file}, {mode})",
            f"open({name}, {mode})",
            f"open({name}.{other}, {mode})",
            f"open({name}_{other}, {mode})",
            f"codecs.open({name}, {mode})",
            f"{name}.open({mode})",
        )
    )


def _file_place(rng: Random, quote: str) -> str:
    """Return a quoted file name, or a variable, with `{}` in the place of the word that differs."""
    name, ending = rng.choice(_NEUTRAL), rng.choice(_ENDINGS)
    return rng.choice(
        (
            f"{quote}{{}}.{ending}{quote}",
            f"{quote}{{}}.{ending}{quote}",
            f"{quote}{{}}_{name}.{ending}{quote}",
            f"{quote}{name}_{{}}.{ending}{quote}",
            f"{quote}{name}/{{}}.{ending}{quote}",
            "{}_path",
            "{}_file",
            "{}_filename",
            "args.{}_path",
        )
    )
