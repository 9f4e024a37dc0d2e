"""What counts as a secret, what does not, and that nothing else of a text or a file changes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune import secrets
from autotune.errors import Problem, UsageError
from autotune.secrets import HIDDEN, redact, redact_file, redacted
from autotune.sweepfile.resolve import load_sweep

VALUE = 'a"b\\c d/é=1'
KEY = "-----BEGIN-----\nfirst-line-of-it\nsecond-line-of-it\n"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An environment with secrets, which a process otherwise reads once."""
    for name, value in {
        "MY_TOKEN": VALUE, "PRIVATE_PEM": KEY, "SHORT_SECRET": "seven-7", "TOKENIZERS_PARALLELISM": "probably",
        "DATABASE_URL": "postgres://me:p4ssw0rd-of-db@host/db", "PLAIN": "nothing-special",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    secrets._known.cache_clear()
    yield
    monkeypatch.undo()
    secrets._known.cache_clear()


@pytest.mark.parametrize(
    "text",
    [
        VALUE, repr(VALUE), json.dumps(VALUE), json.dumps(VALUE, ensure_ascii=False), quote(VALUE, safe=""), KEY,
        "a log\nfirst-line-of-it\nand more", f"{{'PEM': {KEY!r}}}", "the password is p4ssw0rd-of-db",
        "https://me:hunter22@host/x", "https:/me:hunter22@host/x", "git+https://hunter22@host/x.git",
        "https://host/x?v=1&token=hunter22&y=2", "https://host/x?X-Amz-Signature=hunter22", "?api_key=hunter22",
        "hf_AbCdEfGhIjKlMnOpQrStUvWx", "Bearer hunter22.hunter22.hunter22", "'authorization': 'token hunter22hunter22'",
    ],
)  # fmt: skip
def test_a_secret_is_hidden_in_every_form(text: str) -> None:
    clean = redact(text)
    assert HIDDEN in clean
    parts = ("hunter22", "AbCdEf", "line-of-it", "p4ssw0rd", "c d", "c%20d")
    assert not any(part in clean for part in parts)
    assert redact(clean) == clean


@pytest.mark.parametrize(
    "text",
    [
        "seven-7", "probably", "nothing-special", "https://host/x?v=1&page=2", "me@host.org", "C:/models@v1/x",
        "hf_quantization_config_for_models", "hf_abcdefghijklmnopqrstuvwx", "a bearer of news", "host:/path",
        "tokens=123456789", "",
    ],
)  # fmt: skip
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text


def test_what_stands_around_a_secret_stays() -> None:
    assert redact("get https://me:hunter22@host/x?a=1&sig=hunter22&b=2 now") == (
        f"get https://{HIDDEN}@host/x?a=1&sig={HIDDEN}&b=2 now"
    )


def test_plain_data_keeps_its_shape() -> None:
    data = {"a": [VALUE, 1, None, {"b": f"x {VALUE}"}], "nothing-special": True, "c": 1.5}
    assert redacted(data) == {"a": [HIDDEN, 1, None, {"b": f"x {HIDDEN}"}], "nothing-special": True, "c": 1.5}


def test_a_message_is_cut_only_after_its_secrets_are_out() -> None:
    for length in range(60, 100):
        said = str(Problem("no such thing", "key", value="x" * length + VALUE))
        assert 'a"b' not in said


@given(before=st.binary(max_size=50), after=st.binary(max_size=50))
def test_only_the_secret_of_a_file_changes(
    before: bytes, after: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("log") / "a.log"
    old = b"older, and read already: " + VALUE.encode()
    file.write_bytes(old + before + b"\n" + VALUE.encode() + b"\n" + after)
    size = redact_file(file, len(old))
    assert file.read_bytes() == old + before + b"\n" + HIDDEN.encode() + b"\n" + after
    assert size == file.stat().st_size == redact_file(file, size)


def test_a_file_without_secrets_is_not_written(tmp_path: Path) -> None:
    file = tmp_path / "a.log"
    file.write_bytes(b"\xff\xfe nothing-special \r\n")
    file.chmod(0o400)
    before = file.stat()
    assert redact_file(file) == before.st_size
    assert file.stat().st_mtime_ns == before.st_mtime_ns
    assert redact_file(tmp_path / "not-there", 3) == 3


@pytest.mark.parametrize(
    "assignment",
    [
        "submit.azureml.hf_token={}",
        "submit.azureml.hf_token=[{}]",
        "submit.azureml.hf_token[0]={}",
        "submit.azureml.hf_token.x=[{}",
        "submit.azureml.hf_token=[{}",
        "submit.azureml..hf_token={}",
        "submit.azureml=[{{hf_token: {}}}]",
        "submit={{azureml: {{compute: {{api_key: {}}}}}}}",
        "submit.azureml.password={}",
    ],
)
def test_no_message_repeats_what_stands_under_the_key_of_a_secret(assignment: str, tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text(
        "model: smollm2-135m-instruct\ndata: {train: a.csv, prompt: '{a}', completion: ' {b}'}\n"
        "space: {build: [{precision: int4}]}\nsubmit: {azureml: {compute: cpu}}\n",
        encoding="utf-8",
    )
    with pytest.raises(UsageError) as caught:
        load_sweep(tmp_path / "sweep.yaml", [assignment.format("abcdefgh12345678")])
    assert "abcdefgh12345678" not in str(caught.value)


@pytest.mark.parametrize("key", ["target.workload.new_tokens", "data.max_new_tokens", "tokenizer", "space.lora.r"])
def test_a_value_is_shown_where_its_key_names_no_secret(key: str) -> None:
    assert "got 17" in str(Problem("must be less", key, value=17))
