"""What the stage `inspect` finds about a model, its tokenizer and the data; what users are told is made from it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

AS_SAVED = "tokenizer.json"
"""How `Inspection.encoding` ends where the class of transformers that a model names would make other tokens than this file."""


class Control(BaseModel):
    """A special token that is written out in texts of the data."""

    model_config = ConfigDict(frozen=True)

    token: str
    split: str
    where: str
    """prompt or completion."""
    items: tuple[str, ...]
    """Ids of the items."""


class Unwritten(BaseModel):
    """Completions that generation never gives, for one reason."""

    model_config = ConfigDict(frozen=True)

    reason: str
    """text: the tokenizer gives another text back; end: a token in it ends generation; stop: one of `data.stop` is in it;
    limit: it has more tokens than are generated."""
    items: tuple[str, ...]
    """Ids of the items."""
    completion: str
    """The first of them."""
    written: str
    """What is written of it at best; of `end` the token."""


class Inspection(BaseModel):
    """The findings about a model, its tokenizer and the data."""

    model_config = ConfigDict(frozen=True)

    trouble: str = ""
    """Why the model or its tokenizer cannot be read at all."""
    remedy: str = ""
    missing: tuple[str, ...] = ()
    """Tensors that the model needs and its files do not hold: they would be random."""
    mismatched: tuple[str, ...] = ()
    """Tensors whose shape differs from the model's, with both shapes."""
    foreign: tuple[str, ...] = ()
    """Tensors in the files that loading would drop although they belong to a module of the model."""
    unused: tuple[str, ...] = ()
    """Tensors in the files for which the model has no module."""
    tokens: int = 0
    rows: int = 0
    """The number of tokens of the tokenizer, and of rows of the embedding."""
    linear: tuple[str, ...] = ()
    """The last parts of the names of its linear modules."""
    tied_head: bool = False
    """Whether the head shares its weights with the embedding."""
    beyond: tuple[str, ...] = ()
    """Tokens in the data that have no row in the embedding."""
    ends_beyond: tuple[int, ...] = ()
    """Tokens without a row that the model's settings name as ends of a text."""
    pad: int | None = None
    """The token to name for padding in a built model, where the one that it has may end a prompt; None: it may stay."""
    encoding: str | None = None
    """What makes tokens of text in training and in scoring: ONNX Runtime GenAI with its version, where its tokens are not
    those of transformers; else None. It ends with `AS_SAVED` where that holds."""
    named_class: str = ""
    """The class of transformers that the model names for its tokenizer, where it would make other tokens than tokenizer.json."""
    unread: str = ""
    """Why ONNX Runtime GenAI cannot read the tokenizer."""
    around: tuple[str, str] = ("", "")
    """Tokens that transformers puts before and behind a text, and that ONNX Runtime GenAI leaves out."""
    differing: int = 0
    texts: int = 0
    """Texts whose tokens differ between the two, apart from those around them; and texts in all."""
    example: str = ""
    """The first of them."""
    template: str = ""
    """Why ONNX Runtime GenAI does not render the chat template as transformers does."""
    refused: tuple[tuple[str, str, str], ...] = ()
    """Conversations that the chat template refuses: split, item, reason."""
    conversations: int = 0
    ends: tuple[str, ...] = ()
    """The tokens that end a text, as text."""
    controls: tuple[Control, ...] = ()
    alike: tuple[tuple[str, ...], ...] = ()
    """Labels that have the same tokens."""
    blank: tuple[str, ...] = ()
    """Labels that have no tokens."""
    too_long: tuple[tuple[str, str, int], ...] = ()
    """Completions that `max_length` cannot hold: split, item, tokens."""
    cut: dict[str, int] = Field(default_factory=dict)
    """Of each split, how many prompts lose their beginning at `max_length`."""
    counts: dict[str, int] = Field(default_factory=dict)
    """Of each split, how many items were looked at."""
    unwritten: dict[str, tuple[Unwritten, ...]] = Field(default_factory=dict)
    """Of each split that is scored: completions that generation never gives."""
    longest_answer: int = 0
    """Tokens of the longest completion that is scored."""
    longest: int = 0
    """Tokens of the longest text that is scored, prompt and completion, as far as `max_length` goes."""
    same: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Of each split: items whose prompts differ and have the same tokens, although their answers differ."""
    unknown: tuple[str, tuple[tuple[str, str], ...]] = ("", ())
    """The token for what the tokenizer does not know, and the items with it: split, item."""
    hidden_roles: tuple[str, ...] = ()
    """Roles whose messages the chat template does not show."""
    dated: str = ""
    """What the chat template makes of a conversation beside the messages that is another at another time."""
    too_far: tuple[int, int, int] | None = None
    """The longest prompt, the tokens to generate, and the context that does not hold both."""
