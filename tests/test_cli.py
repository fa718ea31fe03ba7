"""The command as a user runs it: its output, its exit code, its end by a signal."""

import fcntl
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import WIREWORK, Started, run_here
from marks import slow_cases

from wirework import __version__, menu
from wirework.config import ModelConfig
from wirework.data import Tokenizer
from wirework.errors import InputError
from wirework.model import Model
from wirework.nn import Transformer
from wirework.nn.kernels.products import LIBRARIES

GOLDEN = Path(__file__).parent / "golden"
Start = Callable[..., Started]
VERBS = [
    "acdc", "train", "tasks", "prune", "validate", "attack", "explain", "measure", "sae", "view",
    "export", "convert", "study", "demo", "doctor", "attribute", "explain-circuit",
]  # fmt: skip
INNER = {
    "convert": ["huggingface", "interpbench", "openai", "self-ablating", "to-huggingface"],
    "study": ["ablations", "binarise", "finders", "frontier", "self-ablation"],
}


def refuses(*arguments: str | Path, says: str, cwd: Path | None = None) -> None:
    """The command ends with code 2 and exactly one line, on standard error, that says why."""
    result = run_here(*arguments, cwd=cwd)
    assert result.returncode == 2, result.stderr
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("wirework: ")
    assert says in line


@pytest.fixture
def model_folder(tmp_path: Path, tokenizer: Tokenizer) -> Path:
    config = ModelConfig(vocab_size=tokenizer.vocab_size, d_model=32, n_layer=1, n_ctx=64)
    return Model(Transformer(config), tokenizer).save(tmp_path / "model")


class TestImports:
    def test_help_names_every_verb_and_imports_nothing_heavy(self):
        code = "import sys; sys.argv = ['wirework', '--help']; from wirework.cli import main\n"
        code += "try: main()\nexcept SystemExit: pass\n"
        code += "assert not {'torch', 'numpy', 'pydantic'} & set(sys.modules)"
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        assert all(f" {verb} " in result.stdout for verb in VERBS)

    def test_import_wirework_is_light(self):
        heavy = "{'torch', 'numpy', 'pydantic', 'cyclopts', 'rich'}"
        code = f"import sys, wirework; assert not {heavy} & set(sys.modules)"
        assert subprocess.run([sys.executable, "-c", code]).returncode == 0

    @pytest.mark.parametrize("words", [[], ["-h"], ["--version"], ["tain"], ["study", "frontiers"]])
    def test_what_needs_no_work_imports_nothing_heavy(self, words: list[str]):
        code = f"import sys; sys.argv = ['wirework', *{words!r}]; from wirework.cli import main\n"
        code += "try: main()\nexcept SystemExit: pass\n"
        code += "assert not {'torch', 'numpy', 'pydantic', 'wirework.config'} & set(sys.modules)"
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    "words", [[verb, inner] for verb in VERBS for inner in INNER.get(verb, [""])]
)
def test_each_help_has_an_example(words: list[str]):
    command = [word for word in words if word]
    result = run_here(*command, "--help")
    assert result.returncode == 0
    assert f"wirework {' '.join(command)}" in result.stdout.split("Example:")[1]


class TestMistakes:
    def test_mistakes_are_one_line_and_code_2(self, tmp_path: Path):
        settings = tmp_path / "settings.yaml"
        settings.write_text("model: {d_modle: 64}\n")
        refuses("train", "--config", settings, says="d_modle")
        refuses("train", "--config", settings, says="did you mean 'd_model'")
        settings.write_text("modle: {}\n")
        refuses("train", "--config", settings, says="unknown setting 'modle'; did you mean 'model'")
        settings.write_bytes(b"\xff\xfe\x00")
        refuses("prune", "--config", settings, says="settings.yaml is not UTF-8 text: byte 0")
        refuses("train", "--config", tmp_path / "none.yaml", says="none.yaml: No such file")
        refuses("train", "--model.d-modle", "64", says="--model.d-model")
        refuses("train", "--model.d-model", "100", says="d_model 100 is not divisible by d_head 16")
        refuses("train", "--weight-sparsity.l0-fraction", "3", says="weight_sparsity.l0_fraction")
        refuses("train", "--data.corpus", "", says="data.corpus", cwd=tmp_path)
        refuses("train", "--data.corpus", tmp_path / "none.txt", says="none.txt", cwd=tmp_path)
        refuses("tain", says="tain")
        refuses("tasks", tmp_path, says="no model at")
        refuses("validate", tmp_path, says="no circuit at")
        refuses("attack", tmp_path, "--out", tmp_path / "a", says="no circuit at")
        refuses("sae", tmp_path, "--out", tmp_path / "sae", says="no model at")
        refuses("sae", tmp_path, "--out", tmp_path, says="is not an autoencoder: not overwritten")
        refuses("sae", tmp_path, "--out", tmp_path / "sae", "--expansion", "0", says="expansion")
        refuses("attack", tmp_path, "--out", "/proc/a", says="cannot write /proc/a")
        page = tmp_path / "page.html"
        refuses(
            "export",
            tmp_path,
            "-o",
            page,
            says=f"neither circuit nor explained neurons at {tmp_path}",
        )
        circuit = tmp_path / "circuit"
        circuit.mkdir()
        (circuit / "circuit.json").write_text("{}")
        refuses("export", circuit, "-o", page, "--png", page, says="must end in .png")
        refuses("export", circuit, "-o", "x.png", "--png", "./x.png", says="are the same file")
        refuses(
            "export", circuit, "-o", page, "--png", "/proc/x.png", says="cannot write /proc/x.png"
        )
        assert not page.exists()
        refuses("convert", "openai", tmp_path, tmp_path / "out", says="beeg_config.json")
        refuses(
            "convert", "self-ablating", tmp_path, tmp_path / "out", says="expected one .pt file"
        )
        refuses("convert", "interpbench", tmp_path, tmp_path / "out", says="ll_model_cfg.pkl")

    def test_debug_shows_where_a_mistake_was_found_out(self, tmp_path: Path):
        (tmp_path / "model").mkdir()
        (tmp_path / "model" / "config.json").write_text("{")
        for words in (["--debug", "tasks", "model"], ["tasks", "model", "--debug"]):
            result = run_here(*words, cwd=tmp_path)
            assert result.returncode == 2
            assert result.stderr.startswith("Traceback")
            assert result.stderr.splitlines()[-1].startswith("wirework: ")
            assert "JSONDecodeError" in result.stderr
        refuses("tasks", "model", says="config.json", cwd=tmp_path)

    def test_a_defect_keeps_its_traceback_and_says_what_it_is(self):
        code = "import sys, wirework.menu; sys.argv = ['wirework']\n"
        code += "wirework.menu.launch = lambda: 1 / 0\nfrom wirework.cli import main; main()"
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert result.returncode == 1
        assert result.stderr.startswith("Traceback")
        assert "ZeroDivisionError" in result.stderr
        assert "a defect of wirework" in result.stderr.splitlines()[-1]

    def test_a_model_without_tokeniser_is_refused_in_a_line(self, tmp_path: Path):
        config = ModelConfig(vocab_size=60, d_model=32, n_layer=1, n_ctx=64)
        folder = Model(Transformer(config)).save(tmp_path / "model")
        says = (
            f"{folder}: a task needs a model with a tokeniser, this one has none: convert it again"
        )
        refuses("tasks", folder, says=says)
        refuses("prune", folder, "for_while", "--out", tmp_path / "circuit", says=says)
        refuses("acdc", folder, "for_while", "--out", tmp_path / "circuit", says=says)
        assert not (tmp_path / "circuit").exists()


def test_convert_overwrites_nothing_but_a_model(model_folder: Path, tmp_path: Path):
    (tmp_path / "config.json").write_text("{}")
    for kind in ("openai", "self-ablating", "huggingface", "interpbench"):
        refuses("convert", kind, model_folder, tmp_path, says="exists and is not a model")
    refuses("convert", "huggingface", model_folder, model_folder, says="is what is to be converted")
    assert (tmp_path / "config.json").read_text() == "{}"


class TestAcdcCommand:
    def test_acdc_prints_a_row_for_each_tau_and_saves_the_circuits(
        self, model_folder: Path, tmp_path: Path
    ):
        words = [
            "acdc",
            model_folder,
            "single_double_quote",
            "--pairs",
            "4",
            "--out",
            tmp_path / "c",
        ]
        result = run_here(*words, "--tau", "1e-7", "0.1", "--json")
        assert result.returncode == 0, result.stderr
        first, second = json.loads(result.stdout)["acdc"]
        assert (first["tau"], second["tau"], second["n_path_edges"]) == (1e-7, 0.1, 0)
        assert 0 < first["n_path_edges"] <= first["of"] == second["of"]
        saved = json.loads((tmp_path / "c" / "tau-1e-07" / "circuit.json").read_text())
        assert saved["n_path_edges"] == first["n_path_edges"]
        page, picture = tmp_path / "c.html", tmp_path / "c.png"
        result = run_here("export", tmp_path / "c" / "tau-1e-07", "-o", page, "--png", picture)
        assert result.stdout.split() == [str(page), str(picture)], result.stderr
        refuses(
            "validate", tmp_path / "c" / "tau-0.1", says="expected a circuit of nodes and edges"
        )

    def test_acdc_refuses_what_it_cannot_use_in_one_line(self, model_folder: Path, tmp_path: Path):
        words = ["acdc", model_folder, "single_double_quote"]
        order = tmp_path / "order.txt"
        order.write_text("embed -> final_resid\n")
        refuses(*words, "--order", order, says="an order must contain all")
        refuses(*words, "--tau", "0.1", "--tau", "0.1", says="each tau once")
        refuses(*words, "--out", tmp_path, says="exists and is not a circuit: not overwritten")
        pairs = tmp_path / "pairs.jsonl"
        pair = {"prompts": ["a = 1\nb = ", "b = "], "answers": ["1", "2"]}
        pairs.write_text(json.dumps(pair))
        refuses("acdc", model_folder, pairs, says="need prompts of equal length")


TRAIN = [
    "train", "--name", "run", "--steps", "1000000", "--batch-size", "1", "--log-every", "1",
    "--data.corpus", "corpus", "--data.vocab-size", "400", "--data.val-fraction", "0.2",
    "--model.vocab-size", "400", "--model.n-ctx", "8", "--model.n-layer", "1",
    "--model.d-model", "16", "--weight-sparsity", "none", "--device", "cpu",
    "--precision", "float32",
]  # fmt: skip


def write_corpus(folder: Path) -> None:
    (folder / "corpus").mkdir()
    for i in range(30):
        (folder / "corpus" / f"{i}.py").write_text("".join(f"v{i}_{j} = {j}\n" for j in range(99)))


def until_training(folder: Path, child: Started | subprocess.Popen[str]) -> Path:
    """Wait for the first steps of a training run in a folder; return its log."""
    log = folder / "runs" / "run" / "metrics.jsonl"
    while child.poll() is None and not (log.is_file() and log.stat().st_size):
        time.sleep(0.05)
    return log


AT_IMPORT = """
import os, sys
class Sends:
    def find_spec(self, name, path=None, target=None):
        if name == {name!r}:
            os.kill(os.getpid(), {number})
            os.kill(os.getpid(), {number})
sys.meta_path.insert(0, Sends())
sys.argv = ["wirework", "doctor"]
from wirework.cli import main
main()
"""


SLOW = """
import pathlib, time
def wait(*_):
    pathlib.Path("begun").touch()
    time.sleep(600)
def pair(rng):
    wait()
def documents():
    yield "a = 1\\n"
    wait()
"""


SWALLOWS = """
import pathlib, time
def pair(rng):
    pathlib.Path("begun").touch()
    try:
        time.sleep(600)
    except KeyboardInterrupt:
        raise ValueError("an error of its own") from None
"""


class TestSignals:
    @pytest.mark.parametrize(
        "number",
        [
            signal.SIGTERM,
            signal.SIGINT,
            *slow_cases(signal.SIGHUP, signal.SIGUSR1, signal.SIGXCPU),
        ],
    )
    def test_a_signal_ends_training_with_one_line_and_its_code(
        self, tmp_path: Path, start: Start, number: signal.Signals
    ):
        write_corpus(tmp_path)
        child = start(*TRAIN, cwd=tmp_path)
        until_training(tmp_path, child)
        child.send_signal(number)
        _, said = child.communicate(timeout=60)
        assert child.returncode == 128 + number
        last = said.splitlines()[-1]
        assert last.startswith("wirework: stopped at step")
        assert "saved" in last
        assert "Traceback" not in said

    def test_a_hang_up_that_nohup_ignores_stays_ignored(self, tmp_path: Path, start: Start):
        write_corpus(tmp_path)
        child = start(*TRAIN, cwd=tmp_path, ignored=[signal.SIGHUP])
        log = until_training(tmp_path, child)
        child.send_signal(signal.SIGHUP)
        size = log.stat().st_size
        while child.poll() is None and log.stat().st_size < size + 10_000:
            time.sleep(0.05)
        child.send_signal(signal.SIGTERM)
        assert child.wait(timeout=60) == 143

    @pytest.mark.slow
    def test_training_saves_when_its_terminal_is_gone(self, tmp_path: Path):
        leader, follower = pty.openpty()

        def take_terminal() -> None:
            os.setsid()
            fcntl.ioctl(follower, termios.TIOCSCTTY, 0)

        write_corpus(tmp_path)
        child = subprocess.Popen(
            [str(WIREWORK), *TRAIN], cwd=tmp_path, text=True, preexec_fn=take_terminal,
            stdin=follower, stdout=follower, stderr=follower,
        )  # fmt: skip
        try:
            until_training(tmp_path, child)
            os.close(follower)
            os.close(leader)
            assert child.wait(timeout=60) == 128 + signal.SIGHUP
        finally:
            child.kill()
            child.wait()
        (saved,) = (tmp_path / "runs" / "run" / "checkpoints").glob("step-*")
        assert (saved / "checksums.json").is_file()

    @pytest.mark.parametrize("name", ["cyclopts", "wirework.commands", "torch", "wirework.doctor"])
    @pytest.mark.parametrize("number", [signal.SIGINT, *slow_cases(signal.SIGTERM)])
    def test_a_signal_while_modules_load_is_one_line(self, name: str, number: signal.Signals):
        code = AT_IMPORT.format(name=name, number=int(number))
        ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert (ended.returncode, ended.stdout, ended.stderr) == (
            128 + number, "", "wirework: stopped\n",
        )  # fmt: skip

    @pytest.mark.parametrize(
        "words",
        [
            "tasks model --task slow.py:pair",
            "validate circuit --task slow.py:pair",
            "train --data.corpus slow.py:documents --device cpu --precision float32",
            *slow_cases(
                "prune model slow.py:pair --out c",
                "acdc model slow.py:pair --out c",
                "attribute model slow.py:pair --out c",
                "sae model --corpus slow.py:documents --out c",
                "explain model --corpus slow.py:documents --out c",
                "measure model --corpus slow.py:documents --out c",
                "study finders model --task slow.py:pair --out c",
                "study frontier --train.data.corpus slow.py:documents --out c --dense-widths 16",
                "study self-ablation --train.data.corpus slow.py:documents --out c",
            ),
        ],
    )
    def test_sigterm_ends_each_verb_with_one_line_and_its_code(
        self, model_folder: Path, tmp_path: Path, start: Start, words: str
    ):
        if words.startswith("validate"):
            shutil.copytree(GOLDEN / "circuit", tmp_path / "circuit")
            words += f" --model {GOLDEN / 'model'}"
        (tmp_path / "slow.py").write_text(SLOW)
        child = start(*words.split(), cwd=tmp_path)
        while child.poll() is None and not (tmp_path / "begun").exists():
            time.sleep(0.05)
        child.send_signal(signal.SIGTERM)
        child.send_signal(signal.SIGTERM)
        _, said = child.communicate(timeout=60)
        assert child.returncode == 143, said
        assert said.splitlines()[-1].startswith("wirework: stopped")
        assert said.count("wirework: ") == 1
        assert "Traceback" not in said

    @pytest.mark.parametrize("verb", ["tasks model --task", "acdc model --out c"])
    def test_a_signal_that_became_an_error_of_other_code_keeps_its_exit_code(
        self, model_folder: Path, tmp_path: Path, start: Start, verb: str
    ):
        (tmp_path / "swallows.py").write_text(SWALLOWS)
        words = [*verb.split(), "swallows.py:pair"]
        child = start(*words, cwd=tmp_path)
        while child.poll() is None and not (tmp_path / "begun").exists():
            time.sleep(0.05)
        child.send_signal(signal.SIGTERM)
        _, said = child.communicate(timeout=60)
        assert child.returncode == 143, said
        assert said.splitlines()[-1].startswith("wirework: stopped")
        assert said.count("wirework: ") == 1

    @pytest.mark.parametrize("number", [signal.SIGTERM, *slow_cases(signal.SIGINT)])
    def test_a_signal_ends_a_search_with_one_line_and_its_code(
        self, model_folder: Path, tmp_path: Path, start: Start, number: signal.Signals
    ):
        text = tmp_path / "text.txt"
        text.write_text("print('hello', name)\n" * 2000)
        out = tmp_path / "quote"
        words = ["prune", model_folder, "single_double_quote", "--out", out, "--corpus", text]
        more = ["--steps", "1000000", "--allow-unreached"]
        child = start(*words, *more, cwd=tmp_path)
        while child.poll() is None and not list(tmp_path.glob("quote.search/*/study.log")):
            time.sleep(0.05)
        for _ in range(3):  # an impatient person's
            child.send_signal(number)
            time.sleep(0.05)
        _, said = child.communicate(timeout=60)
        assert child.returncode == 128 + number
        assert said.splitlines()[-1] == (
            f"wirework: stopped; the same command goes on from what was saved in {out}.search"
        )
        assert "Traceback" not in said
        assert not out.exists()


class TestOutput:
    @pytest.mark.slow
    def test_a_reader_that_has_gone_ends_a_command_without_a_word(self, start: Start):
        reader, writer = os.pipe()
        os.close(reader)
        ended = subprocess.run([str(WIREWORK), "--help"], stdout=writer, stderr=subprocess.PIPE)
        assert (ended.returncode, ended.stderr) == (141, b"")
        for words in (["tasks"], ["tasks", "--json"], ["prune", "--help"]):
            child = start(*words, stdout=writer)
            _, said = child.communicate(timeout=60)
            assert (child.returncode, said) == (141, "")
        os.close(writer)

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
    @pytest.mark.parametrize("words", [["tasks"], ["--help"], ["train", "--help"], ["--version"]])
    def test_output_that_cannot_be_written_is_one_line(self, words: list[str]):
        with Path("/dev/full").open("w") as full:
            ended = subprocess.run(
                [str(WIREWORK), *words], stdout=full, stderr=subprocess.PIPE, text=True
            )
        assert ended.returncode == 2
        said = "wirework: cannot write to standard output: No space left on device\n"
        assert ended.stderr == said

    @pytest.mark.parametrize("words", ["tasks", "--help", "--version", *slow_cases("tasks --json")])
    def test_output_that_is_closed_is_done_without(self, words: str):
        ended = subprocess.run(
            ["sh", "-c", f'"$0" {words} >&-', str(WIREWORK)], stderr=subprocess.PIPE, text=True
        )
        assert (ended.returncode, ended.stderr) == (0, "")

    def test_output_that_python_is_told_not_to_buffer_is_not(self):
        code = "from wirework import cli; cli._show_anything(); print(1); import os; os._exit(0)"
        shown = subprocess.run([sys.executable, "-u", "-c", code], capture_output=True, text=True)
        assert shown.stdout == "1\n"

    def test_what_an_encoding_lacks_is_escaped(self, tmp_path: Path):
        pair = {"prompts": ["caf\u00e9 (\u65e5", "caf\u00e9 [\u65e5"], "answers": [")", "]"]}
        (tmp_path / "u.jsonl").write_text(json.dumps(pair, ensure_ascii=False), encoding="utf-8")
        words = ["tasks", "--show", "u.jsonl"]
        ended: subprocess.CompletedProcess[Any] = subprocess.run(
            [str(WIREWORK), *words],
            cwd=tmp_path, capture_output=True, env={**os.environ, "PYTHONIOENCODING": "ascii"},
        )  # fmt: skip
        assert ended.returncode == 0, ended.stderr
        assert "caf\\xe9 (\\u65e5" in ended.stdout.decode("ascii")
        for encoding, shown in (("ascii", "caf\\xe9 (\\u65e5"), ("latin-1", "caf\xe9 (\\u65e5")):
            ended = run_here(*words, cwd=tmp_path, encoding=encoding)
            assert ended.returncode == 0, ended.stderr
            assert shown in ended.stdout
            told = run_here(*words, "--json", cwd=tmp_path, encoding=encoding)
            assert json.loads(told.stdout)["pairs"] == [pair]

    @pytest.mark.slow
    @pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
    def test_names_that_are_no_text_are_shown_escaped(
        self, model_folder: Path, tmp_path: Path, locale: str
    ):
        """A file name on Linux is bytes; the C locale has no letters but ASCII."""
        model = model_folder.rename(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
        out = Path(f"{model}-out")
        words = ["acdc", model, "for_while", "--tau", "0.5", "--pairs", "4", "--out", out]
        environment = {
            **os.environ,
            "LC_ALL": locale,
            "PYTHONUTF8": "0",
            "PYTHONCOERCECLOCALE": "0",
        }
        ended = subprocess.run(
            [str(WIREWORK), *map(os.fsencode, words)], capture_output=True, env=environment
        )
        assert ended.returncode == 0, ended.stderr
        known = json.loads((out / "circuit.json").read_text())
        assert known["model"]["path"] is None  # no file of text can hold it
        told = subprocess.run(
            [str(WIREWORK), "validate", os.fsencode(f"{out}/x")],
            capture_output=True,
            env=environment,
        )
        assert told.returncode == 2
        assert b"caf\\udce9-out/x" in told.stderr


def test_python_runs_the_package_too():
    words = [sys.executable, "-m", "wirework", "--version"]
    assert subprocess.run(words, capture_output=True, text=True).stdout == f"{__version__}\n"


class TestSettingsFiles:
    def test_settings_come_from_flags_over_file(self, tmp_path: Path):
        settings = tmp_path / "settings.yaml"
        settings.write_text("model: {d_model: 100}\nweight_sparsity: null\n")
        refuses("train", "--config", settings, says="d_model 100")
        refuses("train", "--config", settings, "--model.d-model", "90", says="d_model 90")

    def test_a_later_launch_in_the_same_process_is_without_them(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        (tmp_path / "settings.yaml").write_text("steps: -1\n")
        monkeypatch.setattr(menu.app, "config", None)
        for words, says in (
            (["--config", str(tmp_path / "settings.yaml")], r"settings\.yaml: steps: "),
            (["--batch-size", "-2"], r"^batch_size: "),
        ):
            monkeypatch.setattr(sys, "argv", ["wirework", "train", *words])
            with pytest.raises(InputError, match=says):
                menu.launch()

    @pytest.mark.parametrize(
        ("written", "flags", "says"),
        [
            ("steps: -1", [], "{}: steps: input should be greater"),
            ("steps: -1", ["--name", "x"], "{}: steps: input should be greater"),
            ("model: {d_model: abc}", [], "{}: model.d_model: input should be a valid integer"),
            ("model: {act_sites: [a]}", [], "{}: model.act_sites.0: input should be"),
            ("model: 5", [], "{}: model: input should be"),
            ("model: {d_model: 100}", [], "{}: model: d_model 100 is not divisible"),
            (
                "model: {d_model: 100}",
                ["--model.d-head", "7"],
                "{} and flags: model: d_model 100 is",
            ),
            ("name: a/b", [], "{}: name must be a plain folder name"),
            ("steps: 5", ["--seed", "-2"], "wirework: seed: input should be greater"),
            ("steps: -1", ["--steps", "-2"], "wirework: steps: input should be greater"),
        ],
    )
    def test_a_value_from_a_file_of_settings_is_refused_with_the_file(
        self, tmp_path: Path, written: str, flags: list[str], says: str
    ):
        settings = tmp_path / "settings.yaml"
        settings.write_text(written)
        refuses("train", "--config", settings, *flags, says=says.format(f"wirework: {settings}"))

    def test_values_of_other_verbs_name_their_file_too(self, tmp_path: Path):
        settings = tmp_path / "settings.yaml"
        for words, written, says in (
            (("prune", "a", "b", "--out", tmp_path / "c"), "eval_pairs: x", "eval_pairs: input"),
            (("acdc", "a", "b"), "tau: [0.1, x]", "tau.1: input"),
            (
                ("study", "self-ablation", "--out", tmp_path / "c"),
                "train: {steps: 0}",
                "train.steps",
            ),
        ):
            settings.write_text(written)
            refuses(*words, "--config", settings, says=f"wirework: {settings}: {says}")


class TestTasksCommand:
    def test_tasks_reports_a_model_as_json(self, model_folder: Path):
        result = run_here("tasks", model_folder, "--task", "for_while", "--json")
        assert result.returncode == 0, result.stderr
        (row,) = json.loads(result.stdout.splitlines()[-1])["tasks"]
        assert row["name"] == "for_while"
        assert row["loss"] > 0

    def test_tasks_shows_the_white_space_of_answers(self, model_folder: Path):
        result = run_here("tasks", model_folder, "--task", "for_while")
        assert '"·in"' in result.stdout
        assert '":⏎"' in result.stdout

    def test_tasks_without_a_model_names_what_there_is(self, tmp_path: Path):
        rows = json.loads(run_here("tasks", "--json").stdout)["tasks"]
        assert {"single_double_quote", "bracket_counting", "for_while"} <= {
            row["name"] for row in rows
        }
        refuses("tasks", "--task", "for_whale", says="did you mean 'for_while'")
        refuses("tasks", "--task", tmp_path, says="no task or file")

    def test_tasks_shows_pairs(self, tmp_path: Path):
        shown = run_here("tasks", "--show", "indent_for").stdout
        assert shown.count('>>> "···", not "·×7"') == 3
        assert "⏎" not in shown  # a prompt is text to read, an answer a token
        pair = {"prompts": ["a", "b"], "answers": ["[c]", "d"]}
        (tmp_path / "mine.py").write_text("def make(rng): return ('a', 'b'), ('[c]', 'd')")
        found = json.loads(
            run_here("tasks", "--show", "mine.py:make", "--json", cwd=tmp_path).stdout
        )
        assert found == {"name": "make", "n_pairs": 1, "pairs": [pair]}
        refuses("tasks", "--show", "for_whale", says="did you mean 'for_while'")
        refuses("tasks", tmp_path, "--show", "for_while", says="give no MODEL")


class TestPruneCommand:
    @pytest.mark.slow
    @pytest.mark.usefixtures("few_random_circuits")
    def test_prune_and_validate_say_where_and_how_good(self, model_folder: Path, tmp_path: Path):
        text = "def f(name):\n    print('hello', name)\n" * 60
        corpus = tmp_path / "corpus"
        corpus.mkdir()
        for i in range(8):
            (corpus / f"{i}.py").write_text(f"# {i}\n" + text)
        quick = ["--target-loss", "9", "--trials", "1", "--steps", "1", "--eval-pairs", "8"]
        out = tmp_path / "quote"
        words = ["prune", model_folder, "single_double_quote", "--out", out, *quick, "--json"]
        refuses(
            *words,
            says="(--target-loss) 9 asks for nothing: a circuit without nodes has 0.693",
            cwd=tmp_path,
        )
        words += ["--allow-unreached"]
        refuses(*words, says="no training text", cwd=tmp_path)
        result = run_here(*words, "--corpus", corpus, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        found = json.loads(result.stdout)
        assert found["circuit"] == str(out)
        assert found["losses"]["circuit"] <= 9
        checked_run = run_here("validate", out, "--json")
        assert checked_run.returncode == 0, checked_run.stderr
        checked = json.loads(checked_run.stdout)
        assert checked["judged"]["circuit"] == pytest.approx(found["losses"]["circuit"])
        refuses("validate", out, "--out", out, says="give --runs too")
        refuses("validate", out, "--out", tmp_path / "c", "--runs", "1", says="--corpus")
        shared = ["--out", tmp_path / "shared", "--runs", "2", "--corpus", corpus]
        assert run_here("validate", out, *shared, cwd=tmp_path).returncode == 0
        document = json.loads((tmp_path / "shared" / "circuit.json").read_text())
        assert document["share_runs"] == 2
        assert {node["share"] for node in document["nodes"]} <= {0, 0.5, 1}
        tried = run_here("attack", out, "--out", tmp_path / "attack", "--pairs", "8", "--json")
        assert tried.returncode == 0, tried.stderr
        told = json.loads(tried.stdout)
        points = json.loads(Path(told["result"]).read_text())["points"]
        assert {point["n_pairs"] for point in points} == {8}
        assert Path(told["curves"]).read_bytes().startswith(b"\x89PNG")

    def test_prune_looks_at_the_place_before_it_searches(self, model_folder: Path, tmp_path: Path):
        (tmp_path / "full").mkdir()
        (tmp_path / "full" / "thesis.txt").write_text("mine")
        words = ["prune", model_folder, "single_double_quote", "--out"]
        refuses(*words, tmp_path / "full", says="exists and is not a circuit: not overwritten")
        refuses(*words, tmp_path / "full" / "thesis.txt" / "c", says="Not a directory")
        refuses(*words, "/proc/c", says="cannot write /proc/c")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "model"]

    def test_a_series_of_circuits_takes_one_task_and_no_other_mode(self, tmp_path: Path):
        out = ["--out", tmp_path / "circuits"]
        refuses("prune", "m", "--exhaust", "--all", *out, says="--exhaust takes one TASK")
        refuses("prune", "m", "--exhaust", *out, says="prune takes either a TASK or --all")
        refuses("prune", "m", "t", "--exhaust", "--jobs", "2", *out, says="--jobs is for --all")
        full = ["--exhaust", "--full-validation"]
        refuses("prune", "m", "t", *full, *out, says="leave out --full-validation")
        refuses("prune", "m", "t", "--max-circuits", "2", *out, says="--max-circuits is for")
        none = ["--exhaust", "--max-circuits", "0"]
        refuses("prune", "m", "t", *none, *out, says="--max-circuits. Must be >= 1")

    def test_prune_of_a_model_that_cannot_do_the_task(self, model_folder: Path, tmp_path: Path):
        refuses("prune", model_folder, "nonsense", "--out", tmp_path / "c", says="nonsense")
        assert not (tmp_path / "c").exists()


@pytest.mark.usefixtures("few_random_circuits")
def test_a_study_of_finders_is_settled_by_a_file(model_folder: Path, tmp_path: Path):
    pairs = [{"prompts": [f"a{i} = (", f"a{i} = ["], "answers": [")", "]"]} for i in range(24)]
    mine = tmp_path / "mine.jsonl"
    mine.write_text("".join(f"{json.dumps(pair)}\n" for pair in pairs))
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for i in range(8):
        (corpus / f"{i}.py").write_text(f"# {i}\n" + "a = (1, [2])\n" * 100)
    settings = tmp_path / "settings.yaml"
    told = f"task: {mine}\nwhich: [attribution, signed_attribution]\ntarget: [9, 8]\n"
    settings.write_text(told + f"corpus: {corpus}\nbatch_pairs: 4\nanyway: true\n")
    words = ["study", "finders", model_folder, "--config", settings, "--out", tmp_path / "study"]
    result = run_here(*words, "--finders", "attribution", "--json", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    rows = json.loads(result.stdout)["rows"]
    # flags win over the file
    assert [(row["finder"], row["target_loss"], row["n_tasks"]) for row in rows] == [
        ("attribution", 9, 1), ("attribution", 8, 1),
    ]  # fmt: skip
    settings.write_text("finders: guess\ntask: for_while\n")
    refuses(*words, says="no finder 'guess'")
    settings.write_text("findrs: guess\n")
    refuses(*words, says="unknown setting 'findrs'")
    settings.write_text("all: true\n")
    refuses(*words, says="unknown setting 'all'")


def test_doctor_speaks_json():
    result = run_here("doctor", "--json")
    assert "timing" in result.stderr
    facts = json.loads(result.stdout)
    # oneDNN's way to the gradient of a weight, products from compressed rows or not, and attention.
    libraries = {*LIBRARIES, "convolution", "sparse", "dense", "compiled"}
    assert {row["library"] for row in facts["products"]} <= libraries
    assert facts["compiled_kernels"].startswith("numba ")
    assert facts["precision"].endswith("float32 for runs that end with at most 1/8 of the weights")
