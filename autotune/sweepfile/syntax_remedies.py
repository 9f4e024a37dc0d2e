"""Typing errors in a sweep file's text, and what to write instead.

A parser says where it stopped; people need to know what they typed. Each rule here looks at the line and the words of the
parser's error, and gives the remedy in that notation.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

SMART = "“”„‟«»‘’‚‛"
"""Quotes that word processors write."""
_SPACES = re.compile(r"^[ \t]*([^\S \t\r\n]|[\u200b\u200c\u200d\u2060\ufeff])")
"""White space at the beginning of a line that only looks like spaces."""


def odd_space(text: str) -> str:
    """Return the name of the first character in a text's indentation that is no plain space; empty where all are."""
    found = _SPACES.match(text)
    return named(found[1]) if found else ""


def named(character: str) -> str:
    """Return a character's name and number."""
    name = unicodedata.name(character, "a character").lower()
    return f"{name} (U+{ord(character):04X})"


def _quoted(line: str) -> str:
    """Return the remedy for a text with backslashes in double quotes."""
    found = re.search(r'"([^"]*)"?', line)
    inside = found[1] if found else ""
    if "\\" not in inside or "'" in inside or len(inside) > 120:
        return "write it in single quotes, or with / between folders"
    return f"write it in single quotes, '{inside}', or with / between folders"


def yaml_remedy(what: str, lines: Sequence[str], at: int, begun: int | None = None) -> tuple[str, str, int]:
    """Return a rule (empty: that of the parser), a remedy, and the index of the wrong line.

    `at`: the index of the line where the parser stopped; `begun`: of the line where the element begins that it was reading.
    """
    line = lines[at]
    for place in (at, begun if begun is not None else at, at - 1):
        if 0 <= place < len(lines) and re.match(r"<{7}\s|={7}$|>{7}\s", lines[place]):
            return "a merge was left unfinished here", "keep one of its two sides", place
    found = re.search(r"(\{\{.*?\}\}|\$\{.*?\})", line)
    if found and not re.search(rf"['\"][^'\"]*{re.escape(found[1])}", line):
        return "", f"write the value itself, or give it by --set: {found[1]} is not filled in", at
    if "escape" in what:
        found = re.search(r"escape character '(.)'", what)
        sign = f"\\{found[1]}" if found else "\\x, \\u and \\U without their digits"
        return f"a backslash in double quotes begins a sign, and {sign} is none", _quoted(line), at
    if "'\\t'" in what:
        glued = re.match(r"[^\t#'\"]*\S:[ ]*\t", line)
        return "", "write spaces, and no tab, after the colon" if glued else "indent with spaces", at
    for place in range(at, max(-1, at - 4), -1):
        if odd := odd_space(lines[place]):
            return f"the line is indented with {odd}", "indent with plain spaces", place
        if found := re.search(rf"[{SMART}]", lines[place]):
            return "", f"write plain quotes for {found[0]}", place
    if "could not find expected ':'" in what and begun is not None:
        return "", "write key: value, with a space after the colon", begun
    if "expected ',' or" in what and begun is not None and re.search(r"[\[{][^\]}]*\s#", lines[begun]):
        return "", "close the bracket before the comment, or put the value in quotes", begun
    return "", *_yaml_remedy(what, lines, at)


def _open_quote(line: str) -> str:
    """Return the key of a value whose quote is not closed in its line; empty where there is none."""
    value = re.match(r"""\s*(?:-\s+)?([\w.-]+):\s+"((?:[^"\\]|\\.)*)$""", line)
    return value[1] if value else ""


def _yaml_remedy(what: str, lines: Sequence[str], at: int) -> tuple[str, int]:
    line = lines[at]
    for place in range(max(0, at - 3), at + 1):
        if key := _open_quote(lines[place]):
            return f"close the quote of {key}", place
    value = re.match(r"""\s*(?:-\s+)?["']?([\w.-]+)["']?\s*:\s+(\S.*)""", line)
    if what.startswith("mapping values"):
        if value and re.search(r":(\s|$)", value[2]):
            return f"put the value of {value[1]} in quotes: a colon and a space in it begin another mapping", at
        for place in range(at, max(-1, at - 4), -1):
            if glued := re.match(r"\s*([A-Za-z_]\w*):[^\s/\\]", lines[place]):
                return f"write a space after the colon of {glued[1]}", place
        return "indent this line as those beside it, and write one key in a line", at
    if "holds itself" in what:
        return "write the value out: * repeats what & names, and stands within it here", at
    for place in (at, max(0, at - 1)):
        if "expected" in what and re.match(r"""\s*-[{\["'A-Za-z]""", lines[place]):
            return "write a space after the dash", place
    if re.search("cannot start any token|alias|alphabetic or numeric|anchor", what):
        return "put the value in quotes", at
    if value and re.match(r"\{[^}]*\}\s*[^\s,}\]#]|\[[^\]]*\]\s*[^\s,}\]#]", value[2]):
        return f"put the value of {value[1]} in quotes: a text may not begin with {value[2][0]}", at
    if value and value[2][:1] in ('"', "'") and "expected <block end>" in what:
        return f"put the whole value of {value[1]} in one pair of quotes", at
    for sign, remedy in _YAML:
        if re.search(sign, what):
            return remedy, at
    return "mend the syntax", at


_YAML = (
    ("comment or a line break|chomping", "put the value in quotes: | and > begin texts of several lines"),
    ("entries are not allowed|keys are not allowed", "put the value in quotes"),
    ("end of stream|quoted scalar", "close the quote"),
    ("another document|single document", "keep one document: --- begins another"),
    ("expected ',' or", "close the bracket, or write a comma between entries"),
    ("tag", "put the value in quotes: ! begins a tag"),
    ("block end|block mapping", "indent this line as those beside it"),
)


def json_remedy(what: str, text: str, position: int) -> str:
    """Return the remedy for an error of the JSON parser at a position."""
    here = text[position:].lstrip()
    behind = text[:position].rstrip()
    if here.startswith(("//", "/*", "#")) or re.search(r"(//|#)[^\"\n]*$", text[:position].rsplit("\n", 1)[-1]):
        return "remove the comment: JSON has none; a .yaml file has, after #"
    if behind.endswith(",") and here[:1] in "}]":
        return "remove the comma before the bracket"
    if here[:1] == "," or (here[:1] in "}]" and behind.endswith(",")):
        return "remove the comma"
    if "escape" in what:
        return "write \\\\ for a backslash, or / between folders"
    if here[:1] == "'":
        return "write double quotes, \" for '"
    if here[:1] and here[0] in SMART:
        return f"write plain quotes for {here[0]}"
    if found := re.match(r"None|True|False|undefined|NaN|-?Infinity", here):
        plain = {"True": "true", "False": "false"}.get(found[0], "null")
        return f"write {plain} for {found[0]}"
    if "control character" in what:
        return "write \\n for a line end within a text"
    if "Extra data" in what:
        return "keep one document in the file"
    if "delimiter" in what:
        return "write a comma between entries, and a colon between a key and its value"
    if "property name" in what:
        return "write each key in double quotes"
    if not text.strip():
        return "see search_spaces/ for examples: the file is empty"
    if re.match(r"\s*(?:#.*\n\s*|---\s*\n)*\w+:", text):
        return "call the file .yaml"
    return "mend the syntax"


def toml_remedy(what: str, line: str) -> str:
    """Return the remedy for an error of the TOML parser in a line."""
    if "'\\\\'" in what or "hex value" in what or "escape" in what.lower():
        return _quoted(line)
    if re.search(rf"[{SMART}]", line):
        return "write plain quotes"
    if "overwrite" in what or "declare" in what or "twice" in what or "Duplicate" in what:
        return "keep one"
    if re.match(r"\s*[\w.-]+\s*:", line):
        return "write key = value, or call the file .yaml"
    if "Expected '='" in what or "Invalid statement" in what:
        return "write key = value"
    if "Illegal character '\\n'" in what or "Unterminated" in what:
        return "close the quote; a text of several lines stands in three quotes"
    if "Invalid value" in what:
        return "put texts in quotes; numbers, true and false stand without"
    return "mend the syntax"


TEXTS = ("prompt", "completion", "content", "text")
"""Keys whose values are templates."""


def spoilt_text(key: str, style: str | None, value: str, after: str) -> tuple[str, str] | None:
    """Return (rule, remedy) for a YAML text that was probably read otherwise than it was meant; else None.

    `style`: the quote or sign around it, None for a plain text; `after`: the rest of its line.
    """
    name = key.rpartition(".")[2]
    if style is not None:
        return None
    if len(value) > 1 and value[0] in SMART and value[-1] in SMART:
        return f"the quotes {value[0]} and {value[-1]} are part of the text", 'write plain quotes: "'
    comment = re.match(r"\s*#", after) if not value else re.match(r"\s+#", after)
    if name in TEXTS and comment:
        rule = "the text ends where # begins a comment" if value else "the text is a comment, since it begins with #"
        return rule, "put the whole text in quotes"
    return None
