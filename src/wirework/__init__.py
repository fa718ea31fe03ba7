"""Train language models whose wiring people can read, and read it.

The public face loads on first use, so that `import wirework` costs nothing:

    import wirework as ww
    run = ww.train(ww.TrainConfig.load("recipes/demo.yaml", {"name": "mine"}))
    circuit = ww.prune(run.model, ww.task("single_double_quote"), target_loss=0.15)
"""

from wirework.threads import settle_threads

TYPE_CHECKING = False  # `typing` takes longer to import than all that is needed here

__version__ = "0.1.0"

settle_threads()  # here, since it must come before torch

if TYPE_CHECKING:
    from wirework import interop as interop
    from wirework.circuits import Circuit as Circuit
    from wirework.circuits.path_patching.acdc import acdc as acdc
    from wirework.circuits.pruning.prune import prune as prune
    from wirework.circuits.scoring.scores import attribute as attribute
    from wirework.circuits.validation.validate import validate as validate
    from wirework.config import DataConfig as DataConfig
    from wirework.config import ExplainConfig as ExplainConfig
    from wirework.config import ModelConfig as ModelConfig
    from wirework.config import PruneConfig as PruneConfig
    from wirework.config import TrainConfig as TrainConfig
    from wirework.data import Tokenizer as Tokenizer
    from wirework.errors import InputError as InputError
    from wirework.measures import measure as measure
    from wirework.model import Model as Model
    from wirework.model import load as load
    from wirework.nn import Transformer as Transformer
    from wirework.tasks import load_task as task
    from wirework.training import Run as Run
    from wirework.training import train as train

_HOMES = {
    "Circuit": "wirework.circuits",
    "DataConfig": "wirework.config",
    "ExplainConfig": "wirework.config",
    "InputError": "wirework.errors",
    "Model": "wirework.model",
    "ModelConfig": "wirework.config",
    "PruneConfig": "wirework.config",
    "Run": "wirework.training",
    "Tokenizer": "wirework.data",
    "TrainConfig": "wirework.config",
    "Transformer": "wirework.nn",
    "acdc": "wirework.circuits",
    "attribute": "wirework.circuits",
    "load": "wirework.model",
    "measure": "wirework.measures",
    "prune": "wirework.circuits",
    "task": "wirework.tasks:load_task",
    "train": "wirework.training",
    "validate": "wirework.circuits",
}

__all__ = [
    "Circuit",
    "DataConfig",
    "ExplainConfig",
    "InputError",
    "Model",
    "ModelConfig",
    "PruneConfig",
    "Run",
    "Tokenizer",
    "TrainConfig",
    "Transformer",
    "acdc",
    "attribute",
    "interop",
    "load",
    "measure",
    "prune",
    "task",
    "train",
    "validate",
]


def __getattr__(name: str) -> object:
    """Load a public name, or the `interop` module, when it is first asked for."""
    from importlib import import_module

    if name == "interop":
        return import_module("wirework.interop")
    if name not in _HOMES:
        raise AttributeError(f"module 'wirework' has no attribute {name!r}")
    module, _, attribute = _HOMES[name].partition(":")
    value = getattr(import_module(module), attribute or name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
