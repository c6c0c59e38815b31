#!/usr/bin/env python3
"""Fails when a function or file is too long, or code does what the house forbids.

Hard: functions over 120 lines, files over 1,500; in src/ also mutable state outside functions (or static inside
them), getenv outside cli/ and server/config.c, printing or exiting in a library, and functions without a bound.
Reported only: functions over 60 lines, files over 600, the median. Messages are file:line: what.
"""
import os
import re
import statistics
import sys

import c_source

FUNCTION_HARD, FUNCTION_HABIT = 120, 60
FILE_HARD, FILE_HABIT = 1500, 600
TEXT_SUFFIXES = c_source.SOURCE_SUFFIXES + (".py", ".sh", ".js", ".css", ".html", ".cmake")
FOLDERS = ["src", "include", "tests", "bench", "tools", "web", "cmake"]
GENERATED = re.compile(r"\b(generated|written) by tools/", re.I)  # in the first lines: length says nothing about such a file

BANNED = {  # anywhere in src/
    "strcpy": "has no bound", "strcat": "has no bound", "stpcpy": "has no bound", "sprintf": "has no bound",
    "vsprintf": "has no bound", "gets": "has no bound", "alloca": "has no bound",
    "atoi": "hides errors", "atol": "hides errors", "atoll": "hides errors", "atof": "hides errors",
    "strtok": "keeps state", "rand": "keeps state", "srand": "keeps state", "setlocale": "changes the process",
    "setenv": "changes the process", "putenv": "changes the process", "system": "runs a shell",
    "popen": "runs a shell", "tmpnam": "races", "mktemp": "races",
}
LIBRARY_BANNED = {  # libraries never print, never exit
    "printf": "prints", "puts": "prints", "putchar": "prints", "fprintf": "prints", "vprintf": "prints",
    "vfprintf": "prints", "perror": "prints", "exit": "ends the process", "_exit": "ends the process",
    "abort": "ends the process", "quick_exit": "ends the process",
}
PROGRAM_ROOMS = ("src/cli/", "src/worker/", "src/server/")
MAY_ABORT = ("src/base/err.c", "src/kernels/cuda/device.cu")  # oc_assert_failed; a device that fails amid its work
MAY_GETENV = ("src/cli/", "src/server/config.c")
CALL = re.compile(r"(?<![\w.>])(\w+)\s*\(")


def check_calls(path, source):
    faults = []
    for i, line in enumerate(c_source.without_preprocessor(c_source.blank(source)).split("\n"), 1):
        for name in CALL.findall(line):
            why = BANNED.get(name)
            if not why and not path.startswith(PROGRAM_ROOMS) and path not in MAY_ABORT:
                why = LIBRARY_BANNED.get(name)
            if name in ("getenv", "secure_getenv") and not path.startswith(MAY_GETENV):
                why = "belongs into cli/ and server/config.c"
            if why:
                faults.append(f"{path}:{i}: {name}() {why}")
    return faults


def is_mutable(declaration):
    """True for a variable whose value can change: `const` must stand in the type, or after the last `*`."""
    text = re.sub(r"__attribute__\s*\(\(.*?\)\)|_Alignas\s*\([^)]*\)|\[[^\]]*\]", " ", declaration)
    name_part = text.split("=")[0]
    if "*" in name_part:
        return not re.search(r"\*\s*const\b", name_part[name_part.rindex("*"):])
    return not re.search(r"\bconst\b", name_part)


SIGNAL_FLAG = re.compile(r"\bvolatile sig_atomic_t\b")  # all that a signal handler may touch; programs only
NO_VARIABLE = re.compile(r"^\s*(typedef|extern|_Static_assert|static_assert)\b")
ONLY_TYPE = re.compile(r"^\s*(struct|union|enum)\b[^=(]*$")


def is_variable(text):
    """True if a file-scope declaration (insides of braces removed) declares an object."""
    if not text.strip() or NO_VARIABLE.match(text):
        return False
    if "}" in text.split("=")[0]:
        return bool(text.split("=")[0].rsplit("}", 1)[1].strip())  # struct x {...} name
    if "=" in text:
        return True
    if ONLY_TYPE.match(text) and len(text.split()) <= 2:
        return False  # struct x;
    bare = re.sub(r"__attribute__\s*\(\(.*?\)\)|_Alignas\s*\([^)]*\)", "", text)
    paren = bare.find("(")  # a prototype, unless the first parenthesis holds the pointer of a function pointer
    return paren < 0 or bool(re.match(r"\(\s*\*", bare[paren:]))


def check_state(path, items):
    faults = []
    for it in items:
        if it.is_function:
            for m in re.finditer(r"(?:^|[;{}])\s*((?:static|_Thread_local)\b[^;{}]*)", it.body):
                if is_mutable(m.group(1)):
                    line = it.start + it.text.count("\n") + it.body[:m.start(1)].count("\n")
                    faults.append(f"{path}:{line}: static variable in {it.name()}(): pass it in instead")
        elif SIGNAL_FLAG.search(it.text) and path.startswith(PROGRAM_ROOMS):
            continue
        elif is_variable(it.text) and is_mutable(it.text.replace("{", " ").replace("}", " ")):
            faults.append(f"{path}:{it.start}: mutable state at file scope: {' '.join(it.text.split())[:60]}")
    return faults


def check_sizes(path, source, items, faults, habits, lengths):
    n_lines = source.count("\n")
    generated = GENERATED.search("\n".join(source.split("\n")[:5]))
    if n_lines > FILE_HARD and not generated:
        faults.append(f"{path}:{n_lines}: the file has {n_lines} lines, at most {FILE_HARD} are allowed")
    elif n_lines > FILE_HABIT and not generated:
        habits.append(f"{path}:{n_lines}: the file has {n_lines} lines, {FILE_HABIT} is the habit")
    for it in items:
        if not it.is_function:
            continue
        lengths.append(it.n_lines)
        if it.n_lines > FUNCTION_HARD:
            faults.append(f"{path}:{it.start}: {it.name()}() has {it.n_lines} lines, at most {FUNCTION_HARD} are allowed")
        elif it.n_lines > FUNCTION_HABIT:
            habits.append(f"{path}:{it.start}: {it.name()}() has {it.n_lines} lines, {FUNCTION_HABIT} is the habit")


def check_file(path, source, habits, lengths):
    faults = []
    items = c_source.items(source) if path.endswith(c_source.SOURCE_SUFFIXES) else []
    check_sizes(path, source, items, faults, habits, lengths)
    if path.startswith(("src/", "include/")) and path.endswith(c_source.SOURCE_SUFFIXES):
        faults += check_state(path, items) + check_calls(path, source)
    return faults


def self_test():
    """Each rule must catch a planted fault and leave good code alone."""
    long_body = "    x++;\n" * 119
    planted = [
        ("void f(int x) {\n" + long_body + "}\n", "f() has 121 lines"),
        ("\n" * 1501, "1501 lines"),
        ("static int n_calls;\n", "mutable state"),
        ("int table[3] = {1, 2, 3};\n", "mutable state"),
        ("static const char *name = \"x\";\n", "mutable state"),
        ("static struct a {\n    int b;\n} c;\n", "mutable state"),
        ("static void (*hook)(int);\n", "mutable state"),
        ("static _Thread_local int depth;\n", "mutable state"),
        ("static volatile sig_atomic_t stop;\n", "mutable state"),
        ("int f(void) {\n    int a = 0;\n    static int n = 0;\n    return a + n++;\n}\n", "x.c:3: static variable in f"),
        ("void f(char *a) {\n    strcpy(a, \"b\");\n}\n", "x.c:2: strcpy() has no bound"),
        ("int f(void) {\n    return atoi(\"1\");\n}\n", "atoi() hides errors"),
        ("void f(void) {\n    printf(\"x\");\n}\n", "printf() prints"),
        ("void f(void) {\n    exit(1);\n}\n", "exit() ends"),
        ("char *f(void) {\n    return getenv(\"A\");\n}\n", "getenv() belongs"),
    ]
    for source, part in planted:
        faults = check_file("src/lm/x.c", source, [], [])
        if len(faults) != 1 or part not in faults[0]:
            sys.exit(f"check_limits.py does not see a planted fault: {source[:60]!r} gives {faults}")
    fine = ("#include <stdio.h>\n#define X(a) static int a##_state;\ntypedef int oc_fn(void *a);\nstruct a;\nenum b { B = 1 };\n"
            "extern int e;\nint f(const char *s, int n);\nint h(int n, bool (*ask)(void *a), void *a);\nconst char *g(void) __attribute__((pure));\n"
            "static const int t[] = {1, 2};\nstatic const char *const names[] = {\"a{\", \"b\"};\n"
            "static void (*const fns[])(int) = {h};\n_Static_assert(sizeof(int) == 4, \"x\");\n"
            "struct s {\n    int (*fn)(int);\n    int b;\n};\n"
            "static inline int g2(struct s *s) { /* printf( */\n    static const int k = 3;\n"
            "    return s->fn(k) + snprintf(0, 0, \"exit(1)\");\n}\n")
    faults = check_file("src/lm/x.c", fine, [], [])
    if faults:
        sys.exit(f"check_limits.py blames good code: {faults}")


def main():
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    self_test()
    faults, habits, lengths, n = [], [], [], 0
    for path in c_source.files(root, FOLDERS, TEXT_SUFFIXES):
        faults += check_file(path, c_source.read(root, path), habits, lengths)
        n += 1
    for text in habits:
        print(f"habit: {text}")
    median = statistics.median(lengths) if lengths else 0
    print(f"check_limits: {n} files, {len(lengths)} functions, median {median:g} lines, longest {max(lengths, default=0)}")
    print("\n".join(faults) if faults else "check_limits: all limits kept")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
