"""Addresses of Azure ML, and the files behind them: through a filesystem of our own making, and through the real one."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml
from conftest import Ran

from autotune.artifacts.room import tidy
from autotune.artifacts.store import Cache, default_root
from autotune.data.sources import AzureFile, hub_source, part_of
from autotune.errors import MachineError, UsageError
from autotune.models import is_remote
from autotune.remote.addresses import Address, Workspace, parse, split_rows
from autotune.remote.files import fetch_folder, fetch_model, filesystem, read_address, stamp, version_of
from autotune.remote.objects import Objects
from autotune.remote.workspace import workspace_at_hand
from autotune.stages.preparation_jobs import BaseJob, RemoteFileJob, TinyJob
from autotune.stages.protocol import function_of

fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed")

REGISTERED: dict[str, Any] = sys.modules["fsspec.registry"]._registry
"""The filesystems that fsspec has loaded."""
HOME = "azureml://subscriptions/s/resourcegroups/g/workspaces/w"
STORE = f"{HOME}/datastores/store/paths"


def put_folder(folder: Path, address: Address) -> None:
    """Upload the files below a folder."""
    files = filesystem()
    for file in sorted(one for one in folder.rglob("*") if one.is_file()):
        target = str(address.below(file.relative_to(folder).as_posix()))
        files.makedirs(target.rpartition("/")[0], exist_ok=True)
        files.put_file(str(file), target)


# --- addresses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kind", "full"),
    [
        ("azureml://datastores/store/paths/a/b.jsonl", "datastore", f"{STORE}/a/b.jsonl"),
        (f"{HOME}/datastores/store/paths/a", "datastore", f"{STORE}/a"),
        ("azureml://subscriptions/s/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/w/datastores/store/paths/a/", "datastore", f"{STORE}/a"),
        ("azureml://registries/r/models/owner/m/versions/11", "model", "azureml://registries/r/models/owner/m/versions/11"),
        (f"{HOME}/models/m/versions/1", "model", f"{HOME}/models/m/versions/1"),
        ("azureml://registries/r/data/d/versions/2", "data", "azureml://registries/r/data/d/versions/2"),
    ],
)  # fmt: skip
def test_an_address_says_what_it_names(text: str, kind: str, full: str) -> None:
    address = parse(text).within(Workspace("s", "g", "w"))
    assert (address.kind, str(address)) == (kind, full)
    assert parse(str(address)) == address


@pytest.mark.parametrize(
    "text",
    ["azureml://", "azureml://store/a", "azureml://datastores/", "azureml:name:1", "azureml://registries/r/datastores/s/paths/a",
     "azureml://datastores/s/paths/../../secret", "azureml://datastores/s/paths/a//b", "azureml://registries/r/models/m",
     f"{HOME}/jobs/j/outputs/x"],
)  # fmt: skip
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"address|registry"):
        parse(text)


def test_rows_of_a_file_are_no_part_of_its_address() -> None:
    assert split_rows("azureml://datastores/s/paths/a.json[:4096]") == (
        "azureml://datastores/s/paths/a.json",
        "[:4096]",
    )
    assert split_rows("azureml://datastores/s/paths/a.json") == ("azureml://datastores/s/paths/a.json", "")
    source, part = part_of("azureml://datastores/s/paths/a.json[10:20]", Path())
    assert (source, part.of(100) if part else None) == ("azureml://datastores/s/paths/a.json", slice(10, 20))
    assert hub_source(source, Path()) == AzureFile("azureml://datastores/s/paths/a.json")
    assert is_remote("azureml://registries/r/models/m/versions/1", Path())


def test_the_workspace_at_hand_is_named_by_a_job_or_by_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("AZUREML_ARM_SUBSCRIPTION", "AZUREML_ARM_RESOURCEGROUP", "AZUREML_ARM_WORKSPACE_NAME"):
        monkeypatch.delenv(name, raising=False)
    assert workspace_at_hand() is None
    with pytest.raises(UsageError, match="names no workspace of Azure ML"):
        read_address("azureml://datastores/store/paths/a", "data.train")
    (tmp_path / "config.json").write_text(
        '{"subscription_id": "s", "resource_group": "g", "workspace_name": "w"}', encoding="utf-8"
    )
    assert workspace_at_hand() == Workspace("s", "g", "w")
    for name, value in (("SUBSCRIPTION", "a"), ("RESOURCEGROUP", "b"), ("WORKSPACE_NAME", "c")):
        monkeypatch.setenv(f"AZUREML_ARM_{name}", value)
    assert workspace_at_hand() == Workspace("a", "b", "c")


# --- files, through a filesystem of our own making -------------------------------------------------------------------


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that stands for the datastore `store`."""
    from fsspec.implementations.local import LocalFileSystem

    folder = tmp_path / "there"
    folder.mkdir()

    class Fake(LocalFileSystem):  # type: ignore[misc]
        protocol: ClassVar[str] = "azureml"

        @classmethod
        def _strip_protocol(cls, path: Any) -> str:
            text = str(path)
            if text.startswith("azureml://"):
                address = parse(text)
                assert (address.workspace, address.name) == (Workspace("s", "g", "w"), "store")
                return str(folder / address.path).rstrip("/")
            return text

    before = dict(REGISTERED)
    fsspec.register_implementation("azureml", Fake, clobber=True)
    Fake.clear_instance_cache()
    yield folder
    REGISTERED.pop("azureml", None)
    if "azureml" in before:
        fsspec.register_implementation("azureml", before["azureml"], clobber=True)


def test_a_file_of_rows_is_fetched_once_until_it_changes(there: Path, tmp_path: Path) -> None:
    (there / "rows.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    address, seen = stamp(f"{STORE}/rows.csv")
    assert stamp(f"{STORE}/rows.csv") == (address, seen)
    job = RemoteFileJob(address=address, seen=seen)
    assert job.file_name == "rows.csv"
    function_of(job)(job, tmp_path)
    assert (tmp_path / "rows.csv").read_text(encoding="utf-8") == "a,b\n1,2\n"
    (there / "rows.csv").write_text("a,b\n1,2\n3,4\n", encoding="utf-8")
    assert stamp(f"{STORE}/rows.csv")[1] != seen
    with pytest.raises(UsageError, match="there is no such file"):
        stamp(f"{STORE}/other.csv", "data.train")
    (there / "folder").mkdir()
    with pytest.raises(UsageError, match="must be a file, not a folder"):
        stamp(f"{STORE}/folder", "data.train")


def test_folders_go_there_and_back_and_none_leaves_its_place(there: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "x").write_bytes(b"x" * 10)
    (folder / "manifest.json").write_bytes(b"{}")
    put_folder(folder, parse(f"{STORE}/kept"))
    assert fetch_folder(parse(f"{STORE}/kept"), tmp_path / "back") == 2
    assert (tmp_path / "back" / "deep" / "x").read_bytes() == b"x" * 10
    assert fetch_folder(parse(f"{STORE}/nothing"), tmp_path / "back") == 0


def test_a_model_of_a_datastore_is_taken_out_of_mlflows_folder_without_pickles(
    there: Path, tmp_path: Path, tiny_llama: Path
) -> None:
    inner = there / "models" / "m" / "data" / "model"
    shutil.copytree(tiny_llama, inner)
    (inner / "training_args.bin").write_bytes(b"pickle")
    (there / "models" / "m" / "MLmodel").write_text("x", encoding="utf-8")
    name = version_of(f"{STORE}/models/m")
    job = BaseJob(name=name)
    function_of(job)(job, tmp_path)
    assert (tmp_path / "config.json").is_file()
    assert not (tmp_path / "training_args.bin").exists()
    (inner / "generation_config.json").write_text('{"a": 1}', encoding="utf-8")
    assert version_of(f"{STORE}/models/m") != name
    with pytest.raises(UsageError, match=r"holds no config\.json"):
        fetch_model(f"{STORE}/models/m/data/model/tokenizer.json", tmp_path)


def test_a_cache_on_azure_is_read_before_anything_is_made(
    there: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda *_, **__: str(tmp_path / os.environ["MACHINE"]))
    monkeypatch.setenv("AUTOTUNE_CACHE", f"{STORE}/cache")
    made: list[str] = []

    def run(out: Path) -> tuple[dict[str, Any], float]:
        made.append(os.environ["MACHINE"])
        (out / "deep").mkdir()
        (out / "deep" / "file").write_text("content", encoding="utf-8")
        return {"seen": 1}, 2.5

    class Work(TinyJob):
        stage: ClassVar[str] = "score"

    for machine in ("one", "two", "one"):
        monkeypatch.setenv("MACHINE", machine)
        assert machine in str(default_root())
        stored = Cache(default_root()).make(Work(), run)
        assert (stored.result, stored.seconds) == ({"seen": 1}, 2.5)
        assert (stored.path / "deep" / "file").read_text(encoding="utf-8") == "content"
    assert made == ["one"]
    # What was damaged there is not taken.
    monkeypatch.setenv("MACHINE", "three")
    file = next(there.rglob("file"))
    file.write_text("CONTENT", encoding="utf-8")
    Cache(default_root()).make(Work(), run)
    assert made == ["one", "three"]
    # What is quickly made stays here.
    Cache(default_root()).make(TinyJob(), run)
    assert made == ["one", "three", "three"]
    assert not (there / "cache" / "tiny").exists()


def test_what_is_being_fetched_is_not_cleared_away(
    there: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another sweep makes room meanwhile, and what has no manifest yet is no damaged result."""
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda *_, **__: str(tmp_path / os.environ["MACHINE"]))
    monkeypatch.setenv("AUTOTUNE_CACHE", f"{STORE}/cache")

    class Work(TinyJob):
        stage: ClassVar[str] = "score"

    def run(out: Path) -> tuple[dict[str, Any], float]:
        (out / "file").write_text(os.environ["MACHINE"], encoding="utf-8")
        return {}, 2.5

    def get(self: Objects, name: str, file: Path) -> None:
        real(self, name, file)
        assert Cache(default_root()).entries() == tidy(Cache(default_root())) == []

    real = Objects.get
    monkeypatch.setattr(Objects, "get", get)
    for machine in ("one", "two"):
        monkeypatch.setenv("MACHINE", machine)
        stored = Cache(default_root()).make(Work(), run)
    assert (stored.path / "file").read_text(encoding="utf-8") == "one"
    assert not list(default_root().glob("*/.*"))


def test_a_cache_must_be_a_folder_of_a_datastore(there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOTUNE_CACHE", "azureml://registries/r/models/m/versions/1")
    with pytest.raises(UsageError, match="must name a folder of a datastore"):
        Cache(default_root())


def test_a_sweep_names_data_on_azure_and_its_workspace_once(there: Path, tmp_path: Path) -> None:
    from autotune.artifacts.store import Stored
    from autotune.pipeline.prepare import read_data
    from autotune.stages.protocol import Job
    from autotune.sweepfile.resolve import load_sweep

    rows = [{"a": f"text {n}", "b": ("yes", "no")[n % 2]} for n in range(40)]
    (there / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    sweep = {
        "name": "tones", "model": "azureml://datastores/store/paths/models/m",
        "data": {"train": "azureml://datastores/store/paths/rows.jsonl[:30]", "prompt": "{a}", "completion": " {b}"},
        "space": {"lora": {"r": 4}},
        "submit": {"azureml": {"subscription_id": "s", "resource_group": "g", "workspace_name": "w"}},
    }  # fmt: skip
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump(sweep), encoding="utf-8")
    read = load_sweep(file)
    assert read.model == f"{STORE}/models/m"
    assert read.data.train == f"{STORE}/rows.jsonl[:30]"

    def do(job: Job, timeout: float | None = None) -> Stored:
        out = tmp_path / "made"
        out.mkdir(exist_ok=True)
        return Stored(out, function_of(job)(job, out), 0.0, cached=False)

    dataset = read_data(read, do)
    assert len(dataset.train) + len(dataset.validation) == 30


def test_wrong_addresses_of_a_sweep_are_told_all_at_once(tmp_path: Path) -> None:
    from autotune.sweepfile.resolve import load_sweep

    sweep = {
        "name": "tones", "model": "azureml://registries/r/data/d/versions/1",
        "data": {"train": "azureml://nowhere", "validation": "azureml://registries/r/models/m/versions/1", "prompt": "{a}", "completion": " {b}"},
        "space": {"lora": {"r": 4}},
    }  # fmt: skip
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump(sweep), encoding="utf-8")
    with pytest.raises(UsageError) as error:
        load_sweep(file)
    said = str(error.value)
    assert "model: names data, where a model is needed" in said
    assert "data.train: is no address of Azure ML that is read here" in said
    assert "data.validation: names a model, where rows are needed" in said


# --- the real filesystem, against a service of our own ---------------------------------------------------------------


@pytest.fixture
def azure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The service, and our filesystem on the real storage library."""
    pytest.importorskip("azure.ai.ml", reason="azure-ai-ml is not installed")
    from azure_service import Login, serving

    from autotune.remote import azure_files
    from autotune.remote import workspace as remote_workspace

    for module in (azure_files, remote_workspace):
        monkeypatch.setattr(module, "credential", Login)
    remote_workspace.client.cache_clear()
    REGISTERED.pop("azureml", None)
    azure_files.AzureMLFiles.clear_instance_cache()
    with serving(tmp_path / "service", monkeypatch) as service:
        yield service
        assert service.unknown == []
    azure_files.AzureMLFiles.clear_instance_cache()
    REGISTERED.pop("azureml", None)
    remote_workspace.client.cache_clear()


@pytest.mark.parametrize("credentials", ["AccountKey", "Sas", "None"])
def test_the_storage_library_reads_and_writes(azure: Any, tmp_path: Path, credentials: str) -> None:
    from azure_service import GROUP, STORE, SUBSCRIPTION, WORKSPACE

    azure.credentials = credentials
    home = (
        f"azureml://subscriptions/{SUBSCRIPTION}/resourcegroups/{GROUP}/workspaces/{WORKSPACE}/datastores/{STORE}/paths"
    )
    folder = tmp_path / "mine"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "deep" / "er" / "x y.bin").write_bytes(os.urandom(5_000_000))
    (folder / "empty").write_bytes(b"")
    put_folder(folder, parse(f"{home}/kept"))
    assert fetch_folder(parse(f"{home}/kept"), tmp_path / "back") == 2
    assert (tmp_path / "back" / "deep" / "er" / "x y.bin").read_bytes() == (
        folder / "deep" / "er" / "x y.bin"
    ).read_bytes()
    files = fsspec.filesystem("azureml")
    assert sorted(one.rpartition("/")[2] for one in files.ls(f"{home}/kept", detail=False)) == ["deep", "empty"]
    assert files.isdir(f"{home}/kept")
    assert not files.exists(f"{home}/kep")
    with files.open(f"{home}/kept/deep/er/x y.bin", "rb") as stream:
        stream.seek(4_999_990)
        assert stream.read() == (folder / "deep" / "er" / "x y.bin").read_bytes()[-10:]
    with fsspec.open(f"{home}/written.txt", "wt", encoding="utf-8") as stream:
        stream.write("größer")
    assert files.cat_file(f"{home}/written.txt").decode() == "größer"
    with pytest.raises(FileExistsError):
        files.pipe_file(f"{home}/written.txt", b"x", mode="create")
    files.rm(f"{home}/written.txt")
    with pytest.raises(FileNotFoundError):
        files.info(f"{home}/written.txt")
    import pandas

    files.pipe_file(f"{home}/table.csv", b"a,b\n1,2\n")
    assert list(pandas.read_csv(f"{home}/table.csv").columns) == ["a", "b"]


def test_an_empty_blob_that_stands_for_a_folder_is_no_file(azure: Any, tmp_path: Path) -> None:
    """Drivers that mount an account without folders leave them."""
    from azure_service import GROUP, STORE, SUBSCRIPTION, WORKSPACE

    home = f"azureml://subscriptions/{SUBSCRIPTION}/resourcegroups/{GROUP}/workspaces/{WORKSPACE}/datastores/{STORE}/paths/kept"
    (tmp_path / "mine" / "deep").mkdir(parents=True)
    (tmp_path / "mine" / "deep" / "x").write_bytes(b"x")
    put_folder(tmp_path / "mine", parse(home))
    azure.markers += ["kept", "kept/deep", "kept/empty"]
    assert fetch_folder(parse(home), tmp_path / "back") == 1
    assert [one.name for one in (tmp_path / "back").rglob("*") if one.is_file()] == ["x"]


def test_models_of_a_registry_and_of_a_workspace_are_fetched(azure: Any, tmp_path: Path, tiny_llama: Path) -> None:
    from azure_service import GROUP, SUBSCRIPTION, WORKSPACE

    azure.add_model("shared", "in-registry", "3", tiny_llama)
    azure.add_model("", "in-workspace", "1", tiny_llama)
    home = f"azureml://subscriptions/{SUBSCRIPTION}/resourcegroups/{GROUP}/workspaces/{WORKSPACE}"
    for place in (
        "azureml://registries/shared/models/in-registry/versions/3",
        f"{home}/models/in-workspace/versions/1",
    ):
        out = tmp_path / place.rpartition("/models/")[2].partition("/")[0]
        out.mkdir()
        fetch_model(place, out)
        assert (out / "model.safetensors").read_bytes() == (tiny_llama / "model.safetensors").read_bytes()
        assert (out / "tokenizer.json").is_file()
    with pytest.raises(UsageError, match="Azure has no such thing"):
        fetch_model("azureml://registries/shared/models/other/versions/1", tmp_path)


def test_what_the_storage_refuses_is_clear(azure: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from azure_service import ACCOUNT_KEY, GROUP, STORE, SUBSCRIPTION, WORKSPACE, Answer, refusal

    monkeypatch.setattr("time.sleep", lambda _: None)
    home = f"azureml://subscriptions/{SUBSCRIPTION}/resourcegroups/{GROUP}/workspaces/{WORKSPACE}"
    with pytest.raises(UsageError, match="Could not find datastore other"):
        stamp(f"{home}/datastores/other/paths/a")
    azure.faults.append(
        lambda asked: refusal(403, "AuthorizationFailure", "not authorized") if ".blob." in asked.host else None
    )
    with pytest.raises(MachineError, match="this login may not do that"):
        stamp(f"{home}/datastores/{STORE}/paths/a")
    azure.faults[:] = [lambda asked: Answer(200, b"x", cut=0) if ".blob." in asked.host else None]
    with pytest.raises(MachineError, match="the connection was lost") as error:
        stamp(f"{home}/datastores/{STORE}/paths/a")
    assert ACCOUNT_KEY not in str(error.value)


def test_microsofts_own_filesystem_reads_our_addresses() -> None:
    """Where azureml-fsspec is installed: it takes the addresses that we write."""
    theirs = pytest.importorskip("azureml.fsspec", reason="azureml-fsspec is not installed")
    told = theirs.AzureMachineLearningFileSystem._get_kwargs_from_urls(f"{STORE}/a/b.csv")
    assert told


def test_a_sweep_on_azures_data_says_what_to_install_without_the_sdk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autotune: Callable[..., Ran]
) -> None:
    monkeypatch.setattr("autotune.remote.workspace.has_sdk", lambda: False)
    REGISTERED.pop("azureml", None)
    with pytest.raises(MachineError, match=r'pip install "autotune-genai\[azure\]"'):
        stamp(f"{STORE}/rows.csv")
