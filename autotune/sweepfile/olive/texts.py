"""How rows of an Olive configuration become texts: templates, chats, pairs, and how long the texts may be."""

from __future__ import annotations

from typing import Any, NamedTuple

from autotune.errors import did_you_mean, shown
from autotune.sweepfile.olive.corpus import join_columns, read_template
from autotune.sweepfile.olive.draft import Draft
from autotune.sweepfile.olive.sections import Node, Section

DEFAULT_LENGTH = "Olive's default, or what the model takes at most"
"""Where the most tokens of a text come from that a file does not name."""
SCRIPT = ("no script is run to read data", "save the rows as a jsonl file, and write a template")


_PAIR = {
    "input_col": "input_cols", "output_col": "target_cols", "output_cols": "target_cols", "output_template": "target_template",
}  # fmt: skip
"""Names of a prompt's and its answer's columns and templates, by what other ages of Olive call them."""
_FORMATS = {"default": ("{input}", "{output}"), "self_instruct": ("{prompt}", "{completion}")}
"""Prompt and answer by Olive's name of a format of pairs; `custom` names its own."""
_OLD = ("source_max_len", "dataset_type", "corpus_strategy")
"""Keys by which a file is known to be written for Olive before August 2024, which joined rows only where it was told to."""
_PLAIN = ("huggingface_pre_process", "text_generation_huggingface_pre_process", "tokenizer_pre_process", "pre_process")
"""Types of what makes texts of rows that are Olive's own, and of text."""
MAKING = (
    "text_template", "text_cols", "max_seq_len", "source_max_len", "max_samples", "strategy", "corpus_strategy", "dataset_type",
    "chat_template", "message_col", "pad_to_max_len", "use_attention_mask", "add_special_tokens", "joiner", "input_cols", "label_col",
    "template", "max_length",
)  # fmt: skip
"""Keys that say how rows become texts."""
_LENGTHS = (
    "max_length",
    "seqlen",
    "max_len",
    "seq_len",
    "seq_length",
    "max_seq_length",
    "sequence_length",
    "model_max_length",
)
_MEANT = {
    **dict.fromkeys(("template", "prompt", "prompt_template", "format", "prompt_format"), "did you mean 'text_template'?"),
    **dict.fromkeys(("text_column", "text_columns", "text_col", "text_field", "columns", "column"), "did you mean 'text_cols'?"),
    **dict.fromkeys(("messages", "messages_col", "messages_column", "message_column"), "did you mean 'message_col'?"),
    **dict.fromkeys(("num_samples", "limit", "max_rows", "size"), "did you mean 'max_samples'?"),
    **dict.fromkeys(
        ("data_name", "data_files", "split", "subset", "data_dir", "dataset_name"), "move it to load_dataset_config"
    ),
}  # fmt: skip
"""What to do about keys of pre_process_data_config that others name so, or write there."""


class Shape(NamedTuple):
    """How rows become texts: keys of `data`, and the most tokens of a text."""

    data: dict[str, Any]
    nodes: dict[str, Node]
    """By key of `data`, where it came from."""
    max_length: tuple[int, list[Node]] | None
    max_items: tuple[int, Node] | None
    answers: Node | None = None
    """Where the file says that the loss is of the answers alone."""
    joined: bool = False
    """Whether Olive joins the rows, and cuts what it gets into blocks of the most tokens of a text."""
    paired: bool = False
    """Whether each row is a pair of Olive's older kind, whose loss is of the answers where a file is silent."""


def read_shape(section: Section | None) -> Shape:
    """Return how rows become texts; without a section as Olive does it: the column `text`."""
    place = Node(("data_configs",), None)
    if section is None:
        return Shape(
            {"text": "{text}", "metric": "perplexity"}, {"text": place, "metric": place}, None, None, joined=True
        )
    old = any(node.path[-1] in _OLD for node in section.nodes.values())
    section.rename(_PAIR | dict.fromkeys(_LENGTHS, "max_seq_len"))
    kind = section.take_text("dataset_type")
    if kind is not None and kind.value.lower() not in ("corpus", "pair"):
        section.ledger.refuse(kind.path, f"a dataset_type is corpus or pair, not {shown(kind.value)}", "write corpus")
    elif kind is not None:
        section.ledger.unneeded(kind.path, "the template says it")
    _check_maker(section)
    given = set(section.nodes)
    paired = (kind is not None and kind.value.lower() == "pair") or not given.isdisjoint(
        {"pair_format", "input_template"}
    )
    answered = {"target_cols", "target_template", "label_col", "label_cols"}
    paired = paired or ("input_cols" in given and not given.isdisjoint(answered))
    if "input_cols" in given and not paired and "text_cols" not in given:  # of a text alone, as for a calibration
        section.rename({"input_cols": "text_cols"})
    data, nodes = _texts(section, kind if paired else None)
    length, most = _length(section, paired), section.take_number("max_samples", whole=True)
    answers = section.take_flag("ignore_source_in_labels")
    joined = _is_joined(section, old)
    _rest(section)
    where = {name: nodes.get(name, place) for name in data}
    return Shape(
        data, where, length, None if most is None else (int(most.value), most), answers, joined and not paired, paired
    )


def _check_maker(section: Section) -> None:
    """Refuse what makes texts of rows in another way than by templates."""
    kind = section.take_text("type")
    if kind is None:
        return
    if kind.value.lower() in _PLAIN:
        section.ledger.unneeded(kind.path, "the template says what is learned")
    else:
        rule = f"texts are made by a template, and not by {shown(kind.value)}"
        section.ledger.refuse(kind.path, rule, "remove it, and write text_template; or save the rows as a jsonl file")


def _length(section: Section, paired: bool) -> tuple[int, list[Node]] | None:
    """Return the most tokens of a text, and where that is said; of a pair, those of the prompt and of the answer together."""
    nodes = [section.take_number("max_seq_len", whole=True), section.take_number("target_max_len", whole=True)]
    length, answer = nodes
    if answer is not None and (not paired or length is None):
        section.ledger.unneeded(answer.path, "train.max_length bounds prompt and answer together")
        nodes = [length]
    found = [node for node in nodes if node is not None]
    return (sum(int(node.value) for node in found), found) if length is not None else None


def _texts(section: Section, pairs: Node | None) -> tuple[dict[str, Any], dict[str, Node]]:
    ledger = section.ledger
    chat, column = section.take("chat_template"), section.take_text("message_col")
    template, columns = section.take_text("text_template"), section.take_texts("text_cols")
    if chat is not None and chat.value is not False:
        for other in (template, columns):
            if other is not None:
                ledger.unneeded(other.path, "the chat template makes the text")
        if chat.value is not True:
            ledger.refuse(chat.path, "the chat template is the model's own", "write true, and save it with the model")
        named = column or chat
        ledger.map(chat.path, "data.messages")
        return {"messages": column.value if column else "messages", "metric": "perplexity"}, {
            "messages": named,
            "metric": named,
        }
    if chat is not None:
        ledger.unneeded(chat.path, "the template makes the text")
    if column is not None:
        ledger.unneeded(column.path, "no chat template is asked for")
    pair = _pair(section, pairs)
    if pair is not None:
        for other in (template, columns):
            if other is not None:
                ledger.unneeded(other.path, "prompt and answer make the text")
        return pair
    node = template or columns
    if template is not None and columns is not None:
        ledger.unneeded(columns.path, "the template names its columns")
    if node is None:
        return {"text": "{text}", "metric": "perplexity"}, {}
    text = template.value if template is not None else join_columns(columns.value if columns is not None else [])
    try:
        corpus = read_template(text)
    except ValueError as error:
        rule, _, remedy = str(error).partition("; ")
        ledger.refuse(node.path, rule, remedy or "correct the template")
        return {"text": "{text}", "metric": "perplexity"}, {}
    if corpus.text:
        return {"text": corpus.text, "metric": "perplexity"}, {"text": node, "metric": node}
    return {"prompt": corpus.prompt, "completion": corpus.completion}, {"prompt": node, "completion": node}


def _pair(section: Section, pairs: Node | None) -> tuple[dict[str, Any], dict[str, Node]] | None:
    """Return prompt and completion where the file gives a template or columns for each, or names a format that does.

    `pairs`: the key that says that rows are pairs, in columns of Olive's own names where nothing else is said.
    """
    ledger = section.ledger
    form = section.take_text("pair_format")
    given = {"input_template", "input_cols", "target_template", "target_cols"} & set(section.nodes)
    name = form.value.lower() if form is not None else "custom" if given or pairs is None else "default"
    if name in _FORMATS:
        for node in (section.take(one) for one in sorted(given)):
            if node is not None:
                ledger.unneeded(node.path, f"the format {name} says which columns are meant")
        place = form or pairs
        assert place is not None
        texts = dict(zip(("prompt", "completion"), _FORMATS[name], strict=True))
        return texts, dict.fromkeys(texts, place)
    if form is not None and name != "custom":
        rule = f"there is no format of pairs {shown(form.value)} here"
        ledger.refuse(form.path, rule, "write pair_format custom, with input_template and output_template")
    elif form is not None:
        ledger.unneeded(form.path, "the templates say it")
    sides = []
    for template, columns in (("input_template", "input_cols"), ("target_template", "target_cols")):
        text, names = section.take_text(template), section.take_texts(columns)
        if text is not None and names is not None:
            ledger.unneeded(names.path, "the template names its columns")
        made = text.value if text is not None else join_columns(names.value) if names is not None else None
        sides.append((made, text or names))
    (prompt, asked), (completion, answered) = sides
    if asked is None and answered is None:
        if form is not None and name == "custom":
            ledger.refuse(form.path, "needs the prompt and the answer", "add input_template and output_template")
        return None
    if asked is None or answered is None:
        left = asked or answered
        assert left is not None
        ledger.refuse(left.path, "a prompt needs its answer, and an answer its prompt", "use text_template")
        return None
    return {"prompt": prompt, "completion": completion}, {"prompt": asked, "completion": answered}


def _is_joined(section: Section, old: bool) -> bool:
    """Whether the rows are joined: Olive does it where a file is silent, and did not before August 2024."""
    strategy = section.take_text("strategy")
    if strategy is None:
        return not old
    if strategy.value.lower().startswith("join"):
        why = (
            "each row is a text of its own, because the borders of blocks cut through rows; a batch takes as many rows as "
            "its blocks would hold"
        )
        section.ledger.unneeded(strategy.path, why, tell=True)
        return True
    if strategy.value.lower().startswith("line-by-line"):
        section.ledger.unneeded(strategy.path, "each row is a text of its own")
    else:
        known = ("join", "line-by-line")
        rule = f"there is no strategy {shown(strategy.value)}"
        section.ledger.refuse(strategy.path, rule, did_you_mean(strategy.value, known))
    return False


def _rest(section: Section) -> None:
    section.unneeded(
        {
            "pad_to_max_len": "texts of similar length share a batch, and are padded to the longest of it",
            "padding": "texts of similar length share a batch, and are padded to the longest of it",
            "truncation": "train.max_length bounds a text",
            "padding_side": "nothing reads what stands behind a text",
            "use_attention_mask": "padding is always masked",
            "drop_short_sequences": "every row counts",
            "add_special_tokens": "training and scoring add what ONNX Runtime GenAI adds to a prompt, and the end of the text",
            "joiner": "rows are not joined",
            "stride": "rows are not joined",
            "processing_batch_size": "texts are made one by one",
            "random_seed": "the order of items follows from seed",
            "random_retries": "rows are not joined",
            "model_name": "the tokenizer is the model's",
            "task": "the template says what is learned",
            "trust_remote_code": "no code of a model's own is ever run",
            "remove_unused_columns": "columns that no template names are left out",
            "batched": "texts are made one by one",
        }
    )
    section.refuse(
        {
            "text_formatting_func": SCRIPT,
            "user_script": SCRIPT,
            "script_dir": SCRIPT,
            "input_formatting_func": SCRIPT,
            "output_formatting_func": SCRIPT,
            "label_col": ("labels are completions here", "write text_template with the label's column at its end"),
            "label_cols": ("labels are completions here", "write text_template with the label's column at its end"),
            "kwargs": ("nothing else is passed on", "remove the key"),
        }
    )
    section.close("pre_process_data_config", _MEANT)


def put_shape(draft: Draft, shape: Shape) -> None:
    """Set how rows become texts: templates, metric where there are no answers, lengths, and what the loss is of."""
    for name, value in shape.data.items():
        node = shape.nodes[name]
        if node.path == ("data_configs",) and node.value is None:
            draft.default(f"data.{name}", value, "Olive's default: the column text, as plain text")
        else:
            draft.put(f"data.{name}", value, node)
    if shape.max_length is not None:
        length, where = shape.max_length
        why = "prompt and answer together" if len(where) > 1 else ""
        for node in reversed(where):
            if 8 <= length <= 1_000_000:
                draft.put("train.max_length", length, node, why)
            else:
                draft.ledger.refuse(node.path, f"must be between 8 and 1,000,000, got {length}", "correct it")
    else:
        draft.default("train.max_length", 1024, DEFAULT_LENGTH)
    draft.joined = shape.joined
    if shape.max_items is not None:
        most, node = shape.max_items
        if most < 1:
            draft.ledger.refuse(node.path, f"must be 1 or more, got {most}", "remove it for all rows")
        else:
            draft.put("data.max_items.train", most, node, "rows")
    if shape.answers is not None and "text" not in shape.data:
        draft.put("train.loss_on", "completion" if shape.answers.value else "text", shape.answers)
    elif shape.answers is not None:
        draft.ledger.unneeded(shape.answers.path, "plain text has no answers")
    elif shape.paired:
        draft.default("train.loss_on", "completion", "Olive's loss of a pair is on the answer")
    elif "text" not in shape.data:
        draft.default("train.loss_on", "text", "Olive's loss is on the whole text")
