#!/usr/bin/env python3
"""Writes src/chat/unicode_tables.c: general categories of Unicode 16 and the NFC data of Unicode 9.

Needs PyPI unicodedata2==16.0.0. Usage: tools/gen_unicode_tables.py > src/chat/unicode_tables.c

Two versions, on purpose: Hugging Face `tokenizers` classifies characters with a regex engine at Unicode 16 and
normalises with a library at Unicode 9, and ocellus must give the same token ids. The characters below got their
combining class or their composition after Unicode 9; tools/check_tokenizer.py checks both lists against
`tokenizers`.
"""
import sys

import unicodedata2 as U

assert U.unidata_version == "16.0.0", U.unidata_version

CATEGORIES = "Cn Cc Cf Co Cs Ll Lm Lo Lt Lu Mc Me Mn Nd Nl No Pc Pd Pe Pf Pi Po Ps Sc Sk Sm So Zl Zp Zs".split()
WHITE_SPACE = {*range(9, 14), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000}
LATER_CLASS = """7fd 897-89f 8ca-8d3 9fe c3c d3b-d3c eba 1715 1abf-1ace 1df6-1dfa a82c 10d24-10d27 10d69-10d6d
10eab-10eac 10efd-10eff 10f46-10f50 10f82-10f85 11070 1133b 113ce-113d0 1145e 11839-1183a 1193d-1193e 11943 119e0
11a34 11a47 11a99 11d42 11d44-11d45 11d97 11f41-11f42 1612f 16ff0-16ff1 1e08f 1e130-1e136 1e2ae 1e2ec-1e2ef
1e4ec-1e4ef 1e5ee-1e5ef"""
LATER_COMPOSITION = """105c9 105e4 11383 11385 1138e 11391 113c5 113c7-113c8 11938 16121-16128 16d68-16d6a"""
QC_SLOW = 255  # combining class 0, but not inert under NFC


def parse(text):
    out = set()
    for part in text.split():
        lo, _, hi = part.partition("-")
        out.update(range(int(lo, 16), int(hi or lo, 16) + 1))
    return out


LATER_CLASS, LATER_COMPOSITION = parse(LATER_CLASS), parse(LATER_COMPOSITION)


def category(cp):
    cat = U.category(chr(cp))
    v = CATEGORIES.index(cat)
    return v | (0x20 if cp in WHITE_SPACE else 0) | (0x40 if cat[0] == "L" else 0) | (0x80 if cat[0] == "N" else 0)


def decomposition(cp):
    d = U.decomposition(chr(cp))
    if not d or d[0] == "<" or cp in LATER_COMPOSITION:
        return None
    return tuple(int(x, 16) for x in d.split())


def combining(cp):
    return 0 if cp in LATER_CLASS else U.combining(chr(cp))


def compositions(decomp):
    pairs = {}
    for cp, d in decomp.items():
        if len(d) == 2 and U.normalize("NFC", chr(cp)) == chr(cp):
            pairs[d] = cp
    return pairs


def two_stage(name, values):
    blocks, index = [], []
    for i in range(0, 0x110000, 256):
        b = tuple(values[i:i + 256])
        if b not in blocks:
            blocks.append(b)
        index.append(blocks.index(b))
    kind = "uint8_t" if len(blocks) <= 256 else "uint16_t"
    assert kind == "uint8_t"
    rows(f"const uint8_t oc_chat_{name}_index[4352]", index)
    rows(f"const uint8_t oc_chat_{name}_block[][256]", [x for b in blocks for x in b], block=256)


def rows(decl, values, block=0, fmt=str):
    print(decl + " = {")
    text, line = [], "   "
    for i, v in enumerate(values):
        if block and i % block == 0:
            line += " {"
        item = " " + fmt(v) + ("}," if block and i % block == block - 1 else ",")
        if len(line) + len(item) > 108:
            text.append(line)
            line = "   "
        line += item
    text.append(line)
    print("\n".join(text).replace("{ ", "{"))
    print("};\n")


def main():
    decomp = {cp: d for cp in range(0x110000) if not 0xD800 <= cp < 0xE000 and (d := decomposition(cp))}
    pairs = compositions(decomp)
    seconds = {b for _, b in pairs} | set(range(0x1161, 0x1176)) | set(range(0x11A8, 0x11C3))
    slow = seconds | {cp for cp in decomp if len(decomp[cp]) == 1 or decomp[cp] not in pairs or pairs[decomp[cp]] != cp}
    ccc = [combining(cp) if not 0xD800 <= cp < 0xE000 else 0 for cp in range(0x110000)]
    print("/* Written by tools/gen_unicode_tables.py from unicodedata2 16.0.0: do not edit. */")
    print('#include "chat/unicode.h"\n')
    two_stage("category", [category(cp) if not 0xD800 <= cp < 0xE000 else CATEGORIES.index("Cs") for cp in range(0x110000)])
    two_stage("nfc", [ccc[cp] or (QC_SLOW if cp in slow else 0) for cp in range(0x110000)])
    flat = [(cp, d[0], d[1] if len(d) > 1 else 0) for cp, d in sorted(decomp.items())]
    three = lambda t: "{0x%x, 0x%x, 0x%x}" % t
    print(f"const uint32_t oc_chat_n_decompositions = {len(flat)};\n")
    rows("const struct oc_chat_decomposition oc_chat_decompositions[]", flat, fmt=three)
    comp = [(a, b, c) for (a, b), c in sorted(pairs.items())]
    print(f"const uint32_t oc_chat_n_compositions = {len(comp)};\n")
    rows("const struct oc_chat_composition oc_chat_compositions[]", comp, fmt=three)


if __name__ == "__main__":
    sys.exit(main())
