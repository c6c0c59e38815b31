"""Questions and answers about a drawn scene. Answers are short and keep one style.

Each task has at least ten phrasings; a phrasing may get a polite opening or a closing request. All
tasks of one scene are returned; the caller takes what fits its token budget.
"""
import json

from facts import in_fives, one_way

SEED_PROMPT = "Please analyze this Enterprise Architecture diagram and explain what you see."

PHRASES = {
    "title": ["What is the title of this diagram?", "What is the title?", "Read the title.", "What is this diagram called?",
              "What does the heading say?", "Give the title of the picture.", "Which title stands at the top?",
              "What is the diagram's title?", "What is the name of this diagram?", "Title?", "Tell me the title.",
              "What heading does this picture have?", "What is written as the title?", "What is the title of the image?"],
    "centre": ["What is in the centre?", "What is in the center?", "Name the centre box.", "Name the center box.",
               "Which box is in the middle?", "What is the central component?", "What is at the center of the diagram?",
               "What is at the centre of this diagram?", "What does the box in the middle say?", "Read the central box.",
               "Which component is in the center?", "What is the hub of this diagram?", "What is the central box called?",
               "What stands in the middle of the picture?", "What is the name of the central box?"],
    "list": ["List the boxes.", "List all boxes.", "List every box in reading order.", "Which boxes are there?",
             "What boxes does the diagram show?", "Name all the boxes.", "List the components.", "What are the components?",
             "Give me the names of all boxes.", "What boxes can you see?", "List all components in this diagram.",
             "Read all the boxes.", "Enumerate the boxes.", "What is in the boxes?", "List the labels of the boxes."],
    "read": ["Read the text.", "Read all the text.", "What does it say?", "Transcribe the picture.", "What text is in the picture?",
             "Transcribe the text.", "Read everything.", "What is written here?", "Write down all the text.",
             "Give me the text of this image.", "OCR this image.", "What does the text say?"],
    "colour": ["What colour is the box \"{x}\"?", "What color is {x}?", "Which colour has the box {x}?", "What color is the {x} box?",
               "Tell me the colour of {x}.", "What is the colour of \"{x}\"?", "What is the color of the box {x}?",
               "In which colour is {x} drawn?", "Colour of {x}?", "Which color is the box named \"{x}\"?",
               "Name the fill colour of {x}."],
    "count": ["How many boxes are there?", "Count the boxes.", "How many boxes does the diagram have?", "What is the number of boxes?",
              "How many components are shown?", "Number of boxes?", "How many boxes can you see?", "Tell me how many boxes there are.",
              "Give the count of boxes.", "How many boxes are in the picture?", "Please count all boxes."],
    "count_arrows": ["How many arrows are there?", "Count the arrows.", "What is the number of arrows?", "Number of arrows?",
                     "How many arrows can you see?", "How many arrows does the diagram have?", "Tell me how many arrows there are.",
                     "Give the count of arrows.", "How many arrows are drawn?", "Please count all arrows."],
    "count_colour": ["How many {c} boxes are there?", "Count the {c} boxes.", "How many boxes are {c}?", "Number of {c} boxes?",
                     "What is the number of {c} boxes?", "How many {c} boxes can you see?", "Tell me how many boxes are {c}.",
                     "Give the count of {c} boxes.", "How many of the boxes are {c}?", "Please count all {c} boxes."],
    "arrow_to": ["Where does the arrow from {x} lead?", "Where does the arrow from \"{x}\" go?", "What does {x} point to?",
                 "Which box does {x} lead to?", "Follow the arrow from {x}.", "What comes after {x}?", "The arrow from {x} leads to what?",
                 "Which box is next after {x}?", "Where does {x} lead to?", "To which box does {x} point?"],
    "arrow_from": ["Where does the arrow to {x} come from?", "What points to {x}?", "Which box points to \"{x}\"?",
                   "What leads to {x}?", "From which box does the arrow to {x} come?", "What comes before {x}?",
                   "Which box leads to {x}?", "The arrow into {x} starts where?", "Where does {x} get its arrow from?",
                   "Which box is before {x}?"],
    "find": ["Find {x}.", "Where is {x}?", "Locate {x}.", "Give the bounding box of {x}.", "Find the box \"{x}\" and give its bbox.",
             "Return the coordinates of {x} as JSON.", "Detect {x} in the image.", "Where is the box {x}? Answer in JSON.",
             "Output the bounding box of \"{x}\".", "Show me where {x} is.", "Locate the box {x}, output its bbox in JSON."],
    "which": ["Which picture contains {x}?", "Which picture shows {x}?", "In which picture is {x}?", "Which image contains \"{x}\"?",
              "Which image has the box {x}?", "Where can I see {x}: in which picture?", "Which of the pictures has {x}?",
              "In which image do you see {x}?", "Which picture has a box named {x}?", "Find the picture with {x}."],
    "describe": ["Please analyze this diagram and explain what you see.", "Describe this diagram.", "Explain what you see.",
                 "What do you see?", "Describe the picture.", "Analyze this diagram.", "What does this picture show?",
                 "Please describe the image.", "What is this?", "Explain this architecture diagram.", "Summarize the diagram.",
                 "Describe what is in the image.", "Tell me about this diagram.", SEED_PROMPT],
    "bar": ["What is the value of {x}?", "How high is {x}?", "Which value has {x}?", "What value does the bar {x} have?",
            "Read the value of {x}.", "What number is over {x}?", "How much is {x}?", "Give the value of {x}.",
            "What is {x} worth?", "Value of {x}?"],
    "top_bar": ["Which bar is the highest?", "Which bar is tallest?", "What has the highest value?", "Which item is the largest?",
                "Name the highest bar.", "Which label has the largest value?", "What is the tallest bar?", "Which is the biggest bar?",
                "Where is the maximum?", "Which category is highest?"],
    "exists": ["Is there a box named {x}?", "Is there a box called \"{x}\"?", "Does the diagram contain {x}?", "Do you see {x}?",
               "Can you see a box {x}?", "Is {x} in the picture?", "Does {x} appear?", "Is there a {x} box?",
               "Is \"{x}\" one of the boxes?", "Does this diagram show {x}?"],
    "differs": ["What differs?", "What is different?", "What is the difference?", "What changed from picture 1 to picture 2?",
                "Compare the pictures.", "How do the pictures differ?", "Which box is different?", "What is the difference between the two pictures?",
                "Find the difference.", "What has changed?", "Spot the difference."],
}

# How readily a question is taken when not all of a picture's fit into a row. Where the curriculum begins, reading comes
# first all the same (data.READING).
WEIGHTS = {"title": 1.6, "list": 3, "centre": 2.5, "read": 0.7, "describe": 2.2, "colour": 1.2, "count": 0.9, "count_arrows": 0.9,
           "count_colour": 1.6, "arrow_to": 1.5, "arrow_from": 1.5, "find": 1.5, "absent": 0.9, "exists": 0.3}

OPENINGS = ["Please tell me: ", "Look at the picture. ", "Can you tell me: ", "Hi! ", "Look at the diagram. ", "Question: "]
CLOSINGS = [" Answer briefly.", " Answer with the text only.", " Be short.", " Please.", " Thanks."]

NO_TITLE = "There is no title."
NO_CENTRE = "There is no centre box."


def no_box(name):
    return 'There is no box named "%s".' % name


def phrase(rng, task, **fill):
    if task == "describe" and rng.random() < 0.3:
        return SEED_PROMPT
    text = rng.choice(PHRASES[task]).format(**fill)
    r = rng.random()
    if r < 0.06 and task != "describe":
        return rng.choice(OPENINGS) + text
    if r < 0.12 and task not in ("find", "describe"):
        return text + rng.choice(CLOSINGS)
    if r < 0.16:
        return text.lower() if not fill else text
    if r < 0.19 and text[-1] in ".?":
        return text[:-1]
    return text


def join(names):
    return ", ".join(names)


def and_join(names):
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]


def bbox_json(box):
    return json.dumps([{"bbox_2d": in_fives(box.rect), "label": box.label}], separators=(", ", ": "))


def describe(scene):
    kind = scene.kind.split("+")[0]
    names = [b.label for b in scene.boxes]
    if kind in ("line", "page") and not names:
        lines = text_lines(scene)
        return 'The picture shows text. The first line is "%s".' % lines[0] if lines else "The picture is empty."
    head = 'The diagram is titled "%s".' % scene.title if scene.title else "The diagram has no title."
    if kind == "hub":
        rest = [n for n in names if n != scene.centre]
        return '%s In the centre is "%s". Around it are %d boxes: %s.' % (head, scene.centre, len(rest), and_join(rest))
    if kind == "bars":
        return "%s It is a bar chart with %d bars: %s." % (head, len(scene.bars),
                                                          and_join(["%s (%d)" % b for b in scene.bars]))
    form = {"grid": "boxes", "layers": "boxes in layers", "flow": "steps in a flow", "tree": "boxes in a tree"}[kind]
    return "%s It shows %d %s: %s." % (head, len(names), form, and_join(names))


def text_lines(scene):
    return [t for _, _, t in sorted(scene.lines, key=lambda l: (l[0], l[1]))]


def transcript(scene):
    """Title, then boxes in reading order or lines of text from the top, one a line."""
    lines = text_lines(scene)
    if scene.boxes:
        head = [scene.title] if scene.title else []
        return "\n".join(head + [b.label for b in scene.boxes] + [t for t in lines if t != scene.title])
    return "\n".join(lines)


def questions(rng, scene, words):
    """All (task, question, answer) of one scene, in random order, most useful kinds first by weight."""
    out = []
    kind = scene.kind.split("+")[0]

    def put(weight, task, answer, name=None, **fill):
        out.append((rng.random() ** (1 / weight), name or task, phrase(rng, task, **fill), answer))

    if kind in ("line", "page"):
        put(9, "read", transcript(scene))
        if kind == "page":
            put(4, "title", scene.title or NO_TITLE, None if scene.title else "absent")
            put(0.4, "describe", describe(scene))
    elif kind == "bars":
        put(4, "title", scene.title or NO_TITLE, None if scene.title else "absent")
        put(0.7, "describe", describe(scene))
        if len({v for _, v in scene.bars}) == len(scene.bars):
            put(0.7, "top_bar", max(scene.bars, key=lambda b: b[1])[0])
        for label, value in rng.sample(scene.bars, min(2, len(scene.bars))):
            put(1, "bar", str(value), x=label)
    else:
        box_questions(rng, scene, words, put, kind)
    return [q[1:] for q in sorted(out, key=lambda q: -q[0])]


def box_questions(rng, scene, words, put, kind):
    def ask(task, answer, name=None, **fill):
        put(WEIGHTS[name or task], task, answer, name, **fill)

    ask("title", scene.title or NO_TITLE, None if scene.title else "absent")
    ask("list", join([b.label for b in scene.boxes]))
    ask("describe", describe(scene))
    if not any(t != scene.title for t in text_lines(scene)) or rng.random() < 0.3:
        ask("read", transcript(scene))
    if kind == "hub":
        ask("centre", scene.centre)
    elif kind in ("flow", "layers", "tree"):
        put(0.5, "centre", NO_CENTRE, "absent")
    for box in rng.sample(scene.boxes, min(2, len(scene.boxes))):
        ask("colour", box.colour, x=box.label)
    ask("count", str(len(scene.boxes)))
    ask("count_arrows", str(len(scene.arrows)))
    there = list(dict.fromkeys(b.colour for b in scene.boxes))
    for colour in rng.sample(there, min(2, len(there))):
        ask("count_colour", str(sum(b.colour == colour for b in scene.boxes)), c=colour)
    for task, arrows in (("arrow_to", scene.arrows), ("arrow_from", [(b, a) for a, b in scene.arrows])):
        joined = list(one_way(arrows).items())
        for a, b in rng.sample(joined, min(2, len(joined))):
            ask(task, b, x=a)
    if "tilt" not in scene.kind:
        for box in rng.sample(scene.boxes, min(2, len(scene.boxes))):
            ask("find", bbox_json(box), x=box.label)
    absent = words.label(rng)
    if absent.lower() not in {b.label.lower() for b in scene.boxes}:
        task = rng.choice(("find", "colour", "arrow_to", "exists"))
        ask(task, no_box(absent), "absent", x=absent)
    ask("exists", "Yes.", x=rng.choice(scene.boxes).label)


def difference(scenes):
    """What sets the second of two twins apart (twins.make_twins)."""
    a, b = scenes
    if a.title != b.title:
        return 'The title "%s" is "%s" in picture 2.' % (a.title, b.title)
    for x, y in zip(a.boxes, b.boxes):
        if x.label != y.label:
            return 'The box "%s" is "%s" in picture 2.' % (x.label, y.label)
    return "Nothing differs."


def which_questions(rng, scenes, words, twins=False):
    """Questions about two to five pictures."""
    out = []
    owner = {}
    for i, scene in enumerate(scenes):
        for box in scene.boxes:
            owner.setdefault(box.label.lower(), []).append((i, box.label))
    unique = [v[0] for v in owner.values() if len(v) == 1]
    for i, label in rng.sample(unique, min(7, len(unique))):
        out.append(("which", phrase(rng, "which", x=label), "Picture %d." % (i + 1)))
    absent = words.label(rng)
    if absent.lower() not in owner:
        out.append(("absent", phrase(rng, "which", x=absent), "None of the pictures."))
    for i, scene in enumerate(scenes):
        if scene.title and rng.random() < 0.5:
            out.append(("title_of", "What is the title of picture %d?" % (i + 1), scene.title))
        if scene.boxes and rng.random() < 0.4:
            out.append(("list_of", "List the boxes of picture %d." % (i + 1), join([b.label for b in scene.boxes])))
    rng.shuffle(out)
    return [("differs", phrase(rng, "differs"), difference(scenes))] + out if twins else out
