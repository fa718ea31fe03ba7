"""Cases of InterpBench, written with TransformerLens: the same logits, edges in our names."""

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from lens_folder import EDGES, dump, lens_model, write_case

import wirework as ww
from wirework.circuit_format import PathEdge
from wirework.circuits import acdc, edge_attribution, path_edge_auroc
from wirework.errors import InputError
from wirework.interop import GroundTruth, load_interpbench
from wirework.tasks import Pair, Task

VARIANTS: dict[str, dict[str, Any]] = {
    "no norm": {},
    "LayerNorm": {"normalization_type": "LN", "act_fn": "gelu_new"},
    "LayerNorm without weights": {"normalization_type": "LNPre", "eps": 1e-3},
    "RMSNorm": {"normalization_type": "RMS", "act_fn": "relu"},
    "RMSNorm without weights": {"normalization_type": "RMSPre"},
    "unscaled attention": {"use_attn_scale": False},
    "one number as output": {"d_vocab_out": 1},
    "more outputs than inputs": {"d_vocab_out": 14},
    "as many outputs as inputs": {"d_vocab_out": -1},
}
ACROSS = [
    ("embed", "0.mlp"), ("0.mlp", "1.attn.2.q"), ("embed", "1.attn.2.k"),
    ("0.mlp", "1.attn.2.v"), ("1.attn.2", "final_resid"),
]  # fmt: skip


def names(truth: GroundTruth) -> list[tuple[str, str]]:
    return [(edge.source, edge.target) for edge in truth.path_edges]


def refused(folder: Path, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        load_interpbench(folder)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A case whose files tests replace by links to it."""
    return write_case(tmp_path_factory.mktemp("case"), lens_model())


def copied(case: Path, folder: Path) -> Path:
    """Return a copy of a case in a folder."""
    for path in case.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


class TestModel:
    @pytest.mark.parametrize("name", VARIANTS)
    @pytest.mark.parametrize("as_object", [False, True])
    def test_logits_are_those_of_transformer_lens(
        self, name: str, as_object: bool, tmp_path: Path
    ) -> None:
        theirs = lens_model(**VARIANTS[name])
        truth = load_interpbench(write_case(tmp_path, theirs, as_object=as_object))
        tokens = torch.randint(10, (4, 8), generator=torch.Generator().manual_seed(2))
        logits = truth.model(tokens)
        expected = theirs(tokens)
        assert truth.n_outputs == expected.shape[-1]
        torch.testing.assert_close(logits[..., : truth.n_outputs], expected, rtol=1e-4, atol=1e-4)

    def test_tokens_that_are_no_answers_have_no_probability(self, case: Path) -> None:
        truth = load_interpbench(case)
        assert (truth.n_outputs, truth.model.config.vocab_size) == (5, 10)
        shares = truth.model(torch.tensor([[1, 2, 3]])).softmax(-1)
        assert torch.equal(shares[..., 5:], torch.zeros(1, 3, 5))

    def test_the_model_is_saved_and_loaded_like_any_other(self, case: Path, tmp_path: Path) -> None:
        model = load_interpbench(case).model
        assert ww.load(model.save(tmp_path / "model")).fingerprint == model.fingerprint

    @pytest.mark.parametrize("protocol", range(3, pickle.HIGHEST_PROTOCOL + 1))
    def test_every_protocol_is_read(self, protocol: int, tmp_path: Path) -> None:
        write_case(tmp_path, lens_model(), as_object=True, protocol=protocol)
        assert names(load_interpbench(tmp_path)) == sorted_as_ours(ACROSS)


def sorted_as_ours(edges: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return edges by target, then source, in execution order, as they are listed in a test."""
    places = ["embed", "0.mlp", "1.attn.2.q", "1.attn.2.k", "1.attn.2.v", "1.attn.2", "final_resid"]
    return sorted(edges, key=lambda edge: (places.index(edge[1]), places.index(edge[0])))


class TestEdges:
    def test_edges_are_in_our_names_and_without_those_inside_of_components(
        self, case: Path
    ) -> None:
        truth = load_interpbench(case)
        assert names(truth) == sorted_as_ours(ACROSS)
        assert truth.components == ("embed", "0.mlp", "1.attn.2", "final_resid")

    def test_an_edge_to_a_whole_head_is_three(self, case: Path, tmp_path: Path) -> None:
        """The IOI cases have such edges, and begin at the residual stream."""
        folder = copied(case, tmp_path)
        edges = [("blocks.0.hook_resid_pre", "blocks.1.attn.hook_result[1]"),
                 ("blocks.0.attn.hook_z[3]", "blocks.1.mlp.hook_post")]  # fmt: skip
        dump(folder / "edges.pkl", edges)
        assert names(load_interpbench(folder)) == [
            ("embed", "1.attn.1.q"), ("embed", "1.attn.1.k"), ("embed", "1.attn.1.v"),
            ("0.attn.3", "1.mlp"),
        ]  # fmt: skip

    def test_a_program_may_end_before_the_last_layer(self, case: Path, tmp_path: Path) -> None:
        folder = copied(case, tmp_path)
        dump(folder / "edges.pkl", [("blocks.0.hook_mlp_out", "blocks.0.hook_resid_post")])
        assert names(load_interpbench(folder)) == [("0.mlp", "final_resid")]

    @pytest.mark.parametrize(
        ("edges", "says"),
        [
            ([("hook_embed", "blocks.0.hook_scale")], "not supported: 'blocks.0.hook_scale'"),
            ([("hook_embed", "BLOCKS")], "has an unknown part: 'BLOCKS'"),
            ([("ln_final", "blocks.0.hook_mlp_in")], "has an unknown part: 'ln_final'"),
            ([("blocks.1.hook_resid_pre", "blocks.1.hook_mlp_in")], "begins at a part"),
            ([("hook_embed", "blocks.0.hook_q_input")], "has an unknown part"),
            ([("hook_embed", "blocks.0.hook_mlp_in[1]")], "has an unknown part"),
            ([("hook_embed", "blocks.2.hook_mlp_in")], "the model has 2 layers of 4 heads"),
            ([("hook_embed", "blocks.1.hook_q_input[4]")], "the model has 2 layers of 4 heads"),
            ([("blocks.1.hook_mlp_out", "blocks.0.hook_mlp_in")], "does not lead forward"),
            ([("blocks.1.hook_mlp_in", "blocks.1.hook_resid_post")], "leaves a head or MLP"),
            ([("hook_embed",)], "expected a pair of names"),
            ([(1, 2)], "expected a pair of names"),
            ({}, "expected a list of edges, got dict"),
            ([], "the circuit is empty"),
            ([("blocks.0.hook_mlp_in", "blocks.0.hook_mlp_out")], "the circuit is empty"),
        ],
    )  # fmt: skip
    def test_unknown_parts_are_refused_in_a_line(
        self, edges: Any, says: str, case: Path, tmp_path: Path
    ) -> None:
        folder = copied(case, tmp_path)
        dump(folder / "edges.pkl", edges)
        refused(folder, says)


class _Attack:
    def __reduce__(self) -> Any:
        return os.system, ("exit 1",)


def pickle_to(value: Any, path: Path) -> None:
    dump(path, value)


class TestPickles:
    @pytest.mark.parametrize("name", ["ll_model_cfg.pkl", "edges.pkl", "ll_model.pth"])
    def test_no_code_runs(self, name: str, case: Path, tmp_path: Path) -> None:
        folder = copied(case, tmp_path)
        write = torch.save if name.endswith(".pth") else pickle_to
        write(_Attack(), folder / name)
        refused(folder, f"{name}.*system'?, which is not loaded")

    def test_a_memo_that_would_fill_the_memory_is_refused(self, case: Path, tmp_path: Path) -> None:
        folder = copied(case, tmp_path)
        put = pickle.LONG_BINPUT + (1 << 31).to_bytes(4, "little")
        (folder / "edges.pkl").write_bytes(b"\x80\x03]" + put + b".")
        refused(folder, "edges.pkl.*memo entry 2147483648 of 9 bytes")

    @pytest.mark.parametrize("name", ["ll_model_cfg.pkl", "edges.pkl"])
    def test_known_functions_stay_inert(self, name: str, case: Path, tmp_path: Path) -> None:
        """A name that settings may hold is not imported either, and no settings or edges."""
        folder = copied(case, tmp_path)
        dump(folder / name, torch.device("cpu"))
        refused(folder, "got torch.device" if name != "edges.pkl" else "which is not loaded")

    @pytest.mark.parametrize("name", ["ll_model_cfg.pkl", "edges.pkl", "ll_model.pth"])
    @pytest.mark.parametrize("content", [b"", b"\x80\x04", b"plain text", b"<!doctype html>"])
    def test_damage_is_a_line(self, name: str, content: bytes, case: Path, tmp_path: Path) -> None:
        folder = copied(case, tmp_path)
        (folder / name).write_bytes(content)
        refused(folder, name)

    @pytest.mark.parametrize("name", ["ll_model_cfg.pkl", "edges.pkl", "ll_model.pth"])
    def test_a_missing_file_is_named(self, name: str, case: Path, tmp_path: Path) -> None:
        folder = copied(case, tmp_path)
        (folder / name).unlink()
        refused(folder, name)

    def test_huge_files_are_not_read(self, case: Path, tmp_path: Path) -> None:
        folder = copied(case, tmp_path)
        (folder / "edges.pkl").write_bytes(pickle.dumps(b"0" * (1 << 24)))
        refused(folder, "too large for a pickle")

    def test_an_address_is_refused(self) -> None:
        with pytest.raises(InputError, match="is a web address, and nothing is downloaded"):
            load_interpbench("https://huggingface.co/cybershiptrooper/InterpBench")


class TestUnsupportedParts:
    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            ({"attention_dir": "bidirectional"}, "attention_dir is 'bidirectional'.*only causal"),
            ({"positional_embedding_type": "rotary"}, "positional_embedding_type is 'rotary'"),
            ({"attn_only": True}, "attn_only is True, which is not supported"),
            ({"final_rms": True}, "final_rms is True, which is not supported"),
            ({"parallel_attn_mlp": True}, "parallel_attn_mlp is True"),
            ({"gated_mlp": True}, "gated_mlp is True"),
            ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx is True"),
            ({"use_local_attn": True}, "use_local_attn is True"),
            ({"attn_scale": 8.0}, "attn_scale is 8.0"),
            ({"act_fn": "solu_ln"}, "act_fn is 'solu_ln'"),
            ({"normalization_type": "SOFT"}, "normalization_type is 'SOFT'"),
            ({"n_key_value_heads": 2}, "n_key_value_heads is 2"),
            ({"time_machine": {"speed": 88}}, "time_machine is .*which is not supported"),
            ({"n_layers": 0}, "n_layers"),
            ({"n_layers": 10**9}, "too few for the config's 1000000000 layers|n_layers|memory"),
            ({"d_model": "wide"}, "d_model"),
            ({"d_vocab_out": 0}, "d_vocab_out must be at least 1"),
            ({"n_heads": 3}, "W_Q is .*the config says"),
        ],
    )
    def test_they_are_refused_in_a_line(
        self, changes: dict[str, Any], says: str, case: Path, tmp_path: Path
    ) -> None:
        folder = copied(case, tmp_path)
        fields = lens_model().cfg.to_dict()
        dump(folder / "ll_model_cfg.pkl", fields | changes)
        refused(folder, says)

    def test_unknown_fields_that_are_off_are_ignored(self, case: Path, tmp_path: Path) -> None:
        folder = copied(case, tmp_path)
        fields = lens_model().cfg.to_dict() | {"time_machine": None, "new_norm": False}
        dump(folder / "ll_model_cfg.pkl", fields)
        same, known = load_interpbench(folder).model, load_interpbench(case).model
        assert same.fingerprint == known.fingerprint

    def test_unknown_missing_and_infinite_tensors_are_refused(
        self, case: Path, tmp_path: Path
    ) -> None:
        folder = copied(case, tmp_path)
        state = lens_model().state_dict()
        for changed, says in (
            (state | {"blocks.0.mlp.W_gate": torch.zeros(1)}, "has the tensor blocks.0.mlp.W_gate"),
            ({n: t for n, t in state.items() if n != "embed.W_E"}, "lacks the tensor embed.W_E"),
            (state | {"embed.W_E": state["embed.W_E"] * torch.inf}, "embed.W_E has an entry"),
        ):
            torch.save(changed, folder / "ll_model.pth")
            refused(folder, says)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[GroundTruth, Task]:
    """A case with a tokeniser, wired by hand: head 1.2 copies what MLP 0 makes of a token.

    Tokens `a` and `b` have +1 and -1 in channel 0; MLP 0 writes it to channel 1; head 2 of layer 1
    averages channel 1 into channel 2, which speaks for `yes` and against `no`. Head 0.0 and MLP 1
    write to channel 3, which no answer depends on.
    """
    import tokenizers

    words = ["a", "b", ".", "yes", "no", "[EOS]"]
    inner = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[EOS]")
    )
    inner.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    model = lens_model(d_vocab=6, d_vocab_out=-1, act_fn="relu", n_ctx=8)
    for weight in model.parameters():
        weight.zero_()
    state = model.state_dict()
    state["embed.W_E"][0, 0], state["embed.W_E"][1, 0] = 1.0, -1.0
    state["blocks.0.mlp.W_in"][0, :2] = torch.tensor([1.0, -1.0])
    state["blocks.0.mlp.W_out"][:2, 1] = torch.tensor([1.0, -1.0])
    state["blocks.1.attn.W_V"][2, 1, 0] = 1.0
    state["blocks.1.attn.W_O"][2, 0, 2] = 30.0
    state["blocks.0.attn.W_V"][0, 0, 0] = state["blocks.0.attn.W_O"][0, 0, 3] = 1.0
    state["blocks.1.mlp.W_in"][1, 2] = state["blocks.1.mlp.W_out"][2, 3] = 1.0
    state["unembed.W_U"][2, 3], state["unembed.W_U"][2, 4] = 1.0, -1.0
    edges = [("hook_embed", "blocks.0.hook_mlp_in"), EDGES[2], EDGES[0]]
    folder = write_case(tmp_path_factory.mktemp("planted"), model, edges=edges)
    ww.Tokenizer(inner, eot=5).save(folder / "tokenizer.json")
    prompts = [tuple(f"{'. ' * i}{word}{' .' * j}" for word in "ab")
               for i in range(4) for j in range(4)]  # fmt: skip
    pairs = [Pair((first, second), (" yes", " no")) for first, second in prompts]
    return load_interpbench(folder), Task("letters", tuple(pairs))


class TestRecovery:
    def test_acdc_and_edge_attribution_recover_the_circuit(
        self, planted: tuple[GroundTruth, Task]
    ) -> None:
        truth, task = planted
        circuit = acdc(truth.model, task, tau=0.01, progress=False)
        assert {(edge.source, edge.target) for edge in circuit.path_edges} == set(names(truth))
        assert path_edge_auroc(circuit, truth) == path_edge_auroc(circuit, truth, inputs=True) == 1
        assert path_edge_auroc(edge_attribution(truth.model, task), truth) == 1

    def test_inputs_of_a_head_count_as_one_unless_asked(
        self, planted: tuple[GroundTruth, Task]
    ) -> None:
        """With the query instead of the value as the truth, only heads are right."""
        truth, task = planted
        edges = [
            edge.model_copy(update={"target": edge.target.replace(".v", ".q")})
            for edge in truth.path_edges
        ]
        by_query = GroundTruth(truth.model, tuple(edges), truth.n_outputs)
        circuit = acdc(truth.model, task, tau=0.01, progress=False)
        assert path_edge_auroc(circuit, by_query) == 1
        # Two of three true edges score above the false ones that were removed, the third ties with
        # them; the one false edge that was kept may score above, below or as the two.
        false = circuit.patching.n_all - 3
        least = 2.5 * (false - 1) / (3 * false)
        most = least + 2 / (3 * false)
        assert least <= path_edge_auroc(circuit, by_query, inputs=True) <= most

    def test_an_edge_of_another_model_is_refused(self, planted: tuple[GroundTruth, Task]) -> None:
        truth, task = planted
        scores = edge_attribution(truth.model, task)
        edges = (PathEdge(source="embed", target="7.mlp"),)
        with pytest.raises(InputError, match=r"no path edge embed -> 7\.mlp"):
            path_edge_auroc(scores, GroundTruth(truth.model, edges, 6))
