"""The command line. Each command imports what it needs when it runs, so that help and `select` start at once.

It is one module because a command is its options and the few lines that call its room, which stand side by side here.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import TextIO, TypeAlias

from autotune import __version__
from autotune.arguments import (
    Once,
    Parser,
    as_days,
    as_hours,
    as_megabytes,
    as_path,
    as_source,
    as_whole,
    library_option,
    repeated,
)
from autotune.errors import (
    AutotuneError,
    Exit,
    Problem,
    UsageError,
    printable,
    printable_json,
    printable_lines,
    reader_gone,
    refused_by_system,
)
from autotune.present.terminal import forget, lasting_messages
from autotune.secrets import redact, redacted


def _say(text: str, stream: TextIO | None = None) -> None:
    """Print lines to stdout, or to `stream`, without secrets; what an input smuggled in for the terminal is shown."""
    print(printable_lines(redact(text)), file=stream or sys.stdout, flush=True)


def _tell(text: str) -> None:
    """Print a line to stderr, if anybody can read it: the exit code says the same."""
    with contextlib.suppress(OSError):
        _say(text, sys.stderr)


def _say_json(document: str) -> None:
    clean = json.dumps(redacted(json.loads(document)), indent=1, ensure_ascii=False)
    sys.stdout.write(printable_json(clean) + "\n")
    sys.stdout.flush()


_Commands: TypeAlias = "argparse._SubParsersAction[Parser]"
_SEARCH = "widen an Olive configuration into a space around it"


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    line = Parser(
        prog="autotune",
        description="Search LoRA settings and precisions of a small language model for ONNX Runtime.",
        epilog="Exit codes: 0 done; 1 a bug in autotune; 2 command line, sweep file or data wrong; 3 this machine cannot "
        "run it; 4 no candidate keeps the limits; 5 no candidate finished; 130 interrupted, run again to go on.",
    )
    line.add_argument("--version", action="version", version=f"autotune {__version__}")
    commands = line.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for add in (
        _add_run, _add_init, _add_plan, _add_import_olive, _add_submit, _add_job, _add_status, _add_select, _add_report,
        _add_export, _add_score, _add_bench, _add_cache, _add_completion, _add_schema, _add_doctor,
    ):  # fmt: skip
        add(commands)
    return line


def _use_libraries(given: Sequence[str]) -> None:
    """Add the providers that the command line names. Raises UsageError."""
    from autotune.providers import use_library

    for text in given:
        name, _, path = text.partition("=")
        try:
            use_library(name, path)
        except ValueError as error:
            remedy = "e.g. --provider-library MyExecutionProvider=/opt/vendor/libprovider.so"
            raise UsageError(Problem(str(error), "--provider-library", value=text, remedy=remedy)) from None


def _add_run(commands: _Commands) -> None:
    command = commands.add_parser("run", help="run a sweep, or go on where it stopped")
    command.add_argument(
        "sweep", type=as_source, metavar="SWEEP", help="sweep file: .yaml, .toml or .json; or an Olive configuration"
    )
    command.add_argument("--out", type=as_path, metavar="DIR", help="results folder; default: results/<name>")
    command.add_argument("--trials", type=as_whole, metavar="N", help="candidates to measure, instead of budget.trials")
    command.add_argument("--hours", type=as_hours, metavar="H", help="hours to spend, instead of budget.hours")
    repeated(command, "--set", "KEY=VALUE", "change a key of the sweep file")
    command.add_argument("--engine", choices=("local", "ray"), help="who does the jobs, instead of the file's engine")
    command.add_argument(
        "--address", metavar="HOST:PORT", help="head of the Ray cluster; default: the one that runs here"
    )
    library_option(command)
    command.add_argument(
        "--report", action="store_true", help="keep report.html in the results folder up to date during the sweep"
    )
    command.add_argument(
        "--optuna-storage", metavar="URL", help="mirror the sweep as a study, for optuna-dashboard; e.g. sqlite:///x.db"
    )
    command.add_argument("--plain", action="store_true", help="plain lines instead of the live view, in a terminal too")
    command.add_argument("--search", action="append_const", dest="set", const="search=true", help=_SEARCH)
    command.set_defaults(function=_run)


def _run(arguments: argparse.Namespace) -> int:
    from autotune.run import RunOptions, run_command

    given = vars(arguments)
    same = ("out", "trials", "hours", "report", "optuna_storage", "address", "plain")
    return run_command(RunOptions(arguments.sweep, sets=_sets(arguments), **{name: given[name] for name in same}))


def _sets(arguments: argparse.Namespace) -> list[str]:
    """Return what the command line changes of the sweep file."""
    return [*arguments.set, *([f"engine={arguments.engine}"] if arguments.engine else [])]


def _add_init(commands: _Commands) -> None:
    command = commands.add_parser(
        "init", help="a commented sweep file for your model and data, or an example with its data"
    )
    command.add_argument("--model", type=as_source, metavar="MODEL", help="built-in name, name on the hub, or folder")
    command.add_argument(
        "--data", type=as_source, metavar="FILE", help="labelled rows: .jsonl, .json, .csv, .tsv or .parquet"
    )
    command.add_argument(
        "--validation", type=as_source, metavar="FILE", help="rows that candidates are compared on; default: held out"
    )
    command.add_argument(
        "--test", type=as_source, metavar="FILE", help="rows that only the finalists are scored on; default: held out"
    )
    command.add_argument("--provider", help="execution provider; default: cpu")
    command.add_argument("--encoding", help="encoding of a text file that is not UTF-8, e.g. cp1252")
    command.add_argument(
        "--example",
        nargs="?",
        const="",
        metavar="NAME",
        help="write this example with its data; without NAME: list them",
    )
    command.add_argument(
        "--out", type=as_path, metavar="PATH", help="the file to write; with --example the folder; default: here"
    )
    command.add_argument("--force", action="store_true", help="replace what is there")
    command.set_defaults(function=_init)


def _init(arguments: argparse.Namespace) -> int:
    from autotune.present.examples import list_examples, write_example
    from autotune.present.init import Wanted, write_sweep

    given = vars(arguments)
    if arguments.example is not None:
        _check_example(arguments)
        if not arguments.example:
            _say("\n".join(list_examples()))
            return Exit.OK
        _say("\n".join(write_example(arguments.example, arguments.out or Path(), arguments.force)))
        return Exit.OK
    missing = [f"--{name}" for name in ("model", "data") if not given[name]]
    if missing:
        rule = f"needs {' and '.join(missing)}"
        remedy = "autotune init --model MODEL --data FILE, or autotune init --example to list examples"
        raise UsageError(Problem(rule, "init", file="command line", remedy=remedy))
    names = ("model", "data", "validation", "test", "provider", "encoding", "out", "force")
    _say("\n".join(write_sweep(Wanted(**{name: given[name] for name in names if given[name] is not None}))))
    return Exit.OK


def _check_example(arguments: argparse.Namespace) -> None:
    """Raises UsageError for options of `init` that mean nothing where it writes an example, or lists them."""
    own = ("model", "data", "validation", "test", "provider", "encoding")
    lost = [f"--{name}" for name in own if getattr(arguments, name) is not None]
    if lost:
        rule = f"an example is written as it is, so {' and '.join(lost)} would be ignored"
        remedy = "leave the options out, and change the file that is written; or autotune run FILE --set KEY=VALUE"
        raise UsageError(Problem(rule, "--example", file="command line", remedy=remedy))
    if not arguments.example and (arguments.out is not None or arguments.force):
        rule = "without the name of an example nothing is written, so --out and --force mean nothing"
        remedy = "autotune init --example NAME --out FOLDER"
        raise UsageError(Problem(rule, "--example", file="command line", remedy=remedy))


def _add_completion(commands: _Commands) -> None:
    command = commands.add_parser("completion", help="print a script that completes this command in a shell")
    command.add_argument("shell", choices=("bash", "zsh", "tcsh"), help='e.g. eval "$(autotune completion bash)"')
    command.set_defaults(function=_completion)


def _completion(arguments: argparse.Namespace) -> int:
    import shtab

    sys.stdout.write(shtab.complete(parser(), shell=arguments.shell) + "\n")  # its tabs belong to it
    return Exit.OK


def _add_schema(commands: _Commands) -> None:
    command = commands.add_parser("schema", help="the JSON schema of a table of results, for other tools")
    command.add_argument(
        "table", nargs="?", choices=("results", "finalists", "curves"), default="results", help="default: results"
    )
    command.set_defaults(function=_schema)


def _schema(arguments: argparse.Namespace) -> int:
    from autotune.results.schema import json_schema

    _say_json(json.dumps(json_schema(arguments.table), ensure_ascii=False))
    return Exit.OK


def _add_plan(commands: _Commands) -> None:
    command = commands.add_parser("plan", help="check a sweep and say what it would do and cost, without training")
    command.add_argument(
        "sweep", type=as_source, metavar="SWEEP", help="sweep file: .yaml, .toml or .json; or an Olive configuration"
    )
    repeated(command, "--set", "KEY=VALUE", "change a key of the sweep file")
    command.add_argument("--search", action="append_const", dest="set", const="search=true", help=_SEARCH)
    command.add_argument("--engine", choices=("local", "ray"), help="who does the jobs, instead of the file's engine")
    command.add_argument(
        "--address", metavar="HOST:PORT", help="head of the Ray cluster; default: the one that runs here"
    )
    command.add_argument("--json", action="store_true", help="print one JSON document")
    library_option(command)
    command.set_defaults(function=_plan)


def _plan(arguments: argparse.Namespace) -> int:
    from autotune.present.plan import make_plan
    from autotune.present.plan_table import as_text

    plan = make_plan(arguments.sweep, _sets(arguments), arguments.address)
    _say_json(json.dumps(plan, indent=1, ensure_ascii=False)) if arguments.json else _say(as_text(plan))
    return Exit.OK


def _add_import_olive(commands: _Commands) -> None:
    command = commands.add_parser("import-olive", help="write an Olive configuration as a sweep file, with comments")
    command.add_argument("config", type=as_path, metavar="CONFIG", help="Olive configuration: .json, or .yaml")
    command.add_argument("-o", "--output", type=as_path, metavar="FILE", help="sweep file to write; default: print it")
    command.add_argument("--search", action="store_true", help="widen it into a space around it")
    command.set_defaults(function=_import_olive)


def _import_olive(arguments: argparse.Namespace) -> int:
    from autotune.present.olive import import_file

    text = import_file(arguments.config, arguments.output, arguments.search)
    if text:
        _say(text.rstrip("\n"))
    return Exit.OK


def _add_submit(commands: _Commands) -> None:
    command = commands.add_parser("submit", help="run a sweep on a cluster or in a cloud: write the file, send the job")
    command.add_argument("sweep", type=as_path, metavar="SWEEP", help="sweep file, or an Olive configuration")
    command.add_argument("--to", required=True, choices=("slurm", "skypilot", "azureml"), help="where it is to run")
    command.add_argument(
        "-o", "--output", type=as_path, metavar="FILE", help="file to write; default: named after the sweep"
    )
    repeated(command, "--set", "KEY=VALUE", "change a key of the sweep file")
    command.add_argument("--search", action="append_const", dest="set", const="search=true", help=_SEARCH)
    only = "azureml: write the job, and do not send it, as slurm and skypilot always do"
    command.add_argument("--write-only", action="store_true", help=only)
    command.add_argument("--follow", action="store_true", help="azureml: print what the job logs until it ends")
    command.set_defaults(function=_submit)


def _submit(arguments: argparse.Namespace) -> int:
    from autotune.submit.command import submit, write

    if arguments.follow and (arguments.to != "azureml" or arguments.write_only):
        rule = "belongs to --to azureml, which sends the job; without that there is no log to print"
        raise UsageError(Problem(rule, "--follow", file="command line", remedy="leave it out"))
    if arguments.to == "azureml" and not arguments.write_only:
        return submit(arguments.sweep, arguments.output, arguments.set, arguments.follow, _say)
    _say(write(arguments.sweep, arguments.to, arguments.output, arguments.set))
    return Exit.OK


def _add_job(commands: _Commands) -> None:
    command = commands.add_parser(
        "job", help="a job that submit has sent: show its state or log, cancel it, or fetch its results"
    )
    command.add_argument("action", choices=("status", "logs", "cancel", "fetch"), help="what to do with the job")
    command.add_argument("job", metavar="JOB", help="name of the job or of its sweep, or the file that was sent")
    command.add_argument(
        "--workspace",
        metavar="SUB/GROUP/NAME",
        help="workspace of Azure ML, for a job that was sent from another folder",
    )
    command.add_argument("--out", type=as_path, metavar="DIR", help="fetch: results folder; default: results/<name>")
    command.add_argument("--cache", action="store_true", help="fetch: its cache too, so that the sweep can go on here")
    command.add_argument("--json", action="store_true", help="status: print one JSON document")
    command.set_defaults(function=_job)


def _job(arguments: argparse.Namespace) -> int:
    from autotune.submit.command import look_after

    only = {"out": ("--out", "fetch"), "cache": ("--cache", "fetch"), "json": ("--json", "status")}
    for name, (option, action) in only.items():
        if vars(arguments)[name] and arguments.action != action:
            rule = f"belongs to job {action}"
            raise UsageError(Problem(rule, option, file="command line", remedy="leave it out"))
    asked = (arguments.action, arguments.job, arguments.workspace, arguments.out, arguments.cache, arguments.json)
    return look_after(*asked, _say)


def _add_status(commands: _Commands) -> None:
    command = commands.add_parser("status", help="how far a running or stopped sweep is")
    command.add_argument("folder", type=as_path, metavar="DIR", help="results folder")
    command.add_argument("--json", action="store_true", help="print one JSON document")
    command.add_argument("--watch", action="store_true", help="show it again and again, until the sweep has stopped")
    command.set_defaults(function=_status)


def _status(arguments: argparse.Namespace) -> int:
    from autotune.present.status import as_text, read_status

    if arguments.watch:
        from autotune.present.watch import watch

        watch(arguments.folder, arguments.json)
        return Exit.OK
    status = read_status(arguments.folder)
    _say_json(json.dumps(status, indent=1, ensure_ascii=False)) if arguments.json else _say(as_text(status))
    return Exit.OK


@contextlib.contextmanager
def _without_collection() -> Iterator[None]:
    """Let Python look for no cycles meanwhile: among ten thousand rows it finds none, and takes a third of a second."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _add_select(commands: _Commands) -> None:
    command = commands.add_parser("select", help="the best candidate under limits, without running anything")
    command.add_argument("place", type=as_path, metavar="DIR|CSV", help="results folder, or a results.csv")
    repeated(command, "--limit", "LIMIT", "e.g. 'size_mb<=100'; replaces the sweep's limits")
    command.add_argument("--prefer", action=Once, metavar="METRIC", help="make this the first objective")
    command.add_argument("--target", metavar="NAME", help="which of the sweep's targets; default: each in turn")
    command.add_argument("--json", action="store_true", help="print one JSON document")
    command.set_defaults(function=_select)


def _select(arguments: argparse.Namespace) -> int:
    from autotune.present.explained import explain, explain_targets
    from autotune.present.select import as_json, selections

    with _without_collection():
        found = selections(arguments.place, arguments.limit, arguments.prefer, arguments.target)
    if len(found) < 2:
        (selection,) = found.values()
        _say_json(as_json(selection)) if arguments.json else _say(explain(selection))
        return selection.exit_code
    if arguments.json:
        _say_json(json.dumps({"targets": {name: json.loads(as_json(one)) for name, one in found.items()}}))
    else:
        _say(explain_targets(found))
    return max(one.exit_code for one in found.values())


def _add_report(commands: _Commands) -> None:
    command = commands.add_parser(
        "report", help="one HTML file that explains a sweep, or compares several; works offline"
    )
    command.add_argument(
        "folders", type=as_path, nargs="+", metavar="DIR", help="results folder; several are compared in one report"
    )
    command.add_argument(
        "--to",
        type=as_path,
        metavar="FILE",
        help="file to write; default: report.html in DIR; of several, comparison.html here",
    )
    command.set_defaults(function=_report)


def _report(arguments: argparse.Namespace) -> int:
    from autotune.report.write import write_report

    for file in write_report(arguments.folders, arguments.to, lambda line: _say(f"autotune: {line}", sys.stderr)):
        _say(str(file))
    return Exit.OK


def _add_export(commands: _Commands) -> None:
    command = commands.add_parser("export", help="a candidate as a folder ready to deploy, tried after it is written")
    command.add_argument("folder", type=as_path, metavar="DIR", help="results folder")
    command.add_argument("--to", type=as_path, required=True, metavar="FOLDER", help="where the export is written")
    command.add_argument("--candidate", metavar="ID", help="id of the candidate, or its beginning; default: the winner")
    command.add_argument("--target", metavar="NAME", help="of several targets: the one whose winner is meant")
    repeated(command, "--limit", "LIMIT", "choose under this limit, as `select` does")
    command.add_argument("--prefer", action=Once, metavar="METRIC", help="choose with this as the first objective")
    command.add_argument(
        "--merged", action="store_true", help="add base model and adapter merged into one, in safetensors"
    )
    command.add_argument("--zip", action="store_true", help="write FOLDER.zip as well")
    command.add_argument(
        "--items", type=as_whole, metavar="N", help="items on which the export is tried; 0: none; default: 16"
    )
    command.add_argument("--base-model", metavar="OWNER/NAME", help="the base model's name on the hub, for the card")
    command.add_argument("--force", action="store_true", help="replace an earlier export in FOLDER")
    command.add_argument("--push", metavar="OWNER/NAME", help="upload it to this repository on the Hugging Face hub")
    command.add_argument(
        "--public", action="store_true", help="with --push: a new repository is public; default: private"
    )
    command.add_argument("--json", action="store_true", help="print one JSON document")
    command.set_defaults(function=_export)


def _export(arguments: argparse.Namespace) -> int:
    from autotune.present.export import Wishes, export

    asked = vars(arguments)
    same = ("to", "candidate", "target", "prefer", "merged", "force", "items", "base_model", "push", "public")
    wishes = Wishes(limits=arguments.limit, zipped=arguments.zip, **{name: asked[name] for name in same})
    done = export(arguments.folder, wishes)
    _say_json(json.dumps(done.document, ensure_ascii=False)) if arguments.json else _say(done.text)
    return done.exit_code


def _add_score(commands: _Commands) -> None:
    command = commands.add_parser("score", help="a built model on new labelled data, beside the untouched model")
    command.add_argument("place", type=as_path, metavar="FOLDER|DIR", help="an export, best/, or a results folder")
    command.add_argument(
        "--data",
        type=as_source,
        required=True,
        metavar="FILE",
        help="labelled rows with the columns of the sweep's data",
    )
    command.add_argument(
        "--candidate",
        metavar="ID",
        help="of a results folder: the candidate's id, or its beginning; default: the winner",
    )
    command.add_argument("--target", metavar="NAME", help="of several targets: the one whose winner is meant")
    repeated(command, "--limit", "LIMIT", "choose under this limit, as `select` does")
    command.add_argument("--prefer", action=Once, metavar="METRIC", help="choose with this as the first objective")
    command.add_argument(
        "--max-items", type=as_whole, metavar="N", help="items at most, drawn by content; default: all"
    )
    command.add_argument(
        "--wrong", type=as_path, metavar="CSV", help="file for the wrong items; default: <data>.wrong.csv here"
    )
    command.add_argument("--no-base", action="store_true", help="leave out the untouched model")
    command.add_argument("--json", action="store_true", help="print one JSON document")
    command.set_defaults(function=_score)


def _score(arguments: argparse.Namespace) -> int:
    from autotune.present.score import Asked, score

    chosen = (arguments.candidate, arguments.limit, arguments.prefer)
    asked = Asked(
        arguments.data, *chosen, arguments.wrong, arguments.max_items, not arguments.no_base, arguments.target
    )
    text, code, document = score(arguments.place, asked)
    _say_json(json.dumps(document, ensure_ascii=False)) if arguments.json else _say(text)
    return code


def _add_bench(commands: _Commands) -> None:
    command = commands.add_parser("bench", help="time one built model with the same care as a sweep")
    command.add_argument("model_dir", type=as_path, metavar="MODEL_DIR", help="folder that holds genai_config.json")
    command.add_argument("--provider", default="cpu", help="execution provider; default: cpu")
    command.add_argument(
        "--device", type=as_whole, metavar="N", help="which of the provider's devices; default: the first"
    )
    library_option(command)
    command.add_argument(
        "--threads", type=as_whole, metavar="N", help="threads of one operator; default: the model's, or ONNX Runtime's"
    )
    command.add_argument(
        "--arena", choices=("on", "off"), help="ONNX Runtime's arena for CPU memory; default: the model's"
    )
    repeated(command, "--provider-option", "KEY=VALUE", "an option of the provider")
    command.add_argument(
        "--prompt-tokens", type=as_whole, default=32, metavar="N", help="tokens of each prompt; default: 32"
    )
    command.add_argument(
        "--new-tokens", type=as_whole, default=16, metavar="N", help="tokens generated after each prompt; default: 16"
    )
    command.add_argument("--batch", type=as_whole, default=1, metavar="N", help="sequences at once; default: 1")
    command.add_argument(
        "--processes", type=as_whole, default=5, metavar="N", help="fresh processes at least; default: 5"
    )
    command.add_argument("--json", action="store_true", help="print one JSON document")
    command.set_defaults(function=_bench)


def _bench(arguments: argparse.Namespace) -> int:
    from autotune.present.bench import as_text, bench

    card = bench(
        arguments.model_dir,
        arguments.provider,
        arguments.threads,
        (arguments.prompt_tokens, arguments.new_tokens, arguments.batch),
        arguments.processes,
        None if arguments.arena is None else arguments.arena == "on",
        arguments.provider_option,
        arguments.device,
    )
    _say_json(json.dumps(card, indent=1, ensure_ascii=False)) if arguments.json else _say(as_text(card))
    return Exit.OK


def _add_cache(commands: _Commands) -> None:
    command = commands.add_parser("cache", help="what is kept between sweeps: list it, or make room")
    command.add_argument("action", nargs="?", choices=("list", "prune"), default="list", help="default: list")
    command.add_argument("--to", type=as_megabytes, metavar="MB", help="prune: until no more than this is left")
    command.add_argument("--unused", type=as_days, metavar="DAYS", help="prune: what was not used for this many days")
    command.add_argument("--dry-run", action="store_true", help="prune: only say what would be removed")
    command.add_argument("--json", action="store_true", help="print one JSON document")
    command.set_defaults(function=_cache)


def _cache(arguments: argparse.Namespace) -> int:
    from autotune.present import cache

    if arguments.action == "list":
        if arguments.to is not None or arguments.unused is not None or arguments.dry_run:
            remedy = "autotune cache prune --to MB"
            raise UsageError(
                Problem("--to, --unused and --dry-run belong to prune", file="command line", remedy=remedy)
            )
        listed = cache.listing()
        _say_json(json.dumps(listed)) if arguments.json else _say(cache.as_text(listed))
        return Exit.OK
    pruned = cache.prune(arguments.to, arguments.unused, arguments.dry_run)
    _say_json(json.dumps(pruned)) if arguments.json else _say(cache.pruned_as_text(pruned))
    return Exit.OK


def _add_doctor(commands: _Commands) -> None:
    command = commands.add_parser("doctor", help="what this machine can run")
    command.add_argument("--json", action="store_true", help="print one JSON document")
    command.add_argument("--engine", choices=("local", "ray"), default="local", help="ray: the nodes of a Ray cluster")
    command.add_argument("--address", metavar="HOST:PORT", help="head of the cluster; default: the one that runs here")
    library_option(command)
    command.set_defaults(function=_doctor)


def _doctor(arguments: argparse.Namespace) -> int:
    from autotune.execution.engines import check_address
    from autotune.present.doctor import WIDTH, as_text, examine

    check_address(arguments.engine, arguments.address)
    if arguments.engine == "ray":
        import textwrap

        from autotune.present.cluster import as_lines, examine_cluster

        found = examine_cluster(arguments.address)
        lines = [part for line in as_lines(found) for part in textwrap.wrap(line, WIDTH, subsequent_indent="  ")]
        _say_json(json.dumps(found)) if arguments.json else _say("\n".join(lines))
        return Exit.OK if found["ready"] else Exit.MACHINE
    found = examine()
    _say_json(json.dumps(found, indent=1, ensure_ascii=False)) if arguments.json else _say(as_text(found))
    return Exit.OK if found["ready"] else Exit.MACHINE


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Let SIGTERM end a sweep as Ctrl-C does."""
    del number, frame
    raise KeyboardInterrupt


def _show_bug(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print the traceback of a bug of ours as Python does, without secrets."""
    sys.stderr.write(redact("".join(traceback.format_exception(kind, error, trace))))


def _open_standard_streams() -> None:
    """Open what the caller has closed (`>&-`): else the next file that is opened, a table of results, takes its number."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            with contextlib.suppress(OSError):
                mode = "r" if number == 0 else "w"
                setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, PTH123 - for the whole process


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code. Users see one clear message, never a traceback of ours."""
    sys.excepthook = _show_bug
    _open_standard_streams()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="replace")
    arguments = parser().parse_args(argv)
    for name in ("SIGTERM", "SIGBREAK"):  # on Windows Ctrl-Break, and the closing of the window
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), _interrupt)
    with lasting_messages():
        return _done(arguments)


def _done(arguments: argparse.Namespace) -> int:
    """Do a command, and return its exit code."""
    function: Callable[[argparse.Namespace], int] = arguments.function
    try:
        if libraries := getattr(arguments, "provider_library", []):
            _use_libraries(libraries)
        return int(function(arguments))
    except UsageError as error:
        count = len(error.problems)
        _tell(f"autotune: {count} problem{'s' if count != 1 else ''}:" if count > 1 else "autotune:")
        for problem in error.problems:
            _tell(f"  {problem}")
        return error.exit_code
    except AutotuneError as error:
        _tell(f"autotune: {printable(str(error))}")
        return error.exit_code
    except KeyboardInterrupt:
        _tell("autotune: interrupted; run the same command again to go on")
        return Exit.INTERRUPTED
    except OSError as error:
        if not reader_gone(error):
            _tell(f"autotune: {printable(refused_by_system(error))}")
            return Exit.MACHINE
        forget(sys.stdout)
        return Exit.OK
