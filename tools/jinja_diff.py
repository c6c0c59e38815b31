"""Compares src/chat/template.c with Python's jinja2 on generated expressions and statements.

  tools/jinja_diff.py BUILD_DIR/test_template_golden [COUNT] [SEED]

Prints each difference and exits 1 if there is one. A case that both sides refuse counts as equal; what only
ocellus refuses is a difference unless it says that the construct is unknown or past a limit, and those are
counted. Dev tool: not part of make test."""
import json
import random
import re
import subprocess
import sys
import tempfile

from template_oracle import render

STRINGS = ["", "a", "Hello World", "  pad\t", "x,y,,z", "aXbXc", "été", "日本語 text", "🙂 smile", "l1\nl2\n\nl4",
           "it's", 'say "hi"', "<b>&amp;</b>", "ABC def", "a-b (c) d", "ß STRASSE", "12", "-3.5", "%s|%d", "{}", "ΑΣ"]
NAMES = ["s", "t", "n", "m", "f", "g", "lst", "nums", "d", "msgs", "nope", "yes", "nil", "emp", "nested", "mixed"]
EXTRA = {"s": "Hello <World> é🙂", "t": "  two\nlines ", "n": 3, "m": -7, "f": 2.5, "g": 1e-7, "lst": ["b", "A", "c", "a"],
         "nums": [3, 1, 2, 10, 1], "d": {"b": 1, "a": "x", "items": [1, 2], "C": None, "z": {"k": True}},
         "msgs": [{"role": "user", "content": "hi", "n": 2}, {"role": "assistant", "content": "yo", "n": 1},
                  {"role": "user", "content": [{"type": "text", "text": "T"}, {"type": "image"}]}],
         "yes": True, "nil": None, "emp": [], "nested": [[1, "a"], [2, "b"]], "mixed": [1, "1", None, True, 2.0, [1], {"k": 1}],
         "big": 12345678901234567890123, "huge": 1e300}
FILTERS = ["trim", "length", "upper", "lower", "title", "capitalize", "list", "first", "last", "string", "tojson", "join(', ')",
           "join", "int", "float", "abs", "round", "round(1)", "sort", "reverse", "unique", "list|tojson", "unique|list",
           "reverse|list", "items|list", "dictsort", "default('D')", "default('D', true)", "d(1)", "replace('l', 'LL')",
           "replace('a', '', 1)", "indent", "indent(2, true)", "indent('>>', blank=true)", "map('upper')|list", "map('string')|join('+')",
           "select|list", "reject('none')|list", "select('string')|list", "selectattr('role', 'equalto', 'user')|list|length",
           "rejectattr('role', 'equalto', 'user')|map(attribute='content')|list", "map(attribute='role')|join('/')",
           "map(attribute='n', default=0)|list", "selectattr('n')|list|length", "sum", "min", "max", "count", "escape|tojson", "safe|length",
           "tojson(indent=2)", "tojson(ensure_ascii=true)", "tojson(sort_keys=true)", "tojson(separators=(',', ':'))",
           "sort(reverse=true)", "sort(case_sensitive=true)", "wordcount", "int(7)", "float(1.5)", "map('length')|list",
           "map('int')|sum", "dictsort(by='value')|list", "round(method='floor')", "round(method='ceil')", "sort(attribute='n')|list",
           "format(1, 'q')", "attr('x')", "string|length", "first|upper", "last|string"]
METHODS = ["strip()", "lstrip()", "rstrip()", "strip('H d')", "split()", "split(',')", "split('X', 1)", "rsplit('X', 1)", "startswith('H')",
           "endswith('d')", "startswith(('a', 'H'))", "replace('o', '0')", "upper()", "lower()", "title()", "capitalize()", "find('l')",
           "find('zz')", "count('l')", "join(['a', 'b'])", "splitlines()", "isdigit()", "isalpha()", "islower()", "isupper()",
           "items()", "keys()", "values()", "get('a')", "get('q', 'dflt')", "keys()|list", "items()|list", "index('a')", "count(1)",
           "append(1)", "pop()", "format(1, 2)", "removeprefix('He')", "removesuffix('ld')", "partition('l')", "rpartition('l')",
           "split('\\n')[-1]", "rfind('l')", "isspace()", "lstrip('\\n').rstrip()", "startswith('l', 2)", "find('o', 5)", "zzz", "a", "role"]
TESTS = ["defined", "undefined", "none", "string", "mapping", "iterable", "sequence", "number", "integer", "float", "boolean", "true",
         "false", "odd", "even", "callable", "lower", "upper", "equalto 3", "eq('a')", "in ['a', 3]", "divisibleby 3", "sameas none",
         "ne 3", "gt 1", "lt(5)", "ge 3", "not none", "not string", "not defined"]
BINARY = ["+", "-", "*", "/", "//", "%", "**", "~", "==", "!=", "<", ">", "<=", ">=", "in", "not in", "and", "or"]
SLICES = ["[0]", "[-1]", "[1:]", "[:-1]", "[::-1]", "[1:3]", "[::2]", "[-2:]", "['a']", "['role']", "[5]", "[:2]", "[3:1:-1]", "[-100:100]",
          "[n:]", ".0", "[0].role", "[0]['content']", "[-1].content[0].type", "[10:0:-3]"]


def literal(r):
    k = r.randrange(7)
    if k < 3:
        return json.dumps(r.choice(STRINGS), ensure_ascii=False) if r.random() < .7 else "'" + r.choice(["q", "\\n", "\\x41", "\\u00e9", "a\\'b", "\\d"]) + "'"
    if k == 3:
        return str(r.choice([0, 1, 2, 3, 7, 10, 100, -1, 255, 1.0, 0.1, 2.5, 1e16, 1e-5, 3.14159, 1e22, 123456789.125, 0.5, 1.5]))
    if k == 4:
        return "[" + ", ".join(expr(r, 0) for _ in range(r.randrange(4))) + "]"
    if k == 5:
        return "{" + ", ".join(f"'k{i}': {expr(r, 0)}" for i in range(r.randrange(3))) + "}"
    return r.choice(["true", "False", "none", "(1, 'a')", "()", "(2,)", "range(4)", "range(5, 0, -2)", "dict(a=1)"])


def expr(r, depth):
    if depth <= 0:
        return r.choice(NAMES) if r.random() < .6 else literal(r)
    e = expr(r, depth - 1)
    k = r.randrange(12)
    if k < 3:
        return f"{wrap(r, e)}|{r.choice(FILTERS)}"
    if k == 3:
        return f"({e}).{r.choice(METHODS)}"  # x|upper.a would name a filter with a dot
    if k == 4:
        return f"{wrap(r, e)}{r.choice(SLICES)}"
    if k == 5:
        return f"{wrap(r, e)} is {r.choice(TESTS)}"
    if k == 6:
        return f"{e} if {expr(r, depth - 1)} else {expr(r, 0)}" if r.random() < .8 else f"{e} if {expr(r, 0)}"
    if k == 7:
        return r.choice(["not ", "-", "+"]) + wrap(r, e)
    if k == 8:
        return f"({expr(r, depth - 1)}, {e})|{r.choice(['length', 'list', 'tojson', 'join', 'string'])}"
    b = expr(r, depth - 1 if r.random() < .5 else 0)
    if k == 9 and r.random() < .3:
        return f"{expr(r, 0)} {r.choice(BINARY)} {e} {r.choice(BINARY)} {b}"
    return f"{wrap(r, e)} {r.choice(BINARY)} {wrap(r, b)}"


def wrap(r, e):
    return e if r.random() < .35 else f"({e})"


def space(r):
    return r.choice(["", "", " ", "\n", "\n  ", " \n\n", "text", "  x "])


def tag(r, body):
    return "{%" + r.choice(["", "", "-", "+"]) + f" {body} " + r.choice(["", "", "-", "+"]) + "%}"


def statement(r, depth):
    k = r.randrange(13)
    e = expr(r, 1)
    if depth <= 0 or k == 0:
        return space(r) + "{{" + r.choice(["", "-"]) + f" {e} " + r.choice(["", "-"]) + "}}" + space(r)
    inner = lambda: space(r) + statement(r, depth - 1) + space(r)
    if k < 3:
        return tag(r, f"if {e}") + inner() + (tag(r, f"elif {expr(r, 1)}") + inner() if r.random() < .3 else "") + (tag(r, "else") + inner() if r.random() < .5 else "") + tag(r, "endif")
    if k < 6:
        it = r.choice(["lst", "nums", "msgs", "d", "d.items()", "nested", "emp", "s", "mixed", "range(3)", "lst[::-1]", "nope", "msgs|selectattr('role', 'eq', 'user')"])
        tgt = "k, v" if it in ("d.items()", "nested") else "x"
        show = "{{ loop." + r.choice(["index", "index0", "first", "last", "length", "revindex", "revindex0", "previtem", "nextitem", "depth", "cycle('a','b')", "changed(x)"]) + " }}"
        cond = f" if {r.choice(['x', 'loop', 'x != 1', 'k', 'true', 'n > 2'])}" if r.random() < .3 else ""
        stop = tag(r, f"if loop.index > 1") + tag(r, r.choice(["break", "continue"])) + tag(r, "endif") if r.random() < .3 else ""
        return tag(r, f"for {tgt} in {it}{cond}") + show + stop + "{{ " + tgt.split(",")[0] + " }}" + inner() + (tag(r, "else") + "none" if r.random() < .3 else "") + tag(r, "endfor")
    if k == 6:
        return tag(r, f"set q = {e}") + "{{ q }}" + inner() + "{{ q }}"
    if k == 7:
        return tag(r, "set q") + inner() + tag(r, "endset") + "[{{ q|trim }}|{{ q|length }}]"
    if k == 8:
        return tag(r, "set ns = namespace(a=0, b='')") + tag(r, "for x in lst") + tag(r, "set ns.a = ns.a + 1") + tag(r, "set ns.b = ns.b ~ x") + inner() + tag(r, "endfor") + "{{ ns.a }}{{ ns.b }}"
    if k == 9:
        return tag(r, "macro mac(p, q='Q', r=none)") + "<{{ p }}{{ q }}{{ r }}>" + inner() + tag(r, "endmacro") + "{{ mac(1) }}{{ mac('a', r=2) }}" + "{{ mac(" + e + ", 'z') }}"
    if k == 10:
        chain = r.choice(["upper", "trim", "indent(2)", "replace('a', 'b')|length"])
        return tag(r, "filter " + chain) + inner() + tag(r, "endfilter")
    if k == 11:
        return r.choice([tag(r, "generation") + inner() + tag(r, "endgeneration"), "{#" + r.choice(["", "-"]) + " note " + r.choice(["", "-", "+"]) + "#}" + inner(),
                         "{% raw %}{{ x }} {% if %}{% endraw %}" + inner(), "{%- raw -%} {{ y }} {%- endraw -%}" + inner()])
    return tag(r, f"with q = {e}") + "{{ q }}" + inner() + tag(r, "endwith")


def generate(count, seed):
    r = random.Random(seed)
    cases = []
    for i in range(count):
        source = "{{ " + expr(r, r.randrange(1, 4)) + " }}" if i % 2 == 0 else space(r) + statement(r, 3) + space(r)
        cases.append({"template": source, "messages": EXTRA["msgs"], "extra": EXTRA})
    return cases


def ours(program, cases):
    with tempfile.NamedTemporaryFile("w", suffix=".json") as f:
        json.dump(cases, f)
        f.flush()
        lines = subprocess.run([program, f.name], stdout=subprocess.PIPE, text=True, check=True).stdout.split("\n")[:-1]
    return [json.loads(line) for line in lines]


# What ocellus refuses and Python does not: constructs outside of the subset; slices of numbers and dicts, which
# jinja2 folds to undefined when they are constant; errors inside generators that nobody walks.
REFUSALS = ("this build", "past 64 bits", "too deep", "no text to print", "only {}, {0}", "rsplit by", "more memory", "grows past", "to tens", "format with", "% format", "has no slices", "power that is no number", "unique of")


def main():
    program, count, seed = sys.argv[1], int((sys.argv[2:] + ["2000"])[0]), int((sys.argv[3:] + ["1"])[0])
    cases = generate(count, seed)
    equal = failed = refused = bad = 0
    for case, got in zip(cases, ours(program, cases)):
        want = render(case)
        if "text" in want and want["text"] == got.get("text"):
            equal += 1
        elif "error" in want and "error" in got:
            failed += 1
        elif "error" in got and (any(w in got["error"] for w in REFUSALS) or
                                 ("unique" in case["template"] and "cannot be iterated" in got["error"])):
            refused += 1
        elif re.search(r"object .*at 0x|Markup|MARKUP|markup|<built-in|<bound|<function|<Macro|<class", want.get("text", ""), re.S):
            refused += 1
        else:
            bad += 1
            print(f"DIFFERENT {case['template']!r}\n  python  {want}\n  ocellus {({k: v for k, v in got.items() if k != 'origin'})}")
    print(f"{len(cases)} cases: {equal} equal, {failed} failed on both sides, {refused} refused by ocellus only, {bad} different")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
