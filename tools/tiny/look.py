"""Write sample pictures with their questions, to look at: look.py OUT_DIR [N]."""
import random
import sys
import time

from PIL import Image

from ask import questions
from layouts import LAYOUTS, make_scene
from page import font_names
from words import Words, default_word_list

if __name__ == "__main__":
    out, n = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 16
    words, fonts = Words(default_word_list(), False), font_names(False)
    sizes = [(448, 336), (616, 364), (672, 448), (896, 672), (1344, 700), (336, 336)]
    for i in range(n):
        rng = random.Random(i)
        kind = list(LAYOUTS)[i % len(LAYOUTS)]
        w, h = (448, 84) if kind == "line" else sizes[i // len(LAYOUTS) % len(sizes)]
        t = time.time()
        scene = make_scene(rng, kind, w, h, words, fonts)
        dt = time.time() - t
        img = Image.fromarray(scene.pixels)
        img.save("%s/%02d_%s.png" % (out, i, kind))
        print("---", i, scene.kind, w, h, "%.1f ms" % (dt * 1e3), "letters", len(scene.letters))
        for q in questions(rng, scene, words):
            print("   ", q)
