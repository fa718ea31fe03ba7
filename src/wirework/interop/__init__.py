"""Other people's formats."""

from wirework.interop.openai import load_openai
from wirework.interop.self_ablating import load_self_ablating

__all__ = ["load_openai", "load_self_ablating"]
