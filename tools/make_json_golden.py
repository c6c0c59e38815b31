#!/usr/bin/env python3
"""Writes tests/golden/base/json_cases.txt: JSON texts and what Python's json makes of them.

Two lines a case: the text in hex, then `!` where Python refuses it, or Python's own writing of the value
(ensure_ascii off, separators "," and ":"). Where we differ on purpose the expectation is ours: a lone surrogate
becomes U+FFFD, a double past the range is written null, NaN and Infinity are refused. Same seed, same file.
"""
import json
import math
import os
import random
import re
import struct

OUT = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "tests/golden/base/json_cases.txt")


def refuse_constant(name):
    raise ValueError(name)


def clean(v):
    if isinstance(v, float):
        return v if math.isfinite(v) else None
    if isinstance(v, str):
        return re.sub("[\ud800-\udfff]", "\ufffd", v)
    if isinstance(v, list):
        return [clean(x) for x in v]
    if isinstance(v, dict):
        out = {}
        for k, x in v.items():  # keys that become equal: the last value in the first place
            out[clean(k)] = clean(x)
        return out
    return v


def expect(data):
    try:
        v = json.loads(data.decode("utf-8"), parse_constant=refuse_constant)
    except (ValueError, RecursionError):
        return "!"
    return json.dumps(clean(v), ensure_ascii=False, separators=(",", ":"))


def random_string(rng):
    kinds = ["abcXYZ 0", "\u00e9\u00fc\u4e2d\u6587", "\U0001f600\U0001f44d", "\"\\/\b\f\n\r\t", "\x01\x1f\x7f\u2028\ufffd"]
    return "".join(rng.choice(rng.choice(kinds)) for _ in range(rng.randrange(8)))


def random_double(rng):
    while True:
        v = struct.unpack("<d", struct.pack("<Q", rng.getrandbits(64)))[0]
        if math.isfinite(v):
            return v


def random_value(rng, depth):
    kind = rng.randrange(8 if depth else 6)
    if kind == 0:
        return rng.choice([True, False, None])
    if kind == 1:
        return rng.choice([1, -1]) * rng.getrandbits(rng.choice([3, 20, 63, 64, 80])) or 0
    if kind == 2:
        return rng.choice([random_double(rng), rng.randrange(10 ** 6) / 1000, 10.0 ** rng.randrange(-8, 20)])
    if kind < 6:
        return random_string(rng)
    if kind == 6:
        return [random_value(rng, depth - 1) for _ in range(rng.randrange(5))]
    return {random_string(rng): random_value(rng, depth - 1) for _ in range(rng.randrange(12))}


def random_text(rng):
    text = json.dumps(random_value(rng, 3), ensure_ascii=rng.random() < 0.5, indent=rng.choice([None, None, 1]))
    data = bytearray(text.encode("utf-8", "surrogatepass"))
    for _ in range(rng.choice([0, 0, 0, 1, 2])):  # wounds
        at = rng.randrange(len(data) + 1)
        how = rng.randrange(4)
        if how == 0:
            data[at:at + 1] = b""
        elif how == 1:
            data[at:at] = rng.choice([b",", b"]", b"}", b'"', b"\\", b"\\u12", b"\xff", b"\xc3", b"e", b".", b"-", b"0"])
        elif how == 2:
            data = data[:at]
        elif at < len(data):
            data[at] ^= 1 << rng.randrange(8)
    return bytes(data)


HAND = """1|0|10|1.0|1.5e3|1E-2|1e+05|0.1|0.30000000000000004|1e15|1e16|123456789012345680.0|1e22|1e-5|0.0001|5e-324|1e400|-1e400
1.7976931348623157e308|2.2250738585072014e-308|123456789012345678901234567890|9223372036854775807|9223372036854775808
-9223372036854775808|-9223372036854775809|01|-01|+1|.5|1.|1.e5|1e|1e+|-|--1|0x10|1_000|NaN|Infinity|-Infinity|nan|truE|nul|nulll
true|false|null|""|"a|a"|'a'|"\\x"|"\\u12"|"\\u12g4"|"\\u0041"|"\\ud83d\\ude00"|"\\ud83d"|"\\ude00"|"\\ud83d\\u0041"|"\\ud83d\\ud83d\\ude00"
"\\u0000"|"\\""|"\\\\"|"\\/"|"\\b\\f\\n\\r\\t"|[]|[ ]|[1]|[1,]|[,1]|[1 2]|[1,,2]|[|]|[[]]|[1]]|{}|{ }|{"a":1}|{"a":1,}|{,}|{"a"}|{"a":}|{"a" 1}
{a:1}|{1:2}|{"a":1,"a":2}|{"a":1,"b":2,"a":{"c":3}}|{"":0}|{"\\ud800":1,"\\ufffd":2}|{}{}|[] []|1 2|//x|/*x*/1|1//|#|"\ufeff"|\ufeff1|\u00a01|\u20281|\v1"""


def main():
    rng = random.Random(20)
    cases = [c.encode() for line in HAND.split("\n") for c in line.split("|")]
    cases += [b"", b" ", b"\t\n\r 1 \t\n\r", b'"\x00"', b'"\x1f"', b'"\x7f"', b"\x00", b"1\x00", b'"\xed\xa0\x80"',
              b'"\xc0\x80"', b'"\xf4\x90\x80\x80"', b'"\xe2\x82"', b"[" * 150 + b"]" * 150, b"[" * 150, b'{"a":' * 99]
    cases += [repr(sign * 2.0 ** e).encode() for e in range(-1074, 1024, 13) for sign in (1, -1)]
    cases += [json.dumps([random_double(rng) for _ in range(8)]).encode() for _ in range(30)]
    cases += [json.dumps({f"k{i % n}": i for i in range(20)}).encode() for n in (5, 9, 20)]
    cases.append(("{" + ",".join(f'"k{i % 12}":{i}' for i in range(30)) + "}").encode())
    cases += [random_text(rng) for _ in range(300)]
    cases = [c for c in cases if b"-0" not in c.replace(b"e-0", b"")]  # Python drops the sign of an integer -0
    os.makedirs(os.path.dirname(OUT), exist_ok=True)
    with open(OUT, "w", encoding="utf-8", newline="\n") as f:
        for c in cases:
            f.write(f"{c.hex()}\n{expect(c)}\n")
    n_bad = sum(expect(c) == "!" for c in cases)
    print(f"{len(cases)} cases, {n_bad} of them refused, {os.path.getsize(OUT)} bytes")


if __name__ == "__main__":
    main()
