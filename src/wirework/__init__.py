"""Train language models whose wiring people can read, and read it.

    import wirework as ww
    run = ww.train(ww.TrainConfig.load("recipes/demo.yaml", {"name": "mine"}))
    circuit = ww.prune(run.model, ww.task("single_double_quote"), target_loss=0.15)

The package exports the main functions, all settings classes and its subpackages (`ww.circuits`,
`ww.measures`, ...). Names are loaded on first use, so that `import wirework` is fast.
"""

from wirework.threads import settle_threads

TYPE_CHECKING = False  # importing `typing` takes longer than everything else here

__version__ = "0.2.0"

settle_threads()  # here, because it must run before torch is imported

if TYPE_CHECKING:
    from wirework import bridges as bridges
    from wirework import circuits as circuits
    from wirework import config as config
    from wirework import data as data
    from wirework import interop as interop
    from wirework import measures as measures
    from wirework import nn as nn
    from wirework import studies as studies
    from wirework import tasks as tasks
    from wirework import training as training
    from wirework import view as view
    from wirework.bridges import Bridged as Bridged
    from wirework.bridges import bridge as bridge
    from wirework.bridges import load_bridged as load_bridged
    from wirework.bridges import steer as steer
    from wirework.circuits import Circuit as Circuit
    from wirework.circuits import NodeCircuit as NodeCircuit
    from wirework.circuits import PathCircuit as PathCircuit
    from wirework.circuits import acdc as acdc
    from wirework.circuits import acdc_sweep as acdc_sweep
    from wirework.circuits import attribute as attribute
    from wirework.circuits import edge_attribution as edge_attribution
    from wirework.circuits import explain_circuit as explain_circuit
    from wirework.circuits import find_attacks as find_attacks
    from wirework.circuits import prune as prune
    from wirework.circuits import prune_all as prune_all
    from wirework.circuits import validate as validate
    from wirework.config import AblationsConfig as AblationsConfig
    from wirework.config import AcdcConfig as AcdcConfig
    from wirework.config import BridgeConfig as BridgeConfig
    from wirework.config import DataConfig as DataConfig
    from wirework.config import ExplainConfig as ExplainConfig
    from wirework.config import FrontierConfig as FrontierConfig
    from wirework.config import GatingConfig as GatingConfig
    from wirework.config import HardConcreteConfig as HardConcreteConfig
    from wirework.config import MeasureConfig as MeasureConfig
    from wirework.config import ModelConfig as ModelConfig
    from wirework.config import OptimizerConfig as OptimizerConfig
    from wirework.config import PatternConfig as PatternConfig
    from wirework.config import PruneConfig as PruneConfig
    from wirework.config import RevivalConfig as RevivalConfig
    from wirework.config import SaeConfig as SaeConfig
    from wirework.config import SelfAblationConfig as SelfAblationConfig
    from wirework.config import ServerConfig as ServerConfig
    from wirework.config import TrainConfig as TrainConfig
    from wirework.config import WeightSparsityConfig as WeightSparsityConfig
    from wirework.data import Tokenizer as Tokenizer
    from wirework.errors import InputError as InputError
    from wirework.measures import explain_neurons as explain_neurons
    from wirework.measures import measure as measure
    from wirework.model import Model as Model
    from wirework.model import load as load
    from wirework.nn import Transformer as Transformer
    from wirework.tasks import Task as Task
    from wirework.tasks import load_task as task
    from wirework.training import Run as Run
    from wirework.training import train as train

_HOMES = {
    "AcdcConfig": "wirework.config",
    "AblationsConfig": "wirework.config",
    "BridgeConfig": "wirework.config",
    "Bridged": "wirework.bridges",
    "Circuit": "wirework.circuits",
    "DataConfig": "wirework.config",
    "ExplainConfig": "wirework.config",
    "FrontierConfig": "wirework.config",
    "GatingConfig": "wirework.config",
    "HardConcreteConfig": "wirework.config",
    "InputError": "wirework.errors",
    "MeasureConfig": "wirework.config",
    "Model": "wirework.model",
    "ModelConfig": "wirework.config",
    "NodeCircuit": "wirework.circuits",
    "OptimizerConfig": "wirework.config",
    "PathCircuit": "wirework.circuits",
    "PatternConfig": "wirework.config",
    "PruneConfig": "wirework.config",
    "RevivalConfig": "wirework.config",
    "Run": "wirework.training",
    "SaeConfig": "wirework.config",
    "SelfAblationConfig": "wirework.config",
    "ServerConfig": "wirework.config",
    "Task": "wirework.tasks",
    "Tokenizer": "wirework.data",
    "TrainConfig": "wirework.config",
    "Transformer": "wirework.nn",
    "WeightSparsityConfig": "wirework.config",
    "acdc": "wirework.circuits",
    "acdc_sweep": "wirework.circuits",
    "attribute": "wirework.circuits",
    "bridge": "wirework.bridges",
    "edge_attribution": "wirework.circuits",
    "explain_circuit": "wirework.circuits",
    "explain_neurons": "wirework.measures",
    "find_attacks": "wirework.circuits",
    "load": "wirework.model",
    "load_bridged": "wirework.bridges",
    "measure": "wirework.measures",
    "prune": "wirework.circuits",
    "prune_all": "wirework.circuits",
    "steer": "wirework.bridges",
    "task": "wirework.tasks:load_task",
    "train": "wirework.training",
    "validate": "wirework.circuits",
}
_RENAMED = {"find_distractors": "find_attacks"}
"""Old names to current names; the next release removes the old ones."""

_PACKAGES = (
    "bridges",
    "circuits",
    "config",
    "data",
    "interop",
    "measures",
    "nn",
    "studies",
    "tasks",
    "training",
    "view",
)

__all__ = [
    "AblationsConfig",
    "AcdcConfig",
    "BridgeConfig",
    "Bridged",
    "Circuit",
    "DataConfig",
    "ExplainConfig",
    "FrontierConfig",
    "GatingConfig",
    "HardConcreteConfig",
    "InputError",
    "MeasureConfig",
    "Model",
    "ModelConfig",
    "NodeCircuit",
    "OptimizerConfig",
    "PathCircuit",
    "PatternConfig",
    "PruneConfig",
    "RevivalConfig",
    "Run",
    "SaeConfig",
    "SelfAblationConfig",
    "ServerConfig",
    "Task",
    "Tokenizer",
    "TrainConfig",
    "Transformer",
    "WeightSparsityConfig",
    "acdc",
    "acdc_sweep",
    "attribute",
    "bridge",
    "bridges",
    "circuits",
    "config",
    "data",
    "edge_attribution",
    "explain_circuit",
    "explain_neurons",
    "find_attacks",
    "interop",
    "load",
    "load_bridged",
    "measure",
    "measures",
    "nn",
    "prune",
    "prune_all",
    "steer",
    "studies",
    "task",
    "tasks",
    "train",
    "training",
    "validate",
    "view",
]


def __getattr__(name: str) -> object:
    """Load a public name or a subpackage when it is first used."""
    from importlib import import_module

    if name in _PACKAGES:
        return import_module(f"wirework.{name}")
    if name in _RENAMED:
        import sys

        from wirework.renamed_names import new_name

        return __getattr__(new_name(sys.modules[__name__], name, _RENAMED))
    if name not in _HOMES:
        raise AttributeError(f"module 'wirework' has no attribute {name!r}")
    module, _, attribute = _HOMES[name].partition(":")
    value = getattr(import_module(module), attribute or name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
