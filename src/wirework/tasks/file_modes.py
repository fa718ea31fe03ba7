"""Opening files (Table 1)."""

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
"""Words of a file's name that tell what it is opened for."""

_NEUTRAL = tuple(name for name in NAMES if name not in FILE_NAMES)
"""Names that tell nothing of a file."""

_ENDINGS = ("txt", "txt", "csv", "json", "log", "dat", "xml", "py")


def with_as(rng: Random) -> Pair:
    """Name the file with ` as` in a with statement, end the line of an assignment.

    The prompts are equal but for the beginning of the statement. The call ends in a string: there
    our tokenisers cut off the line break, where `)` behind a name is one token with it. To others,
    the released one among them, these pairs do not fit.
    """
    before, indent = code_before(rng)
    call, name = _closed_call(rng), rng.choice((*NAMES, "f", "fp", "handle", "stream"))
    head = f"{before}{indent}"
    return Pair((f"{head}with {call}", f"{head}{name} = {call}"), (" as", "\n"))


def with_open(rng: Random) -> Pair:
    """Open a file with the mode `r` or `w`, by what its name suggests.

    The prompts are equal but for a word of the name. A space or `=` stands before the mode's quote:
    there the quote is cut off from the letter, which is a token of its own.
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
    """Return a file's name in quotes, or a variable for it, with `{}` for the telling word."""
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
