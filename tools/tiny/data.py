"""Batches: every batch has one picture size, so it is dense. Made on the CPU cores beside the GPU."""
import random
import time

import numpy as np

from ask import questions, which_questions
from facts import changed_tokens, token_facts
from layouts import make_scene
from page import font_names
from tokens import Sequence
from twins import make_twins
from words import Words, default_word_list

PATCH, SLOTS = 14, 4
# Until EARLY in the curriculum most questions are of the kinds that teach reading.
EARLY, READING = 0.35, ("read", "title", "centre", "list", "count", "absent", "which")
TWINS = 0.5  # of the rows of two pictures are asked what differs
DIAGRAMS = {"grid": 22, "hub": 30, "layers": 12, "flow": 14, "tree": 10, "bars": 4, "page": 8}
ONLY_BOXES = {"grid": 3, "hub": 3, "flow": 2, "layers": 2}


class Bucket:
    """One picture size: how many pictures a row, rows a batch, tokens of text a row, and when it is drawn."""

    def __init__(self, w, h, rows, text, stage, weight, kinds=None, n_img=1):
        self.w, self.h, self.rows, self.text, self.stage, self.weight = w, h, rows, text, stage, weight
        self.kinds, self.n_img = kinds or DIAGRAMS, n_img
        tokens = n_img * (w // 28) * (h // 28)
        self.length = -(-(tokens + 2 * n_img + 48 + text) // 64) * 64
        self.name = "%dx%d%s" % (w, h, "x%d" % n_img if n_img > 1 else "")


LINE = {"line": 1}
BUCKETS = [
    Bucket(448, 56, 320, 96, 0, 4, LINE), Bucket(336, 84, 256, 96, 0, 3, LINE), Bucket(560, 56, 256, 96, 0, 2, LINE),
    Bucket(224, 112, 256, 128, 0, 2, LINE),
    Bucket(336, 336, 76, 480, 1, 3), Bucket(448, 336, 68, 512, 1, 4), Bucket(448, 224, 82, 480, 1, 3),
    Bucket(392, 280, 72, 512, 1, 2), Bucket(504, 308, 64, 512, 1, 2),
    Bucket(672, 448, 36, 640, 2, 4), Bucket(560, 560, 36, 640, 2, 2), Bucket(784, 448, 32, 640, 2, 3),
    Bucket(644, 476, 36, 640, 2, 2), Bucket(616, 364, 44, 640, 2, 2), Bucket(476, 700, 32, 640, 2, 1),
    Bucket(336, 224, 40, 448, 2, 4.5, ONLY_BOXES, 2), Bucket(448, 336, 26, 448, 2, 3, ONLY_BOXES, 2),
    Bucket(336, 224, 28, 448, 2, 1.5, ONLY_BOXES, 3), Bucket(336, 224, 22, 448, 2, 1, ONLY_BOXES, 4),
    Bucket(336, 224, 17, 448, 2, 1, ONLY_BOXES, 5),
    Bucket(896, 672, 17, 768, 3, 3), Bucket(1008, 560, 17, 768, 3, 2), Bucket(1344, 700, 12, 768, 3, 4),
    Bucket(1344, 672, 12, 768, 3, 1), Bucket(1036, 700, 14, 768, 3, 1), Bucket(700, 1008, 14, 768, 3, 0.7),
    Bucket(1204, 812, 12, 768, 3, 1), Bucket(1400, 700, 10, 768, 3, 0.7),
]

# Share of batches per stage (line, small, medium, large) at points of the run's progress.
CURRICULUM = [(0.00, (1, 0, 0, 0)), (0.05, (1, 0.3, 0, 0)), (0.09, (0.3, 1, 0.2, 0)), (0.2, (0.12, 1, 0.8, 0.1)),
              (0.35, (0.06, 0.8, 1, 0.7)), (1.0, (0.04, 0.7, 1, 1.2))]


LINES_END, LINES_MOST, READS = 0.05, 0.15, 0.5


class Pace:
    """Where the run stands in the curriculum. Single lines go on until they are read (a loss under READS a letter) or
    have taken LINES_MOST of the run; from there on the place moves evenly with time. A run that goes on from a model
    which reads begins at `first` instead."""

    def __init__(self, first=0.0):
        self.left, self.line_loss, self.first = 0.0 if first else None, None, max(first, LINES_END)

    def see(self, line_loss):
        if line_loss is not None:
            self.line_loss = line_loss

    def place(self, progress):
        if self.left is None:
            if progress < LINES_MOST and (self.line_loss is None or self.line_loss > READS):
                return 0.0
            self.left = progress
        return self.first + (1 - self.first) * min(1.0, (progress - self.left) / (1 - self.left))


def stage_shares(progress):
    for (p0, a), (p1, b) in zip(CURRICULUM, CURRICULUM[1:]):
        if progress <= p1:
            t = (progress - p0) / (p1 - p0)
            return [x + (y - x) * max(0.0, t) for x, y in zip(a, b)]
    return CURRICULUM[-1][1]


def pick_bucket(rng, progress):
    shares = stage_shares(progress)
    stage = rng.choices(range(4), shares)[0]
    inside = [b for b in BUCKETS if b.stage == stage]
    return rng.choices(inside, [b.weight for b in inside])[0]


def merge_order(grid):
    """[gh, gw, ...] in raster order -> [gh * gw, ...] in the order of 2 x 2 blocks."""
    gh, gw = grid.shape[:2]
    rest = grid.shape[2:]
    x = grid.reshape(gh // 2, 2, gw // 2, 2, *rest)
    return np.ascontiguousarray(np.moveaxis(x, 2, 1)).reshape(gh * gw, *rest)


def letter_targets(scene):
    """[n_patches, SLOTS] uint8: the letters whose middles lie in each patch, from the left; 0 is none."""
    gh, gw = scene.height // PATCH, scene.width // PATCH
    out = np.zeros((gh * gw, SLOTS), np.uint8)
    if scene.letters:
        a = np.array(scene.letters, np.float32)
        px, py = (a[:, 0] // PATCH).astype(int), (a[:, 1] // PATCH).astype(int)
        ok = (px >= 0) & (px < gw) & (py >= 0) & (py < gh) & (a[:, 2] > 32) & (a[:, 2] < 127)
        a, cell = a[ok], (py * gw + px)[ok]
        order = np.lexsort((a[:, 0], cell))
        a, cell = a[order], cell[order]
        first = np.searchsorted(cell, cell)
        slot = np.arange(len(cell)) - first
        keep = slot < SLOTS
        out[cell[keep], slot[keep]] = a[keep, 2].astype(np.uint8) - 32
    return merge_order(out.reshape(gh, gw, SLOTS))


class Source:
    """Draws batches from one half of the words and fonts, `place` being where in the curriculum."""

    def __init__(self, seed, test=False):
        self.rng, self.place = random.Random(seed), 1.0
        self.words, self.fonts = Words(default_word_list(), test), font_names(test)

    def scene(self, kind, bucket):
        """A picture with something to ask about: once in a million draws no label fits into any box."""
        while True:
            scene = make_scene(self.rng, kind, bucket.w, bucket.h, self.words, self.fonts)
            if {"line": scene.lines, "page": scene.lines, "bars": scene.bars}.get(kind, scene.boxes[kind == "hub":]):
                return scene

    def row(self, bucket):
        rng = self.rng
        kinds = rng.choices(list(bucket.kinds), list(bucket.kinds.values()), k=bucket.n_img)
        twins = bucket.n_img == 2 and rng.random() < TWINS
        scenes = make_twins(rng, kinds[0], bucket.w, bucket.h, self.words, self.fonts) if twins \
            else [self.scene(k, bucket) for k in kinds]
        asked = questions(rng, scenes[0], self.words) if bucket.n_img == 1 \
            else which_questions(rng, scenes, self.words, twins)
        if self.place < EARLY and rng.random() < 0.85:
            asked = [q for q in asked if q[0] in READING] or asked
        seq = Sequence([(s.height // 28, s.width // 28) for s in scenes], bucket.length, rng)
        i = 0
        while i < len(asked):
            n = 2 if rng.random() < 0.08 and i + 1 < len(asked) else 1
            seq.add(asked[i:i + n])
            i += n
        return scenes, seq

    def batch(self, bucket):
        rows = [self.row(bucket) for _ in range(bucket.rows)]
        scenes = [s for r in rows for s in r[0]]
        seqs = [r[1] for r in rows]
        return {
            "bucket": bucket.name, "n_img": bucket.n_img,
            "pixels": np.stack([s.pixels for s in scenes]),
            "letters": np.stack([letter_targets(s) for s in scenes]),
            **dict(zip(("colour", "near", "place"), (np.stack(f) for f in zip(*map(token_facts, scenes))))),
            "changed": np.concatenate([changed_tokens(r[0]) for r in rows]),
            "ids": np.stack([q.ids for q in seqs]), "pos": np.stack([q.pos for q in seqs], 1),
            "seg": np.stack([q.seg for q in seqs]), "ans": np.stack([q.ans for q in seqs]),
            "tasks": [q.tasks for q in seqs]}


if __name__ == "__main__":  # drawing speed of one core, and how full the rows are
    source = Source(0)
    for b in BUCKETS:
        t = time.time()
        n = max(2, 8 // b.n_img)
        rows = [source.row(b) for _ in range(n)]
        dt = (time.time() - t) / n / b.n_img
        print("%-12s L %4d  %5.1f ms a picture  filled %.2f  answers %.2f  segments %.1f" % (
            b.name, b.length, dt * 1e3, np.mean([q.n / b.length for _, q in rows]),
            np.mean([(q.ans > 0).sum() / b.length for _, q in rows]), np.mean([q.n_seg for _, q in rows])))
