"""What the tokens of a picture should know of the box they lie in: training aids, like the letters of data.py.

A token is 28 x 28 pixels. Tokens outside boxes are asked for the colour "none" alone; a tilted picture is not asked.

  colour [n]      0 no box, 1 + index in NAMES; SKIP: not asked
  near   [n, 13]  from the token's middle to its box's left, top, right and bottom edge in steps of 7 pixels, then the way to
                  the box that its arrow leads to, and to the box whose arrow leads here, each in tokens across and down with
                  32 as zero; then how many boxes have its box's colour, and how many arrows there are, plus 1; then its box's
                  number in reading order from 1 on, and the way to the next one; 0: not asked (no box; no arrow or several;
                  the last box)
  place  [n, 12]  the box's edges as the answers of `find` say them, in digits: hundreds, tens and fives, each plus 1;
                  0: not asked

  changed [n]     of the second of two twins: 1 where it shows something else than the first, else 0; SKIP: not asked
"""
from collections import Counter

import numpy as np

from layouts import NAMES

TOKEN = 28
SKIP = 255
N_COLOURS, N_NEAR, N_PLACE, N_PICTURES = 1 + len(NAMES), 64, 16, 5  # classes of one figure
NEAR = 13  # figures
DIFFERENT = 40  # of 255
FIVE = 5  # answers give edges in multiples of it


def in_fives(rect):
    """A box's edges as answers say them."""
    return [FIVE * int(v / FIVE + 0.5) for v in rect]


def digits(edge):
    return edge // 100 + 1, edge // 10 % 10 + 1, edge % 10 // FIVE + 1


def one_way(arrows):
    """label -> the one label that its arrow joins it with; labels with several are left out."""
    out = {}
    for a, b in arrows:
        out[a] = None if a in out else b
    return {a: b for a, b in out.items() if b is not None}


def changed_tokens(scenes):
    """uint8 [pictures, n] for the pictures of one row. Twins are equal pixel for pixel where nothing was changed, but
    for what JPEG does around it; DIFFERENT is beyond that."""
    out = np.full((len(scenes), scenes[0].height // TOKEN * (scenes[0].width // TOKEN)), SKIP, np.uint8)
    if scenes[-1].twin:
        a, b = (s.pixels.astype(np.int16) for s in scenes)
        gh, gw = scenes[0].height // TOKEN, scenes[0].width // TOKEN
        out[1] = np.abs(a - b).reshape(gh, TOKEN, gw, TOKEN * 3).max((1, 3)).ravel() > DIFFERENT
    return out


def middle(rect):
    return (rect[0] + rect[2]) / 2, (rect[1] + rect[3]) / 2


def way(a, b):
    """From one box's middle to another's, in tokens."""
    return [int(np.clip(round((q - p) / TOKEN) + 32, 1, 63)) for p, q in zip(middle(a.rect), middle(b.rect))]


def token_facts(scene):
    gh, gw = scene.height // TOKEN, scene.width // TOKEN
    colour = np.zeros((gh, gw), np.uint8)
    near, place = np.zeros((gh, gw, NEAR), np.uint8), np.zeros((gh, gw, 12), np.uint8)
    if "tilt" in scene.kind or not scene.boxes:
        colour[:] = SKIP if scene.boxes else 0
        return colour.ravel(), near.reshape(-1, NEAR), place.reshape(-1, 12)
    box_of = {b.label: b for b in scene.boxes}
    ways = [one_way(scene.arrows), one_way([(b, a) for a, b in scene.arrows])]
    alike = Counter(b.colour for b in scene.boxes)
    ys, xs = np.mgrid[0:gh, 0:gw] * TOKEN + TOKEN / 2
    for i, (box, following) in enumerate(zip(scene.boxes, scene.boxes[1:] + [None])):
        x0, y0, x1, y1 = box.rect
        inside = (xs >= x0) & (xs < x1) & (ys >= y0) & (ys < y1)
        cx, cy = middle(box.rect)
        inside[min(gh - 1, int(cy) // TOKEN), min(gw - 1, int(cx) // TOKEN)] = True
        colour[inside] = 1 + NAMES.index(box.colour)
        edges = np.stack((xs - x0, ys - y0, x1 - xs, y1 - ys), -1)[inside]
        near[inside, :4] = np.clip(edges / 7 + 1, 1, N_NEAR - 1)
        for first, to in zip((4, 6), ways):
            if box.label in to:
                near[inside, first:first + 2] = way(box, box_of[to[box.label]])
        near[inside, 8] = min(alike[box.colour], N_NEAR - 1)
        near[inside, 9] = min(len(scene.arrows) + 1, N_NEAR - 1)
        near[inside, 10] = min(i + 1, N_NEAR - 1)
        if following:
            near[inside, 11:] = way(box, following)
        place[inside] = sum((digits(v) for v in in_fives(box.rect)), ())
    return colour.ravel(), near.reshape(-1, NEAR), place.reshape(-1, 12)
