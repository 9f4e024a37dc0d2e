"""Exports of a real sweep on the tiny model: what the folder holds, what it answers, and what is said where it does not."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnxruntime_genai as og
import pytest
import yaml
from conftest import TONES, Ran, TinySweep
from huggingface_hub import ModelCard
from local_server import local_server
from transformers import AutoModelForCausalLM

from autotune.errors import Exit
from autotune.results.folder import read_outcomes, read_results
from autotune.results.rows import Trial
from autotune.stages.verify_best import same_text
from autotune.strategies.named import make_strategy
from autotune.sweepfile.resolve import load_sweep

pytestmark = pytest.mark.usefixtures("keeps_workers")


def row_of(sweep: TinySweep, **cells: object) -> Trial:
    """Return the one row with these cells."""
    rows = [row for row in read_results(sweep.out) if row.trial and all(row[n] == v for n, v in cells.items())]
    assert len(rows) == 1
    return rows[0]


def sums(folder: Path) -> dict[str, str]:
    lines = (folder / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    return {name: digest for digest, name in (line.split("  ", 1) for line in lines)}


ASK = """
import contextlib, io, json, runpy, sys
folder, texts = sys.argv[1], json.loads(sys.stdin.read())
answers = []
for text in texts:
    sys.argv = ["run.py", text]
    with contextlib.redirect_stdout(io.StringIO()) as said:
        runpy.run_path(folder + "/run.py")
    answers.append(said.getvalue().strip())
loaded = {name.partition(".")[0] for name in sys.modules}
print(json.dumps([answers, sorted(loaded & {"autotune", "torch", "transformers", "tokenizers", "peft", "onnx"})]))
"""


def test_the_winner_is_moved_away_and_answers_every_item_as_recorded(
    tiny_sweep: TinySweep, autotune: Callable[..., Ran], tmp_path: Path
) -> None:
    done = autotune("export", tiny_sweep.out, "--to", tmp_path / "a", "--zip")
    assert done.code == Exit.OK, done.err
    assert "it answers 16 items as recorded" in done.out
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        archive.extractall(tmp_path / "away")
    folder = tmp_path / "away" / "a"
    shutil.rmtree(tmp_path / "a")
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert found >= {
        "onnx/model.onnx", "onnx/model.onnx.data", "onnx/genai_config.json", "onnx/tokenizer.json", "onnx/inference_model.json",
        "adapter/adapter_model.safetensors", "adapter/adapter_config.json", "README.md", "run.py", "reproduce.yaml", "candidate.json",
    }  # fmt: skip
    assert sums(folder) == {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in found - {"SHA256SUMS"}
    }
    (winner,) = {row.candidate for row in read_results(tiny_sweep.out)} & {
        json.loads((folder / "candidate.json").read_text(encoding="utf-8"))["candidate"]
    }
    recorded = read_outcomes(tiny_sweep.out, winner, "validation")
    assert recorded is not None
    texts = [f"{n} I felt {TONES[n % 4]} today" for n in range(100, 124)]
    command = [sys.executable, "-P", "-c", ASK, str(folder)]
    said = subprocess.run(
        command, input=json.dumps(texts), capture_output=True, text=True, encoding="utf-8", check=True
    )
    answers, loaded = json.loads(said.stdout)
    assert loaded == [], "run.py needs onnxruntime-genai alone"
    assert answers == [TONES[label] for label in recorded["predicted"]]
    assert len(set(answers)) > 1, "else this would show nothing"


@pytest.mark.parametrize("precision", ["fp32", "int8", "int4"])
def test_any_candidate_is_exported_and_described(
    tiny_sweep: TinySweep, autotune: Callable[..., Ran], tmp_path: Path, precision: str
) -> None:
    row = row_of(tiny_sweep, build_precision=precision, lora_quantized_base="nf4")
    done = autotune(
        "export", tiny_sweep.out, "--candidate", row.candidate[:10], "--to", tmp_path / "x", "--items", 24, "--json"
    )
    document = json.loads(done.out)
    assert (done.code, document["verified"], document["verified_items"], document["made_again"]) == (0, True, 24, False)
    card = ModelCard((tmp_path / "x" / "README.md").read_text(encoding="utf-8"))
    assert card.data.base_model_relation == "finetune"
    assert card.data.base_model
    assert {"onnx", "lora", precision} <= set(card.data.tags)
    results = {result.dataset_split: result for result in card.data.eval_results}
    assert results["validation"].metric_value == pytest.approx(row["accuracy"], abs=1e-6)
    assert results["validation"].metric_args == {
        "items": 24, "confidence": 0.95,
        "low": pytest.approx(row["accuracy_low"], abs=1e-6), "high": pytest.approx(row["accuracy_high"], abs=1e-6),
    }  # fmt: skip
    assert "fine-tuned with QLoRA" in card.text
    assert f"| size_mb | {row['size_mb']:.4g} |" in card.text


def test_the_sweep_that_goes_with_it_makes_the_same_candidate(
    tiny_sweep: TinySweep, autotune: Callable[..., Ran], tmp_path: Path
) -> None:
    row = row_of(tiny_sweep, build_precision="int8", lora_quantized_base="nf4")
    assert (
        autotune("export", tiny_sweep.out, "--candidate", row.candidate, "--to", tmp_path / "x", "--items", 0).code == 0
    )
    shutil.copy(tmp_path / "x" / "reproduce.yaml", tiny_sweep.file.parent / "reproduce.yaml")
    again = load_sweep(tiny_sweep.file.parent / "reproduce.yaml")
    strategy = make_strategy(again.strategy, again.space, again.objectives, again.seed, 24)
    asked = strategy.ask(5, [])
    assert [proposal.candidate.id for proposal in asked] == [row.candidate]
    card = (tmp_path / "x" / "README.md").read_text(encoding="utf-8")
    assert "was not tried after it was written: --items 0" in card


@pytest.fixture
def own(tiny_sweep: TinySweep, tmp_path: Path, cache_root: Path, monkeypatch: pytest.MonkeyPatch) -> TinySweep:
    """The sweep with a results folder and a cache that a test may change."""
    shutil.copytree(tiny_sweep.file.parent, tmp_path / "own")
    shutil.copytree(cache_root, tmp_path / "cache")
    monkeypatch.setenv("AUTOTUNE_CACHE", str(tmp_path / "cache"))
    return TinySweep(tmp_path / "own" / "sweep.yaml", tmp_path / "own" / "out")


def test_what_the_cache_lost_is_made_again_and_told_where_it_answers_otherwise(
    own: TinySweep, autotune: Callable[..., Ran], tmp_path: Path
) -> None:
    winner = json.loads((own.out / "best" / "candidate.json").read_text(encoding="utf-8"))["candidate"]
    row = next(r for r in read_results(own.out) if r.trial and r.candidate != winner and r["build_precision"] == "int8")
    cache = tmp_path / "cache"
    shutil.rmtree(cache / "finetune")
    shutil.rmtree(cache / "build")
    done = autotune("export", own.out, "--candidate", row.candidate, "--to", tmp_path / "a")
    assert done.code == Exit.OK, done.err
    assert "build and adapter of" in done.err or "adapter of" in done.err
    assert "validation: all 24 answers are as recorded" in done.err, "the same settings, data and machine"
    assert "scored anew" not in done.out

    # A results folder whose record says otherwise of two items: the copy's own score is told, and stands in the card.
    file = own.out / "outcomes" / f"{row['candidate']}.json"
    outcomes = json.loads(file.read_text(encoding="utf-8"))
    for place in (0, 5):
        outcomes["predicted"][place] = (outcomes["predicted"][place] + 1) % 4
    file.write_text(json.dumps(outcomes), encoding="utf-8")
    shutil.rmtree(cache / "build")
    done = autotune("export", own.out, "--candidate", row.candidate, "--to", tmp_path / "b", "--json")
    document = json.loads(done.out)
    assert (document["made_again"], document["verified"]) == (True, True)
    assert document["scored_anew"]["validation"]["differing"] == 2
    assert document["scored_anew"]["validation"]["value"] == pytest.approx(row["accuracy"], abs=1e-6)
    assert "validation: 2 of 24 answers are not as recorded" in done.err
    card = (tmp_path / "b" / "README.md").read_text(encoding="utf-8")
    assert "2 of 24 answers on validation are not those of the sweep" in card


def test_a_folder_that_does_not_answer_as_recorded_is_said(
    own: TinySweep, autotune: Callable[..., Ran], tmp_path: Path
) -> None:
    row = row_of(own, build_precision="fp32", lora_quantized_base="none")
    file = own.out / "outcomes" / f"{row['candidate']}.json"
    outcomes = json.loads(file.read_text(encoding="utf-8"))
    outcomes["predicted"] = [(label + 1) % 4 for label in outcomes["predicted"]]
    file.write_text(json.dumps(outcomes), encoding="utf-8")
    done = autotune(
        "export",
        own.out,
        "--candidate",
        row.candidate,
        "--to",
        tmp_path / "x",
        "--push",
        "me/mine",
        "--base-model",
        "a/b",
    )
    assert done.code == Exit.MACHINE
    assert "NOT VERIFIED" in done.out
    assert "url" not in done.out, "it is not uploaded"
    assert "**This folder does not answer as recorded**" in (tmp_path / "x" / "README.md").read_text(encoding="utf-8")


def test_a_winner_is_exported_from_best_where_cache_model_and_data_are_gone(
    own: TinySweep, autotune: Callable[..., Ran], tmp_path: Path
) -> None:
    shutil.rmtree(tmp_path / "cache")
    for file in own.file.parent.glob("*.jsonl"):
        file.unlink()
    done = autotune("export", own.out, "--to", tmp_path / "x")
    assert done.code == Exit.OK, done.err
    assert "not tried: its model or data is not at hand" in done.out
    assert (tmp_path / "x" / "onnx" / "model.onnx").exists()
    other = next(r for r in read_results(own.out) if r.trial and r.candidate[:8] not in done.out)
    done = autotune("export", own.out, "--candidate", other.candidate, "--to", tmp_path / "y")
    assert done.code == Exit.USAGE
    assert "the file must exist" in done.err
    assert not (tmp_path / "y").exists()


def test_the_merged_model_is_the_tuned_one(tiny_sweep: TinySweep, autotune: Callable[..., Ran], tmp_path: Path) -> None:
    row = row_of(tiny_sweep, build_precision="fp32", lora_quantized_base="none")
    done = autotune(
        "export", tiny_sweep.out, "--candidate", row.candidate, "--to", tmp_path / "x", "--merged", "--items", 0
    )
    assert done.code == Exit.OK, done.err
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "x" / "merged")
    assert sum(p.numel() for p in model.parameters()) > 1000
    done = autotune("export", tiny_sweep.out, "--to", tmp_path / "x")
    assert (done.code, "replace that export: --force" in done.err) == (Exit.USAGE, True)
    assert autotune("export", tiny_sweep.out, "--to", tmp_path / "x", "--force", "--items", 0).code == Exit.OK
    assert not (tmp_path / "x" / "merged").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years", encoding="utf-8")
    done = autotune("export", tiny_sweep.out, "--to", tmp_path / "mine", "--force")
    assert (done.code, "holds something already" in done.err) == (Exit.USAGE, True)
    assert (tmp_path / "mine" / "thesis.txt").exists()


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--candidate", "zz"], Exit.USAGE, "no candidate has this name"),
        (["--candidate", "zz", "--limit", "size_mb <= 1"], Exit.USAGE, "--candidate names the model"),
        (["--limit", "size_mb <= 0.001"], Exit.NO_FEASIBLE, "No candidate keeps the limits."),
        (["--public"], Exit.USAGE, "add --push owner/name"),
        (["--push", "a b"], Exit.USAGE, "write owner/name"),
        (["--push", "me/mine"], Exit.USAGE, "--base-model owner/name"),
        (["--items", "-1"], Exit.USAGE, "must be 0 or more"),
    ],
)
def test_what_cannot_be_exported_is_said_before_anything_is_written(
    tiny_sweep: TinySweep, autotune: Callable[..., Ran], tmp_path: Path, options: list[str], code: int, said: str
) -> None:
    done = autotune("export", tiny_sweep.out, "--to", tmp_path / "x", *options)
    assert done.code == code
    assert said in done.out + done.err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_results_is_said(autotune: Callable[..., Ran], tmp_path: Path) -> None:
    for folder, said in (("none", "no such folder"), (".", "no results of a sweep here")):
        done = autotune("export", tmp_path / folder, "--to", tmp_path / "x")
        assert (done.code, said in done.err, "Traceback" in done.err) == (Exit.USAGE, True, False)


# --- the hub ---------------------------------------------------------------------------------------------------------


@dataclass
class Hub:
    """A server that speaks as much of the hub's language as an upload needs, and notes what it is told."""

    url: str = ""
    made: list[dict[str, Any]] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub of our own, on this machine."""
    here = Hub()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            here.tokens.add(str(self.headers["Authorization"]))
            answer: dict[str, Any] = {}
            if self.path == "/api/repos/create":
                here.made.append(json.loads(body))
                answer = {"url": f"{here.url}/me/mine", "name": "me/mine", "id": "1"}
            elif "/preupload/" in self.path:
                asked = json.loads(body)["files"]
                answer = {
                    "files": [{"path": one["path"], "uploadMode": "regular", "shouldIgnore": False} for one in asked]
                }
            elif "/commit/" in self.path:
                lines = [json.loads(line) for line in body.splitlines()]
                here.files += [line["value"]["path"] for line in lines if line["key"] == "file"]
                answer = {"commitUrl": f"{here.url}/me/mine/commit/1", "commitOid": "1", "success": True}
            self._send(answer)

        def do_GET(self) -> None:
            self._send({"id": "me/mine", "sha": "0", "siblings": []})

        def _send(self, answer: dict[str, Any]) -> None:
            text = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None: ...

    with local_server(Handler) as server:
        here.url = server.url
        monkeypatch.setenv("HF_ENDPOINT", here.url)
        monkeypatch.setenv("HF_TOKEN", "hf_abcdefghijklmnopqrstuvwx12")
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        yield here


def test_it_is_uploaded_where_it_is_asked_for(
    tiny_sweep: TinySweep, autotune: Callable[..., Ran], tmp_path: Path, hub: Hub
) -> None:
    done = autotune(
        "export", tiny_sweep.out, "--to", tmp_path / "x", "--items", 2, "--push", "me/mine", "--base-model", "a/b"
    )
    assert done.code == Exit.OK, done.err
    assert f"url: {hub.url}/me/mine/commit/1" in done.out
    assert ["private" in (one.get("visibility"), *(["private"] if one.get("private") else [])) for one in hub.made] == [
        True
    ]
    assert set(hub.files) == {*sums(tmp_path / "x"), "SHA256SUMS"}
    assert hub.tokens == {"Bearer hf_abcdefghijklmnopqrstuvwx12"}
    everything = b"".join(path.read_bytes() for path in (tmp_path / "x").rglob("*") if path.is_file())
    assert b"hf_abcdefghijklmnopqrstuvwx12" not in everything
    head = yaml.safe_load((tmp_path / "x" / "README.md").read_text(encoding="utf-8").split("---")[1])
    assert head["base_model"] == "a/b"
    assert autotune("export", tiny_sweep.out, "--to", tmp_path / "y", "--items", 0).code == Exit.OK
    assert len(hub.made) == 1, "never without being asked"


FOUNDRY = """
import sys
from foundry_local_sdk import *
FoundryLocalManager.initialize(Configuration(app_name="t", app_data_dir=sys.argv[2], model_cache_dir=sys.argv[2] + "/m", logs_dir=sys.argv[2] + "/l", disable_nonessential_telemetry=True))
with ModelInfoBuilder() as metadata:
    metadata.set_string_property("task", "chat-completion")
    model = FoundryLocalManager.instance.get_catalog(CatalogType.LOCAL).register_model(sys.argv[1], "tiny-generic-cpu:1", metadata)
model.load()
with ChatSession(model) as session:
    session.set_options(RequestOptions(search=SearchOptions(temperature=0.0, max_output_tokens=6)))
    with Request().add_item(MessageItem.user("hello")) as request, session.process_request(request) as response:
        print("".join(part.text for item in response for part in item.parts))
"""


@pytest.mark.slow
@pytest.mark.skipif(
    not os.environ.get("AUTOTUNE_FOUNDRY_PYTHON"),
    reason="AUTOTUNE_FOUNDRY_PYTHON names no Python that has foundry-local-sdk",
)
def test_foundry_local_answers_as_the_runtime_does(
    tiny_sweep: TinySweep, autotune: Callable[..., Ran], tmp_path: Path
) -> None:
    """Its SDK is in an environment of its own, whose Python AUTOTUNE_FOUNDRY_PYTHON names: it pins another onnxruntime."""
    python = os.environ["AUTOTUNE_FOUNDRY_PYTHON"]
    assert autotune("export", tiny_sweep.out, "--to", tmp_path / "x", "--items", 0).code == Exit.OK
    command = [python, "-c", FOUNDRY, str(tmp_path / "x" / "onnx"), str(tmp_path / "foundry")]
    said = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
    assert said.returncode == 0, said.stderr
    model = og.Model(str(tmp_path / "x" / "onnx"))
    tokenizer = og.Tokenizer(model)
    prompt = tokenizer.apply_chat_template(
        json.dumps([{"role": "user", "content": "hello"}]), add_generation_prompt=True
    )
    parameters = og.GeneratorParams(model)
    tokens = tokenizer.encode(prompt)
    parameters.set_search_options(max_length=len(tokens) + 6, do_sample=False)
    generator = og.Generator(model, parameters)
    generator.append_tokens(tokens)
    written = []
    while not generator.is_done():
        generator.generate_next_token()
        written.append(int(generator.get_next_tokens()[0]))
    expected = tokenizer.decode([token for token in written if token not in tokenizer.eos_token_ids])
    assert same_text(said.stdout.strip(), expected.strip())
