"""The kinds of picture: text lines, text pages, grids, hubs, layers, flows, trees and bar charts.

make_scene() draws one picture and returns a Scene: the pixels at the size the model sees, every fact a
question may ask, and the place of every letter.
"""
import io
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from page import Page, load_font, noise_tile

# Colour names with the strong and the pale tint that they are drawn in.
COLOURS = {
    "red": [(214, 48, 49), (192, 57, 43), (231, 76, 60)],
    "orange": [(243, 156, 18), (230, 126, 34), (250, 190, 120)],
    "yellow": [(247, 220, 60), (255, 235, 120), (250, 243, 170)],
    "green": [(39, 174, 96), (46, 125, 50), (190, 230, 190)],
    "blue": [(41, 98, 200), (52, 152, 219), (190, 215, 248)],
    "purple": [(125, 60, 152), (142, 80, 190), (215, 195, 238)],
    "pink": [(240, 120, 170), (250, 175, 205), (247, 200, 220)],
    "brown": [(121, 75, 45), (150, 95, 55), (101, 67, 33)],
    "gray": [(130, 135, 140), (160, 164, 168), (200, 203, 206)],
    "white": [(255, 255, 255), (253, 253, 253), (250, 250, 250)],
    "black": [(20, 20, 22), (30, 30, 30), (10, 10, 12)],
}
NAMES = list(COLOURS)
PALETTE_SIZES = (1, 2, 2, 3, 4, 5, len(NAMES), len(NAMES))  # colours of the boxes of a picture
PAGE_CHARS = 330  # a text page holds about this many letters at most


@dataclass
class Box:
    label: str
    colour: str
    rect: tuple  # x0, y0, x1, y1
    text_px: float = 0.0  # font size of the label


@dataclass
class Scene:
    kind: str
    width: int
    height: int
    title: str = ""
    title_px: float = 0.0  # font size of the title
    centre: str = ""
    boxes: list = field(default_factory=list)   # in reading order
    arrows: list = field(default_factory=list)  # (from label, to label)
    lines: list = field(default_factory=list)   # (y, x, text): every line of running text beside the boxes
    bars: list = field(default_factory=list)    # (label, value)
    pixels: np.ndarray = None                   # [height, width, 3] uint8
    letters: list = field(default_factory=list)  # (x, y, code) in final pixels
    text_px: float = 0.0                        # font size of the smallest text in final pixels
    twin: bool = False                          # the second of two pictures that differ in little (make_twins)


class Style:
    """What is the same over one picture: fonts, theme, outline, shadows."""

    def __init__(self, rng, fonts):
        self.dark = rng.random() < 0.22
        self.font = load_font(rng.choice(fonts))
        self.title_font = self.font if rng.random() < 0.6 else load_font(rng.choice(fonts))
        if self.dark:
            g = rng.randint(10, 60)
            self.bg = tuple(min(255, g + rng.randint(0, 25)) for _ in range(3))
            self.ink = tuple(rng.randint(205, 255) for _ in range(3))
        else:
            g = rng.randint(226, 255)
            self.bg = (255, 255, 255) if rng.random() < 0.35 else tuple(max(0, g - rng.randint(0, 14)) for _ in range(3))
            self.ink = tuple(rng.randint(0, 75) for _ in range(3))
        self.line = tuple(int(a + (b - a) * rng.uniform(0.45, 1)) for a, b in zip(self.bg, self.ink))
        self.line_w = rng.choice((1, 1, 2, 2, 3))
        self.shadow = rng.random() < 0.3
        self.gradient = rng.random() < 0.15
        self.round = rng.choice((0, 0, 4, 8, 12, 99))
        self.outline = rng.random() < 0.75
        self.colours = rng.sample(NAMES, rng.choice(PALETTE_SIZES))
        self.label_case = None
        self.label_align = "centre"


def luminance(c):
    return 0.3 * c[0] + 0.59 * c[1] + 0.11 * c[2]


def pick_colour(rng, style):
    name = rng.choice(style.colours)
    base = rng.choice(COLOURS[name])
    return name, tuple(max(0, min(255, v + rng.randint(-6, 6))) for v in base)


def ink_on(rng, fill):
    return tuple(rng.randint(225, 255) for _ in range(3)) if luminance(fill) < 135 \
        else tuple(rng.randint(0, 50) for _ in range(3))


def draw_box(page, rng, style, rect, colour, shape=None):
    """A filled shape; returns the ink to write on it."""
    x0, y0, x1, y1 = (int(v) for v in rect)
    name, fill = colour
    border = style.line if style.outline or name in ("white", "black", "gray") else fill
    round_px = min(style.round, (y1 - y0) // 2)
    width = style.line_w
    if shape == "ellipse":
        if style.shadow:
            page.draw.ellipse((x0 + 3, y0 + 4, x1 + 3, y1 + 4), fill=mix(style.bg, (0, 0, 0), 0.25))
        page.draw.ellipse((x0, y0, x1, y1), fill=fill, outline=border, width=width)
        return ink_on(rng, fill)
    if style.shadow:
        page.draw.rounded_rectangle((x0 + 4, y0 + 5, x1 + 4, y1 + 5), round_px, fill=mix(style.bg, (0, 0, 0), 0.12))
        page.draw.rounded_rectangle((x0 + 2, y0 + 3, x1 + 2, y1 + 3), round_px, fill=mix(style.bg, (0, 0, 0), 0.25))
    if round_px:
        page.draw.rounded_rectangle((x0, y0, x1, y1), round_px, fill=fill, outline=border, width=width)
    else:
        page.draw.rectangle((x0, y0, x1, y1), fill=fill, outline=border, width=width)
    if style.gradient and y1 - y0 > 12 and x1 - x0 > 2 * round_px + 8:
        page.gradient(mix(fill, (255, 255, 255), 0.18), mix(fill, (0, 0, 0), 0.1),
                      (x0 + round_px + width, y0 + width, x1 - round_px - width, y1 - width))
    return ink_on(rng, fill)


def mix(a, b, t):
    return tuple(int(x + (y - x) * t) for x, y in zip(a, b))


def put_label(page, rng, style, words, rect, ink, used, ellipse=False, sizes=None):
    """Find a label that fits the box and is new on this page, draw it, return it and its size (or None)."""
    x0, y0, x1, y1 = rect
    pad = 0.16 if ellipse else 0.05
    w = (x1 - x0) * (1 - 2 * pad) - 6
    h = (y1 - y0) * (0.72 if ellipse else 0.9)
    sizes = sizes or style.sizes
    for attempt in range(8):
        label = words.label(rng, style.label_case, max_words=3 if attempt < 3 else 1, short=attempt >= 2)
        if label.lower() in used:
            continue
        fit = page.text_fits(label, style.font, sizes, w, h)
        if fit:
            used.add(label.lower())
            page.text_centred((x0 + x1) / 2, (y0 + y1) / 2, fit[1], style.font, fit[0], ink)
            return label, fit[0]
    return None


def add_box(page, rng, style, words, scene, rect, used, colour=None, shape=None, sizes=None):
    """Draw one labelled box and return it; a box that no label fits spoils the plan (Retry)."""
    colour = colour or pick_colour(rng, style)
    ink = draw_box(page, rng, style, rect, colour, shape)
    done = put_label(page, rng, style, words, rect, ink, used, shape == "ellipse", sizes)
    if done is None:
        raise Retry
    box = Box(done[0], colour[0], tuple(rect), done[1])
    scene.boxes.append(box)
    return box


class Retry(Exception):
    """The random plan did not fit; draw another."""


def size_list(rng, top, low=12, scale=1.0):
    """Font sizes to try, largest first; low is the smallest in the pixels that the model sees."""
    top, low = int(top * scale), int(np.ceil(low * scale))
    first = rng.randint(low, max(low, top))
    return list(range(first, low - 1, -1)) if first > low else [low]


def put_title(page, rng, style, words, scene, share=0.92):
    """Draw the title at the top (and seldom a subtitle and a foot line); returns the space below and above."""
    top, bottom = int(page.h * 0.03) + 4, page.h - 8
    if rng.random() < share:
        for _ in range(6):
            title = words.title(rng)
            biggest = int(min(46, 14 + page.w / style.scale / 26))
            fit = page.text_fits(title, style.title_font, size_list(rng, biggest, 13, style.scale), page.w * 0.92, page.h * 0.2, 1)
            if fit:
                size = fit[0]
                base = top + size
                x = (page.w - style.title_font.width(title, size)) / 2 if rng.random() < 0.65 else page.w * 0.03 + 4
                ink = style.ink
                if rng.random() < 0.18:
                    band = pick_colour(rng, style)[1]
                    page.draw.rectangle((0, 0, page.w, base + size * 0.5), fill=band)
                    ink = ink_on(rng, band)
                page.text(x, base, title, style.title_font, size, ink)
                scene.title, scene.title_px = title, size
                scene.lines.append((base, x, title))
                top = int(base + size * 0.5)
                break
    if scene.title and rng.random() < 0.12:
        size = int(rng.randint(12, 14) * style.scale)
        text = words.sentence(rng, int(page.w * 0.8 / (size * 0.6)))
        if style.font.width(text, size) < page.w * 0.94:
            x = page.w * 0.03 + 4
            page.text(x, top + size, text, style.font, size, style.line)
            scene.lines.append((top + size, x, text))
            top += int(size * 1.5)
    if rng.random() < 0.1:
        size = int(rng.randint(12, 13) * style.scale)
        text = words.sentence(rng, 28)
        x = page.w * rng.choice((0.03, 0.5))
        if x + style.font.width(text, size) < page.w - 4:
            page.text(x, page.h - 8, text, style.font, size, style.line)
            scene.lines.append((page.h - 8, x, text))
            bottom -= int(size * 1.6)
    return top + 6, bottom


def edge_points(a, b):
    """Where the line between two boxes' middles leaves the one and meets the other."""
    def leave(r, dx, dy):
        cx, cy = (r[0] + r[2]) / 2, (r[1] + r[3]) / 2
        hw, hh = (r[2] - r[0]) / 2 + 2, (r[3] - r[1]) / 2 + 2
        t = min(hw / abs(dx) if dx else 1e9, hh / abs(dy) if dy else 1e9)
        return cx + dx * t, cy + dy * t
    dx = (b[0] + b[2] - a[0] - a[2]) / 2
    dy = (b[1] + b[3] - a[1] - a[3]) / 2
    return leave(a, dx, dy), leave(b, -dx, -dy)


def link(page, rng, style, scene, a, b, head=True):
    p, q = edge_points(a.rect, b.rect)
    if abs(p[0] - q[0]) + abs(p[1] - q[1]) < 14:
        return
    page.arrow(p, q, style.line, style.line_w, head, style.dash)
    if head:
        scene.arrows.append((a.label, b.label))


def layout_line(page, rng, style, words, scene):
    """One to three lines of large text on an empty page: where reading starts."""
    n = rng.randint(1, max(1, min(3, page.h // 50)))
    top = rng.randint(4, 10)
    band = (page.h - top - 4) / n
    for i in range(n):
        size = rng.randint(12, max(13, min(44, int(band * 0.72))))
        width = page.w * rng.uniform(0.5, 0.94)
        text = words.sentence(rng, max(4, int(width / (size * 0.52))))
        while style.font.width(text, size) > page.w - 12 and " " in text:
            text = text.rsplit(" ", 1)[0]
        if style.font.width(text, size) > page.w - 8:
            raise Retry
        x = rng.uniform(4, page.w - style.font.width(text, size) - 4)
        base = top + i * band + rng.uniform(0.0, max(0.01, band - size * 1.3)) + size
        page.text(x, base, text, style.font, size, style.ink)
        scene.lines.append((base, x, text))


def layout_page(page, rng, style, words, scene):
    """A title and paragraphs of running text."""
    top, bottom = put_title(page, rng, style, words, scene, 0.7)
    size = rng.randint(12, 13 + page.w // 90)
    step = size * rng.uniform(1.25, 1.9)
    left = page.w * rng.uniform(0.03, 0.08)
    width = page.w * rng.uniform(0.6, 0.94) - left
    y = top + size * 1.2
    limit, n_chars = rng.randint(2, 16), 0
    while y < bottom and limit and n_chars < PAGE_CHARS - width / size * 2:
        text = words.sentence(rng, int(width / (size * 0.5) * rng.choice((1, 1, 1, 0.6))))
        while style.font.width(text, size) > width and " " in text:
            text = text.rsplit(" ", 1)[0]
        if style.font.width(text, size) <= width:
            page.text(left, y, text, style.font, size, style.ink)
            scene.lines.append((y, left, text))
            n_chars += len(text) + 1
        y += step * (1.6 if rng.random() < 0.15 else 1)
        limit -= 1


def layout_grid(page, rng, style, words, scene):
    """Boxes in rows and columns, some places empty, some neighbours joined by arrows."""
    top, bottom = put_title(page, rng, style, words, scene)
    most_cols, most_rows = max(1, min(5, page.w // 120)), max(1, min(5, (bottom - top) // 62))
    cols, rows = rng.randint(1, most_cols), rng.randint(1, most_rows)
    if cols * rows < 2:
        cols = 2
    cw, ch = (page.w - 16) / cols, (bottom - top) / rows
    gap_x, gap_y = rng.uniform(0.1, 0.32), rng.uniform(0.14, 0.4)
    used, cells = set(), {}
    shape = "ellipse" if rng.random() < 0.08 else None
    for r in range(rows):
        for c in range(cols):
            if cols * rows > 3 and rng.random() < 0.1:
                continue
            w, h = cw * (1 - gap_x), min(ch * (1 - gap_y), cw * 0.9)
            x0, y0 = 8 + c * cw + (cw - w) / 2, top + r * ch + (ch - h) / 2
            cells[r, c] = add_box(page, rng, style, words, scene, (x0, y0, x0 + w, y0 + h), used, shape=shape)
    if rng.random() < 0.5:
        for (r, c), box in cells.items():
            for other in ((r, c + 1), (r + 1, c)):
                if other in cells and rng.random() < 0.35:
                    a, b = (box, cells[other]) if rng.random() < 0.7 else (cells[other], box)
                    link(page, rng, style, scene, a, b)


def layout_hub(page, rng, style, words, scene):
    """A centre box and others around it: in rows above, beside and below, or on an ellipse."""
    top, bottom = put_title(page, rng, style, words, scene)
    h, w = bottom - top, page.w
    cx, cy = w / 2 + rng.uniform(-0.02, 0.02) * w, top + h / 2
    bw, bh = w * rng.uniform(0.16, 0.26), h * rng.uniform(0.14, 0.24)
    places = []
    if rng.random() < 0.7:
        n_top, n_bottom = rng.randint(1, 5 if w > 700 else 3), rng.randint(1, 5 if w > 700 else 3)
        for n, y in ((n_top, top + h * 0.13), (n_bottom, bottom - h * 0.13)):
            step = (w - 16) / n
            bw_n = min(bw, step * 0.86)
            places += [(8 + step * (i + 0.5), y, bw_n, min(bh, h * 0.22)) for i in range(n)]
        side = rng.randint(0, 2) if h > 300 else rng.randint(0, 1)
        for sx in (w * 0.14, w * 0.86):
            if side == 1:
                places.append((sx, cy, bw * 0.95, min(bh, h * 0.22)))
            elif side == 2:
                places += [(sx, cy - h * 0.14, bw * 0.95, h * 0.16), (sx, cy + h * 0.14, bw * 0.95, h * 0.16)]
    else:
        n = rng.choice((3, 4, 4, 5, 6, 6, 8)) if h > 260 else rng.choice((2, 3, 4))
        turn = rng.choice((0, 0.5)) + (0.25 if rng.random() < 0.2 else 0)
        for i in range(n):
            a = 2 * np.pi * (i + turn) / n - np.pi / 2
            places.append((cx + np.cos(a) * w * 0.36, cy + np.sin(a) * h * 0.38, min(bw, w * 0.2), min(bh, h * 0.17)))
    centre_shape = rng.choice((None, None, "ellipse"))
    shape = "ellipse" if rng.random() < 0.1 else None
    k = rng.uniform(1.0, 1.4)
    centre_rect = (cx - bw * k / 2, cy - h * 0.1 * k, cx + bw * k / 2, cy + h * 0.1 * k)
    rects = [(x - pw / 2, y - ph / 2, x + pw / 2, y + ph / 2) for x, y, pw, ph in places]
    if any(overlap(r, s) for i, r in enumerate(rects + [centre_rect]) for s in rects[:i]):
        raise Retry
    if min(r[0] for r in rects) < 2 or max(r[2] for r in rects) > w - 2:
        raise Retry
    used = set()
    centre = add_box(page, rng, style, words, scene, centre_rect, used, shape=centre_shape)
    around = [add_box(page, rng, style, words, scene, r, used, shape=shape) for r in rects]
    scene.centre = centre.label
    joint = rng.choice(("none", "line", "out", "in", "mixed"))
    for box in around:
        way = rng.choice(("line", "out", "in")) if joint == "mixed" else joint
        if way == "in":
            link(page, rng, style, scene, box, centre)
        elif way != "none":
            link(page, rng, style, scene, centre, box, way == "out")


def layout_layers(page, rng, style, words, scene):
    """Full-width bands one over the other; some hold two or three boxes, some a heading beside the boxes."""
    top, bottom = put_title(page, rng, style, words, scene)
    n = rng.randint(2, max(2, min(6, (bottom - top) // 56)))
    ch = (bottom - top) / n
    used = set()
    left = page.w * rng.uniform(0.02, 0.12)
    heading = rng.random() < 0.35 and page.w > 420
    for i in range(n):
        y0, y1 = top + i * ch + ch * 0.1, top + (i + 1) * ch - ch * 0.1
        x0, x1 = left, page.w - left
        if heading:
            text = words.label(rng, style.label_case, 1, True)
            size = style.sizes[-1]
            x = x0
            if style.font.width(text, size) < page.w * 0.2 and text.lower() not in used:
                used.add(text.lower())
                base = (y0 + y1) / 2 + size * 0.35
                page.text(x, base, text, style.font, size, style.ink)
                scene.lines.append((base, x, text))
            x0 += page.w * 0.22
        parts = rng.choice((1, 1, 2, 3, 4)) if page.w > 500 else rng.choice((1, 1, 2))
        w = (x1 - x0) / parts
        for p in range(parts):
            g = 0.04 * w if parts > 1 else 0
            add_box(page, rng, style, words, scene, (x0 + p * w + g, y0, x0 + (p + 1) * w - g, y1), used)


def layout_flow(page, rng, style, words, scene):
    """A chain of steps, across, down, or in two rows."""
    top, bottom = put_title(page, rng, style, words, scene)
    used, boxes = set(), []
    h, w = bottom - top, page.w
    if w > h * 1.2 and rng.random() < 0.8:
        rows = 2 if h > 200 and rng.random() < 0.45 else 1
        cols = rng.randint(2, max(2, min(5, w // 130)))
        cw, ch = (w - 12) / cols, h / rows
        bw, bh = cw * rng.uniform(0.64, 0.78), min(ch * rng.uniform(0.4, 0.7), 150)
        for r in range(rows):
            places = range(cols) if r == 0 else (range(cols) if rng.random() < 0.5 else range(cols - 1, -1, -1))
            for c in places:
                x0, y0 = 6 + c * cw + (cw - bw) / 2, top + r * ch + (ch - bh) / 2
                boxes.append(add_box(page, rng, style, words, scene, (x0, y0, x0 + bw, y0 + bh), used))
        for i in range(len(boxes) - 1):
            if (i + 1) % cols or abs(boxes[i].rect[0] - boxes[i + 1].rect[0]) < 4:
                link(page, rng, style, scene, boxes[i], boxes[i + 1])
    else:
        n = rng.randint(2, max(2, min(6, int(h // 66))))
        ch = h / n
        bw, bh = w * rng.uniform(0.3, 0.7), ch * rng.uniform(0.5, 0.66)
        for i in range(n):
            x0, y0 = (w - bw) / 2, top + i * ch + (ch - bh) / 2
            boxes.append(add_box(page, rng, style, words, scene, (x0, y0, x0 + bw, y0 + bh), used))
        for a, b in zip(boxes, boxes[1:]):
            link(page, rng, style, scene, a, b)


def layout_tree(page, rng, style, words, scene):
    """An organisation chart of two or three levels."""
    top, bottom = put_title(page, rng, style, words, scene)
    h, w = bottom - top, page.w
    widest = max(2, min(6, w // 125))
    levels = [1, rng.randint(2, max(2, min(4, widest)))]
    if h > 230 and rng.random() < 0.6:
        levels.append(rng.randint(levels[1], widest) if widest >= levels[1] else levels[1])
    ch = h / len(levels)
    used, rows = set(), []
    for i, n in enumerate(levels):
        cw = (w - 12) / n
        bw, bh = min(cw * 0.82, w * 0.34), min(ch * 0.56, 110)
        y0 = top + i * ch + (ch - bh) / 2
        row = []
        for c in range(n):
            x0 = 6 + c * cw + (cw - bw) / 2
            row.append(add_box(page, rng, style, words, scene, (x0, y0, x0 + bw, y0 + bh), used))
        rows.append(row)
    head = rng.random() < 0.6
    for parents, children in zip(rows, rows[1:]):
        for c, child in enumerate(children):
            link(page, rng, style, scene, parents[c * len(parents) // len(children)], child, head)


def layout_bars(page, rng, style, words, scene):
    """A bar chart: a label under each bar and its value over it."""
    top, bottom = put_title(page, rng, style, words, scene)
    n = rng.randint(2, max(2, min(7, page.w // 100)))
    size = min(16, style.sizes[0])
    cw = (page.w - 30) / n
    floor = bottom - size * 2
    used = set()
    colour = pick_colour(rng, style)
    page.draw.line((12, floor, page.w - 12, floor), fill=style.line, width=style.line_w)
    for i in range(n):
        for _ in range(8):
            label = words.label(rng, style.label_case, 1, True)
            if style.font.width(label, size) < cw * 0.94 and label.lower() not in used:
                break
        else:
            raise Retry
        used.add(label.lower())
        value = rng.randint(5, 100)
        x0 = 15 + i * cw + cw * 0.2
        y0 = floor - (floor - top - size * 2) * value / 100
        if rng.random() < 0.3:
            colour = pick_colour(rng, style)
        page.draw.rectangle((x0, y0, x0 + cw * 0.6, floor - 1), fill=colour[1])
        page.text_centred(x0 + cw * 0.3, y0 - size * 0.8, [str(value)], style.font, size, style.ink)
        page.text_centred(x0 + cw * 0.3, floor + size * 0.9, [label], style.font, size, style.ink)
        scene.bars.append((label, value))


LAYOUTS = {"line": layout_line, "page": layout_page, "grid": layout_grid, "hub": layout_hub,
           "layers": layout_layers, "flow": layout_flow, "tree": layout_tree, "bars": layout_bars}


def overlap(a, b, gap=6):
    return a[0] < b[2] + gap and b[0] < a[2] + gap and a[1] < b[3] + gap and b[1] < a[3] + gap


def reading_order(boxes):
    """Rows from the top, each from the left. A row is what starts within half a box of its first box's middle."""
    boxes = sorted(boxes, key=lambda b: b.rect[1] + b.rect[3])
    rows = []
    for box in boxes:
        mid = (box.rect[1] + box.rect[3]) / 2
        if rows:
            first = rows[-1][0]
            f_mid = (first.rect[1] + first.rect[3]) / 2
            d, half = mid - f_mid, (first.rect[3] - first.rect[1]) / 2
            if 0.25 * half < d < 0.75 * half:
                raise Retry  # too near the rule's edge to be a fair question
            if d <= 0.5 * half:
                rows[-1].append(box)
                continue
        rows.append([box])
    return [b for row in rows for b in sorted(row, key=lambda b: b.rect[0])]


def draw_once(rng, kind, w, h, words, fonts, scale):
    style = Style(rng, fonts)
    style.scale = scale
    style.dash = rng.random() < 0.12
    if rng.random() < 0.6:
        style.label_case = words.style(rng)
    style.sizes = size_list(rng, rng.choice((14, 18, 22, 28, 34)) + (w > 800) * 4 if w > 300 else 18,
                            scale=scale)
    page = Page(w, h, style.bg)
    if rng.random() < 0.12:
        other = tuple(max(0, min(255, v + rng.randint(-22, 22))) for v in style.bg)
        page.gradient(style.bg, other)
    scene = Scene(kind, w, h)
    LAYOUTS[kind](page, rng, style, words, scene)
    scene.boxes = reading_order(scene.boxes)
    scene.letters, scene.text_px = page.letters, page.smallest
    return page.img, scene


def finish(rng, img, scene, width, height):
    """Tilt, noise, JPEG, then the bicubic resize that the product's picture rule asks for."""
    sx, sy = width / img.width, height / img.height
    xy = np.array([(x, y) for x, y, _ in scene.letters], np.float32).reshape(-1, 2)
    if rng.random() < 0.06:
        angle = rng.uniform(-3, 3)
        img = img.rotate(angle, Image.BICUBIC, fillcolor=img.getpixel((1, 1)))
        a = np.deg2rad(-angle)
        c = np.array([img.width / 2, img.height / 2], np.float32)
        xy = (xy - c) @ np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]], np.float32) + c
        scene.kind += "+tilt"
    if rng.random() < 0.2:
        strength = rng.uniform(1, 9)
        y, x = rng.randint(0, max(0, 1024 - img.height)), rng.randint(0, max(0, 1600 - img.width))
        tile = noise_tile(rng.randint(0, 1))[y:y + img.height, x:x + img.width]
        if tile.shape[:2] == (img.height, img.width):
            img = Image.fromarray(np.clip(np.asarray(img, np.float32) + tile * strength, 0, 255).astype(np.uint8))
    if rng.random() < 0.2:
        data = io.BytesIO()
        img.save(data, "JPEG", quality=rng.randint(50, 95))
        img = Image.open(data).convert("RGB")
    if img.size != (width, height):
        img = img.resize((width, height), Image.BICUBIC)
    scene.pixels = np.asarray(img)
    scene.letters = [(x * sx, y * sy, c) for (x, y), (_, _, c) in zip(xy.tolist(), scene.letters)]
    scene.text_px *= sy
    for b in scene.boxes:
        b.rect = (b.rect[0] * sx, b.rect[1] * sy, b.rect[2] * sx, b.rect[3] * sy)
        b.text_px *= sy
    scene.title_px *= sy
    scene.width, scene.height = width, height


def make_scene(rng, kind, width, height, words, fonts):
    """Draw one picture that the model will see at width x height (multiples of 28)."""
    while True:
        scale = 1.0
        r = rng.random()
        if r < 0.10 and width * height < 600 * 500 and kind not in ("line", "page", "bars"):
            scale = rng.uniform(1.3, 2.0)  # drawn larger: the resize then softens every edge
        w0, h0 = int(width * scale), int(height * scale)
        if r > 0.4:
            w0, h0 = w0 + rng.randint(-13, 13), h0 + rng.randint(-13, 13)
        try:
            img, scene = draw_once(rng, kind, w0, h0, words, fonts, scale)
        except Retry:
            continue
        finish(rng, img, scene, width, height)
        return scene
