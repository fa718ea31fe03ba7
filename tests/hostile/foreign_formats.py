"""Loaders of other people's formats."""

import json
import shutil
from pathlib import Path
from typing import Any

from loader import Loader, check_finite, of_model
from own_formats import make_tokenizer

_DATA = Path(__file__).resolve().parents[1] / "data"


def _write_gpt2_tokenizer(folder: Path) -> None:
    """Write `encoder.json` and `vocab.bpe`: all bytes, a few merges, end of text last."""
    from tokenizers import pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("Ġ", "a"), ("Ġ", "t"), ("h", "e"), ("Ġt", "he"), ("1", "2")]
    names = [*letters, *("".join(pair) for pair in merges), "<|endoftext|>"]
    encoder = {name: i for i, name in enumerate(names)}
    (folder / "encoder.json").write_text(json.dumps(encoder))
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "vocab.bpe").write_text("\n".join(lines) + "\n")


def _build_openai(folder: Path) -> None:
    for name in ("beeg_config.json", "final_model.pt"):
        shutil.copy(_DATA / "openai_gpt_example" / name, folder)


def _load_openai(folder: Path) -> Any:
    from wirework.interop import load_openai

    return of_model(load_openai(folder))


def _build_self_ablating(folder: Path) -> None:
    for name in ("config.json", "model.pt"):
        shutil.copy(_DATA / "self_ablating_example" / name, folder)


def _build_self_ablating_yaml(folder: Path) -> None:
    import yaml

    _build_self_ablating(folder)
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").unlink()
    wrapped = {name: {"value": value} for name, value in values.items()}
    (folder / "config.yaml").write_text(yaml.safe_dump(wrapped))


def _load_self_ablating(folder: Path) -> Any:
    from wirework.interop import load_self_ablating

    return of_model(load_self_ablating(folder))


def _build_huggingface(kind: str, folder: Path) -> None:
    import torch
    import transformers

    torch.manual_seed(0)
    theirs: transformers.PreTrainedModel
    if kind == "gpt2":
        config = transformers.GPT2Config(
            vocab_size=300, n_positions=16, n_embd=8, n_layer=1, n_head=2,
            bos_token_id=299, eos_token_id=299,
        )  # fmt: skip
        theirs = transformers.GPT2LMHeadModel(config)
    else:
        neo = transformers.GPTNeoConfig(
            vocab_size=300, max_position_embeddings=16, hidden_size=8, num_layers=2, num_heads=2,
            attention_types=[[["global", "local"], 1]], intermediate_size=16, window_size=8,
            bos_token_id=299, eos_token_id=299,
        )  # fmt: skip
        theirs = transformers.GPTNeoForCausalLM(neo)
    theirs.save_pretrained(folder)
    make_tokenizer().save(folder / "tokenizer.json")
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), eos_token="<|endoftext|>"
    )
    fast.save_pretrained(folder)


def _build_bin(folder: Path) -> None:
    import torch
    from safetensors.torch import load_file

    _build_huggingface("gpt2", folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def _load_huggingface(folder: Path) -> Any:
    from wirework.interop import load_huggingface

    return of_model(load_huggingface(folder))


def _build_sae(folder: Path) -> None:
    import torch

    from wirework.measures import save_sae
    from wirework.measures.sae import sae_lens

    lens = sae_lens()
    about = lens.saes.sae.SAEMetadata(site="0.mlp.resid_delta")
    sae = lens.StandardSAE(
        lens.StandardSAEConfig(d_in=4, d_sae=8, apply_b_dec_to_input=False, metadata=about)
    )
    generator = torch.Generator().manual_seed(1)
    for weight in sae.parameters():
        weight.data.normal_(0, 1, generator=generator)
    save_sae(sae, folder / "sae")


def _build_foreign_sae(folder: Path) -> None:
    _build_sae(folder)
    (folder / "sae" / "checksums.json").unlink()


def _load_sae(folder: Path) -> Any:
    import torch

    from wirework.measures import load_sae

    sae = load_sae(folder / "sae")
    check_finite(sae.state_dict())
    sae.decode(sae.encode(torch.ones(2, sae.cfg.d_in)))
    return [sae.state_dict(), sae.cfg.metadata.site, sae.cfg.architecture()]


def _build_interpbench(folder: Path) -> None:
    """Write a case as TransformerLens saves it, by its names and shapes alone."""
    import pickle

    import torch

    layers, width, heads, inner, neurons = 2, 6, 2, 3, 8
    shapes: dict[str, tuple[int, ...]] = {
        "embed.W_E": (7, width), "pos_embed.W_pos": (5, width),
        "unembed.W_U": (width, 4), "unembed.b_U": (4,),
    }  # fmt: skip
    for layer in range(layers):
        block = {"attn.W_O": (heads, inner, width), "attn.b_O": (width,)}
        block |= {f"attn.W_{kind}": (heads, width, inner) for kind in "QKV"}
        block |= {f"attn.b_{kind}": (heads, inner) for kind in "QKV"}
        block |= {"mlp.W_in": (width, neurons), "mlp.b_in": (neurons,)}
        block |= {"mlp.W_out": (neurons, width), "mlp.b_out": (width,)}
        shapes |= {f"blocks.{layer}.{name}": shape for name, shape in block.items()}
    generator = torch.Generator().manual_seed(2)
    state = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    torch.save(state, folder / "ll_model.pth")
    fields = {
        "n_layers": layers, "d_model": width, "n_heads": heads, "d_head": inner, "d_mlp": neurons,
        "d_vocab": 7, "d_vocab_out": 4, "n_ctx": 5, "act_fn": "gelu", "normalization_type": None,
        "dtype": torch.float32, "device": torch.device("cpu"),
    }  # fmt: skip
    (folder / "ll_model_cfg.pkl").write_bytes(pickle.dumps(fields))
    edges = [
        ("hook_embed", "blocks.0.hook_mlp_in"), ("hook_pos_embed", "blocks.1.hook_q_input[1]"),
        ("blocks.0.hook_mlp_out", "blocks.1.attn.hook_result[1]"),
        ("blocks.1.attn.hook_result[1]", "blocks.1.hook_resid_post"),
    ]  # fmt: skip
    (folder / "edges.pkl").write_bytes(pickle.dumps(edges))


def _load_interpbench(folder: Path) -> Any:
    from wirework.interop import load_interpbench

    truth = load_interpbench(folder)
    return of_model(truth.model), [(edge.source, edge.target) for edge in truth.path_edges]


def _load_gpt2_tokenizer(folder: Path) -> Any:
    from wirework.data import Tokenizer

    tokenizer = Tokenizer.load(folder, split="gpt2")
    tokenizer.decode(tokenizer.encode("the 12345 cat's"))
    return tokenizer.fingerprint


LOADERS = (
    Loader("openai", _build_openai, _load_openai,
           ("beeg_config.json", "final_model.pt")),
    Loader("self-ablating", _build_self_ablating, _load_self_ablating,
           ("config.json", "model.pt")),
    Loader("self-ablating yaml", _build_self_ablating_yaml, _load_self_ablating, ("config.yaml",)),
    Loader("huggingface gpt2", lambda folder: _build_huggingface("gpt2", folder),
           _load_huggingface, ("config.json", "model.safetensors", "tokenizer.json",
                               "tokenizer_config.json", "generation_config.json"),
           held_out=("removed",)),  # the command warns of a model without a tokeniser
    Loader("huggingface neo", lambda folder: _build_huggingface("neo", folder),
           _load_huggingface, ("config.json", "model.safetensors")),
    Loader("huggingface bin", _build_bin, _load_huggingface, ("pytorch_model.bin",)),
    Loader("interpbench", _build_interpbench, _load_interpbench,
           ("ll_model_cfg.pkl", "ll_model.pth", "edges.pkl")),
    Loader("autoencoder", _build_sae, _load_sae,
           ("sae/cfg.json", "sae/sae_weights.safetensors", "sae/checksums.json"), protected=True),
    Loader("foreign autoencoder", _build_foreign_sae, _load_sae,
           ("sae/cfg.json", "sae/sae_weights.safetensors")),
    Loader("gpt2 tokeniser", _write_gpt2_tokenizer, _load_gpt2_tokenizer,
           ("encoder.json", "vocab.bpe"), held_out=("cut", "empty", "one_line_end", "removed")),
)  # fmt: skip
