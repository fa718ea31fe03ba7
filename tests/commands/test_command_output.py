"""Printed results: the verdict first, what is good beside each number, the next command last."""

import json
import os
import shlex
import shutil
import signal
import sys
import textwrap
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Started

from wirework.circuits import PathCircuit
from wirework.cli import main
from wirework.commands.circuit_tables import on_them_alone, print_strongest, show_circuits
from wirework.commands.meanings import meaning, score_meaning
from wirework.commands.printing import print_paths, show
from wirework.errors import InputError
from wirework.files import read_json, verify_dir
from wirework.menu import app

GOLDEN = Path(__file__).parent.parent / "golden"
COMMANDS = {
    "tasks": "tasks model",
    "acdc": "acdc model single_double_quote --pairs 8",
    "acdc of several taus": "acdc model single_double_quote --pairs 8 --tau 0.01 9 --out taus",
    "attribute": "attribute model single_double_quote --pairs 8 --out edges",
    "attribute, not saved": "attribute model single_double_quote --pairs 8",
    "validate": "validate circuit --short",
    "validate, report": "validate circuit --short --report report",
    "attack": "attack circuit --pairs 4 --out attack",
    "explain-circuit": "explain-circuit circuit --pairs 8 --out words",
    "explain": "explain runs/run --config settings/explain.yaml --out explained",
    "estimate": "explain runs/run --estimate-only --explainer language_model --server.model m",
    "finders": "study finders model --config settings/finders.yaml --corpus text.jsonl"
    " --out finders",
    "self-ablation": "study self-ablation --config settings/self_ablation.yaml --out self_ablation",
    "train": "train --config settings/train.yaml --resume",
    "prune": "prune model single_double_quote --config settings/prune.yaml --corpus text.jsonl"
    " --out circuit",
    "prune, several circuits": "prune model single_double_quote --config settings/prune.yaml"
    " --corpus text.jsonl --exhaust --out circuits",
}  # fmt: skip
WROTE = {
    "acdc of several taus": "taus/tau-9",
    "attribute": "edges",
    "attack": "attack/attack.json, attack/attack.png",
    "explain": "explained",
    "explain-circuit": "words/explanation.json, words/explanation.md",
    "finders": "finders/finders.json, finders/finders.png, finders/faithfulness.png",
    "prune": "circuit",
    "prune, several circuits": "circuits",
    "self-ablation": "self_ablation/results.json, self_ablation/self_ablation.png",
    "train": "runs/run",
    "validate, report": "report/report.json",
}
"""Files and folders on the last line but one of the commands that write."""
VERDICTS = {
    "estimate": "168 requests to m for a first run",
    "self-ablation": "0 of 5 claims of the paper held; 5 could not be judged",  # one seed, no SAE
}
"""Beginnings of the verdicts of some commands."""
Run = Callable[..., str]

pytestmark = [
    pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens"),
    pytest.mark.usefixtures("one_thread"),
]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return `run(line)`: what a command prints in a copy of the golden folder."""
    shutil.copytree(GOLDEN, tmp_path / "golden")
    monkeypatch.chdir(tmp_path / "golden")
    monkeypatch.setenv("WIREWORK_PRODUCTS", "torch")

    def printed(line: str) -> str:
        monkeypatch.setattr(sys, "argv", ["wirework", *line.split()])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        out, err = capsys.readouterr()
        assert not end.value.code, err
        return out

    return printed


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_begins_with_its_verdict_and_ends_with_what_it_wrote_and_the_next_one(
    name: str, run: Run
):
    lines = run(COMMANDS[name]).splitlines()
    assert lines[0].startswith(f"verdict: {VERDICTS.get(name, '')}")
    assert sum(line.startswith("verdict: ") for line in lines) == 1
    assert sum(line.startswith("next: ") for line in lines) == 1
    assert_runs(lines[-1])
    wrote = lines[-2].removeprefix("wrote: ") if lines[-2].startswith("wrote: ") else None
    assert wrote == WROTE.get(name)
    assert all(Path(path).exists() for path in (wrote or ".").split(", "))


@pytest.mark.slow
def test_view_serves_until_ctrl_c_and_ends_with_the_next_command(
    start: Callable[..., Started], tmp_path: Path
):
    shutil.copytree(GOLDEN / "paths", tmp_path / "paths")
    reader, writer = os.pipe()
    with os.fdopen(reader) as output:
        served = start("view", "paths", cwd=tmp_path, stdout=writer)
        os.close(writer)
        address = output.readline().strip()
        assert address.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(address, timeout=60) as page:  # now it handles signals
            assert page.status == 200
        served.send_signal(signal.SIGINT)
        assert served.wait(60) == 128 + signal.SIGINT
        assert output.read() == "next: wirework export paths -o paths.html\n"


def test_an_estimate_ends_with_the_command_that_it_is_of(run: Run):
    last = run(COMMANDS["estimate"]).splitlines()[-1]
    assert last.endswith("--explainer language_model --server.model m")
    assert_runs(last)


def assert_runs(line: str) -> None:
    """The line names a command that parses, on paths that are there."""
    assert line.startswith("next: wirework ")
    words = shlex.split(line.removeprefix("next: "))[1:]
    app.parse_args(words, exit_on_error=False, print_error=False)
    model = next(word for word in words[1:] if not word.startswith("-"))
    assert Path(model).exists()


@pytest.mark.parametrize("name", ["tasks", "acdc", "validate", "explain"])
def test_json_is_one_object_without_verdict_or_next(name: str, run: Run):
    (line,) = run(f"{COMMANDS[name]} --json").splitlines()
    assert isinstance(json.loads(line), dict)


def test_tasks_says_which_behaviours_the_model_does_best_first(run: Run):
    text = run("tasks model --task with_open single_double_quote for_while")
    assert "the model does 1 of 2 behaviours that fit it: single_double_quote" in text
    rows = [line.split("│") for line in text.splitlines() if line.startswith("│")]
    named = {row[1].strip(): (row[2].strip(), row[3].strip()) for row in rows if row[1].strip()}
    assert [*named.items()] == [
        ("single_double_quote", ("yes", "1.00 ± 0.00")),
        ("with_open", ("no", "0.00 ± 0.00")),
    ]
    assert "for_while does not fit: task for_while does not fit this tokeniser" in text


def test_of_several_taus_the_smallest_accurate_circuit_is_shown(run: Run):
    text = run(COMMANDS["acdc of several taus"])  # at tau 9 no edge is left
    assert text.startswith("verdict: 2 of 46 path edges stay at tau 0.01: ")
    assert text.endswith("next: wirework export taus/tau-0.01 -o taus/tau-0.01.html\n")


@pytest.mark.parametrize(
    ("taus", "place"), [("9", "none"), ("9 8", "none/tau-0.8")], ids=["one tau", "several taus"]
)
def test_a_circuit_without_edges_asks_for_a_lower_tau(taus: str, place: str, run: Run):
    line = f"acdc model single_double_quote --pairs 8 --tau {taus} --out none"
    last, tau = run(line).splitlines()[-1], "0.9" if taus == "9" else "0.8"
    wanted = f"acdc model single_double_quote --tau {tau} --pairs 8 --out {place}"
    assert last == f"next: wirework {wanted}"
    assert_runs(last)
    run(wanted)  # `--out` is not refused
    assert PathCircuit.load(place).patching.tau == float(tau)


@pytest.mark.parametrize(
    ("line", "flags"),
    [
        ("acdc model single_double_quote --tau 0.01 0.1 --pairs 8 --symmetric --metric task_loss",
         "--tau 0.01 0.1 --metric task_loss --symmetric --pairs 8"),
        ("attribute model single_double_quote --steps 2 --edges 3 --pairs 8 --symmetric",
         "--edges 3 --steps 2 --symmetric --pairs 8"),
    ],
    ids=["acdc", "attribute"],
)  # fmt: skip
def test_the_next_command_repeats_the_settings(line: str, flags: str, run: Run):
    last = run(line).splitlines()[-1]
    assert last.startswith(f"next: wirework {line.split()[0]} model single_double_quote {flags} ")
    assert_runs(last)


@pytest.mark.parametrize(
    ("source", "then"),
    [
        ("circuit", "attack circuit --out circuit-attack"),
        ("paths", "prune model single_double_quote --out paths-nodes"),  # no attack reads paths
        ("explained", "measure runs/run/model --out measures"),
    ],
)
def test_export_names_a_command_that_reads_what_it_showed(
    source: str, then: str, run: Run, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr("wirework.cli._show_anything", lambda: None)
    last = run(f"export {source} -o page.html").splitlines()[-1]
    assert last == f"next: wirework {then}"
    assert_runs(last)


def test_export_of_path_edges_without_a_model_suggests_the_view(
    run: Run, monkeypatch: pytest.MonkeyPatch
):
    document = PathCircuit.load("paths").document
    model = document.model.model_copy(update={"path": None})
    PathCircuit(document.model_copy(update={"model": model})).save("paths")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr("wirework.cli._show_anything", lambda: None)
    last = run("export paths -o page.html").splitlines()[-1]
    assert last == "next: wirework view paths"
    assert_runs(last)


def test_acdc_says_what_its_strongest_edges_carry(run: Run):
    text = run(COMMANDS["acdc"] + " --out paths")
    assert "output of head 0.attn.0 to the unembedding" in text
    assert "the token embedding to values of head 0.attn.0" in text
    assert "wrote: paths\n" in text


def test_only_the_ten_strongest_edges_are_shown(capsys: pytest.CaptureFixture[str]):
    from types import SimpleNamespace as Namespace

    edges = [Namespace(source=f"{i}.mlp", target=f"{i + 1}.mlp", effect=i) for i in range(12)]
    circuit = Namespace(path_edges=edges, patching=Namespace(metric="kl"))
    print_strongest(circuit)
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    assert [int(row.split("│")[3]) for row in rows] == [*range(11, 1, -1)]
    assert "output of the MLP of layer 11 to the MLP of layer 12" in rows[0]


def test_attribute_ranks_all_edges_and_prints_the_ten_strongest(run: Run):
    line = COMMANDS["attribute"]
    printed, text = json.loads(run(f"{line} --json")), run(line)
    effects = [edge["effect"] for edge in printed["edges"]]
    assert len(effects) == printed["of"] > 10
    assert effects == sorted(effects, key=lambda effect: -abs(effect))
    assert printed["circuit"] == "edges"
    shown = [row.split("│") for row in text.splitlines() if row.count("│") == 5]
    assert len(shown) == 10
    strongest = [(edge["source"], edge["target"]) for edge in printed["edges"][:10]]
    assert [(row[1].strip(), row[2].strip()) for row in shown] == strongest
    assert "wrote: edges\n" in text


def test_attribute_saves_the_circuit_of_the_strongest_edges(run: Run):
    printed = json.loads(run(f"{COMMANDS['attribute']} --edges 2 --metric task_loss --json"))
    circuit = PathCircuit.load("edges")
    assert circuit.document.provenance.finder == "edge_attribution"
    assert circuit.patching.metric == "task_loss"
    kept = [(edge.source, edge.target) for edge in circuit.path_edges]
    ranked = [(edge["source"], edge["target"]) for edge in printed["edges"]]
    assert len(kept) == printed["n_path_edges"] <= 2
    assert set(kept) <= set(ranked[:2])


@pytest.mark.parametrize(
    ("edges", "verdict"),
    [
        (3, "2 of the 3 strongest path edges (1 has no effect and is left out), of 46 in all: "),
        (46, "the strongest 46 path edges of 46, by gradient: "),
        (99, "the strongest 46 path edges of 46, by gradient: "),
    ],
)
def test_the_verdict_of_attribute_counts_the_edges_that_were_saved(
    edges: int, verdict: str, run: Run
):
    text = " ".join(run(f"{COMMANDS['attribute']} --edges {edges}").split())
    assert text.startswith(f"verdict: {verdict}accuracy ")
    assert PathCircuit.load("edges").n_path_edges == (2 if edges == 3 else 46)


def test_a_kl_below_zero_by_rounding_is_printed_as_zero():
    from types import SimpleNamespace as Namespace

    part = Namespace(accuracy=1.0, model_accuracy=1.0, kl=-4.44e-16)
    assert "; KL 0 nats (" in on_them_alone(part)
    part.kl = 0.25
    assert "; KL 0.25 nats (" in on_them_alone(part)


def test_the_table_of_many_tasks_names_the_levels_that_are_met(
    capsys: pytest.CaptureFixture[str],
):
    sizes = {"n_nodes": 40, "n_edges": 420, "n_kept_edges": 350, "paper_edges": 1234}
    losses = dict.fromkeys(["model", "circuit", "held_out", "resampled", "without_circuit"], 1.234)
    row = {"task": "set_or_string_fixedvarname", **sizes, **losses, "verdict": "open"}
    levels = {"sufficient": "met", "specific": "open", "robust": "met", "minimal": "failed"}
    show_circuits([row | levels], as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 120
    (cells,) = (line.split("│") for line in lines if "sufficient" in line)
    assert [cells[-3].strip(), cells[-2].strip()] == ["sufficient, robust", "open"]
    show_circuits([row | levels], as_json=True)
    assert json.loads(capsys.readouterr().out) == {"circuits": [row | levels]}


def test_patterns_of_an_explanation_are_in_its_files_and_on_the_terminal(run: Run):
    source = Path(str(textwrap.__file__)).read_text(encoding="utf-8").split("\n\n")
    Path("more.jsonl").write_text("".join(f"{json.dumps({'text': text})}\n" for text in source))
    printed = run("explain-circuit circuit --pairs 8 --patterns --corpus more.jsonl --out words")
    explanation = read_json(Path("words/explanation.json"))
    found = explanation["patterns"]
    nodes = {node["node"] for node in explanation["nodes"]}
    assert {one["node"] for one in found} <= nodes
    assert {one["negated"] for one in found} == {False, True}
    page = Path("words/explanation.md").read_text()
    for shown in (printed, page):
        assert "here in text its nodes are above and below 0" in shown
    for one in found:
        side = "below 0" if one["negated"] else "above 0"
        score = "none" if one["score"] is None else f"{one['score']:.2f}"
        assert f"| `{one['node']}` | {side} | {score} | `" in page


def test_patterns_without_text_are_refused_before_the_work(run: Run):
    with pytest.raises(AssertionError, match="no training text for this model"):
        run("explain-circuit circuit --pairs 8 --patterns --out words")
    assert not Path("words").exists()


def test_an_explanation_that_is_stopped_leaves_both_files_as_they_were(
    run: Run, monkeypatch: pytest.MonkeyPatch
):
    folder, other = Path("words"), "explain-circuit circuit --pairs 9 --out words"
    run("explain-circuit circuit --pairs 8 --out words")
    verify_dir(folder, ("explanation.json", "explanation.md"))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def stopped(_: object) -> str:
        raise InputError("between the two files")

    with monkeypatch.context() as patch:
        patch.setattr("wirework.circuits.reading.explanation_text.to_markdown", stopped)
        with pytest.raises(AssertionError, match="wirework: between the two files"):
            run(other)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    run(other)
    now = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert [name for name in before if now[name] == before[name]] == []


def test_attack_is_prose_in_lines_of_a_hundred_characters(run: Run):
    lines = run(COMMANDS["attack"]).splitlines()
    assert max(map(len, lines)) <= 100
    assert "Attention" in lines
    assert not any(line.startswith(("│", "┌")) for line in lines)
    assert any(line.startswith("  head 0.attn.0 picks tokens") for line in lines)


def test_a_number_has_what_is_good_beside_it(capsys: pytest.CaptureFixture[str]):
    show("t", {"losses": {"circuit": 0.25}, "steps": 3}, as_json=False)
    rows = [line.split("│") for line in capsys.readouterr().out.splitlines() if "│" in line]
    assert [[cell.strip() for cell in row[1:-1]] for row in rows] == [
        ["losses.circuit", "0.25", "circuit alone; lower is better"],
        ["steps", "3", ""],
    ]
    assert meaning("precision") == ""  # of `doctor`; that of explanations is `score_meaning`'s
    assert score_meaning("precision") != ""
    assert meaning("held_out: top1") == meaning("top1") == meaning("agreement.top1") != ""


def test_paths_stand_alone_where_a_program_reads_them(capsys: pytest.CaptureFixture[str]):
    print_paths(Path("a b.html"), then=("view", Path("c")))
    assert capsys.readouterr().out == "a b.html\n"


def test_on_a_terminal_paths_are_followed_by_the_next_command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    print_paths(Path("a.html"), then=("view", Path("c d")))
    assert capsys.readouterr().out == "a.html\nnext: wirework view 'c d'\n"
