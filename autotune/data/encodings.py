"""Decode the bytes of a data file: UTF-8, or what a byte order mark or `data.encoding` says; nothing is guessed silently.

Excel writes UTF-8 with a mark, UTF-16 with a mark ("Unicode text"), or the computer's own code page. A mark is
unambiguous and is followed. A code page is not: the message names the likely one and shows how a line reads in it.
"""

from __future__ import annotations

import codecs
import gzip
import re
import zlib

from autotune.errors import Problem

_MARKS = (  # the longer first: the mark of UTF-32 begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_LOOKED_AT = 4096
"""The number of first bytes by which an encoding is recognised that nothing names."""
_SHOWN = 40
"""The number of characters that a message shows around one that cannot be read."""

# (first bytes, format, remedy) of files that are no text.
_OTHER_CONTENT = (
    (b"PK\x03\x04", "a zip archive or an Excel workbook", "save the sheet as 'CSV UTF-8', or unpack the archive"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook", "save the sheet as 'CSV UTF-8'"),
    (b"PAR1", "parquet", "rename it to end in .parquet"),
    (b"\x1f\x8b", "compressed with gzip", "rename it to end in .gz, or unpack it"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", "unpack it"),
    (b"BZh", "compressed with bzip2", "unpack it"),
    (b"\xfd7zXZ", "compressed with xz", "unpack it"),
    (b"ARROW1", "an Arrow file", "write it as parquet"),
    (b"\x89PNG", "an image", "name a file of rows"),
    (b"%PDF", "a PDF document", "name a file of rows"),
    (b"SQLite format 3\x00", "a SQLite database", "export the table as CSV and name that file"),
    (b"Obj\x01", "Avro", "write it as parquet or .jsonl"),
    (b"\x89HDF", "HDF5", "write it as parquet or .jsonl"),
    (b"\x93NUMPY", "a NumPy array", "write it as parquet or .jsonl"),
    (b"ORC", "ORC", "write it as parquet or .jsonl"),
    (b"7z\xbc\xaf", "a 7z archive", "unpack it"),
    (b"Rar!", "a RAR archive", "unpack it"),
    (b"{\\rtf", "a document (RTF)", "save it as plain text: .csv or .jsonl"),
    (b"version https://git-lfs", "a Git LFS pointer, and not the data itself", "run `git lfs pull`"),
)
_WEB_PAGE = re.compile(rb"\s*<(?:!doctype html|html)", re.IGNORECASE)


def is_text_encoding(name: str) -> bool:
    """Return whether Python decodes bytes to text under this name."""
    try:
        b"text".decode(name)  # for empty bytes Python would not look the name up
    except UnicodeError:
        return True
    except (LookupError, ValueError):
        return False
    return True


def other_content(data: bytes, wanted: str = "text") -> Problem | None:
    """Return the problem of a file whose first bytes are those of another format than `wanted`; else None."""
    for mark, what, remedy in _OTHER_CONTENT:
        if data.startswith(mark) and what != wanted:
            return Problem(f"the file must be {wanted}, and its content is {what}", remedy=remedy)
    if _WEB_PAGE.match(data[:200]):
        remedy = "download the file itself ('raw'), and not the page that shows it"
        return Problem("the file must be rows, and its content is a web page", remedy=remedy)
    return None


def unpacked(data: bytes) -> bytes | Problem:
    """Return the content of a gzip file, or its problem."""
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        return Problem(f"the file must be compressed with gzip ({error})", remedy="compress it again, or unpack it")


def _without_mark(data: bytes) -> str | None:
    """Return the UTF-16 encoding of text without a byte order mark, by the zero bytes of its ASCII characters; else None."""
    head = data[:_LOOKED_AT].rstrip(b"\0")  # zeros at the end are padding
    pairs = len(head) // 2
    if not pairs or len(data) % 2:
        return None
    for name, zeros in (("utf-16-le", head[1::2]), ("utf-16-be", head[0::2])):
        if zeros.count(0) > 0.4 * pairs and head.count(0) < 0.6 * len(head):
            return name
    return None


_ASCII = frozenset(map(chr, range(128)))
_WESTERN = frozenset("àâäáãåæçèéêëìíîïñòóôöõøœùúûüÿßÀÂÄÁÃÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÖÕØŒÙÚÛÜ€£°§«»“”„‘’–—…¿¡·\u00a0")
"""The characters beyond ASCII of Western European texts, where they stand alone or in pairs."""


def _likely(data: bytes) -> str:
    """Return the most likely code page of bytes that are not UTF-8, for a message: it is never used without the user's word.

    Western European letters identify cp1252. For others charset-normalizer guesses: it named 5 of 8 code pages right on a few
    lines of a table (chardet 7 of 8, but its licence is not permissive).
    """
    lines = [line for line in data[: _LOOKED_AT * 16].split(b"\n") if not line.isascii()][:50]
    beyond = b"".join(lines).decode("cp1252", "replace")
    if set(beyond) - _ASCII <= _WESTERN and not re.search(r"[^\x00-\x7f]{3}", beyond):
        return "cp1252"
    from charset_normalizer import from_bytes

    found = list(from_bytes(b"\n".join(lines)))
    # In the wrong Cyrillic code page a text has upper and lower case exchanged.
    plain = [one for one in found if sum(c.isupper() for c in str(one)) <= sum(c.islower() for c in str(one))]
    best = next(iter([*plain, *found]), None)
    name = best.encoding if best is not None else "cp1252"
    return "cp1252" if name in ("ascii", "latin_1", "iso8859_1") else name


def _not_utf8(data: bytes, error: UnicodeDecodeError) -> Problem:
    line = data.count(b"\n", 0, error.start) + 1
    rule = f"the file must be UTF-8 text (byte {data[error.start]:#04x} at offset {error.start})"
    loose = data.decode("utf-8", "replace")
    lost = loose.count("\ufffd")
    others = len(loose) - lost - sum(map(len, re.findall(r"[\x00-\x7f]+", loose)))
    if 2 * others > lost:
        remedy = "correct that line: the rest of the file is UTF-8"
        if others <= 5 * lost:
            remedy = "save all parts of the file in UTF-8: some are, and some are not"
        return Problem(f"{rule}; {lost} places of it are not", line=line, remedy=remedy)
    name = _likely(data)
    start = data.rfind(b"\n", 0, error.start) + 1
    end = data.find(b"\n", error.start)
    shown = data[max(start, error.start - _SHOWN) : end if end >= 0 else len(data)][: 2 * _SHOWN].decode(
        name, "replace"
    )
    remedy = f"save it as UTF-8 (Excel: 'CSV UTF-8'), or write data.encoding: {name} if the line reads right"
    return Problem(f"{rule}; as {name} the line reads {shown.strip()!r}", line=line, remedy=remedy)


_ENOUGH = 8
"""So many characters beyond ASCII never decode as UTF-8 by chance, also in text of a multi-byte encoding."""


def _is_utf8(data: bytes, encoding: str) -> Problem | None:
    """Return the problem of a file that is UTF-8 although the sweep file names another encoding; else None.

    Bytes of a code page hardly ever form UTF-8 by chance: the text would have to hold `Ã©` on purpose.
    """
    if data.isascii() or codecs.lookup(encoding).name.startswith("utf"):
        return None
    try:
        text = data.decode("utf-8")
        wrong = data.decode(encoding)
    except UnicodeError:
        return None
    beyond = [at for at, c in enumerate(text) if c > "\x7f"]
    if len(wrong) < len(data) and len(beyond) < _ENOUGH:  # several bytes a character
        return None
    start = max(text.rfind("\n", 0, beyond[0]) + 1, beyond[0] - _SHOWN // 2)
    shown = text[start : start + _SHOWN].split("\n", 1)[0].strip()
    misread = shown.encode("utf-8").decode(encoding, "replace")
    rule = f"the file is UTF-8, and not {encoding}, as which {shown!r} would be read as {misread!r}"
    remedy = "remove data.encoding; if another file needs it, save that one as UTF-8"
    return Problem(rule, line=text.count("\n", 0, start) + 1, remedy=remedy)


def marked(data: bytes) -> str | None:
    """Return the encoding by the byte order mark, or by zero bytes between ASCII characters (UTF-16); else None."""
    name = next((name for mark, name in _MARKS if data.startswith(mark)), None)
    return name or (_without_mark(data) if b"\0" in data[:_LOOKED_AT] else None)


def decode(data: bytes, encoding: str | None = None) -> tuple[str, str] | Problem:
    """Return the text of a file and a note on its encoding (empty for UTF-8), or its problem.

    `encoding`: the sweep file's `data.encoding`; a byte order mark overrides it.
    """
    name = next((name for mark, name in _MARKS if data.startswith(mark)), encoding)
    if name is None and (problem := other_content(data)):
        return problem
    if name is None and b"\0" in data[:_LOOKED_AT]:
        name = _without_mark(data)
    if encoding is not None and name == encoding and (problem := _is_utf8(data, encoding)):
        return problem
    try:
        text = data.decode(name or "utf-8").removeprefix("\ufeff")  # not utf-8-sig: its offsets leave out the mark
    except UnicodeDecodeError as error:
        if name in (None, "utf-8"):
            return _not_utf8(data, error)
        place = f"byte {data[error.start]:#04x} at offset {error.start}"
        remedy = "save it as UTF-8" if encoding is None else "correct data.encoding, or save the file as UTF-8"
        line = data.count(b"\n", 0, error.start) + 1
        return Problem(f"the file cannot be read as {name} ({place})", line=line, remedy=remedy)
    except UnicodeError as error:
        return Problem(f"the file cannot be read as {name} ({error})", remedy="save it as UTF-8")
    return text, "" if name in (None, "utf-8") else f"read as {name}"
