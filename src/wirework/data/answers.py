"""The answers of the tasks, each with a prompt after which it is one token.

The tokeniser is trained so that every text here is a single token in its context, because the
tasks compare the probabilities of two next tokens (Gao et al. 2025, Table 1). A prompt must end
where the split pattern ends a piece. Otherwise the answer is merged with the end of the prompt:
`x = {1` and `:` are two pieces, but `"` and `:` after `x = {"a` are one (`":`).
"""

from functools import cache
from typing import Literal, NamedTuple

from wirework.config import DataConfig
from wirework.config.data import HUB
from wirework.data import stories
from wirework.data.corpora import corpus_files
from wirework.user_code import is_function

TASKS_OF_CORPUS: dict[str, Literal["python", "stories"]] = {
    "python": "python",
    "programs": "python",
    "wirework.tasks:practice_texts": "python",
    "stories": "stories",
    "wirework.tasks:ioi_practice_texts": "stories",
}
"""Name of a built-in corpus to the tasks that its text teaches."""


class Answer(NamedTuple):
    """One answer of one task: `text` is one token right after `prompt`."""

    task: str
    """Name of the task, as in Table 1."""
    prompt: str
    """A prompt of the task, for which `text` is the right answer."""
    text: str
    """The answer."""


def _class_init(name: str) -> Answer:
    head = f"class Item:\n    def __init__(self, {name}):\n"
    return Answer("class_init", f"{head}        self.{name} =", f" {name}")


ANSWERS: tuple[Answer, ...] = (
    Answer("single_double_quote", "print('hello", "')"),
    Answer("single_double_quote", 'print("hello', '")'),
    Answer("bracket_counting", "values = [1, 2", "]"),
    Answer("bracket_counting", "values = [[1, 2], [3, 4", "]]"),
    Answer("bracket_counting", "values = [1, 2", "]\n"),
    Answer("bracket_counting", "values = [[1, 2], [3, 4", "]]\n"),
    Answer("set_or_string", "seen = set()\nfor x in data:\n    seen", ".add"),
    Answer("set_or_string", 'text = ""\nfor x in data:\n    text', " +="),
    Answer("set_or_string_fixedvarname", "current = set()\nfor x in data:\n    current", ".add"),
    Answer("set_or_string_fixedvarname", 'current = ""\nfor x in data:\n    current', " +="),
    Answer("final_kwarg", "def run(a=None, b=None, c", "=None"),
    Answer("final_kwarg", "def run(a, b, c", "):"),
    Answer("final_kwarg", "def run(a, b, c", "):\n"),
    *map(_class_init, ("name", "value", "path", "data", "size", "key", "type", "index")),
    Answer("with_as", 'with open("input.txt")', " as"),
    Answer("with_as", 'file = open("input.txt")', "\n"),
    Answer("bracket_brace", "table = {1", ":"),
    Answer("bracket_brace", "table = [1", ","),
    Answer("with_open", 'with open("input.txt", "', "r"),
    Answer("with_open", 'with open("output.txt", "', "w"),
    Answer("for_while", "for x", " in"),
    Answer("for_while", "while x", ":"),
    Answer("for_while", "while x", ":\n"),
    Answer("else_elif", "if x:\n    y = 1\nelse", ":"),
    Answer("else_elif", "if x:\n    y = 1\nelse", ":\n"),
    Answer("else_elif", "if x:\n    y = 1\nelif", " x"),
    Answer("fstring_brace", 'print(f"hello', " {"),
    Answer("fstring_brace", 'print("hello', '",'),
    Answer("if_ternary", "if x", ":"),
    Answer("if_ternary", "if x", ":\n"),
    Answer("if_ternary", "y = 1 if x", " else"),
    Answer("var_swap", "x, y = y,", " x"),
    Answer("var_swap", "y, x = x,", " y"),
    # One space less than the indentation: the split pattern joins the last one to the next word.
    Answer("indent_for", "for x in data:\n", "   "),
    Answer("indent_for", "    for x in data:\n", "       "),
    Answer("lambda_func", "key = lambda x", ":"),
    Answer("lambda_func", "def key", "("),
    Answer("if_equals", "if x", " =="),
    Answer("if_equals", "x", " ="),
    Answer("enumerate_range", "for i, x in", " enumerate"),
    Answer("enumerate_range", "for i in", " range"),
    Answer("var_if", "if done is True", ":\n"),
    Answer("var_if", "done = True", "\n"),
    Answer("while_return_true", "while True", ":"),
    Answer("while_return_true", "while True", ":\n"),
    Answer("while_return_true", "    return True", "\n"),
)
"""Every answer of the 20 tasks of Table 1 with one example prompt. Answers that usually end a line
of code are listed with their line break too."""


@cache
def story_answers() -> tuple[Answer, ...]:
    """Return the names, gifts and places of `ioi`, each in a context that occurs in stories.

    Gifts and places are not answers, but `ioi` needs them as single tokens too.
    """
    words = stories.ioi_words()
    scene = "When Tom and Lily were at the"
    return (
        *(Answer("ioi", f"{scene} park, someone gave a ball to", f" {x}") for x in words.names),
        *(Answer("ioi", f"{scene} park, Tom gave a", f" {gift}") for gift in words.gifts),
        *(Answer("ioi", scene, f" {place}") for place in words.places),
    )


def answers_for(config: DataConfig) -> tuple[Answer, ...]:
    """Return the answers that must be single tokens in the tokeniser of a corpus.

    Args:
        config: settings of the corpus; `answers` says for which tasks.
    """
    tasks = _tasks_of(config) if config.answers == "auto" else config.answers
    return {"python": ANSWERS, "stories": story_answers(), "none": ()}[tasks]


def answers_before_records(config: DataConfig) -> DataConfig:
    """Return the settings with the meaning of `answers: auto` in versions without `data.json`."""
    if config.answers != "auto":
        return config
    return config.model_copy(
        update={"answers": "stories" if config.corpus == "stories" else "python"}
    )


def _tasks_of(config: DataConfig) -> Literal["python", "stories", "none"]:
    """Return the tasks that a corpus teaches, or else those that its mix teaches."""
    for corpus in (config.corpus, config.mix):
        if corpus in TASKS_OF_CORPUS:
            return TASKS_OF_CORPUS[corpus]
        if corpus is not None and _is_python(corpus):
            return "python"
    return "none"


def _is_python(corpus: str) -> bool:
    """Return whether at least half of the files of a corpus are Python source."""
    if corpus.startswith(HUB) or is_function(corpus):
        return False
    files = corpus_files(corpus) or []
    return 2 * sum(path.suffix == ".py" for path in files) >= max(len(files), 1)
