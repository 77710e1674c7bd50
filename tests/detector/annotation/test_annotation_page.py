"""The page in a real browser: by mouse, keys and touch; what it shows is in the files, also when two pages write."""

import errno
import json
import os
import time
from dataclasses import dataclass, field

import numpy as np
from annotation_page import IN_A_BROWSER, SHIFT, AnnotationPage, browser, root, served, stored  # noqa: F401
from PIL import Image
from test_layouts import opened

from detector.annotation.routes import Site
from detector.annotation.suggester import Suggester
from detector.inference.predictor import ImageDetections

pytestmark = IN_A_BROWSER


def test_boxes_drawn_at_any_zoom_are_in_the_file_to_half_a_pixel_and_reload_shows_the_same(browser, tmp_path):
    root = tmp_path / "large"
    root.mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (3000, 4000, 3), np.uint8)).resize((4000, 3000)).save(root / "0.jpg")
    with served(Site(opened(root, ["cat", "dog"]))) as url:
        page, expected = AnnotationPage(browser, url), []
        for scale in (0, 0.31, 1, 2.7, 11, 40):
            page.run("zoomToFit()" if not scale else f"zoomToFit(); zoomTo({scale})")
            page.settled()
            (x1, y1), (x2, y2) = (page.run(f"toImage([stage.clientWidth / 2 + {by}, stage.clientHeight / 2 + {by}])") for by in (-110, 95))
            box = [float(round(value * 4) / 4) for value in (x1, y1, x2, y2)]
            page.draw(box)
            page.settled()
            expected.append(box)
            boxes = [box for _, box in stored(root, 0)]
            reach = max(0.5, 0.75 / page.run("view.scale"))  # half a pixel of the image, or of the screen where that is larger
            assert np.abs(np.array(boxes[-1]) - box).max() <= reach
        assert len(stored(root, 0)) == 6 and [list(pair) for pair in page.objects()] == [list(pair) for pair in stored(root, 0)]
        before = page.objects()
        page.reload()
        page.settled()
        assert page.objects() == before
        change = ("setObjects(Array.from({length: 500}, (_, i) => newObject('cat', fitBox([i % 25 * 150, (i / 25 | 0) * 140, "
                  "i % 25 * 150 + 90, (i / 25 | 0) * 140 + 80])))); select(current().objects[3]);")
        page.run(change)
        page.settled()
        page.run("window.times = []; (function step(time) { times.push(time); pan(3, 1); zoomTo(view.scale * 1.01); "
                 "if (times.length < 40) requestAnimationFrame(step); })(performance.now())")
        page.wait("times.length === 40")
        frames = np.diff(page.run("times"))
        assert len(stored(root, 0)) == 500 and np.median(frames) < 100, frames  # milliseconds, without a GPU


def test_by_keyboard_alone(browser, root):
    with served(Site(opened(root, ["cat", "dog", "eel"]))) as url:
        page = AnnotationPage(browser, url)
        page.key("2")
        page.key("d")  # a box in the middle
        page.settled()
        (name, box), = page.objects()
        for key, modifiers in [("ArrowRight", 0), ("ArrowDown", SHIFT), ("ArrowRight", 2), ("ArrowUp", 1 | SHIFT)]:
            page.key(key, modifiers)
        page.key("3")
        page.settled()
        assert name == "dog" and page.objects() == [("eel", [box[0] + 1, box[1] + 10, box[2] + 2, box[3]])] == \
            [(name, [round(value, 1) for value in box]) for name, box in stored(root, 0)]
        for key in ("n", "c", ".", "x", "b"):  # copied, and deleted again: nobody has labelled it as empty by that
            page.key(key)
            page.settled()
        assert stored(root, 1) == [] and (root / "labels" / "1.json").exists()
        for key, states in (("u", 2), ("e", 2), ("ArrowRight", 3), ("z", 3), ("ArrowLeft", 2), ("z", 2), ("y", 2)):
            page.key(key)
            page.settled()
            assert page.run("page.index") == states
        assert page.run("data.images.map(row => row.state)") == ["labelled", "empty", "empty", "unlabelled"]
        assert sorted(path.name for path in (root / "labels").iterdir()) == ["0.json", "1.json", "2.json"]


def test_undo_brings_back_the_bytes_of_a_coco_file_and_a_move_keeps_sizes_and_lines(browser, root):
    entries = [{"id": number, "image_id": 1, "category_id": 1, "bbox": [10.25, 20.5, 61.16, 55.39], "area": 3387.65,
                "segmentation": [[10, 20, 71, 20, 71, 75]]} for number in (1, 2)]
    content = {"images": [{"id": 1, "file_name": "0.png", "width": 640, "height": 480}], "annotations": entries,
               "categories": [{"id": 1, "name": "cat"}]}
    path = root / "train.json"
    path.write_text(json.dumps(content, indent=2))
    before = path.read_text().split("\n")
    with served(Site(opened(root))) as url:
        page = AnnotationPage(browser, url)
        page.key(".")
        page.key("ArrowRight")
        page.settled()
        changed = [(old, new) for old, new in zip(before, path.read_text().split("\n"), strict=True) if old != new]
        assert changed == [("        10.25,", "        11.25,")]
        page.key("z")
        page.settled()
        assert path.read_text().split("\n") == before
        page.key("y")
        page.key(".")
        page.key("x")
        for _ in range(2):
            page.key("z")
        page.settled()
        assert path.read_text().split("\n") == before


def test_by_mouse_alone(browser, root):
    with served(Site(opened(root, ["cat", "dog"]))) as url:
        page = AnnotationPage(browser, url)
        page.drag(page.at(100, 100), page.at(200, 180))
        page.drag(page.at(130, 150), page.at(150, 160))  # in the selected box: moves it
        page.drag(page.at(220, 190), page.at(260, 230))  # its corner
        page.settled()
        assert np.abs(np.array(stored(root, 0)[0][1]) - [120, 110, 260, 230]).max() <= 1
        page.click(page.at(400, 400))  # nothing
        page.drag(page.at(150, 140), page.at(180, 170))  # inside the box, which is not selected
        page.click(page.at(165, 155))  # the new box is selected: the larger one below it
        page.settled()
        assert page.run("selectedItem() === current().objects[0]") and len(stored(root, 0)) == 2
        for text, left in (("dog", 2), ("delete", 1), ("undo", 2), ("undo", 2), ("redo", 2)):
            page.press_button(text)
            page.settled()
            assert len(stored(root, 0)) == left, text
        scale = page.run("view.scale")
        page.mouse("mouseWheel", *page.at(100, 100), "none", deltaX=0, deltaY=-240)
        page.drag(page.at(300, 300), page.at(250, 280), button="right")
        page.settled()
        assert page.run("view.scale") > scale and len(stored(root, 0)) == 2
        for text in ("fit", "▶", "empty", "first unlabelled", "copy from before", "◀"):
            page.press_button(text)
            page.settled()
        assert page.run("page.index") == 1 and page.run("data.images.map(row => row.state)") == ["labelled", "empty", *["unlabelled"] * 2]
        page.run("toggleHidden('dog'); chooseClass('cat')")
        page.press_button("light / dark")


def test_on_a_touch_screen_one_finger_draws_and_two_zoom(browser, root):
    with served(Site(opened(root, ["cat"]))) as url:
        page = AnnotationPage(browser, url)

        def touch(kind, *points):
            page.browser.call("Input.dispatchTouchEvent", type=kind, touchPoints=[
                {"x": x, "y": y, "id": number} for number, (x, y) in enumerate(points)])
        browser.call("Emulation.setTouchEmulationEnabled", enabled=True)
        touch("touchStart", page.at(100, 100))
        for x in (150, 220, 300):
            touch("touchMove", page.at(x, x))
        touch("touchEnd")
        page.settled()
        assert np.abs(np.array(stored(root, 0)[0][1]) - [100, 100, 300, 300]).max() <= 1
        scale, (a, b) = page.run("view.scale"), (page.at(200, 200), page.at(300, 200))
        touch("touchStart", a)
        touch("touchStart", a, b)
        for step in (10, 30, 60):
            touch("touchMove", (a[0] - step, a[1]), (b[0] + step, b[1]))
        touch("touchEnd")
        page.settled()
        browser.call("Emulation.setTouchEmulationEnabled", enabled=False)
        assert page.run("view.scale") > 1.3 * scale and len(stored(root, 0)) == 1


def test_a_full_disk_is_told_nothing_is_lost_and_saving_is_tried_again(browser, root, monkeypatch):
    with served(Site(opened(root, ["cat"]))) as url:
        page = AnnotationPage(browser, url)

        def fail(*_):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        monkeypatch.setattr("os.fsync", fail)
        page.draw((10, 20, 110, 220))
        page.wait("byId('saved').dataset.state === 'error'")
        assert "No space left" in page.run("byId('saved').textContent") and not stored(root, 0)
        page.key("n")
        page.wait("root.dataset.index === '1'")
        browser.messages.clear()  # the refused request is one
        monkeypatch.undo()
        page.wait("saved() && byId('saved').dataset.state === 'saved'")
        browser.messages.clear()
        assert len(stored(root, 0)) == 1


WRONG = [1, 1, 9, 9]


@dataclass
class TrueDetector:
    """A stand-in for a run: detects boxes that are told, in the order of the images, and one that is wrong."""

    boxes: list[list[list[float]]]
    classes: tuple[str, ...] = ("cat", "fish")

    def detect(self, images, score):
        boxes = self.boxes[int(images[0][0, 0, 0])]  # the images are numbered by their color
        rows = np.array([*boxes, WRONG], np.float32).reshape(-1, 4)
        scores = np.array([0.9] * len(boxes) + [0.2], np.float32)
        return [ImageDetections(rows, scores, np.ones(len(rows), np.int32), ("cat",) * len(rows))]


def label_twenty_images(page: AnnotationPage, truth: list, helped: bool, folder) -> None:
    """Labels images as a user would. The detector misses an object of every fourth, and sees one too many in every fifth."""
    for number, boxes in enumerate(truth):
        if helped:
            page.wait("current().suggestions !== null")
            assert not (folder / f"{number:02}.json").exists(), "a suggestion was written that nobody has accepted"
            if number % 5 == 0:
                page.click(page.at(550, 440))
                page.key("r")
        for box in (boxes[:1] if number % 4 == 0 else []) if helped else boxes:
            page.draw(box)
            page.settled()
        page.key("Enter" if helped else "n")
        page.settled()


def test_twenty_images_with_suggestions_take_less_than_half_of_the_actions(browser, tmp_path):
    draw, actions = np.random.default_rng(0), {}
    truth = [[[float(x), float(y), float(x + 80), float(y + 60)]
              for x, y in zip(draw.permutation(5)[:draw.integers(2, 6)] * 90, draw.integers(0, 300, 5))] for _ in range(20)]
    suggested = [boxes[number % 4 == 0:] + [[520.0, 420.0, 580.0, 460.0]] * (number % 5 == 0) for number, boxes in enumerate(truth)]
    for helped in (False, True):
        root = tmp_path / str(helped)
        root.mkdir()
        for number in range(20):
            Image.new("RGB", (640, 480), (number, 90, 120)).save(root / f"{number:02}.png")
        labels = opened(root, ["cat"])
        with served(Site(labels, Suggester(TrueDetector(suggested), labels) if helped else None)) as url:
            page = AnnotationPage(browser, url)
            label_twenty_images(page, truth, helped, root / "labels")
            actions[helped] = page.actions
        for number in range(20):
            boxes = json.loads((root / "labels" / f"{number:02}.json").read_text())["boxes"]
            assert len(boxes) == len(truth[number]) and np.abs(np.array(sorted(boxes)) - sorted(truth[number])).max() < 1
    assert actions[True] < actions[False] / 2, actions


def test_keys_that_go_on_leave_labelled_images_alone_and_come_to_every_unlabelled_one(browser, root):
    labels = opened(root, ["cat"])
    for number in range(4):
        Image.new("RGB", (640, 480), (number, 90, 120)).save(root / f"{number}.png")
    labels.save(1, labels.load(1).version, True, [])
    with served(Site(labels, Suggester(TrueDetector([[[100.0, 100, 200, 200]]] * 4), labels))) as url:
        page = AnnotationPage(browser, url)
        page.wait("data.images.every(row => row.top !== null) && suggestions().length === 1")
        for _ in range(2):
            page.key("Enter")
            page.settled()
        assert page.run("page.index") == 2 and stored(root, 1) == [] and len(stored(root, 0)) == 1
        page.key("b")
        page.key("u")  # from a labelled image: the first one
        page.settled()
        assert page.run("page.index") == 2
        page.key("u")
        page.settled()
        page.key("u")
        page.settled()
        assert page.run("page.index") == 2, "the last one is followed by the first"
        page.run("page.score = .95; update()")
        page.settled()
        assert page.run("byId('waiting').textContent") == "0 in this image; the best score is 0.90"


def test_a_folder_without_labels_is_opened_with_a_hint_that_the_first_box_takes_back(browser, root):
    with served(Site(opened(root, ["cat"]))) as url:
        page = AnnotationPage(browser, url)
        assert page.run("byId('notice').textContent") == "Drag to draw a box. ? shows all keys."
        page.key("d")
        page.settled()
        assert page.run("byId('notice').textContent") == ""


def test_suggestions_are_accepted_changed_and_refused_and_order_the_images(browser, root):
    labels = opened(root, ["cat"])
    for number in range(4):
        Image.new("RGB", (640, 480), (number, 90, 120)).save(root / f"{number}.png")
    boxes = [[[10.0, 10, 60, 60], [100, 100, 200, 200], [300, 100, 400, 200]], [], [], []]
    with served(Site(labels, Suggester(TrueDetector(boxes), labels))) as url:
        page = AnnotationPage(browser, url)
        page.wait("suggestions().length === 3 && data.images.every(row => row.top !== null)")
        page.settled()
        assert page.run("data.images.map(stateOfRow)") == ["suggested", *["unlabelled"] * 3]
        page.click(page.at(50, 50))
        page.key("r")
        page.click(page.at(150, 150))
        page.drag(page.at(150, 150), page.at(160, 160))  # changed, and by that accepted
        page.settled()
        assert page.run("suggestions().length") == 1 and np.abs(np.array(stored(root, 0)[0][1]) - [110, 110, 210, 210]).max() <= 1
        page.run("(s => { s.value = .1; s.dispatchEvent(new Event('input')); })(document.querySelector('input[type=range]'))")
        assert page.run("suggestions().length") == 2
        page.click(page.at(350, 150))
        page.press_button("accept")
        page.settled()
        assert len(stored(root, 0)) == 2 and page.run("suggestions().length") == 1
        page.press_button("refuse")
        page.settled()
        assert page.run("suggestions().length") == 0 and len(stored(root, 0)) == 2
        page.run("(s => { s.value = 'unsure'; s.dispatchEvent(new Event('change')); })(document.querySelectorAll('select')[1])")
        assert page.run("ordered().map(row => row.index)") == [0, 1, 2, 3]
        assert "with suggestions" in page.run("byId('clock').textContent")
        time.sleep(1.5)  # two polls
        assert page.run("suggestions().length") == 0 and not (root / "labels" / "1.json").exists()


def test_actions_faster_than_they_are_saved_and_answers_that_are_lost_lose_nothing(browser, root, monkeypatch):
    labels = opened(root, ["cat", "dog"])
    save, calls = labels.save, []

    def slow(*arguments):
        calls.append(arguments)
        time.sleep(0.05)
        saved = save(*arguments)
        if len(calls) % 3 == 0:
            raise OSError(errno.EIO, "the answer is lost")  # the labels have been written
        return saved
    monkeypatch.setattr(labels, "save", slow)
    with served(Site(labels)) as url:
        page = AnnotationPage(browser, url)
        for key in "d2ddz1d.x.2zzyyddxnnbd1d2bzydd.1x" * 2:
            page.key(key)
            time.sleep(0.04)  # less than a save takes
        page.wait("saved()", "JSON.stringify([...labelsOf])", 60)
        browser.messages.clear()  # answers with an error are in the console
        assert len(calls) > 8 and "Another page" not in page.run("byId('notice').textContent")
        for index in (0, 1):
            shown = page.run(f"labelsOf.get({index}).objects.map(o => [o.name, o.box])")
            assert shown and shown == [list(pair) for pair in stored(root, index)]


@dataclass
class Kept:
    """The labels of an image as a page has them: (is labelled, objects), and what undo and redo lead to."""

    content: tuple
    undo: list = field(default_factory=list)
    redo: list = field(default_factory=list)


@dataclass
class PageModel:
    """A model of one page. `files`: the content of every image, which all pages share."""

    files: dict
    page: AnnotationPage
    shown: int = 0
    selected: int = -1
    kept: dict = field(default_factory=dict)

    def sync(self, index: int) -> Kept:
        """Takes what is in the file, as the page does when it shows an image."""
        if index not in self.kept or self.kept[index].content != self.files[index]:
            self.kept[index] = Kept(self.files[index])
            self.selected = -1 if index == self.shown else self.selected
        return self.kept[index]

    def set(self, objects: tuple, labelled: bool = True) -> None:
        kept = self.kept[self.shown]
        self.put((labelled, objects), kept.undo + [kept.content], [])

    def put(self, content: tuple, undo: list, redo: list) -> None:
        kept = self.kept[self.shown]
        if kept.content != self.files[self.shown]:  # refused: the page shows the file, and keeps its own to redo
            self.kept[self.shown], self.selected = Kept(self.files[self.shown], [], [content]), -1
        else:
            self.kept[self.shown] = Kept(content, undo, redo)
            self.files[self.shown] = content
