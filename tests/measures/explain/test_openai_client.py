"""Explanations by a language model, over real HTTP, and what servers do wrong."""

import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

import pytest
from language_server import LanguageServer, plain, refusal
from planted_neurons import SITE, TOKEN
from starlette.responses import PlainTextResponse, Response

from wirework.config import ExplainConfig
from wirework.data import Prepared, Tokenizer
from wirework.errors import DamagedError, InputError
from wirework.files import read_json, read_record
from wirework.measures import explain_neurons
from wirework.measures.explain import estimate_cost
from wirework.measures.explain.openai_client import Server
from wirework.model import Model

PER_NEURON = 13  # one explanation, and for six excerpts a simulation and a detection
KEY = "sk-proj-'quoted\"-1234567890"


@pytest.fixture
def explain(model: Model, text: Prepared, tmp_path: Path):
    def run(config: ExplainConfig, out: str = "out"):
        return explain_neurons(model, config, text=text, out=tmp_path / out, progress=False)

    return run


def changed(config: ExplainConfig, only: tuple[int, ...] = (), **server) -> ExplainConfig:
    names = tuple(f"{SITE}.{i}" for i in only) or config.only
    inner = config.server.model_copy(update=server)
    return config.model_copy(update={"only": names, "server": inner})


class TestExplanations:
    def test_a_round_trip_finds_the_token_and_predicts_it(
        self,
        explain,
        asking: ExplainConfig,
        server: LanguageServer,
        tokenizer: Tokenizer,
        tmp_path: Path,
    ) -> None:
        (neuron,) = explain(asking).neurons
        assert neuron["explanation"] == json.dumps(tokenizer.token(TOKEN))
        assert neuron["scores"]["correlation"]["top_and_random"] > 0.98
        assert neuron["scores"]["detection"]["recall"] == 1
        assert neuron["scores"]["detection"]["balanced_accuracy"] > 0.7  # it looks at letters
        assert server.n_requests == PER_NEURON
        assert {body["temperature"] for body in server.bodies} == {0}
        assert neuron == read_record(tmp_path / "out" / "neurons" / f"{SITE}.0.json")

    def test_the_explanation_of_another_neuron_predicts_nothing(
        self, explain, asking: ExplainConfig, server: LanguageServer, tokenizer: Tokenizer
    ) -> None:
        """The control: the same excerpts and answers, but the model is told of another token."""
        wrong = {
            "message": {"role": "assistant", "content": json.dumps(tokenizer.token(TOKEN + 1))}
        }
        body = json.dumps({"choices": [wrong]})
        server.behaviour = lambda number, _: plain(body) if number == 1 else None
        (neuron,) = explain(asking).neurons
        assert abs(neuron["scores"]["correlation"]["top_and_random"]) < 0.1
        assert neuron["scores"]["detection"]["balanced_accuracy"] < 0.7

    def test_log_probabilities_give_expected_values(
        self, explain, asking: ExplainConfig, server: LanguageServer
    ) -> None:
        server.has_logprobs = True
        (neuron,) = explain(asking).neurons
        values = {v for one in neuron["held_out_top"] for v in one["simulated"]}
        assert values == {0.5, 9.5}  # 0.9 * 0 + 0.1 * 5 and 0.9 * 10 + 0.1 * 5
        assert neuron["scores"]["correlation"]["top_and_random"] > 0.98
        simulations = [body for body in server.bodies if "logprobs" in body]
        assert len(simulations) == PER_NEURON - 1
        assert {body["top_logprobs"] for body in simulations} == {15}


class TestRequests:
    def test_a_server_that_refuses_log_probabilities_is_asked_without(
        self, explain, asking: ExplainConfig, server: LanguageServer
    ) -> None:
        server.behaviour = lambda _, body: (
            refusal(400, "logprobs are not supported") if "logprobs" in body else None
        )
        (neuron,) = explain(changed(asking, concurrency=1)).neurons
        assert neuron["scores"]["correlation"]["top_and_random"] > 0.98
        assert server.n_requests == PER_NEURON + 1

    def test_a_server_gets_its_settings_by_the_names_it_knows(
        self, explain, asking: ExplainConfig, server: LanguageServer
    ) -> None:
        """As OpenAI's newer models refuse them."""

        def strict(_, body):
            for name in ("max_tokens", "temperature"):
                if name in body:
                    return refusal(400, f"Unsupported parameter: '{name}' is not supported")
            return None

        server.behaviour = strict
        explain(changed(asking, concurrency=1))
        assert server.n_requests == PER_NEURON + 2
        assert server.bodies[-1]["max_completion_tokens"] == 4
        assert "max_tokens" not in server.bodies[-1]

    def test_requests_are_bounded(
        self, explain, asking: ExplainConfig, server: LanguageServer
    ) -> None:
        with pytest.raises(InputError, match="max_requests 5 is reached: 0 neurons explained"):
            explain(changed(asking, max_requests=5))
        assert server.n_requests == 5
        explain(changed(asking, max_requests=8))
        assert server.n_requests == PER_NEURON

    def test_no_more_requests_are_under_way_than_allowed(
        self, explain, asking: ExplainConfig, server: LanguageServer
    ) -> None:
        """With two at once and 0.05 s an answer, 26 requests take 0.65 s.

        One at a time, they take twice that.
        """
        server.behaviour = lambda *_: 0.05
        began = time.monotonic()
        explain(changed(asking, (0, 1), concurrency=2))
        assert server.n_requests == 2 * PER_NEURON
        assert time.monotonic() - began > PER_NEURON * 0.05

    def test_proxies_do_not_stand_before_this_machine(
        self, explain, asking: ExplainConfig, server: LanguageServer, monkeypatch
    ) -> None:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        explain(asking)
        assert server.n_requests == PER_NEURON


class TestAnswerCache:
    def test_the_same_question_may_be_asked_by_several_at_once(
        self, asking: ExplainConfig, server: LanguageServer, tmp_path: Path
    ) -> None:
        same = plain(json.dumps({"choices": [{"message": {"content": "1"}}]}))
        server.behaviour = lambda *_: same
        client = Server(asking.server, tmp_path)
        with closing(client), ThreadPoolExecutor(8) as threads:
            for i in range(10):
                messages = [{"role": "user", "content": str(i)}]
                ask = partial(client.ask, messages, 4, lambda answer: answer.text)
                asked = [threads.submit(ask) for _ in range(8)]
                assert [one.result() for one in asked] == ["1"] * 8
        assert len(list(tmp_path.rglob("*.json"))) == 10

    def test_answers_are_kept_and_not_asked_for_again(
        self, explain, asking: ExplainConfig, server: LanguageServer, tmp_path: Path
    ) -> None:
        shared = changed(asking, cache=tmp_path / "answers")
        first = explain(shared, "a")
        assert server.n_requests == PER_NEURON
        second = explain(shared, "b")
        assert server.n_requests == PER_NEURON
        assert second.neurons == first.neurons
        explain(shared, "a")  # not even the cache is needed
        assert server.n_requests == PER_NEURON
        answer = next((tmp_path / "answers").rglob("*.json"))
        answer.write_text(answer.read_text().replace('"text": "', '"text": "x'))
        with pytest.raises(DamagedError, match=rf"{answer.name} is damaged: .*; delete it"):
            explain(shared, "c")

    def test_a_damaged_answer_in_the_cache_is_named(
        self, explain, asking: ExplainConfig, server: LanguageServer, tmp_path: Path
    ) -> None:
        shared = changed(asking, cache=tmp_path / "answers")
        explain(shared, "a")
        for path in (tmp_path / "answers").rglob("*.json"):
            path.write_text('{"text": 7}')
        with pytest.raises(InputError, match=r"\.json is no answer of a server: delete it"):
            explain(shared, "b")


class TestServerFailures:
    def test_a_busy_server_is_asked_again(
        self, explain, asking: ExplainConfig, server: LanguageServer
    ) -> None:
        def busy(number: int, _):
            if number in (1, 3):
                return refusal(429, "slow down")
            return refusal(503, "loading") if number == 5 else None

        server.behaviour = busy
        (neuron,) = explain(asking).neurons
        assert neuron["scores"]["correlation"]["top_and_random"] > 0.98
        assert server.n_requests == PER_NEURON + 3

    @pytest.mark.parametrize(
        ("answer", "says", "requests"),
        [
            (refusal(429, "slow down"), r"still busy after 2 retries \(429\): slow down", 3),
            (refusal(429, "pay first", "insufficient_quota"), r"over quota \(429\): pay first", 3),
            (refusal(401, "bad key"), r"refused \(401\): bad key", 1),
            (refusal(404, "no model tiny"), r"refused \(404\): no model tiny", 1),
        ],
    )
    def test_what_no_neuron_will_get_stops_at_once_in_one_line(
        self, explain, asking, server: LanguageServer, tmp_path: Path, answer, says, requests
    ) -> None:
        server.behaviour = lambda *_: answer
        with pytest.raises(InputError, match=says) as caught:
            explain(changed(asking, (0, 1), concurrency=1))
        assert server.address in str(caught.value)
        assert "\n" not in str(caught.value)
        assert server.n_requests == requests
        assert says.replace("\\", "") in read_json(tmp_path / "out" / "explain.json")["stopped"]

    @pytest.mark.parametrize(
        ("answer", "says"),
        [
            (refusal(500, "broken"), "server error 500: broken"),
            (refusal(400, "too long"), "the server refused a request: too long"),
            (plain('{"choices": [{"mess'), "answered no chat completion"),
            (plain("<html>hello</html>", "text/html"), "answered no chat completion: '<html>"),
            (plain('{"choices": []}'), "answered no chat completion"),
            (plain('{"choices": [{"message": {"content": null}}]}'), "completion without text"),
            (plain('{"choices": [{"message": {"content": " "}}]}'), "an empty explanation"),
        ],
    )
    def test_a_neuron_that_fails_does_not_lose_the_others(
        self,
        explain,
        asking,
        server: LanguageServer,
        tokenizer: Tokenizer,
        tmp_path: Path,
        answer,
        says,
    ) -> None:
        word = json.dumps(tokenizer.token(TOKEN))[1:-1]

        def only_the_first_fails(_, body):
            seen = body["messages"][-1]["content"]
            return answer if f"{word}\t10" in seen and "unknown" not in seen else None

        server.behaviour = only_the_first_fails
        config = changed(asking, (0, 1, 2), retries=0, detect=False)
        config = config.model_copy(update={"score_top": 1, "score_random": 1})
        found = explain(config)
        (failure,) = found.failed
        assert failure["neuron"] == f"{SITE}.0"
        assert says in failure["reason"]
        assert [one["index"] for one in found.neurons] == [1, 2]
        assert found.summary()["failed"] == 1
        assert read_json(tmp_path / "out" / "explain.json")["failures"] == [failure]
        asked = server.n_requests
        server.behaviour = lambda *_: None
        again = explain(config)  # only what failed
        assert [one["index"] for one in again.neurons] == [0, 1, 2]
        assert server.n_requests == asked + 3

    @pytest.mark.parametrize("said", ["lorem ipsum", "7", "a\t1\nb\t2"])
    def test_nonsense_instead_of_activations_fails_the_neuron(
        self, explain, asking: ExplainConfig, server: LanguageServer, said: str
    ) -> None:
        random_labels = plain(json.dumps({"choices": [{"message": {"content": said}}]}))
        server.behaviour = lambda number, _: random_labels if number > 1 else None
        with pytest.raises(InputError, match=r"no neuron of 1 was.*no activation per token"):
            explain(changed(asking))

    def test_nonsense_instead_of_a_detection_fails_the_neuron(
        self, explain, asking: ExplainConfig, server: LanguageServer
    ) -> None:
        random_labels = plain(json.dumps({"choices": [{"message": {"content": "maybe"}}]}))
        server.behaviour = lambda number, _: random_labels if number > 7 else None
        with pytest.raises(InputError, match="answered neither 0 nor 1, but 'maybe'"):
            explain(asking)

    def test_a_silent_server_is_given_up(self, explain, asking: ExplainConfig, server) -> None:
        server.behaviour = lambda *_: 5.0
        config = changed(asking, (0, 1), timeout=0.2, retries=0, give_up_after=2)
        began = time.monotonic()
        with pytest.raises(
            InputError, match=r"2 neurons in a row failed.*no answer in 0.2 seconds"
        ):
            explain(config)
        assert time.monotonic() - began < 4
        assert server.n_requests == 2

    def test_a_server_that_is_not_there_is_one_line(self, explain, asking: ExplainConfig) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
        with pytest.raises(
            InputError,
            match=r"cannot be reached: .*refused: 0 neurons explained, 0 dead, 0 failed, 1 left",
        ):
            explain(changed(asking, base_url=address, retries=0))
        assert explain(changed(asking, (0,))).failed == ()  # the folder takes the right address

    def test_a_server_that_dies_keeps_what_is_done(
        self, explain, asking: ExplainConfig, server: LanguageServer, tmp_path: Path
    ) -> None:
        server.behaviour = lambda number, _: (
            refusal(401, "gone") if number > PER_NEURON + 4 else None
        )
        config = changed(asking, (0, 1), concurrency=1)
        with pytest.raises(
            InputError, match=r"gone: 1 neuron explained, .* 1 left, kept in .*/out"
        ):
            explain(config)
        assert [path.name for path in (tmp_path / "out" / "neurons").iterdir()] == [
            f"{SITE}.0.json"
        ]
        asked = server.n_requests
        server.behaviour = lambda *_: None
        assert len(explain(config).neurons) == 2
        assert server.n_requests == asked + PER_NEURON - 4  # the four answers were in the cache

    def test_what_was_said_of_an_earlier_run_does_not_outlive_it(
        self, explain, asking: ExplainConfig, server: LanguageServer, tmp_path: Path
    ) -> None:
        server.behaviour = lambda *_: refusal(401, "gone")
        with pytest.raises(InputError, match="gone"):
            explain(asking)
        summary = tmp_path / "out" / "explain.json"
        assert json.loads(summary.read_text())["left"] == 1
        during: list[bool] = []
        server.behaviour = lambda *_: during.append(summary.exists())
        explain(asking)
        assert set(during) == {False}
        assert json.loads(summary.read_text())["left"] == 0


class TestSecrets:
    def test_the_key_comes_from_the_named_variable(
        self, explain, asking: ExplainConfig, server: LanguageServer, monkeypatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("MY_KEY", "secret-1")
        explain(changed(asking, api_key_env="MY_KEY"))
        assert set(server.keys) == {"Bearer secret-1"}
        kept = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
        assert len(kept) > PER_NEURON
        assert not any(b"secret-1" in path.read_bytes() for path in kept)
        monkeypatch.delenv("OPENAI_API_KEY", raising=False)
        monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
        with pytest.raises(InputError, match="OPENAI_API_KEY is not set"):
            explain(changed(asking, base_url=None), "b")
        with pytest.raises(
            InputError, match=r"must begin with http:// or https://, got '127.0.0.1'"
        ):
            explain(changed(asking, base_url="127.0.0.1"), "b")

    @pytest.mark.parametrize("key", ["sk-proj-abcdefgh-1234567890", KEY])
    @pytest.mark.parametrize(
        "answer",
        [
            lambda key: refusal(401, f"Incorrect API key provided: {key}. Give another"),
            lambda key: refusal(400, f"bad request, Authorization: Bearer {key}"),
            lambda key: refusal(429, f"slow down {key}"),
            lambda key: refusal(500, "x" * 290 + key),  # the cut falls into the key
            lambda key: plain(f"<html>{'x' * 60}{key}</html>", "text/html"),
            lambda key: plain(json.dumps({"error": {"message": key}})),
            lambda key: completion(f"words like {key}"),
            lambda key: completion(
                "words",
                logprobs={
                    "content": [
                        {"token": part, "top_logprobs": [{"token": part, "logprob": -0.5}]}
                        for part in (key[:9], key[9:])
                    ]
                },
            ),
        ],
        ids=["401", "400", "429", "500", "html", "json", "answer", "log-probabilities"],
    )
    def test_a_key_that_a_server_sends_back_is_written_nowhere(
        self, explain, asking, server: LanguageServer, tmp_path, monkeypatch, capfd, key, answer
    ) -> None:
        monkeypatch.setenv("MY_KEY", key)
        server.behaviour = lambda *_: answer(key)
        with suppress(InputError):
            explain(changed(asking, (0, 1), concurrency=1, api_key_env="MY_KEY", retries=0))
        assert server.keys[0] == f"Bearer {key}"
        told = everything_in(tmp_path / "out") + "".join(capfd.readouterr())
        for part in (key, json.dumps(key)[1:-1], key[:16], key[9:]):
            assert part not in told

    def test_a_password_in_the_address_is_not_told(
        self, explain, asking: ExplainConfig, tmp_path
    ) -> None:
        address = "http://me:pass-word-123@127.0.0.1:9/v1"
        with pytest.raises(
            InputError, match=r"server http://127\.0\.0\.1:9/v1/ cannot be"
        ) as caught:
            explain(changed(asking, base_url=address, retries=0))
        told = f"{caught.value}{everything_in(tmp_path / 'out')}"
        assert "pass-word-123" not in told
        assert "me:" not in told

    def test_a_key_in_place_of_its_variables_name_is_not_told(
        self, explain, asking: ExplainConfig, monkeypatch
    ) -> None:
        monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
        with pytest.raises(
            InputError, match=r"that server\.api_key_env names is not set"
        ) as caught:
            explain(changed(asking, base_url=None, api_key_env="sk-proj-abcdefgh"))
        assert "sk-proj" not in str(caught.value)


def test_the_estimate_is_made_without_a_request_and_holds(
    model: Model, text: Prepared, explain, asking: ExplainConfig, server: LanguageServer
) -> None:
    priced = changed(asking, price_in=2.0, price_out=8.0)
    found = estimate_cost(model, priced, text=text, progress=False)
    assert server.n_requests == 0
    assert found.requests == PER_NEURON
    price = (2 * found.tokens_in + 8 * found.tokens_out) / 1e6
    assert found.price == pytest.approx(price)
    explain(asking)
    letters = sum(len(m["content"]) for body in server.bodies for m in body["messages"])
    assert letters / 6 < found.tokens_in < letters / 1.5
    without = estimate_cost(model, changed(asking, detect=False), text=text, progress=False)
    assert without.requests == 7
    assert without.price is None
    assert "price" not in without.to_dict()


def test_a_missing_client_names_the_extra(explain, asking: ExplainConfig, monkeypatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(InputError, match=r"needs openai: pip install '\.\[explain\]'"):
        explain(asking)


def everything_in(folder: Path) -> str:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    return "".join(path.read_text() for path in files)


def completion(text: str, **more) -> Response:
    return plain(json.dumps({"choices": [{"message": {"content": text}, **more}]}))


class TestOddAnswers:
    @pytest.mark.parametrize(
        "body",
        [
            "[" * 100_000 + "]" * 100_000,
            '{"choices": ' + "[" * 100_000,
            '{"choices": [{"message": {"content": "a"}, "logprobs": {"content": [{"token": "a", '
            '"top_logprobs": [{"token": "a", "logprob": NaN}]}]}}]}',
            '{"choices": [{"message": {"content": "a"}, "logprobs": {"content": 7}}]}',
            '{"choices": {"0": 1}}',
            json.dumps({"choices": [{"message": {"content": "a" * 200_000}}]}),
            "",
            "NaN",
            "9" * 5000,
        ],
        ids=["deep", "cut", "nan", "number", "mapping", "long", "empty", "bare nan", "digits"],
    )
    @pytest.mark.parametrize("status", [200, 400, 401])
    def test_answers_of_any_form_are_one_line(
        self, explain, asking: ExplainConfig, server: LanguageServer, body: str, status: int
    ) -> None:
        server.behaviour = lambda *_: PlainTextResponse(body, status, media_type="application/json")
        with pytest.raises(InputError) as caught:
            explain(changed(asking, retries=0))
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 700

    def test_an_answer_that_is_no_text_in_any_encoding_is_one_line(
        self, explain, asking: ExplainConfig, server: LanguageServer
    ) -> None:
        server.behaviour = lambda *_: Response(
            b"\x1f\x8b broken", 200, {"content-encoding": "gzip"}, "application/json"
        )
        with pytest.raises(InputError, match="server"):
            explain(changed(asking, retries=0))

    def test_infinite_log_probabilities_and_half_characters_are_kept_as_json_can(
        self, explain, asking: ExplainConfig, server: LanguageServer, tmp_path: Path
    ) -> None:
        odd = (
            '{"choices": [{"message": {"content": "word \\ud800"}, "logprobs": {"content": ['
            '{"token": "a", "top_logprobs": [{"token": "a", "logprob": -Infinity}, '
            '{"token": "1", "logprob": 1e308}]}]}}]}'
        )
        server.behaviour = lambda number, _: plain(odd) if number == 1 else None
        (neuron,) = explain(asking).neurons
        assert neuron["explanation"] == "word ?"
        assert "Infinity" not in everything_in(tmp_path / "out" / "cache")
