"""The page in a real browser where images or labels cannot be read, and drags beside the image; names in the list."""

import json

from annotation_page import ALT, IN_A_BROWSER, SHIFT, AnnotationPage, browser, root, served, stored  # noqa: F401
from test_layouts import opened, photographs

from detector.annotation.routes import Site

pytestmark = IN_A_BROWSER
BOX = {"key": "", "name": "cat", "box": [1.0, 2.0, 30.0, 39.0]}


def test_keys_go_on_from_an_image_that_cannot_be_read(browser, root):
    labels = opened(root, ["cat"])
    (root / "1.png").write_bytes(b"no image")
    with served(Site(labels)) as url:
        page = AnnotationPage(browser, url)
        page.key("n")
        page.wait("byId('notice').textContent.includes('1.png')")
        page.key("d")
        page.key("Enter")
        assert page.run("page.index") == 1 and not (root / "labels").exists()
        page.key("n")
        page.wait("root.dataset.index === '2'")
        page.key("b")
        page.key("b")
        page.wait("root.dataset.index === '0'")
        browser.messages.clear()  # the refused requests


def test_a_drag_beside_the_image_draws_nothing_and_one_that_meets_it_does(browser, root):
    with served(Site(opened(root, ["cat"]))) as url:
        page = AnnotationPage(browser, url)
        page.run("zoomToFit(); zoomTo(view.scale / 2)")
        for start, end in (((-60, 100), (-20, 200)), ((100, -60), (300, -20)), ((660, 100), (700, 300)), ((20, 500), (90, 540))):
            page.drag(page.at(*start), page.at(*end), SHIFT)
            page.settled()
            assert page.objects() == [] and not (root / "labels").exists()
        page.drag(page.at(-60, -50), page.at(100, 200), SHIFT)
        page.settled()
        (_, (x1, y1, x2, y2)), = stored(root, 0)
        assert (x1, y1) == (0, 0) and abs(x2 - 100) < 2 and abs(y2 - 200) < 2


def test_labels_that_another_program_breaks_are_told_with_the_name_of_their_image(browser, root):
    labels = opened(root, ["cat"])
    for index in range(2):
        labels.save(index, labels.load(index).version, True, [BOX])
    with served(Site(labels)) as url:
        page = AnnotationPage(browser, url)
        page.run("show(1)")
        page.settled()
        (root / "labels" / "0.json").write_text("{")
        page.key("c")
        page.wait("byId('notice').textContent.startsWith('0.png cannot be read')")
        page.run("tell('')")
        content = json.loads((root / "labels" / "1.json").read_text())
        (root / "labels" / "1.json").write_text(json.dumps({"labels": ["cat"] * 2, "boxes": content["boxes"] * 2}))
        page.wait("byId('notice').textContent.startsWith('Another page has changed 1.png')")
        page.run("window.failures = []; addEventListener('unhandledrejection', event => failures.push(String(event.reason)))")
        page.run("window.fetchBefore = fetch; window.fetch = (path, options) => path.startsWith('/labels') ? "
                 "Promise.reject(new TypeError('offline')) : fetchBefore(path, options)")
        (root / "labels" / "1.json").write_text(json.dumps(content))
        page.wait("byId('notice').textContent === '1.png cannot be read again: no connection to the server'")
        assert page.run("failures") == []
        browser.messages.clear()  # the refused requests


def test_a_save_that_is_refused_is_told_and_not_tried_again_until_something_changes(browser, root):
    labels = opened(root, ["cat"])
    labels.save(0, labels.load(0).version, True, [BOX])
    path = root / "labels" / "0.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "ids": [7]}))
    content = path.read_bytes()
    with served(Site(opened(root, ["cat"]))) as url:
        page = AnnotationPage(browser, url)
        page.run("show(0)")
        page.settled()
        page.run("window.writes = 0; window.fetchBefore = fetch; window.fetch = (path, options) => { "
                 "writes += options.method === 'PUT'; return fetchBefore(path, options); }")
        page.key("d")
        page.wait("byId('saved').dataset.state === 'error'")
        told = page.run("byId('saved').textContent")
        assert "the list 'ids' has an entry for each of the 1 objects" in told and told.endswith("first. Undo or change it")
        page.run("new Promise(resolve => setTimeout(resolve, 1.5 * RETRY_MS)).then(() => { root.dataset.waited = 1; })")
        page.wait("root.dataset.waited")
        assert page.run("writes") == 1 and path.read_bytes() == content
        page.key("z")
        page.wait("saved() && byId('saved').dataset.state === 'saved'")
        assert path.read_bytes() == content and len(page.objects()) == 1
        browser.messages.clear()  # the refused request


def test_an_image_is_asked_for_again_after_a_lost_connection(browser, root):
    with served(Site(opened(root, ["cat"]))) as url:
        page = AnnotationPage(browser, url)
        page.settled()
        page.run("pixelsOf.clear(); window.fetchBefore = fetch; window.fetch = () => Promise.reject(new TypeError('offline'))")
        page.key("n")
        page.wait("byId('notice').textContent === 'no connection to the server'")
        page.run("window.fetch = fetchBefore")
        page.key("b")
        page.wait("root.dataset.index === '0'")
        page.key("n")
        page.wait("root.dataset.index === '1' && !byId('notice').textContent.startsWith('no connection')")


def test_keys_with_alt_are_left_to_the_browser(browser, root):
    with served(Site(opened(root, ["cat"]))) as url:
        page = AnnotationPage(browser, url)
        page.settled()
        for key in "dec":
            page.key(key, ALT)
        page.settled()
        assert page.run("[current().undo.length, current().labelled]") == [0, False] and not (root / "labels").exists()


def test_names_in_the_list_fit_or_are_cut_at_their_start(browser, tmp_path):
    root = photographs(tmp_path / "photos", 2)
    (root / "0.png").rename(root / "BloodImage_00012.png")
    (root / "1.png").rename(root / f"{'long_' * 20}7.png")
    with served(Site(opened(root, ["cat"]))) as url:
        page = AnnotationPage(browser, url)
        page.settled()
        short, long = page.run("[...document.querySelectorAll('#rows .text')].map(node => { const outer = node.getBoundingClientRect(), "
                               "inner = node.firstChild.getBoundingClientRect(); "
                               "return [outer.left, inner.left, inner.right, outer.right]; })")
        assert short[0] <= short[1] < short[2] <= short[3] and short[1] - short[0] < 1
        assert long[1] < long[0] and long[2] <= long[3] + 1
        assert page.run("[...document.querySelectorAll('#rows i')].map(node => [node.title, node.ariaLabel])") == [["unlabelled"] * 2] * 2
