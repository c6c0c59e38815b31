"""A page to draw on: fonts with measured letters, and text whose every letter's place is known.

The places of the letters train the vision tower directly (see train.py); the pictures themselves are
plain Pillow drawings.
"""
import functools
import os

import numpy as np
from PIL import Image, ImageDraw, ImageFont

HERE = os.path.dirname(os.path.abspath(__file__))
ASCII = "".join(chr(c) for c in range(32, 127))
BASIC = ImageFont.Layout.BASIC


SYSTEM_FONTS = "/usr/share/fonts"


@functools.lru_cache(maxsize=1)
def font_index():
    """File name -> path: the folder TINY_FONTS (default .fonts) first, then the installed fonts."""
    index = {}
    for top in (SYSTEM_FONTS, os.environ.get("TINY_FONTS", ".fonts")):
        for folder, _, names in sorted(os.walk(top)):
            index.update({n.replace(" ", ""): os.path.join(folder, n) for n in names})
    return index


def font_names(test):
    """The font files of one half, as fonts.txt lists them."""
    names = []
    with open(os.path.join(HERE, "fonts.txt"), encoding="ascii") as f:
        for line in f:
            if line.strip() and not line.startswith("#"):
                half, _, name = line.split()
                if (half == "test") == test and name in font_index():
                    names.append(name)
    return names


class Font:
    """One font file; widths are measured once at 100 px and scale with the size."""

    def __init__(self, name):
        self.path = font_index()[name]
        self.faces = {}
        face = ImageFont.truetype(self.path, 100, layout_engine=BASIC)
        self.adv = {c: face.getlength(c) / 100 for c in ASCII}
        self.xheight = -face.getbbox("x", anchor="ls")[1] / 100
        self.cap = -face.getbbox("H", anchor="ls")[1] / 100

    def face(self, size):
        if size not in self.faces:
            self.faces[size] = ImageFont.truetype(self.path, size, layout_engine=BASIC)
        return self.faces[size]

    def width(self, text, size):
        return sum(self.adv.get(c, 0.6) for c in text) * size


@functools.lru_cache(maxsize=None)
def load_font(name):
    return Font(name)


class Page:
    """One picture being drawn. `letters` holds (x, y, code) at the middle of each drawn letter."""

    def __init__(self, width, height, background):
        self.w, self.h = width, height
        self.img = Image.new("RGB", (width, height), background)
        self.draw = ImageDraw.Draw(self.img)
        self.letters = []
        self.smallest = 999

    def gradient(self, top, bottom, box=None):
        """Fill a rectangle with a vertical gradient."""
        x0, y0, x1, y1 = box or (0, 0, self.w, self.h)
        if x1 <= x0 or y1 <= y0:
            return
        t = np.linspace(0, 1, y1 - y0, dtype=np.float32)[:, None, None]
        a, b = np.array(top, np.float32), np.array(bottom, np.float32)
        rows = (a + (b - a) * t).astype(np.uint8)
        self.img.paste(Image.fromarray(np.ascontiguousarray(np.broadcast_to(rows, (y1 - y0, x1 - x0, 3)))), (x0, y0))

    def text(self, x, baseline, text, font, size, fill):
        """Draw one line with its left end at x; remember where each letter is."""
        self.draw.text((x, baseline), text, font=font.face(size), fill=fill, anchor="ls")
        self.smallest = min(self.smallest, size)
        mid = baseline - 0.5 * font.xheight * size
        for c in text:
            w = font.adv.get(c, 0.6) * size
            if c != " ":
                self.letters.append((x + w / 2, mid, ord(c)))
            x += w

    def text_centred(self, cx, cy, lines, font, size, fill, spacing=1.22):
        """Draw lines centred on (cx, cy)."""
        step = size * spacing
        base = cy - step * (len(lines) - 1) / 2 + font.cap * size / 2
        for i, line in enumerate(lines):
            self.text(cx - font.width(line, size) / 2, base + i * step, line, font, size, fill)

    def text_fits(self, text, font, sizes, box_w, box_h, max_lines=3):
        """The largest size of `sizes` (descending) at which text fits, as (size, lines), or None."""
        words = text.split(" ")
        for size in sizes:
            lines = wrap(words, font, size, box_w)
            if lines and len(lines) <= max_lines and len(lines) * size * 1.22 <= box_h:
                return size, lines
        return None

    def arrow(self, a, b, fill, width, head=True, dash=False):
        (x0, y0), (x1, y1) = a, b
        length = max(1.0, ((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5)
        ux, uy = (x1 - x0) / length, (y1 - y0) / length
        size = (5 + 2.4 * width) if head else 0
        ex, ey = x1 - ux * size * 0.8, y1 - uy * size * 0.8
        if dash:
            n = max(2, int(length / 9))
            for i in range(0, n, 2):
                p, q = i / n, (i + 1) / n
                self.draw.line((x0 + (ex - x0) * p, y0 + (ey - y0) * p, x0 + (ex - x0) * q, y0 + (ey - y0) * q),
                               fill=fill, width=width)
        else:
            self.draw.line((x0, y0, ex, ey), fill=fill, width=width)
        if head:
            px, py = -uy * size * 0.5, ux * size * 0.5
            bx, by = x1 - ux * size, y1 - uy * size
            self.draw.polygon([(x1, y1), (bx + px, by + py), (bx - px, by - py)], fill=fill)


def wrap(words, font, size, width):
    """Greedy line breaks; None if one word is too wide."""
    lines, line, used = [], "", 0.0
    space = font.adv[" "] * size
    for word in words:
        w = font.width(word, size)
        if w > width:
            return None
        if line and used + space + w > width:
            lines.append(line)
            line, used = word, w
        else:
            used = used + space + w if line else w
            line = line + " " + word if line else word
    lines.append(line)
    return lines


NOISE = {}


def noise_tile(seed):
    """A 1024 x 1600 field of normal noise, made once per process."""
    if seed not in NOISE:
        NOISE[seed] = np.random.default_rng(seed).normal(0, 1, (1024, 1600, 1)).astype(np.float32)
    return NOISE[seed]
