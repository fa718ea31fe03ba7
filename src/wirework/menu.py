"""The verbs of the `wirework` command, their help, and the settings file.

Flags override a YAML file (`--config`), which overrides defaults. Results go to standard output,
progress to standard error. A verb's module is imported only when the verb is run, so that
`wirework --help` is fast.
"""

import os
import re
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import cyclopts
from cyclopts import App, Parameter

from wirework import __version__
from wirework.errors import InputError, has_no_folder, nearest, quoted
from wirework.locks import NO_LOCK
from wirework.renamed_flags import with_new_flags, with_new_names

if TYPE_CHECKING:
    from wirework.config import Config

HELP_ALL = "--help-all"
"""Flag that shows the help text with all settings; `--help` shows the basic ones."""
_RECIPES = Path(__file__).parent / "recipes"
SHIPPED = {
    "study ablations": _RECIPES / "ablations.yaml",
    "study frontier": _RECIPES / "frontier.yaml",
    "study self-ablation": _RECIPES / "self_ablation.yaml",
}
"""Verbs whose default settings are a recipe, which is used without `--config`."""

# Description and example of each command; its arguments are those of its function in `commands/`.
MENU = {
    "acdc": (
        "Find the links between heads and MLPs that TASK needs in MODEL (Conmy et al. 2023).\n\n"
        "Several values of --tau make a sweep. KL and losses are in nats.",
        "runs/demo single_double_quote --tau 0.01 --out circuits/quote-paths",
    ),
    "attack": (
        "Find inputs on which a circuit's whole model fails, by reading the circuit (Gao et al. "
        "2025, Fig. 8).",
        "circuits/quote --out attacks/quote",
    ),
    "attribute": (
        "Rank the links between heads and MLPs that TASK needs in MODEL by gradients (edge "
        "attribution, Syed et al. 2023).\n\n"
        "Faster than acdc, but an estimate. In Python: `ww.edge_attribution`; `ww.attribute` "
        "scores nodes.",
        "runs/demo single_double_quote --out circuits/quote-edges",
    ),
    "bridge": (
        "Train a weight-sparse transformer beside a frozen dense one, with bridges between their "
        "residual streams (Gao et al. 2025, sec. 2.3, App. A.3).\n\n"
        "Both models have the same number of layers; the tokeniser is that of DENSE.",
        "runs/dense --config recipes/bridge.yaml",
    ),
    "convert huggingface": (
        "Convert a GPT-2 or GPT-Neo of Hugging Face (extra `hub`).",
        "roneneldan/TinyStories-1M models/stories1m",
    ),
    "convert interpbench": (
        "Convert the model of an InterpBench case (`ll_model.pth`, `ll_model_cfg.pkl`, "
        "`edges.pkl`; Gupta et al. 2024).\n\nIn Python `ww.interop.load_interpbench` gives its "
        "circuit too.",
        "interpbench/3 models/case3",
    ),
    "convert openai": (
        "Convert a released weight-sparse model (`beeg_config.json`, `final_model.pt`; or as on "
        "the hub).",
        "csp_yolo1 models/yolo1",
    ),
    "convert self-ablating": (
        "Convert a released self-ablating model, with its gates (`*.pt`, `config.json` or "
        "`config.yaml`).",
        "local_k4 models/local_k4",
    ),
    "convert to-huggingface": (
        "Convert a model of GPT-Neo's parts for transformers (extra `hub`).",
        "runs/stories stories-neo",
    ),
    "demo": (
        "Go from the Python source on this machine to a circuit and its page, in under 10 minutes."
        "\n\nOn a slow machine the models train for fewer steps; --minutes gives more time. The "
        "same command resumes a stopped demo with its number of steps.",
        "--out runs --json",
    ),
    "doctor": (
        "Show the machine's hardware and what wirework uses of it, and time precisions and "
        "libraries.",
        "",
    ),
    "explain": (
        "Explain neurons of MODEL and score the explanations on held-out text (Bills et al. 2023; "
        "by patterns, with no language model: Foote et al. 2023)."
        "\n\nThe same command resumes a stopped run.",
        "runs/demo --out explained/demo",
    ),
    "explain-circuit": (
        "Explain a circuit in words, and test each sentence by patching on held-out pairs (Gao et "
        "al. 2025, sec. 4).\n\n"
        "A sentence whose experiment fails is printed as refused.",
        "circuits/quote --out explained/quote",
    ),
    "export": (
        "Write a circuit, or explained neurons, as one HTML page that works offline.",
        "circuits/quote -o quote.html",
    ),
    "measure": (
        "Compare models: perplexity, path edges, autoencoders, explanations, weights, gates "
        "(Ferrao et al. 2025).",
        "runs/plain runs/local4 --out measures",
    ),
    "prune": (
        "Find the smallest circuit of MODEL for TASK (Gao et al. 2025, App. A.5).",
        "runs/demo single_double_quote --out circuits/quote",
    ),
    "sae": (
        "Train a sparse autoencoder on a site of MODEL with sae-lens and measure it (Ferrao et al. "
        "2025).\n\nLosses are in nats per token.",
        "runs/demo --site 1.mlp.resid_delta --out saes/demo",
    ),
    "study binarise": (
        "Binarise circuits of several models and draw the mean task loss against their total "
        "parameters and L0 (Gao et al. 2025, App. C, Fig. 34).\n\n"
        "The same command resumes a stopped study.",
        "circuits/small circuits/large --out studies/binarise",
    ),
    "steer": (
        "Steer the dense model of a bridged run by nodes of a circuit of its sparse model (Gao et "
        "al. 2025, sec. 2.3, Fig. 9).",
        "runs/bridge circuits/quote --out steering/quote",
    ),
    "study ablations": (
        "Change one training choice at a time and compare held-out loss and circuit size (Gao et "
        "al. 2025, App. A, Figs. 13 to 30)."
        "\n\nWithout --config the settings are those of `recipes/ablations.yaml`, not the defaults "
        "below. The same command resumes a stopped study; --only names a few choices.",
        "--out studies/ablations --only no-sharkfin floor-0",
    ),
    "study finders": (
        "Find circuits of the same tasks by learned masks and by scores, and draw their sizes "
        "against the target loss (Gao et al. 2025, Fig. 31).\n\n"
        "The same command resumes a stopped study.",
        "runs/demo --task single_double_quote --out studies/finders",
    ),
    "study frontier": (
        "Train a grid of sparse and dense models, prune them for all tasks and draw circuit size "
        "against capability (Gao et al. 2025, Figs. 2, 3, 10, 33). Say whether its claims hold: "
        "smaller circuits at lower L0, and better loss and circuits at larger width."
        "\n\nWithout --config the settings are those of `recipes/frontier.yaml`, not the defaults "
        "below. The same command resumes a stopped study; of a finished one it only draws the "
        "figures.",
        "--out studies/frontier",
    ),
    "study self-ablation": (
        "Train a plain model and self-ablating ones, measure all and print the table of Ferrao et "
        "al. 2025."
        "\n\nWithout --config the settings are those of `recipes/self_ablation.yaml`, not the "
        "defaults below. The same command resumes a stopped study; of a finished one it only draws "
        "the figure.",
        "--out studies/self_ablation --jobs 2",
    ),
    "tasks": (
        "List behaviours; with a MODEL, say which of them it performs, best first."
        "\n\n`wirework tasks --show for_while` prints a few pairs of a behaviour.",
        "runs/demo",
    ),
    "train": (
        "Train a transformer (Gao et al. 2025, sec. 2.1, App. A.2).",
        "--config recipes/demo.yaml --name mine --steps 500",
    ),
    "validate": (
        "Check that a circuit is sufficient and necessary (Gao et al. 2025, Fig. 32).\n\n"
        "Losses are in nats; chance is ln 2 = 0.693.",
        "circuits/quote",
    ),
    "view": (
        "Serve a circuit's page on this machine (127.0.0.1 only) until Ctrl-C.",
        "circuits/quote --port 8000",
    ),
}

app = App(
    name="wirework",
    help="Train language models whose wiring people can read, and read it.",
    version=__version__,
    help_format="plaintext",
    result_action="return_value",
    suppress_keyboard_interrupt=False,  # `cli.main` says what was saved, and which signal it was
)
app.meta.suppress_keyboard_interrupt = False
app.meta.result_action = "return_value"
GROUPS = {
    "convert": App(
        name="convert", help="Read and write other people's model formats.", help_format="plaintext"
    ),
    "study": App(name="study", help="Run a whole experiment.", help_format="plaintext"),
}
VERBS: dict[str, list[str]] = {"": [*GROUPS], **{name: [] for name in GROUPS}}
"""Names of the verbs of each group; the empty name is for verbs without a group."""
for group in GROUPS.values():
    app.command(group)
for words, (description, example) in MENU.items():
    *outer, verb = words.split()
    VERBS[" ".join(outer)].append(verb)
    (GROUPS[outer[0]] if outer else app).command(
        f"wirework.commands:{verb.replace('-', '_')}",
        name=verb,
        help=f"{description}\n\nExample: `{' '.join(['wirework', words, example]).rstrip()}`",
    )


def launch() -> None:
    """Run the verb that the command line names.

    Raises:
        InputError: an argument or setting cannot be used; the message is one line.
    """
    words = sys.argv[1:]
    end = words.index("--") if "--" in words else len(words)
    flags = words[:end]
    _choose_help(flags)
    flags = ["--help" if word == HELP_ALL else word for word in flags]
    try:
        app.meta([*flags, *words[end:]], exit_on_error=False, print_error=False)
    except cyclopts.CycloptsError as error:
        raise InputError(_one_line(error)) from error


def _choose_help(words: Sequence[str]) -> None:
    """Let the help text show the basic settings, or all of them after `--help-all`."""
    full, verb = HELP_ALL in words, [word for word in words if not word.startswith("-")]
    command = " ".join(verb[: 2 if verb and verb[0] in GROUPS else 1])
    app.help_formatter = app.help_epilogue = None
    if command in MENU and (full or {"--help", "-h"}.intersection(words)):
        from wirework.help_pages import CommandHelp

        app.help_formatter = CommandHelp(_owners().get(command), full=full)
        if not full:
            app.help_epilogue = f"These are the basic settings; all: wirework {command} {HELP_ALL}"


@app.meta.default
def _launch(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    config: Path | None = None,
    debug: Annotated[bool, Parameter(negative="")] = False,  # noqa: ARG001 (see `cli`)
    no_lock: Annotated[bool, Parameter(negative="", show_default=False)] = False,
) -> None:
    """Run a verb.

    Args:
        config: YAML file of settings; flags win over it.
        debug: Show the traceback of an error, before its one-line message.
        no_lock: Lock no files, for file systems without locks; no other run may use the same
            folders.
    """
    if has_no_folder():
        raise InputError("the working folder is gone: change to one that exists")
    if no_lock:
        os.environ[NO_LOCK] = "1"  # for the processes that a verb starts too
    words = tokens[: 2 if tokens and tokens[0] in GROUPS else 1]
    _check_verb(words)
    app.config = None  # of an earlier launch in this process
    values: dict[str, Any] = {}
    config = config or SHIPPED.get(" ".join(words))
    if config is not None:
        from cyclopts.config import Dict

        from wirework.config import read_yaml

        values = with_new_names(read_yaml(config), " ".join(words), str(config))
        _check_settings(values, config, " ".join(words))
        under = values
        for word in reversed(words):  # a setting may have the name of a verb
            under = {word: under}
        app.config = (Dict(under, source=str(config)),)
    try:
        current = with_new_flags(tokens, partial(_has_setting, " ".join(words)))
        app(current, exit_on_error=False, print_error=False)
    except cyclopts.CycloptsError as error:
        raise InputError(_one_line(error, values, config)) from error


def _check_verb(words: Sequence[str]) -> None:
    """Refuse an unknown verb; cyclopts would import all verbs to do so."""
    for group, word in zip(("", *words), words, strict=False):
        names = sorted(VERBS[group])
        if word not in (*names, "--help", "-h", "--version"):
            name = quoted(f"{group} {word}".strip())
            raise InputError(f"no command {name}: give {', '.join(names)}{nearest(word, names)}")


def _check_settings(values: dict[str, Any], config: Path, verb: str) -> None:
    """Refuse a settings file with a setting that the verb does not have."""
    from pydantic import ValidationError

    from wirework.config import problem

    owners = _owners()
    if verb not in owners:
        return
    owner = owners[verb]
    options = _options(verb) - set(owner.model_fields)
    settings = {name: value for name, value in values.items() if name not in options}
    try:
        owner.model_validate(settings)
    except ValidationError as error:
        unknown = [details for details in error.errors() if details["type"] == "extra_forbidden"]
        if unknown:  # flags may override the other values
            raise InputError(f"{config}: {problem(owner, unknown[0])}") from None


def _has_setting(verb: str, name: str) -> bool:
    """Return whether a verb has a setting or named option, by its dotted name."""
    if verb not in MENU:
        return False
    owner = _owners().get(verb)
    return name in _options(verb) or (owner is not None and name in owner.setting_names())


def _options(verb: str) -> set[str]:
    """Return the named options of a verb that are not settings."""
    import inspect

    from wirework import commands

    parameters = inspect.signature(
        getattr(commands, verb.split()[-1].replace("-", "_"))
    ).parameters.values()
    return {
        parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY
    } - {"settings"}


def _owners() -> "dict[str, type[Config]]":
    """Return each verb's class of settings, for the verbs that have one."""
    from wirework.config import (
        AblationsConfig,
        AcdcConfig,
        ExplainConfig,
        FrontierConfig,
        MeasureConfig,
        PruneConfig,
        SaeConfig,
        SelfAblationConfig,
        TrainConfig,
    )
    from wirework.config.training import BridgeTrainConfig

    return {
        "acdc": AcdcConfig,
        "train": TrainConfig,
        "bridge": BridgeTrainConfig,
        "explain": ExplainConfig,
        "measure": MeasureConfig,
        "prune": PruneConfig,
        "sae": SaeConfig,
        "study ablations": AblationsConfig,
        "study frontier": FrontierConfig,
        "study finders": PruneConfig,
        "study self-ablation": SelfAblationConfig,
    }


def _one_line(
    error: Exception, values: Mapping[str, Any] | None = None, config: Path | None = None
) -> str:
    """Return an error of the command line as one line, with the settings file if it is the cause.

    Args:
        error: the error of cyclopts.
        values: the settings in the file.
        config: the file, if any.
    """
    if isinstance(error.__cause__, ValueError):  # may be pydantic's, which is slow to import
        from pydantic import ValidationError

        from wirework.config import first_problem, named_file

        if isinstance(error.__cause__, ValidationError):
            title, owners = error.__cause__.title, _owners()
            named_owners = [cls for cls in owners.values() if cls.__name__ in title]
            owner = named_owners[0] if named_owners else owners["train"]
            file = (
                "" if not values or config is None else named_file(error.__cause__, values, config)
            )
            return f"{file}{first_problem(owner, error.__cause__)}"
    words = " ".join(str(error).split())
    if isinstance(error, cyclopts.CycloptsError):  # its message repeats the value in full
        words = re.sub(r"\S{81,}", lambda long: f"{long[0][:77]}...", words)
    return words
