import io
import json
import os
import sys
from pathlib import Path

import pytest

from wirework import console, redaction
from wirework.errors import InputError, quoted, reason, translated_errors
from wirework.redaction import print_traceback, redact
from wirework.studies.cell import failed_cell
from wirework.studies.points import FrontierPoint

SECRET = "sk-abcdefgh-12345678"


class TestRedact:
    @pytest.mark.parametrize(
        "name",
        [
            "OPENAI_API_KEY", "WANDB_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "GITHUB_TOKEN",
            "MY_SECRET", "AWS_SECRET_ACCESS_KEY", "PGPASSWORD", "DB_PASSWORD_RO", "some_api_key",
            "OPENAI_KEY", "OPENAI_API_KEY_2", "KEY", "MY_KEYS", "GITHUB_PAT", "DB_PWD",
            "SSH_PASSPHRASE",
        ],
    )  # fmt: skip
    def test_values_of_variables_with_telling_names_are_secret(
        self, monkeypatch, name: str
    ) -> None:
        monkeypatch.setenv(name, SECRET)
        assert redact(f"a {SECRET}, b{SECRET}c") == "a ***, b***c"

    @pytest.mark.parametrize(
        "name",
        [
            "TOKENIZERS_PARALLELISM",
            "HF_TOKEN_PATH",
            "KEYBOARD",
            "PATH",
            "PWD",
            "OLDPWD",
            "MONKEY",
        ],
    )
    def test_values_of_other_variables_are_not(self, monkeypatch, name: str) -> None:
        monkeypatch.setenv(name, SECRET)
        assert redact(SECRET) == SECRET

    def test_short_values_are_words(self, monkeypatch) -> None:
        monkeypatch.setenv("MY_TOKEN", "hidden")
        assert redact("a hidden unit") == "a hidden unit"

    def test_quoted_and_escaped_forms_are_found(self, monkeypatch) -> None:
        secret = "pass \"word'\\ ü/1\n"
        monkeypatch.setenv("MY_PASSWORD", secret)
        for form in (secret, secret.strip(), repr(secret), json.dumps(secret)):
            assert "word" not in redact(form)
        assert redact("pass%20%22word%27%5C%20%C3%BC%2F1") == "***"

    def test_the_longer_of_two_secrets_is_replaced_whole(self, monkeypatch) -> None:
        monkeypatch.setenv("A_TOKEN", "12345678")
        monkeypatch.setenv("B_TOKEN", "12345678-and-more")
        assert redact("x 12345678-and-more 12345678") == "x *** ***"

    def test_a_registered_value_is_secret(self, monkeypatch) -> None:
        monkeypatch.setattr(redaction, "_registered", set())
        redaction.register(SECRET)
        redaction.register(None)
        assert redact(f"({SECRET})") == "(***)"

    def test_secrets_that_are_no_utf8_are_found(self, monkeypatch) -> None:
        secret = os.fsdecode(b"key-\xff\xe9-12345678")
        monkeypatch.setenv("MY_TOKEN", secret)
        assert redact(f"a {secret}, key-%FF%E9-12345678") == "a ***, ***"


class TestStoredSecrets:
    def test_the_stored_hub_token_is_secret_where_the_hub_is_in_use(
        self, monkeypatch, tmp_path
    ) -> None:
        (tmp_path / "token").write_text(f"{SECRET}\n")
        monkeypatch.setenv("HF_HOME", str(tmp_path))
        monkeypatch.delenv("HF_TOKEN_PATH", raising=False)
        monkeypatch.setitem(sys.modules, "huggingface_hub", sys)
        assert redact(SECRET) == "***"
        monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "absent"))
        assert redact(SECRET) == SECRET

    def test_all_tokens_that_the_hub_stores_are_secret(self, monkeypatch, tmp_path) -> None:
        """A user may have several accounts, and OAuth keeps a token to renew the other."""
        (tmp_path / "stored_tokens").write_bytes(
            b"[work \xff]\nhf_token = hf_abcdefgh1\nrefresh_token = hf_%refresh\n"
            b"expires_at = 1790000000\n\n[home]\nhf_token = hf_ijklmnop2\n"
        )
        monkeypatch.setenv("HF_HOME", str(tmp_path))
        monkeypatch.delenv("HF_TOKEN_PATH", raising=False)
        monkeypatch.setitem(sys.modules, "huggingface_hub", sys)
        said = "hf_abcdefgh1, hf_%refresh, 1790000000, hf_ijklmnop2"
        assert redact(said) == "***, ***, 1790000000, ***"

    def test_the_key_that_wandb_stores_is_secret_where_it_is_in_use(
        self, monkeypatch, tmp_path
    ) -> None:
        (tmp_path / "netrc").write_text(
            f"machine api.wandb.ai\n  login user\n  password {SECRET}\n"
        )
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
        monkeypatch.setitem(sys.modules, "wandb", sys)
        assert redact(SECRET) == "***"

    def test_without_a_home_folder_there_are_no_stored_secrets(self, monkeypatch) -> None:
        def unknown(_: Path) -> Path:
            raise RuntimeError("Could not determine home directory.")

        monkeypatch.setattr(Path, "expanduser", unknown)
        monkeypatch.setitem(sys.modules, "huggingface_hub", sys)
        assert str(InputError("plain")) == "plain"


class TestRedactedOutput:
    def test_a_secret_of_several_lines_is_found_on_one(self, monkeypatch) -> None:
        monkeypatch.setenv("SSH_PRIVATE_KEY", "-----BEGIN KEY-----\nabcdefgh\n-----END KEY-----\n")
        said = reason(ValueError("bad -----BEGIN KEY-----\nabcdefgh\n-----END KEY-----"))
        assert said == "bad ***"

    def test_messages_hold_no_secret(self, monkeypatch, capsys) -> None:
        monkeypatch.setenv("MY_TOKEN", SECRET)
        assert str(InputError(f"bad {SECRET}")) == "bad ***"
        assert reason(ValueError("x" * 190 + SECRET)).endswith("x***")
        assert quoted({"key": SECRET}) == "{'key': '***'}"
        with pytest.raises(InputError, match=r"cannot: no \*\*\*"), translated_errors("cannot"):
            raise RuntimeError(f"no {SECRET}")
        console.say(f"using {SECRET}")
        assert capsys.readouterr().err == "using ***\n"

    def test_tracebacks_hold_no_secret(self, monkeypatch) -> None:
        monkeypatch.setenv("MY_TOKEN", SECRET)
        shown = io.StringIO()
        monkeypatch.setattr(sys, "stderr", shown)
        try:
            raise RuntimeError(f"no {SECRET}")
        except RuntimeError as error:
            print_traceback(type(error), error, error.__traceback__)
        assert SECRET not in shown.getvalue()
        assert shown.getvalue().splitlines()[-1] == "RuntimeError: no ***"

    def test_the_file_of_a_failed_cell_holds_no_secret(self, monkeypatch, tmp_path) -> None:
        monkeypatch.setenv("MY_TOKEN", SECRET)
        point = FrontierPoint(16, 10, 0)
        try:
            raise RuntimeError(f"no {SECRET}")
        except RuntimeError as error:
            cell = failed_cell(point, tmp_path, error)
        assert cell["error"] == "no ***"
        (written,) = tmp_path.rglob("failed.json")
        assert SECRET not in written.read_text()
        assert "Traceback" in written.read_text()
