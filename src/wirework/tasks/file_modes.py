"""Tasks on opening files. Source: Gao et al. 2025, Table 1."""

from random import Random

from wirework.tasks.snippets import FILE_NAMES, NAMES, code_before, evened
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


_CALLS = (
    "open({file})",
    "open({file}, {mode})",
    "open({name}, {mode})",
    "open({name}.{other}, {mode})",
    "open({name}_{other}, {mode})",
    "codecs.open({name}, {mode})",
    "{name}.open({mode})",
)
"""Calls that open a file and end in a string."""

_PLACES = (
    "{quote}{word}.{ending}{quote}",
    "{quote}{word}.{ending}{quote}",
    "{quote}{word}_{name}.{ending}{quote}",
    "{quote}{name}_{word}.{ending}{quote}",
    "{quote}{name}/{word}.{ending}{quote}",
    "{word}_path",
    "{word}_file",
    "{word}_filename",
    "args.{word}_path",
)
"""File names in quotes, or variables, with the word that differs."""


def with_as(rng: Random) -> Pair:
    """Continue a `with` statement with ` as`, end an assignment with a line break.

    The prompts differ in the beginning of the statement. The call ends in a string: after it our
    tokenisers have the line break as a token of its own, whereas `)` after a name is one token with
    it. The pairs do not fit other tokenisers, such as the released one.
    """
    context, form = code_before(rng), rng.choice(_CALLS)
    quote = rng.choice(("'", '"'))
    name, other = rng.sample(NAMES, 2)
    call = form.format(
        file=f"{quote}{name}.{rng.choice(_ENDINGS)}{quote}",
        mode=f"{quote}{rng.choice(('r', 'w', 'rb', 'wb', 'a'))}{quote}",
        name=name,
        other=other,
    )
    variable = rng.choice((*NAMES, "f", "fp", "handle", "stream"))
    head = f"{context.text}{context.indent}"
    prompts = evened(rng, f"{head}with {call}", f"{head}{variable} = {call}")
    return Pair(prompts, (" as", "\n"), form)


def with_open(rng: Random) -> Pair:
    """Open a file with the mode `r` or `w`, as its name suggests.

    The prompts differ in a word of the name. A space or `=` comes before the quote of the mode, so
    that the letter after the quote is a token of its own.
    """
    context, form = code_before(rng), rng.choice(_PLACES)
    quote = rng.choice(("'", '"'))
    name, ending = rng.choice(_NEUTRAL), rng.choice(_ENDINGS)
    mode = rng.choice((f", {quote}", f", {quote}", f", {quote}", f", mode={quote}"))
    statement = rng.choice(("with ", "with ", f"{rng.choice(_NEUTRAL)} = "))
    head = f"{context.text}{context.indent}{statement}open("
    read, write = (
        head + form.format(quote=quote, word=word, name=name, ending=ending) + mode
        for word in rng.choice(_READ_WRITE)
    )
    return Pair((read, write), ("r", "w"), form)
