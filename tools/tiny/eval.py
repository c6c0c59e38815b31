"""Measure a model through the ocellus program on pictures that training never drew.

  python3 tools/tiny/eval.py [--ocellus PROGRAM] [--model DIR] [--n 200] [--tasks title,centre,list]

Words come from the test half, fonts from the families kept for evaluation, and the seed is a string, which
training never uses. Same arguments, same pictures, same questions, same answers. An answer counts only if it
is equal to the truth, character for character; `find` counts from an intersection over union of 0.7.
Needs numpy, Pillow and the fonts (sh tools/tiny/fonts.sh .fonts). Folder: TINY_FONTS, else .fonts.
"""
import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

from PIL import Image

from ask import questions
from data import DIAGRAMS
from layouts import make_scene
from page import font_names
from words import Words, default_word_list

SIZES = [(448, 336), (504, 308), (560, 560), (616, 364), (672, 448), (784, 448), (896, 672), (1008, 560), (1344, 700)]
SHARES = [4, 3, 2, 4, 4, 3, 1, 2, 1]
SIMPLE = 8  # boxes in a simple diagram at most
FIRST_LIGHT = ("title", "centre", "list")
REST = ("read", "colour", "count", "count_arrows", "count_colour", "arrow_to", "arrow_from", "find", "exists", "absent",
        "describe")
HEIGHTS = ((0, 14), (14, 18), (18, 24), (24, 999))  # font size in the pixels that the model sees
EXPECTED_FONTS = 10


def wilson(right, n, z=1.96):
    """The 95 % interval of a share."""
    if not n:
        return 0.0, 1.0
    p = right / n
    mid, half = p + z * z / (2 * n), z * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    return max(0.0, (mid - half) / (1 + z * z / n)), min(1.0, (mid + half) / (1 + z * z / n))


def distance(a, b):
    """Edits that turn one text into the other."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a):
        last, row[0] = row[0], i + 1
        for j, y in enumerate(b):
            last, row[j + 1] = row[j + 1], min(row[j + 1] + 1, row[j] + 1, last + (x != y))
    return row[-1]


def iou(a, b):
    w = min(a[2], b[2]) - max(a[0], b[0])
    h = min(a[3], b[3]) - max(a[1], b[1])
    both = max(0, w) * max(0, h)
    area = sum(abs((r[2] - r[0]) * (r[3] - r[1])) for r in (a, b)) - both
    return both / area if area else 0.0


def is_right(task, got, truth):
    if task != "find":
        return got == truth
    try:
        a, b = json.loads(got)[0], json.loads(truth)[0]
        return a["label"] == b["label"] and len(a["bbox_2d"]) == 4 and iou(a["bbox_2d"], b["bbox_2d"]) >= 0.7
    except (ValueError, LookupError, TypeError):
        return False


def text_px(scene, task):
    """Size of the smallest text that the answer must read."""
    if task == "title":
        return scene.title_px
    if task == "centre":
        return next(b.text_px for b in scene.boxes if b.label == scene.centre)
    return min([b.text_px for b in scene.boxes] or [0])


def draw(task, i, seed, words, fonts):
    """The i-th picture of a task with its question and the truth."""
    rng = random.Random("ocellus eval %s %s %d" % (seed, task, i))
    kinds = {k: v for k, v in DIAGRAMS.items() if k not in ("page", "bars")} if task in FIRST_LIGHT else DIAGRAMS
    kinds = {"hub": 1} if task == "centre" else kinds
    while True:
        w, h = rng.choices(SIZES, SHARES)[0]
        scene = make_scene(rng, rng.choices(list(kinds), list(kinds.values()))[0], w, h, words, fonts)
        if task in FIRST_LIGHT and len(scene.boxes) > SIMPLE:
            continue
        for name, question, truth in questions(rng, scene, words):
            if name == task:
                return scene, question, truth


def make_cases(args, folder):
    words, fonts = Words(default_word_list(), True), font_names(True)
    if len(fonts) != EXPECTED_FONTS:
        raise SystemExit("%d of the %d evaluation fonts found: run sh tools/tiny/fonts.sh .fonts" % (
            len(fonts), EXPECTED_FONTS))
    cases = []
    for task in args.tasks:
        for i in range(args.n if task in FIRST_LIGHT or not args.n_rest else args.n_rest):
            scene, question, truth = draw(task, i, args.seed, words, fonts)
            path = os.path.join(folder, "%s_%03d.png" % (task, i))
            Image.fromarray(scene.pixels).save(path)
            cases.append({"task": task, "image": path, "kind": scene.kind, "size": [scene.width, scene.height],
                          "question": question, "truth": truth, "text_px": round(text_px(scene, task), 1)})
    return cases


def ask(args, case):
    """Run the program on one case and note its answer."""
    command = [args.ocellus, "run", "-m", args.model, "-i", case["image"], "--threads", "1", "--temperature", "0",
               "--max-tokens", "400", "--json", case["question"]]
    done = subprocess.run(command, capture_output=True, timeout=300, check=False)
    if done.returncode:
        raise SystemExit("%s\n%s" % (" ".join(command), done.stderr.decode("utf-8", "replace")))
    case["got"] = json.loads(done.stdout)["choices"][0]["message"]["content"]
    case["right"] = is_right(case["task"], case["got"], case["truth"])
    edits = distance(case["got"], case["truth"])
    case["letters"] = max(0.0, 1 - edits / max(1, len(case["truth"])))


def line(name, cases):
    right, n = sum(c["right"] for c in cases), len(cases)
    low, high = wilson(right, n)
    return "%-16s %5d %5d  %5.1f %%  [%5.1f, %5.1f]  %6.1f %%" % (
        name, n, right, 100 * right / n, 100 * low, 100 * high, 100 * sum(c["letters"] for c in cases) / n)


def table(cases):
    print("%-16s %5s %5s  %7s  %14s  %8s" % ("task", "n", "right", "exact", "95 % interval", "letters"))
    for task in dict.fromkeys(c["task"] for c in cases):
        mine = [c for c in cases if c["task"] == task]
        print(line(task, mine))
        for low, high in HEIGHTS:
            part = [c for c in mine if low <= c["text_px"] < high]
            if part:
                print(line("  %s px" % ("under %d" % high if not low else "%d-%d" % (low, high - 1) if high < 999
                                        else "%d and up" % low), part))
    print("exact: the whole answer equal to the truth. letters: 1 - edits / length of the truth, mean.")
    print("px: font size of the smallest text that the answer needs, in the pixels that the model sees.")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--ocellus", default="build/release/ocellus")
    ap.add_argument("--model", default="models/ocellus-tiny-4bit")
    ap.add_argument("--n", type=int, default=200, help="pictures a task")
    ap.add_argument("--tasks", default=FIRST_LIGHT, type=lambda s: s.split(","))
    ap.add_argument("--n-rest", type=int, default=0, help="measure the other tasks too, on so many pictures each")
    ap.add_argument("--seed", default="1")
    ap.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="programs at a time, one thread each")
    ap.add_argument("--bar", type=float, help="exit with 1 if a task's exact match is under this many percent")
    ap.add_argument("--out", help="write every case to this JSON file, and the pictures beside it")
    ap.add_argument("--show", type=int, default=0, help="print so many wrong answers a task")
    args = ap.parse_args()
    args.tasks = list(args.tasks) + [t for t in REST if args.n_rest and t not in args.tasks]
    with tempfile.TemporaryDirectory() as temporary:
        folder = os.path.splitext(args.out)[0] if args.out else temporary
        os.makedirs(folder, exist_ok=True)
        cases = make_cases(args, folder)
        with ThreadPoolExecutor(args.jobs) as pool:
            for i, _ in enumerate(pool.map(lambda c: ask(args, c), cases), 1):
                if sys.stderr.isatty():
                    print("\r%d of %d" % (i, len(cases)), end="", file=sys.stderr, flush=True)
    table(cases)
    for task in args.tasks:
        for c in [c for c in cases if c["task"] == task and not c["right"]][:args.show]:
            print("%s %s %dx%d %.0f px\n  truth %r\n  got   %r" % (
                task, c["kind"], *c["size"], c["text_px"], c["truth"], c["got"]))
    if args.out:
        with open(args.out, "w", encoding="utf-8") as f:
            json.dump(cases, f, indent=1)
    if args.bar is not None:
        marks = [[c["right"] for c in cases if c["task"] == t] for t in args.tasks]
        sys.exit(100 * min(sum(m) / len(m) for m in marks) < args.bar)


if __name__ == "__main__":
    main()
