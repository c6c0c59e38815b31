#!/usr/bin/env python3
"""Compares ocellus' tokenizer with Hugging Face `tokenizers`, id by id; needs PyPI tokenizers.

tools/check_tokenizer.py --tool build/release/tok_dump TOKENIZER_JSON...   compare on a generated corpus of > 1 MB
tools/check_tokenizer.py --write tests/golden/tokenizer                    train the small tokenizers, store goldens

A difference is printed and the exit status is 1. The corpus comes from a fixed seed. A golden file holds cases as
tests/unit/chat/test_tokenizer.c reads them: u32 flags, u32 n_bytes, bytes, then n_ids, ids, and the decoded text
with special tokens kept and skipped, each after its length; numbers are little-endian u32.
"""
import argparse
import json
import os
import random
import struct
import subprocess
import sys

import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
CASELESS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = CASELESS + r"\p{N}" + REST
LLAMA3 = CASELESS + r"\p{N}{1,3}" + REST
O200K = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|"
         r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|"
         r"\s*[\r\n]+|\s+(?!\S)|\s+")
SPACES = [chr(c) for c in (9, 10, 11, 12, 13, 0x20, 0x85, 0xA0, 0x1680, 0x180E, 0x2000, 0x2003, 0x200A, 0x200B, 0x2028,
                           0x2029, 0x202F, 0x205F, 0x2060, 0x3000, 0xFEFF, 0x1C, 0x1F)] + ["\r\n", "\n\n", "  ", "    "]
PROSE = """The quick brown fox doesn't jump over the lazy dog; it's WE'RE they'Ve I'LL o'clock 'tis 'S 'ſ rock'n'roll.
Der Fluß fließt über die Brücke. L'été où naît Noël à Besançon, ça va ? El niño comió jalapeños. Žluťoučký kůň.
Съешь же ещё этих мягких французских булок. Ξεσκεπάζω την ψυχοφθόρα βδελυγμία. İstanbul'da ığüşöç.
中文分词测试：今天天气很好，我们去公园散步吧。𠀀𠮷𪚥 日本語のテキスト、カタカナとひらがな。한국어 문장입니다. 각각 ㅎㅏㄴ
مرحبا بالعالم كيف الحال؟ السَّلامُ عَلَيْكُمْ ١٢٣٤٥ שלום עולם בְּרֵאשִׁית हिन्दी में एक वाक्य क़ ख़ ग़ १२३ বাংলা ভাষা தமிழ் ไทยภาษาไทย ๑๒๓ ខ្មែរ မြန်မာ
👩‍👩‍👧‍👦 🏳️‍🌈 🇩🇪🇫🇷🇯🇵 👍🏽 ☺️ 1️⃣ ½ ⅷ Ⅻ ²³ ① 𝟙𝟚𝟛 𝒜𝓑 ﬁ ﬀ Å Ω K é ạ̊ ỗ 1234567890123456789 3.14159e-10 0xDEADBEEF 1,000,000""".split()
CODE = """def f(x, *args): \treturn {k: v for k, v in x.items()} if x else None  # comment
#include <stdio.h>
int main(void) { printf("%d\\n", a[i++] >= b->c ? 0x1F : ~0); return !(x && y) || z; }
<div class="a b"><p>&nbsp;</p></div> /* ... */ // === --- *** ''' \"\"\" \\\\ ${VAR} $(cmd) @decorator &ptr;
SELECT * FROM t WHERE a='b' AND c<>"d"; fn main() -> Result<(), Box<dyn Error>> { let x = 5; }""".split(" ")
MARKS = [chr(c) for c in (0x300, 0x301, 0x302, 0x323, 0x327, 0x328, 0x334, 0x345, 0x34F, 0x591, 0x5B0, 0x64B, 0x651, 0x93C,
                          0x94D, 0xE38, 0x1DC4, 0x20D0, 0x302A, 0x3099, 0x309A, 0x1D165, 0x1D16D)]


def random_cp(rng):
    hi = rng.choice([0x80, 0x100, 0x600, 0x2000, 0x3000, 0x10000, 0x20000, 0x32000, 0x110000])
    c = rng.randrange(hi)
    return chr(c) if not 0xD800 <= c < 0xE000 else "\ufffd"


def snippet(rng, specials):
    kind = rng.randrange(14)
    if kind < 3:
        return rng.choice(PROSE)
    if kind < 5:
        return rng.choice(CODE)
    if kind == 5:
        return "".join(rng.choice(SPACES) for _ in range(rng.randint(1, 6)))
    if kind == 6:
        return rng.choice("aeiouAOUকだ각ᄀ") + "".join(rng.choice(MARKS) for _ in range(rng.randint(1, 8)))
    if kind == 7:
        return "".join(chr(rng.choice((0x1100, 0x1161, 0x11A8)) + rng.randrange(18)) for _ in range(rng.randint(1, 6)))
    if kind == 8:
        return "".join(rng.choice("0123456789٣३๓Ⅷ½²") for _ in range(rng.randint(1, 40)))
    if kind == 9:
        return "".join(random_cp(rng) for _ in range(rng.randint(1, 10)))
    if kind == 10:
        return rng.choice(specials) if specials else "<|x|>"
    if kind == 11:
        return rng.choice("a=-#.! \n的アক") * rng.randint(1, 150)
    if kind == 12:
        return "'" + rng.choice(["s", "S", "t", "rE", "VE", "Ll", "d", "ſ", "x", "", "lı"])
    return chr(rng.randrange(0x21, 0x7F)) * rng.randint(1, 3)


def make_text(rng, specials, n_bytes):
    parts, n = [], 0
    while n < n_bytes:
        s = snippet(rng, specials) + rng.choice(["", "", " ", " ", " ", "  ", "\n", "\r\n", "\t"])
        parts.append(s)
        n += len(s.encode())
    data = "".join(parts).encode()
    if rng.random() < 0.25:  # break some bytes
        data = bytearray(data)
        for _ in range(max(1, len(data) // 200)):
            data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data)


def make_cases(tok, n_bytes, seed=1):
    rng = random.Random(seed)
    specials = sorted(t.content for t in tok.get_added_tokens_decoder().values())
    cases, n = [], 0
    while n < n_bytes:
        data = make_text(rng, specials, rng.choice([5, 40, 200, 1000, 4000]))
        cases.append((rng.choice([0, 0, 1, 2]), data))
        n += len(data)
    return cases


def expect(tok, flags, data):
    """flags 1: a user wrote all of it, so nothing in it is a special token."""
    text = data.decode("utf-8", "replace")
    tok.encode_special_tokens = bool(flags & 1)
    ids = tok.encode(text, add_special_tokens=bool(flags & 2)).ids
    tok.encode_special_tokens = False
    return ids, tok.decode(ids, skip_special_tokens=False), tok.decode(ids, skip_special_tokens=True)


def pack_case(flags, data):
    return struct.pack("<II", flags, len(data)) + data + (bytes(len(data)) if flags & 1 else b"")


def pack_result(ids, kept, skipped):
    kept, skipped = kept.encode(), skipped.encode()
    return (struct.pack("<I", len(ids)) + struct.pack(f"<{len(ids)}I", *ids) + struct.pack("<I", len(kept)) + kept
            + struct.pack("<I", len(skipped)) + skipped)


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def block(self, size):
        (n,) = struct.unpack_from("<I", self.data, self.at)
        self.at += 4 + n * size
        return self.data[self.at - n * size:self.at]


def compare(tool, path, n_bytes, seed):
    tok = Tokenizer.from_file(path)
    cases = make_cases(tok, n_bytes, seed)
    run = subprocess.run([tool, path], input=b"".join(pack_case(*c) for c in cases), stdout=subprocess.PIPE, check=True)
    out, bad, n_ids = Reader(run.stdout), 0, 0
    for flags, data in cases:
        ids, kept, skipped = expect(tok, flags, data)
        raw = out.block(4)
        got = list(struct.unpack(f"<{len(raw) // 4}I", raw))
        got_kept, got_skipped = out.block(1), out.block(1)
        n_ids += len(ids)
        if got != ids or got_kept != kept.encode() or got_skipped != skipped.encode():
            bad += 1
            if bad <= 5:
                show(tok, flags, data, ids, got, kept, got_kept)
    n_total = sum(len(d) for _, d in cases)
    print(f"{os.path.basename(path)}: {len(cases)} cases, {n_total} bytes, {n_ids} tokens, {bad} differences "
          f"(tokenizers {tokenizers.__version__}, seed {seed})")
    return bad


def show(tok, flags, data, ids, got, kept, got_kept):
    i = next((i for i, (a, b) in enumerate(zip(ids, got)) if a != b), min(len(ids), len(got)))
    same = "" if ids != got else " (ids equal, decoding differs)"
    print(f"DIFFERENCE flags {flags}{same} at token {i}: want {[tok.id_to_token(x) for x in ids[max(0, i - 2):i + 5]]}"
          f" got {[tok.id_to_token(x) for x in got[max(0, i - 2):i + 5]]}; text {data[:60]!r}")


def split(pattern):
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated", invert=False),
                                    pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def train(name):
    tok = Tokenizer(models.BPE(ignore_merges=name == "llama3"))
    tok.decoder = decoders.ByteLevel()
    tok.pre_tokenizer = {
        "gpt2": pre_tokenizers.ByteLevel(add_prefix_space=False),
        "qwen2": split(QWEN2),
        "llama3": split(LLAMA3),
        "digits": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                           pre_tokenizers.ByteLevel(add_prefix_space=False)]),
        "o200k": split(O200K),
    }[name]
    if name == "qwen2":
        tok.normalizer = normalizers.NFC()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    if name == "digits":
        alphabet = sorted(alphabet)[:200]  # some bytes have no token
    trainer = trainers.BpeTrainer(vocab_size=900, special_tokens=["<|end|>"], initial_alphabet=alphabet, show_progress=False)
    tok.train_from_iterator(PROSE + CODE + [" " + w for w in PROSE * 2 + CODE], trainer)
    tok.add_special_tokens(["<|im_start|>", "<|im_end|>", "<|im|>", AddedToken("<mask>", lstrip=True, special=True),
                            AddedToken("<pad>", rstrip=True, special=True), AddedToken("<é>", normalized=True, special=True)])
    tok.add_tokens(["<tool>", AddedToken("word", single_word=True), AddedToken("café", normalized=True),
                    AddedToken("<plain>", normalized=False)])
    if name == "llama3":
        tok.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=True), processors.TemplateProcessing(
            single="<|im_start|> $A <|end|>", special_tokens=[(t, tok.token_to_id(t)) for t in ("<|im_start|>", "<|end|>")])])
    return tok


def write_goldens(folder, n_bytes):
    for name in ("gpt2", "qwen2", "llama3", "digits", "o200k"):
        tok = train(name)
        path = os.path.join(folder, name + ".json")
        with open(path, "w", encoding="utf-8") as f:
            json.dump(json.loads(tok.to_str()), f, ensure_ascii=False, separators=(",", ":"))
            f.write("\n")
        with open(os.path.join(folder, name + ".cases"), "wb") as f:
            for flags, data in make_cases(tok, n_bytes, 7):
                f.write(struct.pack("<II", flags, len(data)) + data + pack_result(*expect(tok, flags, data)))


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--tool")
    ap.add_argument("--write")
    ap.add_argument("--bytes", type=int, default=1500000)
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("tokenizer", nargs="*")
    args = ap.parse_args()
    if args.write:
        write_goldens(args.write, 6000)
    bad = sum(compare(args.tool, path, args.bytes, args.seed) for path in args.tokenizer)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
