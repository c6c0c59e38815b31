"""Two pictures that differ in one label, in the title, or in nothing."""
import random

import numpy as np

from facts import DIFFERENT
from layouts import make_scene


class Swap:
    """Words that write `new` wherever the others would write `old`."""

    def __init__(self, words, old, new):
        self.words, self.old, self.new = words, old, new

    def __getattr__(self, name):
        return getattr(self.words, name)

    def label(self, *args, **named):
        text = self.words.label(*args, **named)
        return self.new if text == self.old else text

    def title(self, rng):
        text = self.words.title(rng)
        return self.new if text == self.old else text


def make_twins(rng, kind, width, height, words, fonts):
    """Two pictures that differ in one label or in the title, or (one pair in eight) in nothing."""
    while True:
        state = rng.getstate()
        first = make_scene(rng, kind, width, height, words, fonts)
        what = rng.randrange(8)
        olds = [first.title] if what == 1 and first.title else [b.label for b in first.boxes] if what else [""]
        if not olds:
            continue
        old = rng.choice(olds)
        new = words.title(rng) if old == first.title else words.label(rng, max_words=2)
        again = random.Random()
        again.setstate(state)
        second = make_scene(again, kind, width, height, Swap(words, old, new), fonts)
        a, b = ([s.title] + [x.label for x in s.boxes] for s in (first, second))
        if len(a) == len(b) and sum(x != y for x, y in zip(a, b)) == (what > 0) and len(set(b[1:])) == len(b) - 1 \
                and same_plan(first, second):
            second.twin = True
            return [first, second]


def same_plan(first, second):
    """Whether only words differ: a label of another length can send the random numbers another way."""
    if len(first.boxes) != len(second.boxes) or first.kind != second.kind:
        return False
    place = [{b.label: i for i, b in enumerate(s.boxes)} for s in (first, second)]
    arrows = [[(at[a], at[b]) for a, b in s.arrows] for s, at in zip((first, second), place)]
    looks = [[(b.colour, b.rect) for b in s.boxes] for s in (first, second)]
    moved = np.abs(first.pixels.astype(np.int16) - second.pixels).max(-1) > DIFFERENT
    return arrows[0] == arrows[1] and looks[0] == looks[1] and moved.mean() < 0.1
