"""Measure a model through the ocellus program on pictures that training never drew.

  python3 tools/tiny/eval.py [--ocellus PROGRAM] [--model DIR] [--n 200] [--tasks 1,2,honesty] [--simple]

Words come from the test half, fonts from the families kept for evaluation, and the seed is a string, which
training never uses. Same arguments, same pictures, same questions, same answers. An answer counts only if it
is equal to the truth, character for character; `find` counts from an intersection over union of 0.7, and the long
answer (`long`) if it names the title, the centre and four fifths of the boxes, and nothing that is not there.
Needs numpy, Pillow and the fonts (sh tools/tiny/fonts.sh .fonts). Folder: TINY_FONTS, else .fonts.
"""
import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import textwrap
from concurrent.futures import ThreadPoolExecutor

from PIL import Image

from ask import SEED_PROMPT, questions, which_questions
from data import DIAGRAMS, ONLY_BOXES
from layouts import make_scene
from page import font_names
from twins import make_twins
from words import Words, default_word_list

SIZES = [(448, 336), (504, 308), (560, 560), (616, 364), (672, 448), (784, 448), (896, 672), (1008, 560), (1344, 700)]
SHARES = [4, 3, 2, 4, 4, 3, 1, 2, 1]
LINE_SIZES = [(448, 56), (336, 84), (560, 56), (224, 112)]
PAIR_SIZES = [(336, 224), (448, 336)]
SIMPLE = 8  # boxes in a simple diagram at most: what first light asked for
# What is asked in each task, in turn, and the share that must be right.
TASKS = {"1 text": (("title", "line"), 95), "2 centre": (("centre",), 95), "3 list": (("list",), 95), "4 colour": (("colour",), 95),
         "5 count": (("count", "count_arrows", "count_colour"), 90), "6 arrows": (("arrow_to", "arrow_from"), 90),
         "7 find": (("find",), 85), "8 pictures": (("which", "differs"), 90), "honesty": (("absent",), 90),
         "long": (("describe",), 95), "there": (("exists",), 0)}
HEIGHTS = ((0, 14), (14, 18), (18, 24), (24, 999))  # font size in the pixels that the model sees
LEGIBLE = 14  # the bars hold from this height on
EXPECTED_FONTS = 10
CARD_MARKS = "<!-- figures by make eval-tiny -->", "<!-- end of figures -->"


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


def names_all(text, scene):
    """Title, centre and four fifths of the boxes, and no other name."""
    rest, found = text, 0
    for name in [scene.title, scene.centre]:
        if name and '"%s"' % name not in rest:
            return False
        rest = rest.replace('"%s"' % name, "", 1) if name else rest
    for label in sorted((b.label for b in scene.boxes if b.label != scene.centre), key=len, reverse=True):
        found += label in rest
        rest = rest.replace(label, "", 1)
    frame = re.sub(r"The diagram (is titled|has no title)|In the centre is|Around it are \d+ boxes"
                   r"|It shows \d+ (boxes in layers|boxes in a tree|boxes|steps in a flow)|\band\b", "", rest)
    n_named = sum(b.label != scene.centre for b in scene.boxes)
    return found >= 0.8 * n_named and not re.search(r"[A-Za-z0-9]", frame)


def is_right(question, got, truth, scene):
    if question == "describe":
        return names_all(got, scene)
    if question != "find":
        return got == truth
    box = next(b for b in scene.boxes if b.label == json.loads(truth)[0]["label"])
    try:
        a = json.loads(got)[0]
        return a["label"] == box.label and len(a["bbox_2d"]) == 4 and bool(iou(a["bbox_2d"], box.rect) >= 0.7)
    except (ValueError, LookupError, TypeError):
        return False


def text_px(scenes, question):
    """Size of the smallest text that the answer must read."""
    if question == "title":
        return scenes[0].title_px
    if question == "line":
        return scenes[0].text_px
    if question == "centre":
        return next(b.text_px for b in scenes[0].boxes if b.label == scenes[0].centre)
    return min([b.text_px for s in scenes for b in s.boxes] or [0])


def draw_many(question, rng, words, fonts):
    """Two to five pictures and what is asked about them."""
    twins = question == "differs"
    n = 2 if twins else rng.choice((2, 2, 3, 4, 5))
    w, h = rng.choice(PAIR_SIZES) if n == 2 else PAIR_SIZES[0]
    kinds = rng.choices(list(ONLY_BOXES), list(ONLY_BOXES.values()), k=n)
    scenes = make_twins(rng, kinds[0], w, h, words, fonts) if twins else [make_scene(rng, k, w, h, words, fonts) for k in kinds]
    return scenes, which_questions(rng, scenes, words, twins)


def draw_one(question, rng, words, fonts, simple):
    if question == "line":
        scene = make_scene(rng, "line", *rng.choice(LINE_SIZES), words, fonts)
        return [scene], [("line", q, t) for name, q, t in questions(rng, scene, words) if name == "read"]
    kinds = {"hub": 1} if question == "centre" else {k: v for k, v in DIAGRAMS.items() if k not in ("page", "bars")}
    scene = make_scene(rng, rng.choices(list(kinds), list(kinds.values()))[0], *rng.choices(SIZES, SHARES)[0], words, fonts)
    if simple and len(scene.boxes) > SIMPLE:
        return [scene], []
    return [scene], questions(rng, scene, words)


def draw(question, i, args, words, fonts):
    """The i-th picture (or pictures) of a question with its wording and the truth."""
    rng = random.Random("ocellus eval %s %s %d" % (args.seed, question, i))
    while True:
        scenes, asked = draw_many(question, rng, words, fonts) if question in ("which", "differs") \
            else draw_one(question, rng, words, fonts, args.simple)
        for name, wording, truth in asked:
            if name == question:
                return scenes, SEED_PROMPT if question == "describe" else wording, truth


def make_cases(args, folder):
    words, fonts = Words(default_word_list(), True), font_names(True)
    if len(fonts) != EXPECTED_FONTS:
        raise SystemExit("%d of the %d evaluation fonts found: run sh tools/tiny/fonts.sh .fonts" % (
            len(fonts), EXPECTED_FONTS))
    cases = []
    for task in args.tasks:
        asked = TASKS[task][0]
        for i in range(args.n):
            name = asked[i % len(asked)]
            scenes, wording, truth = draw(name, i // len(asked), args, words, fonts)
            paths = [os.path.join(folder, "%s_%03d_%d.png" % (name, i, k)) for k in range(len(scenes))]
            for path, scene in zip(paths, scenes):
                Image.fromarray(scene.pixels).save(path)
                scene.pixels = None
            cases.append({"task": task, "asked": name, "images": paths, "kind": scenes[0].kind,
                          "size": [scenes[0].width, scenes[0].height], "question": wording, "truth": truth,
                          "text_px": round(text_px(scenes, name), 1), "scene": scenes[0]})
    return cases


def ask(args, case):
    """Run the program on one case and note its answer."""
    command = [args.ocellus, "run", "-m", args.model, "--threads", "1", "--temperature", "0", "--max-tokens", "1000", "--json"]
    for path in case["images"]:
        command += ["-i", path]
    command.append(case["question"])
    done = subprocess.run(command, capture_output=True, timeout=300, check=False)
    if done.returncode:
        raise SystemExit("%s\n%s" % (" ".join(command), done.stderr.decode("utf-8", "replace")))
    case["got"] = json.loads(done.stdout)["choices"][0]["message"]["content"]
    case["right"] = is_right(case["asked"], case["got"], case["truth"], case.pop("scene"))
    edits = distance(case["got"], case["truth"])
    case["letters"] = max(0.0, 1 - edits / max(1, len(case["truth"])))


def line(name, cases, bar=""):
    right, n = sum(c["right"] for c in cases), len(cases)
    low, high = wilson(right, n)
    return "%-16s %5d %5d  %5.1f %%  [%5.1f, %5.1f]  %6.1f %%  %s" % (
        name, n, right, 100 * right / n, 100 * low, 100 * high, 100 * sum(c["letters"] for c in cases) / n, bar)


def height_name(low, high):
    return "under %d" % high if not low else "%d-%d" % (low, high - 1) if high < 999 else "%d and up" % low


def table(cases):
    """The lines of the table."""
    out = ["%-16s %5s %5s  %7s  %14s  %8s  %s" % ("task", "n", "right", "exact", "95 % interval", "letters", "bar")]
    for task in dict.fromkeys(c["task"] for c in cases):
        mine, bar = [c for c in cases if c["task"] == task], TASKS[task][1]
        out.append(line(task, mine, "%d %%" % bar if bar else ""))
        for name in TASKS[task][0] if len(TASKS[task][0]) > 1 else ():
            out.append(line("  " + name, [c for c in mine if c["asked"] == name]))
        for low, high in HEIGHTS:
            part = [c for c in mine if low <= c["text_px"] < high]
            if part:
                out.append(line("  %s px" % height_name(low, high), part))
        legible = [c for c in mine if c["text_px"] >= LEGIBLE]
        if legible and len(legible) < len(mine):
            out.append(line("  %d px and up" % LEGIBLE, legible, "%d %%" % bar if bar else ""))
    return [text.rstrip() for text in out]


LEGEND = ("exact: the whole answer equal to the truth (find: an intersection over union of 0.7; long: title, centre and four fifths of "
          "the boxes named, and nothing that is not there). letters: 1 - edits / length of the truth, mean. px: font size of the "
          "smallest text that the answer may need, in the pixels that the model sees; the bars hold from %d px on." % LEGIBLE)


def write_card(path, model, cases):
    """Puts size and table between the two marks of a model card."""
    with open(path, encoding="utf-8") as f:
        before, _, rest = f.read().partition(CARD_MARKS[0])
    _, mark, after = rest.partition(CARD_MARKS[1])
    if not mark:
        raise SystemExit("%s: the marks %s and %s are missing" % (path, *CARD_MARKS))
    size = sum(os.path.getsize(os.path.join(model, name)) for name in os.listdir(model) if name.endswith(".safetensors"))
    figures = ["%.1f MB of weights." % (size / 1e6), ""] + ["    " + text for text in table(cases)] + [""] + textwrap.wrap(LEGEND, 120)
    with open(path, "w", encoding="utf-8") as f:
        f.write("\n".join([before + CARD_MARKS[0], *figures, CARD_MARKS[1]]) + after)


def chosen_tasks(text):
    names = [t for part in text.split(",") for t in TASKS if t == part or t.split()[0] == part]
    if len(names) < len(text.split(",")):
        raise argparse.ArgumentTypeError("known tasks: " + ", ".join(t.split()[0] for t in TASKS))
    return names


def arguments():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--ocellus", default="build/release/ocellus")
    ap.add_argument("--model", default="models/ocellus-tiny-4bit")
    ap.add_argument("--n", type=int, default=200, help="pictures a task")
    ap.add_argument("--tasks", default=list(TASKS), type=chosen_tasks, help="by their first word: " + ", ".join(t.split()[0] for t in TASKS))
    ap.add_argument("--simple", action="store_true", help="diagrams of at most %d boxes" % SIMPLE)
    ap.add_argument("--seed", default="1")
    ap.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="programs at a time, one thread each")
    ap.add_argument("--bar", type=float, help="exit with 1 if a task's exact match is under this many percent")
    ap.add_argument("--out", help="write every case to this JSON file, and the pictures beside it")
    ap.add_argument("--add", nargs="+", metavar="OUT", help="ask nothing: print the table of runs that --out kept")
    ap.add_argument("--card", help="put the table into this model card, between its marks")
    ap.add_argument("--show", type=int, default=0, help="print so many wrong answers a task")
    return ap.parse_args()


def run_cases(args):
    with tempfile.TemporaryDirectory() as temporary:
        folder = os.path.splitext(args.out)[0] if args.out else temporary
        os.makedirs(folder, exist_ok=True)
        cases = make_cases(args, folder)
        with ThreadPoolExecutor(args.jobs) as pool:
            for i, _ in enumerate(pool.map(lambda c: ask(args, c), cases), 1):
                if sys.stderr.isatty():
                    print("\r%d of %d" % (i, len(cases)), end="", file=sys.stderr, flush=True)
    return cases


def kept_cases(paths):
    cases = []
    for path in paths:
        with open(path, encoding="utf-8") as f:
            cases += json.load(f)
    return sorted(cases, key=lambda c: list(TASKS).index(c["task"]))


def main():
    args = arguments()
    cases = kept_cases(args.add) if args.add else run_cases(args)
    print("\n".join(table(cases)))
    print(LEGEND)
    if args.card:
        write_card(args.card, args.model, cases)
    for task in args.tasks:
        for c in [c for c in cases if c["task"] == task and not c["right"]][:args.show]:
            print("%s %s %dx%d %.0f px  %s\n  truth %r\n  got   %r" % (
                c["asked"], c["kind"], *c["size"], c["text_px"], c["question"], c["truth"], c["got"]))
    if args.out and not args.add:
        with open(args.out, "w", encoding="utf-8") as f:
            json.dump(cases, f, indent=1)
    if args.bar is not None:
        marks = [[c["right"] for c in cases if c["task"] == t] for t in args.tasks]
        sys.exit(100 * min(sum(m) / len(m) for m in marks) < args.bar)


if __name__ == "__main__":
    main()
