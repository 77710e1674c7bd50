"""Random actions on two pages, in every layout, against a model of the state: no difference, no message on the console."""

import json

import numpy as np
import pytest
from annotation_page import IN_A_BROWSER, SHIFT, AnnotationPage, served
from chromium import Browser
from test_annotation_page import PageModel
from test_layouts import opened, photographs

from detector.annotation.routes import Site

pytestmark = IN_A_BROWSER
WIDTH, HEIGHT, IMAGES, CLASSES = 640, 480, 4, ("cat", "dog", "eel")


def act(model: PageModel, draw: np.random.Generator) -> str:
    """Does one random action on a page and its model; returns its name."""
    page, kept = model.page, model.kept[model.shown]
    labelled, objects = kept.content
    name = str(draw.choice(["draw", "next", "before", "select", "delete", "move", "class", "undo", "redo", "empty", "copy", "zoom"],
                           p=[.22, .07, .07, .1, .08, .1, .08, .1, .06, .03, .03, .06]))
    selected = model.selected
    if name == "draw":
        x, y, w, h = draw.uniform(0, 400), draw.uniform(0, 300), draw.uniform(20, 200), draw.uniform(20, 150)
        page.run("zoomToFit()")
        page.draw((x, y, x + w, y + h))
        page.settled()
        refused = kept.content != model.files[model.shown]
        box = None if refused else page.objects()[-1][1]
        assert refused or np.abs(np.array(box) - [x, y, x + w, y + h]).max() < 1
        model.selected = len(objects)
        model.set((*objects, (page.run("page.newClass"), tuple(box or (x, y, x + w, y + h)))))
        if refused:  # the page keeps its box for redo; the model learns it from there
            mine = page.run("current().redo[0].objects.map(o => [o.name, o.box])")
            model.kept[model.shown].redo = [(True, tuple((name, tuple(box)) for name, box in mine))]
    elif name in ("next", "before"):
        to = model.shown + (1 if name == "next" else -1)
        page.key("n" if name == "next" else "b")
        if 0 <= to < IMAGES:
            model.shown, model.selected = to, -1
            model.sync(to)
    elif name == "select":
        page.key(".")
        model.selected = (selected + 1) % len(objects) if objects else -1
    elif name == "delete":
        page.key("x")
        if selected >= 0:
            model.selected = -1
            model.set((*objects[:selected], *objects[selected + 1:]))
    elif name == "move" and selected >= 0:
        page.key("ArrowRight", SHIFT)
        label, box = objects[selected]
        shift = min(max(0, WIDTH - box[2]), 10)
        moved = tuple(round(value + (shift if i % 2 == 0 else 0), 1) for i, value in enumerate(box))
        model.set((*objects[:selected], (label, moved), *objects[selected + 1:]))
    elif name == "class":
        number = int(draw.integers(3))
        page.key(str(number + 1))
        if selected >= 0 and objects[selected][0] != CLASSES[number]:
            model.set((*objects[:selected], (CLASSES[number], objects[selected][1]), *objects[selected + 1:]))
    elif name in ("undo", "redo"):
        page.key("z" if name == "undo" else "y")
        stack = getattr(kept, name)
        if stack:
            model.selected = -1
            before, after = [*kept.undo], [*kept.redo]
            (after if name == "undo" else before).append(kept.content)
            content = (before if name == "undo" else after).pop()
            model.put(content, before, after)
    elif name == "empty":
        page.key("E", SHIFT)
        model.selected = -1
        if objects or not labelled:
            model.set(())
    elif name == "copy":
        page.key("c")
        page.settled()
        if model.shown > 0:
            copied = model.sync(model.shown - 1).content[1]
            if copied:
                model.set((*objects, *copied))
    elif name == "zoom":
        page.run(f"zoomTo({draw.uniform(.3, 9)}, [{draw.uniform(0, 600)}, {draw.uniform(0, 500)}])")
    page.settled()
    return name


def write_layout(layout: str, root) -> dict[int, tuple]:
    """Makes photographs a data set of a layout without objects; returns the content of each image: (is labelled, objects)."""
    photographs(root, IMAGES, (WIDTH, HEIGHT))
    files = {index: (False, ()) for index in range(IMAGES)}
    if layout == "coco":
        images = [{"id": index + 1, "file_name": f"{index}.png", "width": WIDTH, "height": HEIGHT} for index in range(IMAGES)]
        content = {"images": images, "annotations": [], "categories": [{"id": 1, "name": "cat"}]}
        (root / "train.json").write_text(json.dumps(content, indent=1))
    elif layout == "yolo":
        (root / "classes.txt").write_text("".join(f"{name}\n" for name in CLASSES))
        (root / "0.txt").write_text("")
        files[0] = (True, ())
    elif layout == "voc":
        (root / "0.xml").write_text("<annotation>\n</annotation>\n")
        files[0] = (True, ())
    return files


def compare_with_model(model: PageModel, about: object) -> None:
    shown = tuple((label, tuple(box)) for label, box in model.page.objects())
    assert (model.page.run("current().labelled"), shown) == model.kept[model.shown].content, about


@pytest.mark.parametrize("layout, actions", [("per_image_json", 1000), ("coco", 150), ("yolo", 150), ("voc", 150)])
def test_random_actions_on_two_pages(tmp_path, layout, actions):
    draw, root, refused = np.random.default_rng(0), tmp_path / "photos", 0
    files = write_layout(layout, root)
    with served(Site(opened(root, CLASSES))) as url, Browser() as one, Browser() as two:
        models = [PageModel(files, AnnotationPage(browser, f"{url}#0")) for browser in (one, two)]
        for model in models:
            model.page.run("window.pollNow = poll; poll = async () => {};")  # the test decides when
            model.sync(0)
        for number in range(actions):
            model = models[int(draw.random() < 0.2)]
            is_old = model.kept[model.shown].content != files[model.shown]
            if is_old and draw.random() < 0.7:
                model.page.run("delete root.dataset.polled; pollNow(page.index).then(() => { root.dataset.polled = 1; })")
                model.page.wait("root.dataset.polled")
                model.sync(model.shown)
                is_old = False
            model.page.may_be_refused = is_old
            name = act(model, draw)
            refused += is_old
            compare_with_model(model, (number, name))
            if number % 50 == 49:
                again = opened(root, CLASSES)
                for index in range(IMAGES):
                    labels = again.load(index)
                    objects = tuple((entry["name"], tuple(entry["box"])) for entry in labels.objects)
                    assert (labels.is_labelled, objects) == files[index], (number, index)
    assert refused > 3 or actions < 1000
