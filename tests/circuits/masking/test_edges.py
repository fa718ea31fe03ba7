import torch

from wirework.circuits import Ablation, NodeSpace, find_edges, find_io_edges
from wirework.circuits.masking.edges import count_edges
from wirework.model import Model


def some_nodes(space: NodeSpace) -> list[tuple[str, int]]:
    generator = torch.Generator().manual_seed(6)
    return space.locate((torch.rand(space.size, generator=generator) < 0.5).nonzero().flatten())


def test_edges_are_those_of_a_plain_loop(random_model: Model, ablation: Ablation) -> None:
    nodes = some_nodes(ablation.space)
    state = random_model.transformer.state_dict()
    inner = 16
    expected = {}
    for s, (source, i) in enumerate(nodes):
        for t, (target, j) in enumerate(nodes):
            layer, kind = source.split(".", 1)
            if target.split(".", 1)[0] != layer:
                continue
            match kind, target.split(".", 1)[1]:
                case "attn.act_in", ("attn.q" | "attn.k" | "attn.v") as part:
                    row = inner * "qkv".index(part[-1]) + j
                    weight = state[f"blocks.{layer}.attn.qkv.weight"][row, i]
                case "attn.v", "attn.resid_delta":
                    weight = state[f"blocks.{layer}.attn.out.weight"][j, i]
                case "mlp.act_in", "mlp.post_act":
                    weight = state[f"blocks.{layer}.mlp.up.weight"][j, i]
                case "mlp.post_act", "mlp.resid_delta":
                    weight = state[f"blocks.{layer}.mlp.down.weight"][j, i]
                case _:
                    continue
            if weight != 0:
                expected[s, t] = float(weight)
    found = find_edges(random_model.transformer, nodes)
    assert [(e.source, e.target) for e in found] == sorted(expected)
    assert {(e.source, e.target): e.weight for e in found} == expected
    assert len(found) > 100
    assert count_edges(random_model.transformer, nodes) == len(found)
    assert count_edges(random_model.transformer, []) == 0


def test_one_neuron_one_read_one_write_are_three_nodes_and_two_edges(wired: Model) -> None:
    nodes = [("0.mlp.act_in", 4), ("0.mlp.post_act", 0), ("0.mlp.resid_delta", 6)]
    found = find_edges(wired.transformer, nodes)
    assert [(e.source, e.target, e.weight) for e in found] == [(0, 1, 1.0), (1, 2, 0.5)]


def test_io_edges_join_tokens_to_reads_and_writes_to_answers(random_model: Model) -> None:
    embed, unembed = (
        random_model.transformer.embed.weight.detach(),
        random_model.transformer.unembed.weight.detach(),
    )
    token = int(embed[:, 3].abs().argmax())
    answer = int(unembed[:, 5].abs().argmax())
    nodes = [
        ("0.attn.act_in", 3), ("0.attn.act_in", 17), ("0.attn.resid_delta", 5), ("1.mlp.act_in", 3),
    ]  # fmt: skip
    found = find_io_edges(random_model.transformer, nodes, {token: "x"}, {answer: "y"})
    # Channel 17 is a position's (d_model is 16): no embedding entry goes there.
    assert [(e.token, e.target, e.answer, e.source) for e in found] == [
        ("x", 0, None, None),
        ("x", 3, None, None),
        (None, None, "y", 2),
    ]
    assert [e.weight for e in found] == [embed[token, 3]] * 2 + [unembed[answer, 5]]
