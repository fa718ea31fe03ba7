"""Circuit folders for the tests: random but shaped like real ones, in the documented format."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from wirework.files import atomic_dir, sha256, write_json

KINDS: tuple[str, ...] = ("attn.act_in", "attn.q", "attn.k", "attn.v", "attn.resid_delta")
KINDS += ("mlp.act_in", "mlp.post_act", "mlp.resid_delta")
MODEL = {"fingerprint": "ab" * 32, "path": "runs/demo", "n_layer": 4, "d_model": 256}
MODEL |= {"n_head": 16, "d_head": 16, "d_mlp": 1024, "vocab_size": 2048}
MODEL |= {"n_weights": 4_000_000, "n_nonzero": 80_000}
LINES = [
    ["import", " os", "\n"],
    ["def", " load", "(", "path", ",", " mode", "=", "None", "):", "\n"],
    ["    ", "value", " =", " read", "(", "path", ")", "\n"],
    ["for", " key", " in", " items", ":", "\n"],
    ["\t", "if", " key", " ==", " x", "[", "0", "]:", "\n"],
    ["return", " value", "\n"],
]
WORDS = ["(", ",", " =", "print", "path", "\n", "value", " key", "[", "    ", "\t", "return"]


def make_circuit(
    path: Path,
    *,
    n_nodes: int = 40,
    n_edges: int = 120,
    n_io: int = 20,
    n_prompts: int = 16,
    seed: int = 0,
    sublayers: tuple[str, ...] = ("0.attn", "0.mlp", "1.attn", "1.mlp", "2.attn", "3.mlp"),
    extra_tokens: tuple[str, ...] = (),
    task: str = "single_double_quote",
) -> Path:
    """Write a random circuit folder and return its path."""
    rng = np.random.default_rng(seed)
    nodes = random_nodes(rng, n_nodes, sublayers)
    answers = ["')", '")']
    prompts, rights = random_prompts(rng, n_prompts, answers, extra_tokens)
    lengths = np.array([len(prompt) for prompt in prompts], dtype=np.int32)
    activations = rng.normal(size=(n_prompts, max(lengths, default=0), n_nodes))
    activations *= rng.random(activations.shape) < 0.4
    for p, length in enumerate(lengths):
        activations[p, length:] = 0
    edges = random_edges(rng, nodes, n_edges)
    io_edges = random_io(rng, nodes, n_io, answers, extra_tokens)
    document = {
        "format": "wirework-circuit",
        "version": 1,
        "model": MODEL,
        "task": {"name": task, "answers": answers, "n_pairs": 128},
        "target_loss": 0.15,
        "losses": {
            "model": 0.0123,
            "circuit": 0.1462,
            "circuit_calibrated": 0.1213,
            "without_circuit": 3.218,
            "chance": 0.6931471805599453,
        },
        "calibration": {"scale": 1.1, "shift": 0.0},
        "nodes": nodes,
        "edges": edges,
        "io_edges": io_edges,
        "n_nodes": len(nodes),
        "n_edges": len(edges),
        "n_io_edges": len(io_edges),
        "examples": {
            "prompts": prompts,
            "answers": rights,
            "logit_diff": [float(np.float32(x)) for x in rng.normal(3, 1, n_prompts)],
        },
        "provenance": {
            "finder": "learned_pruning",
            "settings": {"steps": 300},
            "seed": 0,
            "wirework": "0.1.0",
        },
    }
    write_circuit(path, document, activations.astype(np.float32), lengths)
    return path


PATHS = [
    ("0.mlp", "final_resid", 0.5),
    ("0.attn.1", "final_resid", 0.25),
    ("embed", "final_resid", -0.125),
    ("0.attn.1", "0.mlp", 0.0123456789),
    ("embed", "1.attn.3.v", 0.3),
    ("0.mlp", "1.attn.3.q", 0.2),
    ("1.attn.3", "1.mlp", None),
    ("embed", "0.attn.1.k", 0.1),
]
"""Source, target and effect of each edge of `make_paths`."""


def make_paths(
    path: Path,
    paths: Sequence[tuple[str, str, float | None]] = PATHS,
    *,
    n_prompts: int = 2,
    extra_tokens: tuple[str, ...] = (),
) -> Path:
    """Write a head-level circuit folder and return its path."""
    make_circuit(path, n_prompts=n_prompts, extra_tokens=extra_tokens)
    patching = {"metric": "kl", "ablation": "corrupted", "both": True, "tau": 0.015}
    patching |= {"n_all": 1519, "value": 0.0273, "kl": 0.0274, "logit_difference": 3.94}
    patching |= {"accuracy": 0.875, "model_logit_difference": 4.76, "model_accuracy": 1.0}
    edges = [{"source": a, "target": b, "effect": effect} for a, b, effect in paths]
    nothing: dict[str, Any] = {key: [] for key in ("nodes", "edges", "io_edges")}
    nothing |= {f"n_{key}": 0 for key in nothing}
    tensors = load_file(path / "circuit.safetensors")
    tensors["examples/activations"] = tensors["examples/activations"][:, :, :0]
    save_file(tensors, path / "circuit.safetensors")
    sum_again(path)
    head = {"level": "head", "patching": patching, "path_edges": edges, "n_path_edges": len(edges)}
    provenance = {"finder": "acdc", "settings": {}, "seed": 0, "wirework": "0.1.0"}
    return edit_document(path, **nothing, **head, provenance=provenance)


def write_circuit(path: Path, document: dict, activations: np.ndarray, lengths: np.ndarray) -> None:
    """Write the three files of a circuit folder."""
    outputs = [(f"{layer}.attn.y", 256) for layer in range(4)]
    sites = [*site_widths(), *outputs]
    tensors = {f"means/{site}": np.zeros(width, np.float32) for site, width in sites}
    tensors |= {"examples/activations": activations, "examples/lengths": lengths}
    with atomic_dir(path) as folder:
        write_json(folder / "circuit.json", document)
        save_file(tensors, folder / "circuit.safetensors")


def with_shares(path: Path, runs: int) -> Path:
    """Give the nodes and edges of a circuit folder shares of so many searches, 0 to all."""
    document = json.loads((path / "circuit.json").read_text())
    for name in ("nodes", "edges"):
        for i, part in enumerate(document[name]):
            part["share"] = i % (runs + 1) / runs
    return edit_document(path, **document, share_runs=runs)


def edit_document(path: Path, **changes: object) -> Path:
    """Change keys of circuit.json, and its checksum with it."""
    document = json.loads((path / "circuit.json").read_text())
    (path / "circuit.json").write_text(json.dumps(document | changes))
    return sum_again(path)


def sum_again(path: Path) -> Path:
    """Make the checksums of a circuit folder those of its files as they are."""
    names = ("circuit.json", "circuit.safetensors")
    write_json(path / "checksums.json", {name: sha256(path / name) for name in names})
    return path


def site_widths() -> list[tuple[str, int]]:
    """Every node site of the model and its width."""
    wide = {"mlp.post_act": 1024}
    return [(f"{i}.{kind}", wide.get(kind, 256)) for i in range(4) for kind in KINDS]


def random_nodes(rng: np.random.Generator, n_nodes: int, sublayers: tuple[str, ...]) -> list[dict]:
    """Nodes with channels that are written early and read late, as circuits have."""
    sites = [site for site, _ in site_widths() if site.rsplit(".", 1)[0] in sublayers]
    channels = np.sort(rng.choice(256, size=max(6, n_nodes // 5), replace=False))
    neurons = np.sort(rng.choice(1024, size=max(8, n_nodes // 3), replace=False))
    in_heads = [16 * head + c for head in (1, 6, 9) for c in range(2 + n_nodes // 25)]
    pools: dict[str, np.ndarray | list[int]] = {
        "post_act": neurons,
        "q": in_heads,
        "k": in_heads,
        "v": in_heads,
    }
    chosen: set[tuple[int, int]] = set()
    while len(chosen) < n_nodes:
        site = int(rng.integers(len(sites)))
        pool = pools.get(sites[site].rsplit(".", 1)[1], channels)
        chosen.add((site, int(rng.choice(pool))))
    return [
        {
            "site": sites[site],
            "index": index,
            "mean": float(np.float32(rng.normal(0, 0.1))),
            "score": float(np.float32(rng.random())),
        }
        for site, index in sorted(chosen)
    ]


def random_edges(rng: np.random.Generator, nodes: list[dict], n_edges: int) -> list[dict]:
    """Edges between nodes that a weight matrix really joins."""
    joins = {("attn.act_in", "attn.q"), ("attn.act_in", "attn.k"), ("attn.act_in", "attn.v")}
    joins |= {("attn.v", "attn.resid_delta"), ("mlp.act_in", "mlp.post_act")}
    joins |= {("mlp.post_act", "mlp.resid_delta")}
    sites = [node["site"].split(".", 1) for node in nodes]
    pairs = [
        (a, b)
        for a, (layer_a, kind_a) in enumerate(sites)
        for b, (layer_b, kind_b) in enumerate(sites)
        if layer_a == layer_b and (kind_a, kind_b) in joins
    ]
    kept = sorted(rng.choice(len(pairs), size=min(n_edges, len(pairs)), replace=False).tolist())
    weights = (rng.normal(size=len(kept)) ** 3 / 2).astype(np.float32)
    return [
        {"source": pairs[i][0], "target": pairs[i][1], "weight": float(w)}
        for i, w in zip(kept, weights, strict=True)
    ]


def random_io(
    rng: np.random.Generator,
    nodes: list[dict],
    n_io: int,
    answers: list[str],
    extra_tokens: tuple[str, ...],
) -> list[dict]:
    """Embedding entries of prompt tokens, unembedding entries of the two answers."""
    reads = [i for i, node in enumerate(nodes) if node["site"].endswith("act_in")]
    writes = [i for i, node in enumerate(nodes) if node["site"].endswith("resid_delta")]
    tokens = ["'", '"', *extra_tokens, *WORDS]
    weights = [float(w) for w in rng.normal(size=n_io).astype(np.float32)]
    edges: dict[tuple, dict] = {}
    for i, weight in enumerate(weights):
        if i % 3 and reads:
            token, target = int(rng.integers(min(len(tokens), 9))), int(rng.choice(reads))
            edges[0, token, target] = {"token": tokens[token], "token_id": 7 + token}
            edges[0, token, target] |= {"target": target, "weight": weight}
        elif writes:
            answer, source = int(rng.integers(2)), int(rng.choice(writes))
            edges[1, answer, source] = {"source": source, "answer": answers[answer]}
            edges[1, answer, source] |= {"token_id": 300 + answer, "weight": weight}
    return list(edges.values())


def random_prompts(
    rng: np.random.Generator, n: int, answers: list[str], extra_tokens: tuple[str, ...]
) -> tuple[list[list[str]], list[list[str]]]:
    """Prompts of about 30 tokens that open a string, in pairs, with [right, wrong]."""
    prompts, rights = [], []
    for i in range(n):
        picked = sorted(rng.choice(len(LINES), size=4, replace=False).tolist())
        body = [token for line in picked for token in LINES[line]]
        prompts.append([*extra_tokens, *body, "print", "(", "'\""[i % 2], "hello"])
        rights.append(answers if i % 2 == 0 else answers[::-1])
    return prompts, rights
