"""Converters from and to the formats of other projects."""

from wirework.interop.huggingface import load_huggingface, save_huggingface
from wirework.interop.interpbench import GroundTruth, load_interpbench
from wirework.interop.openai import load_openai
from wirework.interop.self_ablating import load_self_ablating

__all__ = [
    "GroundTruth",
    "load_huggingface",
    "load_interpbench",
    "load_openai",
    "load_self_ablating",
    "save_huggingface",
]
