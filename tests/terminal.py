"""A terminal for tests: it takes what a program writes, and shows the screen that a person would see."""

from __future__ import annotations

import re

_CODE = re.compile(r"\x1b\[([?]?)([0-9;]*)([A-Za-z])")


class Terminal:
    """Rows of cells that keep what scrolled off, break long lines, and break them anew where the width changes, as most
    terminals do.
    """

    def __init__(self, width: int = 80, height: int = 24) -> None:
        self.width, self.height = width, height
        self.lines: list[list[str]] = [[""]]
        """Each line that was written, in the rows that it takes."""
        self.line, self.row, self.column = 0, 0, 0
        self.cursor_shown = True
        self.together = 0
        """How often codes said that what follows belongs together."""
        self.unknown: list[str] = []

    @property
    def rows(self) -> list[str]:
        """All rows, those that scrolled off first."""
        return [row.rstrip() for line in self.lines for row in line]

    @property
    def text(self) -> str:
        """What stands there, without empty rows at the end."""
        return "\n".join(self.rows).rstrip("\n")

    def write(self, text: str) -> None:
        """Take what a program wrote."""
        at = 0
        while at < len(text):
            code = _CODE.match(text, at)
            if code is not None:
                self._code(*code.groups())
                at = code.end()
                continue
            self._letter(text[at])
            at += 1

    def resize(self, width: int) -> None:
        """Break all lines anew; the cursor stays at its letter."""
        offset = sum(len(row) for row in self.lines[self.line][: self.row]) + self.column
        self.width = width
        for place, line in enumerate(self.lines):
            whole = "".join(line)
            self.lines[place] = [whole[i : i + width] for i in range(0, max(1, len(whole)), width)]
        self.row = min(offset // width, len(self.lines[self.line]) - 1)
        self.column = offset - self.row * width

    def _letter(self, letter: str) -> None:
        if letter == "\n":
            self._down(1, new=True)
            self.column = 0
        elif letter == "\r":
            self.column = 0
        else:
            if self.column >= self.width:
                self.lines[self.line].append("")
                self.row, self.column = self.row + 1, 0
            row = self.lines[self.line][self.row].ljust(self.column)
            self.lines[self.line][self.row] = row[: self.column] + letter + row[self.column + 1 :]
            self.column += 1

    def _down(self, count: int, new: bool = False) -> None:
        for _ in range(count):
            if self.row + 1 < len(self.lines[self.line]):
                self.row += 1
                continue
            if self.line + 1 == len(self.lines):
                if not new:
                    return
                self.lines.append([""])
            self.line, self.row = self.line + 1, 0

    def _code(self, private: str, number: str, letter: str) -> None:
        count = int(number or 1) if number.isdigit() or not number else 1
        match private + letter:
            case "A":
                for _ in range(count):
                    if self.row:
                        self.row -= 1
                    elif self.line:
                        self.line -= 1
                        self.row = len(self.lines[self.line]) - 1
            case "B":
                self._down(count)
            case "K":
                assert number == "2"
                line = self.lines[self.line]  # a row that was erased no longer belongs to the line around it
                parts = [part for part in (line[: self.row], [""], line[self.row + 1 :]) if part]
                self.lines[self.line : self.line + 1] = parts
                self.line, self.row = self.line + bool(self.row), 0
            case "?h" | "?l" if number == "25":
                self.cursor_shown = letter == "h"
            case "?h" | "?l" if number == "2026":
                self.together += letter == "h"
            case "m":
                pass
            case _:
                self.unknown.append(f"{private}{number}{letter}")
