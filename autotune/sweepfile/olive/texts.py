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


_PAIR = frozenset({"input_template", "input_cols", "target_template", "target_cols"})
"""What older files name where each row is a prompt and its answer: such rows are never joined."""


class Shape(NamedTuple):
    """How rows become texts: keys of `data`, and the most tokens of a text."""

    data: dict[str, Any]
    nodes: dict[str, Node]
    """By key of `data`, where it came from."""
    max_length: tuple[int, Node] | None
    max_items: tuple[int, Node] | None
    answers: Node | None = None
    """Where the file says that the loss is of the answers alone."""
    joined: bool = False
    """Whether Olive joins the rows, and cuts what it gets into blocks of the most tokens of a text."""


def read_shape(section: Section | None) -> Shape:
    """Return how rows become texts; without a section as Olive does it: the column `text`."""
    place = Node(("data_configs",), None)
    if section is None:
        return Shape(
            {"text": "{text}", "metric": "perplexity"}, {"text": place, "metric": place}, None, None, joined=True
        )
    kind = section.take_text("dataset_type")
    if kind is not None and kind.value.lower() not in ("corpus", "pair"):
        section.ledger.refuse(kind.path, f"a dataset_type is corpus or pair, not {shown(kind.value)}", "write corpus")
    elif kind is not None:
        section.ledger.unneeded(kind.path, "the template says it")
    paired = not _PAIR.isdisjoint(section.nodes)
    data, nodes = _texts(section)
    length, most = section.take_number("max_seq_len", whole=True), section.take_number("max_samples", whole=True)
    answers = section.take_flag("ignore_source_in_labels")
    joined = _is_joined(section)
    _rest(section)
    where = {name: nodes.get(name, place) for name in data}
    return Shape(
        data, where,
        None if length is None else (int(length.value), length), None if most is None else (int(most.value), most),
        answers, joined and not paired,
    )  # fmt: skip


def _texts(section: Section) -> tuple[dict[str, Any], dict[str, Node]]:
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
    pair = _pair(section)
    if pair is not None:
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


def _pair(section: Section) -> tuple[dict[str, Any], dict[str, Node]] | None:
    """Return prompt and completion where the file gives a template or columns for each, as older files do."""
    ledger = section.ledger
    sides = []
    for template, columns in (("input_template", "input_cols"), ("target_template", "target_cols")):
        text, names = section.take_text(template), section.take_texts(columns)
        if text is not None and names is not None:
            ledger.unneeded(names.path, "the template names its columns")
        made = text.value if text is not None else join_columns(names.value) if names is not None else None
        sides.append((made, text or names))
    (prompt, asked), (completion, answered) = sides
    if asked is None and answered is None:
        return None
    if asked is None or answered is None:
        left = asked or answered
        assert left is not None
        ledger.refuse(left.path, "a prompt needs its answer, and an answer its prompt", "use text_template")
        return None
    return {"prompt": prompt, "completion": completion}, {"prompt": asked, "completion": answered}


def _is_joined(section: Section) -> bool:
    """Whether the rows are joined: Olive does it where a file is silent."""
    strategy = section.take_text("strategy")
    if strategy is None:
        return True
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
            "type": "the template says what is learned",
            "remove_unused_columns": "columns that no template names are left out",
            "batched": "texts are made one by one",
            "target_max_len": "train.max_length bounds prompt and answer together",
        }
    )
    section.refuse(
        {
            "text_formatting_func": SCRIPT,
            "user_script": SCRIPT,
            "script_dir": SCRIPT,
            "pair_format": ("there are no named formats of pairs here", "write input_template and target_template"),
            "label_col": ("labels are completions here", "write text_template with the label's column at its end"),
            "label_cols": ("labels are completions here", "write text_template with the label's column at its end"),
            "kwargs": ("nothing else is passed on", "remove the key"),
        }
    )
    section.close("pre_process_data_config")


def put_shape(draft: Draft, shape: Shape) -> None:
    """Set how rows become texts: templates, metric where there are no answers, lengths, and what the loss is of."""
    for name, value in shape.data.items():
        node = shape.nodes[name]
        if node.path == ("data_configs",) and node.value is None:
            draft.default(f"data.{name}", value, "Olive's default: the column text, as plain text")
        else:
            draft.put(f"data.{name}", value, node)
    if shape.max_length is not None:
        length, node = shape.max_length
        if 8 <= length <= 1_000_000:
            draft.put("train.max_length", length, node)
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
    elif "text" not in shape.data:
        draft.default("train.loss_on", "text", "Olive's loss is on the whole text")
