#!/usr/bin/env python3
"""Draw examples/architecture.png: a 1355 x 710 hub-and-spoke diagram of an enterprise architecture.

  python3 tools/draw_architecture.py [OUT.png]

Needs Pillow, numpy and Debian's fonts-lato (or a folder that holds Lato-Regular.ttf and Lato-Bold.ttf, in
TINY_FONTS). The picture is drawn at three times its size and reduced, so that every edge is soft; a little
noise lies over it. None of its words occurs in the training pictures of tools/tiny.
"""
import os
import sys

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

W, H, S = 1355, 710, 3
TITLE = "Enterprise Reference Architecture"
CENTRE = "Digital Hub"
# label lines, middle x, middle y, colour
AROUND = [
    (["Digital", "Experiences"], 200, 165, (190, 215, 248)),
    (["Composite", "Solutions"], 517, 165, (190, 230, 190)),
    (["Functional", "Systems"], 838, 165, (250, 243, 170)),
    (["Partner", "Channels"], 1155, 165, (215, 195, 238)),
    (["Customer", "Insights"], 190, 375, (247, 200, 220)),
    (["Integration", "Services"], 1165, 375, (250, 190, 120)),
    (["Business Capability", "Architecture"], 200, 590, (190, 230, 190)),
    (["Information", "Security"], 517, 590, (247, 200, 220)),
    (["Technology", "Platform"], 838, 590, (190, 215, 248)),
    (["Corporate", "Support"], 1155, 590, (250, 243, 170)),
]
BOX = (232, 92)
CENTRE_BOX = (300, 120)
INK, LINE = (32, 40, 54), (96, 108, 128)


def font(name, size):
    for folder in (os.environ.get("TINY_FONTS", ".fonts"), "/usr/share/fonts/truetype/lato"):
        path = os.path.join(folder, name)
        if os.path.exists(path):
            return ImageFont.truetype(path, size * S, layout_engine=ImageFont.Layout.BASIC)
    raise SystemExit("no %s: install fonts-lato" % name)


def vertical_gradient(size, top, bottom):
    t = np.linspace(0, 1, size[1])[:, None, None]
    rows = np.array(top) + (np.array(bottom) - np.array(top)) * t
    return Image.fromarray(np.broadcast_to(rows, (size[1], size[0], 3)).astype(np.uint8).copy())


def rect(cx, cy, size):
    w, h = size
    return [int(v * S) for v in (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2)]


def panel(img, box, colour, radius):
    """A rounded box with a soft shadow and a soft gradient."""
    shadow = Image.new("L", img.size, 0)
    ImageDraw.Draw(shadow).rounded_rectangle([box[0] + 4 * S, box[1] + 6 * S, box[2] + 4 * S, box[3] + 6 * S], radius * S, fill=90)
    img.paste((60, 70, 90), (0, 0), shadow.filter(ImageFilter.GaussianBlur(5 * S)))
    mask = Image.new("L", img.size, 0)
    ImageDraw.Draw(mask).rounded_rectangle(box, radius * S, fill=255)
    fill = Image.new("RGB", img.size)
    light = tuple(min(255, int(c + (255 - c) * 0.3)) for c in colour)
    fill.paste(vertical_gradient((box[2] - box[0] + 1, box[3] - box[1] + 1), light, colour), box[:2])
    img.paste(fill, (0, 0), mask)
    ImageDraw.Draw(img).rounded_rectangle(box, radius * S, outline=LINE, width=2 * S)


def label(draw, lines, cx, cy, face, size, ink):
    for i, line in enumerate(lines):
        y = cy + (i - (len(lines) - 1) / 2) * size * 1.22
        draw.text((cx * S, y * S), line, font=face, fill=ink, anchor="mm")


def main():
    out = sys.argv[1] if len(sys.argv) > 1 else "examples/architecture.png"
    img = vertical_gradient((W * S, H * S), (250, 251, 253), (228, 234, 243))
    draw = ImageDraw.Draw(img)
    draw.text((W * S // 2, 50 * S), TITLE, font=font("Lato-Bold.ttf", 38), fill=INK, anchor="mm")
    hub = (W / 2, 375)
    for _, cx, cy, _ in AROUND:
        draw.line((hub[0] * S, hub[1] * S, cx * S, cy * S), fill=LINE, width=2 * S)
    for lines, cx, cy, colour in AROUND:
        panel(img, rect(cx, cy, BOX), colour, 12)
        label(ImageDraw.Draw(img), lines, cx, cy, font("Lato-Regular.ttf", 23), 23, INK)
    panel(img, rect(*hub, CENTRE_BOX), (41, 98, 200), 20)
    label(ImageDraw.Draw(img), [CENTRE], *hub, font("Lato-Bold.ttf", 34), 34, (255, 255, 255))
    img = img.resize((W, H), Image.LANCZOS)
    noise = np.random.default_rng(7).normal(0, 0.26, (H, W, 1))
    img = Image.fromarray(np.clip(np.asarray(img) + noise, 0, 255).round().astype(np.uint8))
    img.save(out, optimize=True)


if __name__ == "__main__":
    main()
