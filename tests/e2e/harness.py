"""What the end-to-end tests share: running the command, drawing small pictures, counting cases.

Python's standard library only. OCELLUS_BIN names the binary (default build/release/ocellus), OCELLUS_TEST_MODEL
another model than the embedded one.
"""
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import traceback
import zlib

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BIN = os.path.abspath(os.environ.get("OCELLUS_BIN", os.path.join(ROOT, "build", "release", "ocellus")))
EMBEDDED = os.path.join(ROOT, "models", "ocellus-tiny-4bit")
MODEL = os.environ.get("OCELLUS_TEST_MODEL", EMBEDDED)
TMP = tempfile.mkdtemp(prefix="ocellus-e2e-")
CASES = []
TIMEOUT_S = 300


def case(fn):
    """Marks a test function."""
    CASES.append(fn)
    return fn


class Skip(Exception):
    pass


class Result:
    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err

    def __repr__(self):
        return f"exit code {self.code}\n--- stdout\n{self.out}\n--- stderr\n{self.err}"


def environment(**changes):
    """The environment of the command: no proxies to the user's caches."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "OCELLUS_"))}
    env["HF_HOME"] = os.path.join(TMP, "hf")
    env["XDG_CACHE_HOME"] = os.path.join(TMP, "xdg")
    if MODEL == EMBEDDED:
        env["OCELLUS_MODELS"] = os.path.dirname(EMBEDDED)
    env.update({k: v for k, v in changes.items() if v is not None})
    return env


def ocellus(*args, stdin="", env=None, cwd=TMP, text=True):
    """Runs the command to its end."""
    p = subprocess.run([BIN, *map(str, args)], input=stdin if not text else stdin.encode(), stdout=subprocess.PIPE,
                       stderr=subprocess.PIPE, env=env or environment(), cwd=cwd, timeout=TIMEOUT_S)
    decode = (lambda b: b.decode("utf-8")) if text else (lambda b: b)
    return Result(p.returncode, decode(p.stdout), p.stderr.decode("utf-8", "replace"))


def model_args():
    return [] if MODEL == EMBEDDED else ["-m", MODEL]


def run(*args, **kw):
    """ocellus run with the test's model, which must succeed."""
    r = ocellus("run", *model_args(), *args, **kw)
    assert r.code == 0, r
    return r


def run_json(*args, **kw):
    r = run("--json", *args, **kw)
    assert r.out.endswith("}\n") and r.out.count("\n") == 1, r
    return json.loads(r.out)


def fails(code, words, *args, **kw):
    """The command must fail with this code and one sentence on stderr that has all the words."""
    r = ocellus(*args, **kw)
    assert r.code == code, f"wanted exit code {code}: {args}\n{r}"
    assert r.out == "", f"wanted no output: {args}\n{r}"
    lines = r.err.splitlines()
    wanted = 2 if code == 2 else 1  # wrong usage adds where the help is
    assert len(lines) == wanted and lines[0].startswith("ocellus: "), f"wanted one sentence: {args}\n{r}"
    for word in [words] if isinstance(words, str) else words:
        assert word in lines[0], f"wanted '{word}' in it: {args}\n{r}"
    return r


def png(name, width, height, pixel):
    """Writes an RGB PNG whose pixel (x, y) is pixel(x, y) -> (r, g, b); returns its path."""
    rows = b"".join(b"\0" + b"".join(bytes(pixel(x, y)) for x in range(width)) for y in range(height))

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    path = os.path.join(TMP, name)
    with open(path, "wb") as f:
        f.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)) +
                chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
    return path


def write(name, data):
    path = os.path.join(TMP, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as f:
        f.write(data if isinstance(data, bytes) else data.encode())
    return path


def write_json(name, value):
    return write(name, json.dumps(value))


def main():
    """Runs all cases in order, says how each went in cmocka's style, and exits."""
    failed = 0
    try:
        for fn in CASES:
            name = fn.__name__
            print(f"[ RUN      ] {name}", flush=True)
            try:
                fn()
                print(f"[       OK ] {name}", flush=True)
            except Skip as e:
                print(f"{e}\n[  SKIPPED ] {name}", flush=True)
            except Exception:
                failed += 1
                print(f"{traceback.format_exc()}\n[  FAILED  ] {name}", flush=True)
    finally:
        shutil.rmtree(TMP, ignore_errors=True)
    sys.exit(1 if failed else 0)
