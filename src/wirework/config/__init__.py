"""Every setting, once: typed, frozen, validated; an unknown key is an error.

A setting from a paper names its section (Gao et al. 2025, arXiv 2511.13653, unless another is
named). A checkpoint stores its whole config and is rebuilt from that, never from today's defaults.
"""

from wirework.config.base import Config, Count, Fraction, first_problem, named_file, problem
from wirework.config.bridges import BridgeConfig
from wirework.config.changes import Change, changes
from wirework.config.circuits import (
    AcdcConfig,
    LossReduction,
    PathAblation,
    PathCorruption,
    PathMetric,
    PathOrder,
    PruneConfig,
    Score,
)
from wirework.config.data import DataConfig
from wirework.config.explain import ExplainConfig, PatternConfig, ServerConfig
from wirework.config.measures import Instrument, MeasureConfig, SaeConfig
from wirework.config.model import NODE_KINDS, ModelConfig, SiteKind
from wirework.config.studies import AblationsConfig, FrontierConfig, SelfAblationConfig
from wirework.config.training import (
    GatingConfig,
    HardConcreteConfig,
    OptimizerConfig,
    RevivalConfig,
    TrainConfig,
    WeightSparsityConfig,
)
from wirework.config.yaml_file import read_yaml

__all__ = [
    "NODE_KINDS",
    "AblationsConfig",
    "AcdcConfig",
    "BridgeConfig",
    "Change",
    "Config",
    "Count",
    "DataConfig",
    "ExplainConfig",
    "Fraction",
    "FrontierConfig",
    "GatingConfig",
    "HardConcreteConfig",
    "Instrument",
    "LossReduction",
    "MeasureConfig",
    "ModelConfig",
    "OptimizerConfig",
    "PathAblation",
    "PathCorruption",
    "PathMetric",
    "PathOrder",
    "PatternConfig",
    "PruneConfig",
    "RevivalConfig",
    "SaeConfig",
    "Score",
    "SelfAblationConfig",
    "ServerConfig",
    "SiteKind",
    "TrainConfig",
    "WeightSparsityConfig",
    "changes",
    "first_problem",
    "named_file",
    "problem",
    "read_yaml",
]
