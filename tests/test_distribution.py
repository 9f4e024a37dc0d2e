"""The name that pip knows, in one place; and what people install: the wheel, and the image that the Dockerfile makes."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from conftest import Ran

from autotune import distribution
from autotune.distribution import DISTRIBUTION, pip_install, requirement
from autotune.errors import Exit
from autotune.present import examples
from autotune.present.examples import find_examples, list_examples, write_example
from autotune.sweepfile.resolve import load_sweep

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
TRACKED = ("autotune/**/*.py", "search_spaces/**/*", "benchmarks/*.py", "results/*.md", "*.md", "*.toml", "*.txt")
INSTALLS = re.compile(r"(?<![\w./-])([A-Za-z][\w.-]*)\[([a-z][a-z,-]*)\]")
"""A requirement with extras, such as `autotune-genai[cpu,rouge]`."""


# --- the name -----------------------------------------------------------------------------------------------------------


def test_the_distribution_has_its_own_name_everywhere() -> None:
    assert PROJECT["project"]["name"] == DISTRIBUTION
    assert PROJECT["project"]["scripts"] == {"autotune": "autotune.cli:main"}
    extras = PROJECT["project"]["optional-dependencies"]
    ours = [line for lines in extras.values() for line in lines if "autotune" in line]
    assert ours
    assert all(line.startswith(f"{DISTRIBUTION}[") for line in ours)


def test_nothing_tells_people_to_install_the_other_autotune() -> None:
    """`pip install autotune`, or a requirement with one of our extras under another name."""
    extras = set(PROJECT["project"]["optional-dependencies"])
    looked_at = 0
    for pattern in TRACKED:
        for file in ROOT.glob(pattern):
            if not file.is_file() or file.suffix not in (".py", ".md", ".toml", ".txt", ".yaml"):
                continue
            text = file.read_text(encoding="utf-8")
            looked_at += 1
            assert not re.search(r"pip install[^\n`#&;]*[ '\"]autotune(?![\w.-])", text), file
            for found in INSTALLS.finditer(text):
                if set(found[2].split(",")) <= extras and found[1].startswith("autotune"):
                    assert found[1] == DISTRIBUTION, (file, found[0])
    assert looked_at > 100


def test_a_hint_can_be_pasted_into_every_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Double quotes hold together in sh, PowerShell and cmd.exe; the versions that are tested come from a file that is there."""
    monkeypatch.chdir(ROOT)
    assert requirement() == DISTRIBUTION
    assert pip_install("cpu", "rouge") == f'pip install "{DISTRIBUTION}[cpu,rouge]" -c constraints.txt'
    monkeypatch.chdir(tmp_path)
    assert pip_install("cpu") == f'pip install "{DISTRIBUTION}[cpu]" -c {ROOT / "constraints.txt"}'
    package = tmp_path / "a folder" / "autotune"
    package.mkdir(parents=True)
    monkeypatch.setattr(distribution, "_PACKAGE", package)
    assert pip_install("cpu") == f'pip install "{DISTRIBUTION}[cpu]"'  # no file, no option
    (package / "constraints.txt").touch()  # as in the wheel
    monkeypatch.chdir(package)
    assert pip_install("cpu").endswith("-c constraints.txt")
    monkeypatch.chdir(ROOT)
    assert pip_install("cpu").endswith(f'-c "{package / "constraints.txt"}"')


# --- examples -----------------------------------------------------------------------------------------------------------


def test_the_examples_are_listed_in_80_columns(autotune: Callable[..., Ran]) -> None:
    done = autotune("init", "--example")
    assert done.code == Exit.OK
    assert done.out.startswith("phrase-tone-cpu ")
    assert max(map(len, done.out.splitlines())) <= 80
    ours = {file.stem for file in (ROOT / "search_spaces").glob("*.yaml") if "../shared" not in file.read_text("utf-8")}
    assert set(find_examples()) == ours
    assert all(f"{name}  " in done.out for name in ours)
    assert done.out.splitlines() == "\n".join(list_examples()).splitlines()


@pytest.mark.parametrize("name", find_examples())
def test_every_example_loads_where_it_is_written(name: str, tmp_path: Path) -> None:
    write_example(name, tmp_path)
    sweep, ours = load_sweep(tmp_path / f"{name}.yaml"), load_sweep(ROOT / "search_spaces" / f"{name}.yaml")
    assert sweep.resolved() | {"data": None} == ours.resolved() | {"data": None}
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    for file in written:  # it reads nothing that only a clone has
        assert not re.search(r"benchmarks/\S+\.jsonl", file.read_text(encoding="utf-8")), file
    sources = {
        str(source) for source in (sweep.data.train, sweep.data.validation, sweep.data.test) if source is not None
    }
    local = {source for source in sources if source.endswith(".jsonl")}
    assert local == sources or name == "summarise-cpu"
    assert all((tmp_path / source).is_file() for source in local)


def test_examples_share_their_data_and_nothing_is_replaced_unasked(autotune: Callable[..., Ran]) -> None:
    assert autotune("init", "--example", "phrase-tone-cpu").code == Exit.OK
    assert autotune("init", "--example", "laptop-cpu").code == Exit.OK  # with the same data, which is there
    again = autotune("init", "--example", "laptop-cpu")
    assert (again.code, "is there already" in again.err) == (Exit.USAGE, True)
    Path("phrase_tone/train.jsonl").write_text("mine\n", encoding="utf-8")
    assert "train.jsonl" in autotune("init", "--example", "chat-cpu").err
    assert Path("phrase_tone/train.jsonl").read_text(encoding="utf-8") == "mine\n"
    assert autotune("init", "--example", "chat-cpu", "--force").code == Exit.OK
    assert Path("phrase_tone/train.jsonl").read_text(encoding="utf-8") != "mine\n"


def test_the_task_of_an_example_finds_its_data(tmp_path: Path) -> None:
    write_example("lm-eval-cpu", tmp_path)
    task = (tmp_path / "tasks" / "tones.yaml").read_text(encoding="utf-8")
    named = re.findall(r"^    \w+: (\S+\.jsonl)$", task, re.MULTILINE)
    assert len(named) == 2
    assert all((tmp_path / "tasks" / name).is_file() for name in named)


def test_the_wheel_has_every_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What pyproject.toml puts into the wheel is where `init --example` looks for it, and all of it is there."""
    placed = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    for source, target in placed.items():
        (tmp_path / target).parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (ROOT / source).is_dir() else shutil.copyfile)(ROOT / source, tmp_path / target)
    there = find_examples(tmp_path / "autotune")
    assert set(there) == set(find_examples())
    monkeypatch.setattr(examples, "find_examples", lambda: there)
    for name in there:
        write_example(name, tmp_path / "out")


def test_the_page_on_pypi_has_no_picture_and_no_link_that_leads_nowhere_there() -> None:
    """Made as the builder makes it, from pyproject.toml; only addresses of the web stay links."""
    from hatchling.metadata.core import ProjectMetadata
    from hatchling.plugin.manager import PluginManager

    metadata = ProjectMetadata(str(ROOT), PluginManager())
    page = metadata.core.readme
    assert metadata.core.readme_content_type == "text/markdown"
    links = re.findall(r"\]\(([^)]*)\)", page)
    assert links
    assert [link for link in links if not re.match(r"https?://", link)] == []
    assert not re.search(r"!\[|<img|<!-- (in a clone|tests|main) -->", page)
    # It is installed by its name, and what the page tells of is the README's own text, section by section.
    assert f'pip install "{DISTRIBUTION}[cpu]"' in page
    assert not re.search(r"-e \"?\.|git clone|in a clone|\.venv", page)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    sections = re.findall(r"^##+ .*$", readme, re.MULTILINE)
    assert re.findall(r"^##+ .*$", page, re.MULTILINE) == [title for title in sections if title != "## Test it"]
    assert page.startswith(readme[:1000])


# --- the wheel, and the image -------------------------------------------------------------------------------------------


def called(*words: object, cwd: Path, **environment: str) -> str:
    """Run a command as a user would, without the variables of the tests; returns what it printed."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "AUTOTUNE_TEST_DATA")}
    done = subprocess.run(
        [str(word) for word in words], cwd=cwd, env=kept | environment, capture_output=True, text=True, encoding="utf-8",
        check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def lend_packages(folder: Path) -> None:
    """Let a fresh environment find the packages of this one, but for ours, which it must have been given."""
    python = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = folder / "lib" / python / "site-packages"
    (site / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")


def starts_the_example(command: Path, folder: Path, **environment: str) -> None:
    """Fail unless `init --example` and `plan` work from an empty folder, with what the environment of `command` has."""
    folder.mkdir(exist_ok=True)
    python = command.with_name("python")
    place = called(python, "-c", "import autotune; print(autotune.__file__)", cwd=folder, **environment)
    assert Path(place.strip()).is_relative_to(command.parents[1]), "the installed package is the one that is tried"
    assert "laptop-cpu" in called(command, "init", "--example", cwd=folder, **environment)
    called(command, "init", "--example", "phrase-tone-cpu", cwd=folder, **environment)
    plan = json.loads(called(command, "plan", "phrase-tone-cpu.yaml", "--json", cwd=folder, **environment))
    assert plan["trials"] == 10
    assert len(plan["recipes"]) == 5


@pytest.mark.slow
def test_the_wheel_starts_the_example_anywhere(tmp_path: Path) -> None:
    """Built, checked and installed as a release is, then used from a folder that knows nothing of the repository."""
    called(sys.executable, "-m", "build", "--no-isolation", "--outdir", tmp_path / "dist", ROOT, cwd=tmp_path)
    wheel, source = next((tmp_path / "dist").glob("*.whl")), next((tmp_path / "dist").glob("*.tar.gz"))
    assert wheel.name.startswith("autotune_genai-")
    called(sys.executable, "-m", "twine", "check", "--strict", wheel, source, cwd=tmp_path)
    with zipfile.ZipFile(wheel) as inside:
        names = inside.namelist()
        assert len(names) == len(set(names))
        assert {"autotune/report/web/main.js", "autotune/constraints.txt"} <= set(names)
        tops = {name.partition("/")[0] for name in names}
        assert tops == {"autotune", wheel.name.rpartition("-py3")[0] + ".dist-info"}
        about = inside.read(next(name for name in names if name.endswith(".dist-info/METADATA"))).decode("utf-8")
        assert "## Use it on your data" in about
        assert "](benchmarks/" not in about
    with tarfile.open(source) as packed:
        assert not [name for name in packed.getnames() if "/tests/" in name or "/measured/" in name]
    assert source.stat().st_size < 3e6
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    called(python, "-m", "pip", "install", "--quiet", "--no-deps", wheel, cwd=tmp_path)
    lend_packages(tmp_path / "env")
    starts_the_example(tmp_path / "env" / "bin" / "autotune", tmp_path / "elsewhere")


def docker_steps(target: str) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """Return the environment and the steps of the image's last stage, with those of its base, as Docker reads them."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    text = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    arguments, stages, stage = {"TARGET": target}, dict[str, list[tuple[str, str]]](), ""
    for line in filter(None, text.splitlines()):
        word, _, rest = line.partition(" ")
        if word == "FROM":
            base, _, stage = rest.replace("${TARGET}", target).partition(" AS ")
            stages[stage] = list(stages.get(base, []))
        elif stages:
            assert word in ("RUN", "COPY", "ENV", "ARG", "WORKDIR", "ENTRYPOINT", "CMD"), word
            stages[stage].append((word, rest))
    return arguments, stages[""]


def ignored(path: str) -> bool:
    """Whether .dockerignore keeps a path out of what the builder is given: everything but what it names."""
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "*"
    return not any(path == line[1:] or path.startswith(line[1:] + "/") for line in lines if line.startswith("!"))


@pytest.mark.slow
@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_what_the_dockerfile_says_makes_an_environment_that_starts_the_example(target: str, tmp_path: Path) -> None:
    """Its steps are taken one by one, below a folder in place of the root; packages are those of this environment."""
    variables, steps = docker_steps(target)
    root = str(tmp_path)

    def here(text: str) -> str:
        return re.sub(r"(?<![\w.])/(src|opt/autotune|sweeps)\b", lambda found: root + found[0], text)

    def set_variables(given: str, known: Mapping[str, str]) -> dict[str, str]:
        pairs = (pair.partition("=") for pair in given.split())
        return {name: re.sub(r"\$(\w+)", lambda found: known[found[1]], here(value)) for name, _, value in pairs}

    environment = {"PATH": os.environ["PATH"]}
    (tmp_path / "opt").mkdir()
    workdir, entry = None, None
    for word, rest in steps:
        if word == "COPY":
            *sources, place = rest.split()
            for source in sources:
                assert (ROOT / source).exists()
                assert not ignored(source), source
                into = Path(here(place))
                if (ROOT / source).is_dir():
                    shutil.copytree(ROOT / source, into, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    into.mkdir(parents=True, exist_ok=True)
                    shutil.copy(ROOT / source, into)
        elif word == "RUN" and not rest.startswith("apt-get "):  # what is below the base is not ours to change here
            # The packages that it asks for take gigabytes and minutes: those of this environment are lent.
            command = here(rest).replace("pip install ", "pip install --quiet --no-deps --no-build-isolation ")
            called("sh", "-ec", command, cwd=tmp_path, **(variables | environment))
            if " -m venv " in command:
                lend_packages(tmp_path / "opt" / "autotune")
        elif word == "ENV":
            environment |= set_variables(rest, environment)
        elif word == "WORKDIR":
            workdir = Path(here(rest))
        elif word == "ENTRYPOINT":
            entry = json.loads(rest)
    assert (entry, workdir) == (["autotune"], tmp_path / "sweeps")
    assert ("PIP_EXTRA_INDEX_URL" in environment) == (target == "cpu")
    assert not (tmp_path / "src").exists()
    command = shutil.which("autotune", path=environment["PATH"])
    assert command == str(tmp_path / "opt" / "autotune" / "bin" / "autotune")
    assert workdir is not None
    starts_the_example(Path(command), workdir, **environment)
    assert environment["AUTOTUNE_CACHE"] == str(workdir / ".autotune-cache")
