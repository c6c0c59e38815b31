#!/usr/bin/env python3
"""Fails when a room includes what it must not, or names a model family outside models/.

The rules are those of the house: base is the floor, knowledge of families stays in models/, nothing reaches cli/.
Tests, tools and benches may include anything. Messages are file:line: what.
"""
import os
import re
import sys

import c_source

MAY_INCLUDE = {
    "base": "",
    "kernels": "base",
    "weights": "kernels base",
    "vision": "kernels weights base",
    "lm": "kernels weights base",
    "models": "vision lm weights kernels base",
    "engine": "models vision lm weights kernels base",
    "image": "base",
    "chat": "base",
    "hub": "base",
    "http": "base",
    "ipc": "base",
    "api": "chat base",
    "worker": "ipc engine chat image base",
    "server": "http api chat ipc hub base",
    "cli": "base kernels weights vision lm models engine image chat hub http ipc api worker server",
}
BELOW_PUBLIC = {"base", "kernels", "weights", "http", "ipc"}  # rooms that must not know include/ocellus.h
FAMILIES = re.compile(r"qwen|llama|llava|smolvlm|smollm|idefics|internvl|gemma|mistral|pixtral|minicpm|deepseek"
                      r"|\bphi[-_]?[0-9]", re.I)
INCLUDE = re.compile(r'^\s*#\s*include\s*"([^"]+)"')


def check_include(root, path, line, target):
    room = path.split("/")[1]
    if room not in MAY_INCLUDE:
        return f"{path}:{line}: src/{room} is no room of the house (tools/check_includes.py lists them)"
    if target == "ocellus.h":
        return f"{path}:{line}: {room}/ must not include the public header" if room in BELOW_PUBLIC else None
    if not os.path.exists(os.path.join(root, "src", target)):
        return f"{path}:{line}: \"{target}\" is no path below src/ (include paths start with the room)"
    other = target.split("/")[0]
    if other != room and other not in MAY_INCLUDE[room].split():
        allowed = MAY_INCLUDE[room] or "nothing"
        return f"{path}:{line}: {room}/ must not include {target} (it may include {allowed})"
    return None


def check_file(root, path, source):
    faults = []
    code = c_source.blank(source, keep_strings=True)
    for i, line in enumerate(code.split("\n"), 1):
        m = INCLUDE.match(line)
        if m and path.startswith("src/"):
            faults.append(check_include(root, path, i, m.group(1)))
        m = FAMILIES.search(line)
        if m and not path.startswith("src/models/"):
            faults.append(f"{path}:{i}: family name \"{m.group(0)}\" outside models/: {line.strip()[:60]}")
    return [f for f in faults if f]


def self_test(root):
    """Each rule must catch a planted fault."""
    planted = [
        ("src/image/x.c", '#include "models/model.h"\n', "image/ must not include"),
        ("src/kernels/x.c", '#include "weights/quant.h"\n', "kernels/ must not include"),
        ("src/base/x.c", '#include "json.h"\n', "no path below src/"),
        ("src/engine/x.c", '#include "cli/main.h"\n', "src/"),
        ("src/base/x.c", '#include "ocellus.h"\n', "must not include the public header"),
        ("src/nowhere/x.c", '#include "base/err.h"\n', "no room"),
        ("src/lm/x.c", 'int qwen_layers;\n', "family name"),
        ("src/image/x.c", 'f("Llama");\n', "family name"),
    ]
    for path, source, part in planted:
        faults = check_file(root, path, source)
        if len(faults) != 1 or part not in faults[0]:
            sys.exit(f"check_includes.py does not see a planted fault in {path}: {source!r} gives {faults}")
    fine = [("src/image/x.c", '#include "base/err.h"\n/* as Qwen does */\n'),
            ("src/models/x.c", '#include "lm/decoder.h"\nint qwen;\n')]
    for path, source in fine:
        if check_file(root, path, source):
            sys.exit(f"check_includes.py blames good code: {source!r}")


def main():
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    self_test(root)
    faults, n = [], 0
    for path in c_source.files(root, ["src", "include"]):
        faults += check_file(root, path, c_source.read(root, path))
        n += 1
    print("\n".join(faults) if faults else f"check_includes: {n} files keep the rules")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
