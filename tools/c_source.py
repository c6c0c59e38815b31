"""A small reader of C for the checks: comments and strings blanked, file-scope items found. Not a parser; enough for
code in our style, and wrong code fails to compile anyway."""
import os
import re

SOURCE_SUFFIXES = (".c", ".h", ".cu", ".cuh", ".def")


def files(root, folders, suffixes=SOURCE_SUFFIXES):
    for folder in folders:
        for path, dirs, names in os.walk(os.path.join(root, folder)):
            dirs[:] = sorted(d for d in dirs if not d.startswith((".", "__")))
            for name in sorted(names):
                if name.endswith(suffixes):
                    yield os.path.relpath(os.path.join(path, name), root)


def read(root, path):
    with open(os.path.join(root, path), encoding="utf-8", errors="replace") as f:
        return f.read()


TOKEN = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)


def blank(text, keep_strings=False):
    """The text with comments (and the insides of strings) as spaces; lines stay where they are."""

    def spaces(m):
        s = m.group(0)
        if s[0] in "\"'":
            return s if keep_strings else s[0] + " " * (len(s) - 2) + s[-1]
        return re.sub(r"[^\n]", " ", s)

    return TOKEN.sub(spaces, text)


def without_preprocessor(text):
    out, inside = [], False
    for line in text.split("\n"):
        inside = inside or line.lstrip().startswith("#")
        out.append("" if inside else line)
        inside = inside and line.rstrip().endswith("\\")
    return "\n".join(out)


class Item:
    """One file-scope item: a function with its lines, or a declaration with the insides of braces removed."""

    def __init__(self, text, start, end, is_function, body=""):
        self.text, self.start, self.end, self.is_function, self.body = text, start, end, is_function, body
        self.n_lines = end - start + 1

    def name(self):
        m = re.search(r"(\w+)\s*\(", self.text)
        return m.group(1) if m else self.text.strip()[:40]


FUNCTION = re.compile(r"\)\s*(__attribute__\s*\(\(.*\)\)\s*)?$", re.S)


def top_level(text, chars="="):
    """The text outside parentheses, to see whether one of chars stands there."""
    depth, out = 0, []
    for c in text:
        depth += (c in "([") - (c in ")]")
        if depth == 0:
            out.append(c)
    return any(c in out for c in chars)


def items(source):
    text = without_preprocessor(blank(source))
    found, line, start, depth, head, body = [], 1, 1, 0, [], []
    for c in text:
        if depth == 0 and c not in " \t\n" and not "".join(head).strip():
            start, head = line, []
        if c == "{":
            depth += 1
            if depth == 1:
                function = FUNCTION.search("".join(head).rstrip()) and not top_level("".join(head))
                body = []
        elif c == "}":
            depth -= 1
            if depth == 0 and function:
                found.append(Item("".join(head), start, line, True, "".join(body)))
                head = []
                line += c == "\n"
                continue
        if depth == 0:
            if c == ";":
                found.append(Item("".join(head), start, line, False))
                head = []
            else:
                head.append(c)
        else:
            body.append(c)
        line += c == "\n"
    return found
