#!/usr/bin/env python3
"""What a person waits for, beside the limits of the machine measured in the same run.

  python3 bench/end_to_end.py [--ocellus PROGRAM] [--sizes 3b,7b] [--models DIR] [--csv FILE] [--threads N] [--runs 5]

Random-weight checkpoints of true shape (MLX 4-bit, group 64, bf16 vision) are made under --models if they are not there. Every
figure is the median of --runs processes, each with cold caches of ours (the files are in the page cache), but for decode, whose
spread over the runs is printed. Limits: reads and FMA peak by check_kernels; the FLOPs counted are multiplications and additions of the
linear layers and of attention. Needs Pillow for the pictures.
"""
import argparse
import csv
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PICTURE = os.path.join(ROOT, "examples", "architecture.png")
QUESTION = "What is in the centre?"
N_PROMPT, N_DECODE, CONTEXT = 1230, 100, 1300


def limits(folder, threads):
    """(bytes, FLOPs) a second as check_kernels measures them. With AMX a product as exact as f32 is two of bf16."""
    command = [os.path.join(folder, "check_kernels"), "--bench", "--quick", "--decode", "--threads", str(threads)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.findall(r"^(\w+): .*reads ([\d.]+) GB/s, f32 FMA ([\d.]+) TFLOP/s, bf16 ([\d.]+)", text, re.M)
    fma = max(float(f) for _, _, f, _ in found)
    amx = max([float(b) / 2 for isa, _, _, b in found if isa.startswith("amx")], default=0.0)
    return max(float(r) for _, r, _, _ in found) * 1e9, max(fma, amx) * 1e12


def run(args, model, rest, picture=None):
    """The timings of one process, and its largest resident memory in bytes."""
    command = [args.ocellus, "run", "-m", model, "--json", "-t", "0", "--ignore-eos", "--threads", str(args.threads)] + rest
    command += ["-i", picture] if picture else []
    p = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = p.stdout.read(), p.stderr.read()
    _, status, usage = os.wait4(p.pid, 0)
    if status:
        sys.exit("%s\n%s" % (" ".join(command), err.decode("utf-8", "replace")))
    return json.loads(out)["timings"], usage.ru_maxrss * 1024


def inspect(args, model, picture=None, rest=("-c", "4096")):
    command = [args.ocellus, "inspect", "--json", *rest] + (["-i", picture] if picture else []) + [model]
    return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)


def make_model(size, folder):
    path = os.path.join(folder, size)
    if not os.path.exists(os.path.join(path, "config.json")):
        tool = os.path.join(ROOT, "tools", "make_random_model.py")
        subprocess.run([sys.executable, tool, "--size", size, "--bits", "4", path], check=True)
    return path


def flops_of(config, n_patches, n_tokens):
    """(vision, text) FLOPs of a picture of n_patches and of a prompt of n_tokens."""
    v = config["vision_config"]
    d, m, full = v["hidden_size"], v["intermediate_size"], len(v["fullatt_block_indexes"])
    keys = full * n_patches + (v["depth"] - full) * 64
    merged = 4 * d
    vision = n_patches * (v["depth"] * (4 * d * d + 3 * d * m) + 2 * d * keys + 1176 * d + merged * (merged + v["out_hidden_size"]) / 4)
    h, k = config["hidden_size"], config["intermediate_size"]
    head = h // config["num_attention_heads"]
    kv = config["num_key_value_heads"] * head
    text = n_tokens * config["num_hidden_layers"] * (2 * h * h + 2 * h * kv + 3 * h * k + n_tokens * h)
    return 2 * vision, 2 * text


def median(rows, key):
    return statistics.median(r[key] for r in rows)


class Table:
    def __init__(self, path):
        self.path, self.rows = path, []

    def add(self, model, what, value, unit, limit="", share=""):
        self.rows.append([model, what, "%.4g" % value, unit, limit and "%.4g" % limit, share and "%.0f" % share])
        print("%-4s %-46s %9.4g %-6s %s" % (model, what, value, unit,
                                            "limit %.4g, %.0f %% of it reached" % (limit, share) if limit else ""), flush=True)

    def write(self):
        with open(self.path, "w", newline="", encoding="ascii") as f:
            csv.writer(f).writerows([["model", "what", "value", "unit", "limit", "percent_of_limit"]] + self.rows)


def ms_row(table, size, what, ms, flops, peak):
    limit = 1e3 * flops / peak
    table.add(size, what, ms, "ms", limit, 100 * limit / ms)


def prompt_of(args, model, n):
    """A prompt of about n tokens: words are added until the program counts enough."""
    words = "A plain sentence with some more words of it. "
    per = run(args, model, ["-n", "1", words * 20])[0]["n_prompt"] / 20
    return words * max(1, int(n / per))


def measure(args, table, size, reads, peak, folder):
    model = make_model(size, args.models)
    with open(os.path.join(model, "config.json"), encoding="utf-8") as f:
        config = json.load(f)
    seen = inspect(args, model, PICTURE)
    plan, memory = seen["pictures"]["plans"][0], seen["memory"]
    run(args, model, ["-n", "1", QUESTION])  # the files into the page cache
    first = [run(args, model, ["-n", "1", QUESTION], PICTURE)[0] for _ in range(args.runs)]
    n_patches, n_first = plan["grid"][1] * plan["grid"][2], first[0]["n_prompt"]
    vision, text = flops_of(config, n_patches, n_first)
    table.add(size, "load", median(first, "load_ms"), "ms")
    ms_row(table, size, "picture 1355x710, question of %d tokens: TTFT" % (n_first - plan["tokens"]), median(first, "ttft_ms"),
           vision + text, peak)
    ms_row(table, size, "vision encoder", median(first, "vision_ms"), vision, peak)
    table.add(size, "picture: decode, resize, patches", median(first, "image_ms"), "ms")
    prompt = prompt_of(args, model, N_PROMPT)
    rows = [run(args, model, ["-n", "1", prompt])[0] for _ in range(args.runs)]
    ms_row(table, size, "prefill of %d tokens" % rows[0]["n_prompt"], median(rows, "prefill_ms"),
           flops_of(config, 0, rows[0]["n_prompt"])[1], peak)
    decode(args, table, size, reads, model, memory)
    photo(args, table, size, model, folder)


def decode(args, table, size, reads, model, memory):
    prompt = prompt_of(args, model, CONTEXT - N_DECODE // 2)
    rows, resident = zip(*[run(args, model, ["-n", str(N_DECODE), prompt]) for _ in range(args.runs)])
    speed = [r["decode_tok_s"] for r in rows]
    n_bytes = memory["decode_weight_bytes"] + CONTEXT * memory["kv_bytes_per_token"]
    limit = reads / n_bytes
    table.add(size, "decode at context %d" % CONTEXT, statistics.median(speed), "tok/s", limit, 100 * statistics.median(speed) / limit)
    table.add(size, "its spread (CV) over %d runs" % args.runs, 100 * statistics.pstdev(speed) / statistics.mean(speed), "%")
    kv = rows[0]["n_prompt"] + N_DECODE
    table.add(size, "resident, of weights + KV", max(resident) / (memory["weight_bytes"] + kv * memory["kv_bytes_per_token"]), "x")


def photo(args, table, size, model, folder):
    """Four megapixels: about 5,000 tokens. Memory against what inspect says."""
    path = os.path.join(folder, "photo.jpg")
    if not os.path.exists(path):
        from PIL import Image
        noise = Image.effect_noise((2464, 1632), 40).convert("RGB")
        noise.save(path, quality=85)
        noise.crop((0, 0, 1232, 816)).save(os.path.join(folder, "small.jpg"), quality=85)
    room = ["-c", "8192", "--image-max-tokens", "8192"]
    t, resident = run(args, model, ["-n", "1", "What is this?"] + room, path)
    table.add(size, "photo of 4 megapixels (%d tokens): TTFT" % t["n_image"], t["ttft_ms"], "ms")
    said = inspect(args, model, path, room)["memory"]
    most = said["weight_bytes"] + said["workspace_bytes"] + t["n_prompt"] * said["kv_bytes_per_token"]
    table.add(size, "resident, of what inspect says", resident / most, "x")
    small = [run(args, model, ["-n", "1", "What?"], os.path.join(folder, "small.jpg"))[0]["image_ms"] for _ in range(args.runs)]
    table.add(size, "JPEG of 1 megapixel: decode, resize, patches", statistics.median(small), "ms")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--ocellus", default=os.path.join(ROOT, "build", "release", "ocellus"))
    ap.add_argument("--sizes", default="3b", type=lambda s: s.split(","))
    ap.add_argument("--models", default=os.path.join(tempfile.gettempdir(), "ocellus-bench"))
    ap.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    ap.add_argument("--runs", type=int, default=5)
    ap.add_argument("--csv")
    args = ap.parse_args()
    table = Table(args.csv)
    reads, peak = limits(os.path.dirname(args.ocellus), args.threads)
    print("%d threads, reads %.1f GB/s, products of f32's exactness %.3f TFLOP/s" % (args.threads, reads / 1e9, peak / 1e12))
    table.rows.append(["", "reads", "%.4g" % (reads / 1e9), "GB/s", "", ""])
    table.rows.append(["", "peak of exact products", "%.4g" % (peak / 1e12), "TFLOP/s", "", ""])
    with tempfile.TemporaryDirectory() as folder:
        for size in args.sizes:
            measure(args, table, size, reads, peak, folder)
    if args.csv:
        table.write()


if __name__ == "__main__":
    main()
