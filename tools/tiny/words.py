"""Words and labels for the drawn pictures, split into a training and a test half that share no word.

A word is put into one half by a hash of its lower-case letters, so both halves can be made without a
list of either. The words of examples/architecture.png are always in the test half.
"""
import os
import random
import zlib

TEST_SHARE = 10  # one word in ten is kept for evaluation

# Words that the demo picture shows: never drawn in training.
DEMO_WORDS = frozenset("""enterprise reference architecture digital hub experiences composite solutions
functional systems business capability corporate support information services technology platform
partner channels data insights security governance integration operations customer""".split())

ONSETS = ["b", "br", "c", "ch", "cl", "cr", "d", "dr", "f", "fl", "fr", "g", "gl", "gr", "h", "j", "k", "l", "m",
          "n", "p", "pl", "pr", "qu", "r", "s", "sc", "sh", "sk", "sl", "sm", "sn", "sp", "st", "str", "t", "th",
          "tr", "v", "w", "wh", "x", "y", "z", ""]
VOWELS = ["a", "e", "i", "o", "u", "ai", "ea", "ee", "io", "oo", "ou", "ie", "y"]
CODAS = ["", "", "", "b", "ck", "d", "f", "g", "l", "ll", "m", "n", "nd", "ng", "nt", "p", "r", "rd", "rk", "rm", "s",
         "ss", "st", "t", "x", "z", "w", "ct", "mp"]
SAFE_UPPER = "ABCDEFGHJKLMNPQRSTUVWXYZ"  # a code never holds I or O, which no reader can tell from 1 and 0
LOOK_ALIKE = ["ijlt", "fit", "ltf", "ceo", "aeos", "unh", "vwy", "hbn", "gqy", "mn", "sz"]  # small letters that are easily misread
SMALL = ["and", "of", "for", "to", "in", "with", "by", "on", "the", "or", "at", "from"]


def is_test_word(word):
    word = word.lower()
    return word in DEMO_WORDS or zlib.crc32(b"ocellus:" + word.encode()) % TEST_SHARE == 0


class Words:
    """Draws words, labels, titles and sentences of one half. `rng` is a random.Random."""

    def __init__(self, path, test):
        self.test = test
        with open(path, encoding="ascii", errors="ignore") as f:
            words = sorted({w.strip().lower() for w in f if w.strip().isalpha()})
        self.english = [w for w in words if 2 <= len(w) <= 12 and is_test_word(w) == test]
        self.short = [w for w in self.english if len(w) <= 7]

    def pseudo(self, rng):
        while True:
            word = "".join(rng.choice(ONSETS) + rng.choice(VOWELS) + rng.choice(CODAS)
                           for _ in range(rng.choice((1, 1, 2, 2, 2, 3))))
            if 2 <= len(word) <= 12 and is_test_word(word) == self.test:
                return word

    def code(self, rng):
        while True:
            form = rng.randrange(7)
            letters = "".join(rng.choice(SAFE_UPPER) for _ in range(rng.randint(1, 4)))
            digits = str(rng.randint(0, 9999))
            word = (letters + "-" + digits, letters + digits, letters, digits,
                    "v" + str(rng.randint(1, 20)) + "." + str(rng.randint(0, 9)),
                    str(rng.randint(0, 100)) + "%", letters + "/" + rng.choice(SAFE_UPPER) + digits)[form]
            if is_test_word(word) == self.test:
                return word

    def look_alike(self, rng, word):
        """The word with one letter in place of another that looks like it, so that reading cannot lean on knowing words."""
        i = rng.randrange(len(word))
        others = [c for group in LOOK_ALIKE if word[i] in group for c in group if c != word[i]]
        new = word[:i] + rng.choice(others) + word[i + 1:] if others else word
        return new if is_test_word(new) == self.test else word

    def word(self, rng, short=False):
        if not self.test and rng.random() < 0.15:
            return self.look_alike(rng, rng.choice(self.short if short else self.english) if rng.random() < 0.5 else self.pseudo(rng))
        r = rng.random()
        if r < 0.68:
            return rng.choice(self.short if short else self.english)
        return self.pseudo(rng)

    def label(self, rng, style=None, max_words=3, short=False):
        """One label: one to three words in one letter case."""
        style = style or self.style(rng)
        n = rng.choice((1, 1, 2, 2, 2, 3)) if max_words >= 3 else rng.randint(1, max_words)
        words = [self.word(rng, short or n > 1 and rng.random() < 0.6) for _ in range(n)]
        words = [cased(w, style, i) for i, w in enumerate(words)]
        r = rng.random()
        if r < 0.08:
            words[rng.randrange(len(words))] = self.code(rng)
        elif r < 0.14 and n == 2:
            words.insert(1, rng.choice(("&", "/", "-", "+", "and", "of", "for")))
        elif r < 0.16:
            words[-1] = "(" + words[-1] + ")"
        elif r < 0.19 and n > 1:
            words = [words[0] + "-" + words[1]] + words[2:]
        return " ".join(words)

    def style(self, rng):
        return rng.choices(("title", "upper", "lower", "first"), (62, 14, 8, 16))[0]

    def title(self, rng):
        n = rng.choice((1, 2, 2, 3, 3, 3, 4, 4, 5))
        style = rng.choices(("title", "upper", "first", "lower"), (66, 14, 16, 4))[0]
        words = [cased(self.word(rng, n > 3), style, i) for i in range(n)]
        if n > 2 and rng.random() < 0.2:
            words[rng.randrange(1, n - 1)] = rng.choice(("of", "for", "and", "&", "in", "-"))
        if rng.random() < 0.1:
            words.append(self.code(rng))
        if n > 1 and rng.random() < 0.08:
            words[0] += ":"
        text = " ".join(words)
        return text if len(text) <= 44 else text[:44].rsplit(" ", 1)[0]

    def sentence(self, rng, n_chars):
        """A line of running text of at most n_chars characters."""
        words = []
        length = 0
        while True:
            r = rng.random()
            w = rng.choice(SMALL) if r < 0.18 else self.code(rng) if r < 0.24 else self.word(rng)
            if rng.random() < 0.06:
                w += rng.choice(",.;:!?")
            if not words or rng.random() < 0.08:
                w = w[:1].upper() + w[1:]
            if length + len(w) + 1 > n_chars and words:
                break
            words.append(w)
            length += len(w) + 1
        return " ".join(words)


def cased(word, style, index):
    if style == "upper":
        return word.upper()
    if style == "lower" or style == "first" and index > 0:
        return word
    return word[:1].upper() + word[1:]


def default_word_list():
    """Debian's wamerican, or the copy that travels beside the fonts."""
    for path in (os.path.join(os.environ.get("TINY_FONTS", ".fonts"), "words.txt"), "/usr/share/dict/american-english"):
        if os.path.exists(path):
            return path
    raise SystemExit("no word list: install wamerican, or set TINY_FONTS to a folder with words.txt")


if __name__ == "__main__":
    rng = random.Random(1)
    for half in (False, True):
        words = Words(default_word_list(), half)
        print("test" if half else "train", len(words.english), [words.label(rng) for _ in range(8)],
              words.title(rng), "|", words.sentence(rng, 60))
