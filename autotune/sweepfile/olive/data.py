"""The data of an Olive configuration: which rows of which file, or of which data set on the hub."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from autotune.data.schema import HUB_NAME
from autotune.errors import did_you_mean, shown
from autotune.sweepfile.olive.draft import Draft
from autotune.sweepfile.olive.input_model import read_client
from autotune.sweepfile.olive.older_data import BATCHING, LOADING, component, older_parts
from autotune.sweepfile.olive.sections import Node, Section, is_number
from autotune.sweepfile.olive.texts import MAKING, Shape, read_shape

_FILES = ("json", "csv", "parquet", "pandas", "text")
_PARAMS = ("params", "component_kwargs")
_OLD = {
    "source_max_len": "max_seq_len", "corpus_strategy": "strategy", "name": "subset",
}  # fmt: skip
_COMPONENTS = {
    "load_dataset": "load_dataset_config", "pre_process_data": "pre_process_data_config",
    "post_process_data": "post_process_data_config", "dataloader": "dataloader_config",
}  # fmt: skip
_ENDINGS = (".json", ".jsonl", ".csv", ".tsv", ".parquet", ".txt", ".gz")
_OWNED = {
    "ag_news": "fancyzhx/ag_news", "banking77": "PolyAI/banking77", "boolq": "google/boolq", "c4": "allenai/c4",
    "cnn_dailymail": "abisee/cnn_dailymail", "emotion": "dair-ai/emotion", "glue": "nyu-mll/glue", "gsm8k": "openai/gsm8k",
    "hellaswag": "Rowan/hellaswag", "imdb": "stanfordnlp/imdb", "openwebtext": "Skylion007/openwebtext", "piqa": "ybisk/piqa",
    "ptb_text_only": "ptb-text-only/ptb_text_only", "rotten_tomatoes": "cornell-movie-review-data/rotten_tomatoes",
    "squad": "rajpurkar/squad", "squad_v2": "rajpurkar/squad_v2", "super_glue": "aps/super_glue",
    "tweet_eval": "cardiffnlp/tweet_eval", "wikitext": "Salesforce/wikitext", "winogrande": "allenai/winogrande",
    "xsum": "EdinburghNLP/xsum",
}  # fmt: skip
"""Data sets that had no owner on the hub when many files were written, by the names of then."""
_TYPES = ("huggingfacecontainer", "datacontainer")
_SPLIT = "validation"
"""The split of a data set on the hub that Olive takes where a file names none."""
_SAVED = 'save the rows as a jsonl file, and write "data_name": "json" and "data_files": FILE'
_ROWS = "write the rows that are meant behind the split, such as train[:1000]"
_MEANT = {
    **dict.fromkeys(("dataset_name", "dataset", "dataset_id", "path", "data_path", "repo_id"), "did you mean 'data_name'?"),
    **dict.fromkeys(("config", "config_name", "dataset_config", "configuration"), "did you mean 'subset'?"),
    **dict.fromkeys(("file", "files", "data_file", "file_path", "filename"), "did you mean 'data_files'?"),
    **dict.fromkeys(("start", "end", "length", "size", "offset", "limit", "max_rows", "num_rows", "num_samples"), _ROWS),
    **dict.fromkeys(MAKING, "move it to pre_process_data_config"),
    **dict.fromkeys(BATCHING, "remove it: training_args say how items are batched"),
}  # fmt: skip
"""What to do about keys of load_dataset_config that others name so, or write there."""
_MISPLACED = {
    **_MEANT,
    **dict.fromkeys(LOADING, "move it to load_dataset_config"),
    **dict.fromkeys(("dataset_name", "dataset"), "write it as data_name in load_dataset_config"),
}  # fmt: skip
"""What to do about keys that stand beside the sections of a data config, and not in one."""


class Found(NamedTuple):
    """The data that a name means: the source, the keys that say it, how its rows become texts, and which rows are taken."""

    source: str | dict[str, Any]
    nodes: list[Node]
    shape: Shape
    where: Node | None
    """The cells of the rows that are taken; None: all are."""


_Source = tuple[str | dict[str, Any], list[Node]]


_UNNEEDED = {
    "trust_remote_code": "no code of a data set's own is ever run",
    "task": "the template says what is learned",
    "model_name": "the tokenizer is the model's",
    "streaming": "rows are fetched once, and kept",
    "num_proc": "the templates are filled in one process",
    "cache_dir": "the cache is where AUTOTUNE_CACHE says",
}
"""What load_dataset_config may say and is not needed, each with the reason."""


class DataConfigs:
    """The data configs of a file by name; each is read when something names it."""

    def __init__(self, draft: Draft, top: Section) -> None:
        self.draft = draft
        self.nodes: dict[str, Node] = {}
        self.read: dict[str, Found | None] = {}
        node = top.take("data_configs")
        if node is None:
            return
        ledger = draft.ledger
        if isinstance(node.value, Mapping):  # as the oldest files have it
            members = [(str(name), Node((*node.path, str(name)), part)) for name, part in node.value.items()]
        elif isinstance(node.value, list):
            members = [("", Node((*node.path, place), part)) for place, part in enumerate(node.value)]
        else:
            ledger.refuse(node.path, "must be a list", "write [ { ... } ]")
            return
        if not members:
            ledger.unneeded(node.path, "it is empty")
        for given, member in members:
            if not isinstance(member.value, Mapping):
                ledger.refuse(member.path, "must be a mapping", "write { ... }")
                continue
            name = given or member.value.get("name")
            if not isinstance(name, str) or not name:
                ledger.refuse(member.path, "needs a name", 'add "name": "train_data"')
            elif name in self.nodes:
                ledger.refuse(member.path, f"the name {shown(name)} is given twice", "rename one of them")
            else:
                self.nodes[name] = member

    def close(self) -> None:
        """Say of data configs that nothing names that they are not needed."""
        for name, node in self.nodes.items():
            if name not in self.read:
                self.draft.ledger.unneeded(node.path, "nothing that is read here names this data")

    def find(self, named: Node) -> Found | None:
        """Return the data that `named` names; None where it is refused."""
        ledger = self.draft.ledger
        if isinstance(named.value, Mapping):
            name = f"inline {len(self.read)}"
            self.nodes[name] = named
        elif isinstance(named.value, str) and named.value in self.nodes:
            name = named.value
        else:
            known = list(self.nodes)
            remedy = did_you_mean(str(named.value), known) if known else "add it to data_configs"
            ledger.refuse(named.path, f"there is no data config {shown(named.value)}", remedy)
            return None
        if name not in self.read:
            node = self.nodes[name]
            self.read[name] = self._read(Section(ledger, node, (), _COMPONENTS))
            if self.read[name] is None:
                ledger.pass_over(node.path, node.value, "the data is refused")
        return self.read[name]

    def pass_over(self, named: Node, why: str = "the data is refused where it is named") -> None:
        """Say of the keys of a data config that became nothing why they are not needed."""
        node = named if isinstance(named.value, Mapping) else self.nodes[named.value]
        self.draft.ledger.pass_over(node.path, node.value, why)

    def _read(self, section: Section) -> Found | None:
        section.unneeded({"name": "it names the data within this file"})
        kind = section.take_text("type")
        if kind is not None and kind.value.lower() in _TYPES:
            section.ledger.unneeded(kind.path, "rows of files and of data sets on the hub are all that is read")
        elif kind is not None:
            remedy = "use HuggingfaceContainer over a file or a data set on the hub"
            section.ledger.refuse(kind.path, f"data of the type {shown(kind.value)} is not read", remedy)
        why = "it is run for components that it registers, and each that the file names says here whether it is needed"
        section.unneeded({"user_script": why, "script_dir": why})
        older = older_parts(section)
        loading = component(section, "load_dataset_config", older, _PARAMS, {"name": "subset"})
        processing = component(section, "pre_process_data_config", older, _PARAMS, _OLD)
        for name in ("post_process_data_config", "dataloader_config"):
            _pass_over(component(section, name, older, _PARAMS), name)
        section.close("a data config", _MISPLACED)
        where = self._where(loading) if loading is not None else None
        source = self._source(loading) if loading is not None else None
        if loading is None:
            section.ledger.refuse(section.path, "names no rows", "add load_dataset_config with data_name and split")
        shape = read_shape(processing)
        return None if source is None else Found(*source, shape, where)

    # --- rows --------------------------------------------------------------------------------------------------------

    def _where(self, section: Section) -> Node | None:
        """Return the cells of the rows that are taken, by column; None where all are, or what is named is refused."""
        node, ledger = section.take("col_filters"), section.ledger
        if node is None:
            return None
        if not isinstance(node.value, Mapping):
            ledger.refuse(node.path, "must be a mapping of columns to values", 'write e.g. {"language": "Python"}')
            return None
        if not node.value:
            ledger.unneeded(node.path, "it asks for nothing")
            return None
        wrong = {name: value for name, value in node.value.items() if not _is_cell(value)}
        for name, value in wrong.items():
            rule = f"a cell is compared with one text or number, got {shown(value)[:60]}"
            remedy = "write one; data.where of a sweep file takes several values of a column"
            ledger.refuse((*node.path, str(name)), rule, remedy)
        if wrong:
            ledger.pass_over(node.path, node.value, "another cell is refused")
        return None if wrong else node

    def _source(self, section: Section) -> _Source | None:
        ledger = section.ledger
        kind = section.take_text("type")
        if kind is not None and kind.value.lower() != "huggingface_dataset":
            ledger.refuse(kind.path, f"rows that {shown(kind.value)} loads are not read: it is code of a file", _SAVED)
            for left in section.rest():
                ledger.unneeded(left.path, "what loads the rows is refused")
            section.nodes.clear()
            return None
        if kind is not None:
            ledger.unneeded(kind.path, "files and data sets on the hub are read alike")
        section.unneeded(_UNNEEDED)
        section.no_token("token")
        revision = section.take_text("revision")
        if revision is not None and revision.value == "main":
            ledger.unneeded(revision.path, "main is what is fetched")
        elif revision is not None:
            rule = "the newest revision of a data set is fetched, and no other"
            ledger.refuse(revision.path, rule, "save its rows as a jsonl file")
        name, subset = section.take_text("data_name"), section.take_text("subset")
        split, files = section.take_text("split"), section.take("data_files")
        files = self._in_folder(section.take_text("data_dir"), files)
        section.close("load_dataset_config", _MEANT)
        if name is None:
            ledger.refuse(
                section.path, "names no data (data_name)", "add data_name: json with data_files, or owner/name"
            )
            return None
        if name.value.lower() in _FILES or files is not None:
            return self._file(section, name, subset, split, files)
        part = split.value if split is not None else _SPLIT
        if split is None:
            ledger.map(name.path, "data.train", f"no split is named, and Olive takes {_SPLIT} then", tell=True)
        if re.match(r"[./~\\]|[A-Za-z]:[/\\]", name.value) or name.value.endswith(_ENDINGS):
            remedy = f'write "data_name": "json" (or csv, parquet) and "data_files": {json.dumps(name.value)}'
            return self._none(name, "names a path, and a path is one of data_files", remedy, subset, split)
        named = _OWNED.get(name.value, name.value)
        if not re.fullmatch(HUB_NAME, named):
            remedy = f"write owner/{name.value}, as the hub shows it"
            return self._none(name, "a data set on the hub is named with its owner", remedy, subset, split)
        source: dict[str, Any] = {"dataset": named, "split": part}
        if subset is not None:
            source["config"] = subset.value
        return source, [node for node in (name, subset, split) if node is not None]

    def _in_folder(self, folder: Node | None, files: Node | None) -> Node | None:
        """Return the files that are named, below the folder that is: one file has one path."""
        if folder is None:
            return files
        if files is not None and isinstance(files.value, str) and "://" not in files.value:
            self.draft.ledger.map(folder.path, "data.train", "the folder of the file")
            return Node(files.path, f"{folder.value.rstrip('/')}/{files.value}")
        rule = "no folder of files is read, and no part of a data set on the hub is taken by its folder"
        self.draft.ledger.refuse(folder.path, rule, "name one file as data_files, or save the rows as a jsonl file")
        return files

    def _none(self, node: Node, rule: str, remedy: str, *others: Node | None) -> _Source | None:
        """Refuse a key, and with it others that say the same data. Returns None."""
        self.draft.ledger.refuse(node.path, rule, remedy)
        for other in others:
            if other is not None:
                self.draft.ledger.unneeded(other.path, "the data is refused")
        return None

    def _file(
        self, section: Section, name: Node, subset: Node | None, split: Node | None, files: Node | None
    ) -> _Source | None:
        """Return the file that is named, with the rows that the split takes of it."""
        ledger = section.ledger
        if name.value.lower() not in _FILES:
            rule = "data_files of a data set on the hub are not taken"
            return self._none(name, rule, "leave data_files out", subset, split, files)
        ledger.unneeded(name.path, "the ending of the file says its format")
        if subset is not None:
            ledger.refuse(subset.path, "a file has no configurations", "remove the key")
        if files is None:
            place = Node(section.path, None)
            return self._none(place, f"{name.value} needs data_files", "add the path of the file", split)
        part, _, rows = (split.value if split is not None else "train").partition("[")
        node = files
        if isinstance(node.value, Mapping) and "type" not in node.value:
            if part not in node.value:
                rule = f"has no file for the split {shown(part)}"
                return self._none(node, rule, f"add {part}, or correct split", split)
            for other in node.value:
                if other != part:
                    ledger.unneeded((*node.path, str(other)), f"the split is {part}")
            node = Node((*node.path, part), node.value[part])
        elif part != "train" and split is not None:
            remedy = "write train, or train[:100] for some rows"
            return self._none(split, "a file has the split train alone", remedy, files)
        if isinstance(node.value, list) and len(node.value) == 1:
            node = Node(node.path, node.value[0])
        if isinstance(node.value, Mapping):
            found = self._resource(node)
        elif isinstance(node.value, str) and node.value.strip():
            found = node.value, [node]
        else:
            return self._none(node, "names no single file", "put the rows of several into one, and name that", split)
        if found is None:
            if split is not None:
                ledger.unneeded(split.path, "the data is refused")
            return None
        if rows and not re.fullmatch(r"(?:-?[0-9]+%?)?:(?:-?[0-9]+%?)?\]", rows):
            assert split is not None
            remedy = "write e.g. train[:4096] or train[:10%]"
            return self._none(split, "must be train, or train[first:last]", remedy, *found[1])
        path, nodes = found
        return path + (f"[{rows}" if rows else ""), [*nodes, *([split] if split is not None else [])]

    def _resource(self, node: Node) -> tuple[str, list[Node]] | None:
        """Return the path of a file, or its address on Azure ML, and the keys that say it."""
        draft, ledger = self.draft, self.draft.ledger
        section = Section(ledger, node, ("config",))
        kind = section.take_text("type")
        if kind is None or kind.value.lower() != "azureml_datastore":
            if kind is not None and kind.value.lower() in ("file", "folder", "local_file"):
                ledger.unneeded(kind.path, "a path is one")
                path = section.take_text("path")
                section.close("a file")
                return (path.value, [path]) if path is not None else None
            place = kind.path if kind is not None else node.path
            ledger.refuse(place, "a file of that type is not read", "use azureml_datastore, or the path of a file")
            for left in section.rest():
                ledger.unneeded(left.path, "the type of the file is refused")
            section.nodes.clear()
            return None
        ledger.unneeded(kind.path, "it shows in the address of the file")
        client = section.take_section("azureml_client")
        store, path = section.take_text("datastore_name"), section.take_text("relative_path")
        section.close("a datastore")
        workspace = read_client(draft, client) if client is not None else None
        if workspace is None or store is None or path is None:
            rule = "a file on a datastore needs azureml_client, datastore_name and relative_path"
            self._none(Node(node.path, None), rule, "add what is missing", store, path)
            return None
        return f"{workspace}/datastores/{store.value}/paths/{path.value.lstrip('/')}", [path, store]


def _is_cell(value: Any) -> bool:
    """Whether cells can be compared with a value: a number, a truth, or a text that is not blank."""
    return is_number(value) or isinstance(value, bool) or (isinstance(value, str) and bool(value.strip()))


def _pass_over(part: Section | None, name: str) -> None:
    """Say of a component that makes nothing of rows why it is not needed."""
    if part is None:
        return
    batches = name == "dataloader_config"
    why = "training_args say how items are batched" if batches else "outputs are scored as they are"
    for node in part.rest():
        part.ledger.unneeded(node.path, why)
    part.nodes.clear()


def put_source(draft: Draft, key: str, found: Found, named: Node) -> None:
    """Set `data.train` or `data.validation` with the rows that are taken, and map the keys that say what it is.

    One `data.where` holds for all files: data with other col_filters than the training data's is refused.
    """
    if found.where is not None and draft.get("data.train") is None:
        draft.put("data.where", dict(found.where.value), found.where)
    elif not same_rows(draft, found):
        place = found.where.path if found.where is not None else named.path
        rule = "one data.where holds for all files, and the training data has other col_filters"
        draft.ledger.refuse(
            place, rule, "give both the same col_filters, or save the rows that are meant as a jsonl file"
        )
    elif found.where is not None:
        draft.ledger.map(found.where.path, "data.where", "the same as for training")
    for node in (*reversed(found.nodes), *([named] if not isinstance(named.value, Mapping) else [])):
        draft.ledger.map(node.path, key)
    draft.put(key, found.source, found.nodes[0])


def put_validation(draft: Draft, found: Found, named: Node) -> None:
    """Set `data.validation` to data whose texts are those of training, and account for what it says of them again."""
    put_source(draft, "data.validation", found, named)
    shape = found.shape
    for node in {node.path: node for node in shape.nodes.values() if node.path != ("data_configs",)}.values():
        draft.ledger.map(node.path, "data", "the same as for training")
    lengths = shape.max_length[1] if shape.max_length is not None else []
    for node in (*lengths, *([shape.answers] if shape.answers is not None else [])):
        draft.ledger.unneeded(node.path, "as for training")
    if shape.max_items is not None and draft.get("data.max_items.train") != shape.max_items[0]:
        draft.put("data.max_items.validation", *shape.max_items, "rows")
    elif shape.max_items is not None:
        draft.ledger.map(shape.max_items[1].path, "data.max_items", "the same as for training")


def same_rows(draft: Draft, found: Found) -> bool:
    """Whether data takes rows by the same cells as the training data."""
    cells: object = dict(found.where.value) if found.where is not None else None
    return bool(draft.get("data.where") == cells)
