"""The server: who may ask, what may be asked for, what is written, and errors of the disk."""

import errno
import http.client
import json
import os
import subprocess
import threading
from dataclasses import dataclass, replace

import numpy as np
import pytest
from annotation_page import served
from conftest import REPO
from PIL import Image
from test_layouts import files_of, opened, photographs

from detector.annotation import annotate
from detector.annotation.json_layout import JsonFiles
from detector.annotation.label_set import Conflict
from detector.annotation.routes import Site
from detector.annotation.server import MAX_BODY, open_server
from detector.config.load import load_config
from detector.data.image_io import read_image
from detector.errors import BadInput


@dataclass
class Client:
    """Sends requests as the page does, unless headers say otherwise; a header that is None is left out."""

    port: int
    token: str

    def send(self, method: str, path: str, content: bytes | None = None, **headers) -> tuple[int, bytes, dict]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        own = {"Host": f"127.0.0.1:{self.port}", "X-Token": self.token, "Origin": f"http://127.0.0.1:{self.port}",
               "Content-Length": None if content is None else str(len(content))}
        own |= {key.replace("_", "-"): value for key, value in headers.items()}
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for key, value in own.items():
            if value is not None:
                connection.putheader(key, value)
        connection.endheaders()
        if content:
            try:
                connection.send(content)
            except (BrokenPipeError, ConnectionResetError):
                pass  # the server has answered already
        answer = connection.getresponse()
        return answer.status, answer.read(), dict(answer.getheaders())

    def labels(self, index: int) -> dict:
        return json.loads(self.send("GET", f"/labels/{index}")[1])

    def put(self, index: int, **values) -> tuple[int, bytes, dict]:
        content = {"version": self.labels(index)["version"], "labelled": True, "objects": []} | values
        return self.send("PUT", f"/labels/{index}", json.dumps(content).encode())


BOX = {"key": "", "name": "cat", "box": [1, 2, 30, 39]}


@pytest.fixture
def site(tmp_path):
    return Site(opened(photographs(tmp_path / "photos"), ["cat", "<script>alert(1)</script>"]))


@pytest.fixture
def client(site):
    with served(site) as url:
        yield Client(int(url.split(":")[2].split("/")[0]), site.token)


def test_the_page_its_policy_and_names_that_are_markup(client):
    status, page, headers = client.send("GET", f"/?token={client.token}", Origin=None)
    assert status == 200 and "default-src 'none'; script-src 'sha256-" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"] and headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer" and headers["Cache-Control"] == "no-store"
    assert b"<script>alert" not in page and b"\\u003cscript\\u003ealert" in page and client.token.encode() not in page
    assert b"http://" not in page.replace(b"http://www.w3.org/", b"") and b"https://" not in page


@pytest.mark.parametrize("method, path", [("GET", "/labels/0"), ("GET", "/image/0"), ("GET", "/changes"), ("PUT", "/labels/0")])
@pytest.mark.parametrize("headers", [
    {"X_Token": None}, {"X_Token": "wrong"}, {"X_Token": "ü".encode()}, {"Origin": "http://evil.example"}, {"Origin": "null"},
    {"Host": "evil.example"}, {"Host": None}, {"Host": "127.0.0.1.evil.example"}, {"Host": "[::1"}, {"Host": "192.168.0.7"},
    {"Sec_Fetch_Site": "cross-site"}, {"Sec_Fetch_Site": "same-site"}])
def test_requests_without_the_token_of_another_origin_or_name_are_refused(client, tmp_path, method, path, headers):
    before = files_of(tmp_path)
    content = json.dumps({"version": client.labels(0)["version"], "labelled": True, "objects": [BOX]}).encode()
    assert client.send(method, path, content if method == "PUT" else None, **headers)[0] in (400, 403)
    assert files_of(tmp_path) == before


def test_the_page_needs_the_token_in_its_address_and_other_routes_do_not_take_it_from_there(client):
    for path in ("/", "/?token=", "/?token=wrong", f"/labels/0?token={client.token}", "/?token=%ff"):
        assert client.send("GET", path, X_Token=None, Origin=None)[0] == 403
    port = client.port
    for host in ("localhost:9000", "[::1]:1", f"127.0.0.1:{port}"):  # through ssh -L, another port
        assert client.send("GET", "/labels/0", Host=host, Origin=f"http://{host}")[0] == 200


@pytest.mark.parametrize("path", [
    "/image/../0", "/image/..%2f..%2fetc%2fpasswd", "/../../etc/passwd", "/etc/passwd", "/image//etc/passwd", "/image/-1", "/image/3",
    "/image/1e3", "/image/0/", "/image/%30", "/labels/../../x", "/image/%D9%A3", "/labels/999999999999",
    "http://evil.example/labels/0", "/image/0\x00", "//[", "/labels", "/"])
def test_nothing_outside_the_list_of_images_is_served(client, path, site):
    site.labels.indices = [0, 1]
    assert client.send("GET", path.replace("\x00", "%00"))[0] in (400, 403, 404)
    assert client.send("PUT", path.replace("\x00", "%00"), b"{}")[0] in (400, 403, 404)


def test_requests_that_are_too_large_or_no_labels_are_refused_and_the_server_goes_on(client, tmp_path, site):
    before = files_of(tmp_path)
    version = client.labels(0)["version"]
    good = {"version": version, "labelled": True, "objects": [BOX]}
    assert client.send("PUT", "/labels/0", b"", Content_Length=str(MAX_BODY + 1))[0] == 413
    assert client.send("PUT", "/labels/0", b"", Content_Length=None)[0] == 411
    for length in ("-1", "1e3", "９".encode("utf-8"), "", "9" * 30):
        assert client.send("PUT", "/labels/0", b"", Content_Length=length)[0] == 411
    assert client.send("PUT", "/labels/0", b"0\r\n\r\n", Content_Length="5", Transfer_Encoding="chunked")[0] == 411
    for wrong in (b"", b"[]", b"\xff", b"[" * 100_000, b'{"version": NaN}', json.dumps(good | {"labelled": 1}).encode(),
                  json.dumps(good | {"version": None}).encode(),
                  json.dumps(good | {"objects": [BOX | {"box": [1, 2, float("inf"), 9]}]}).encode(),
                  json.dumps(good | {"objects": [BOX | {"name": "dog"}]}).encode(), json.dumps(good | {"objects": "x"}).encode(),
                  json.dumps(good | {"objects": [BOX] * 20_001}).encode()):
        assert client.send("PUT", "/labels/0", wrong)[0] == 400
    for method in ("POST", "DELETE", "OPTIONS", "TRACE", "HEAD"):
        assert client.send(method, "/labels/0")[0] == 501
    assert client.send("PUT", "/image/0", b"{}")[0] == 405
    assert files_of(tmp_path) == before and client.put(0, objects=[BOX])[0] == 200


def test_a_page_with_an_old_version_gets_what_is_there_and_others_learn_of_changes(client, site, tmp_path):
    old = client.labels(1)
    serial = json.loads(client.send("GET", "/changes?since=-1&image=1")[1])["serial"]
    assert client.put(1, objects=[BOX])[0] == 200
    status, answer, _ = client.put(1, objects=[], version=old["version"])
    assert status == 409 and [entry["box"] for entry in json.loads(answer)["objects"]] == [BOX["box"]]
    changes = json.loads(client.send("GET", f"/changes?since={serial}&image=1")[1])
    assert changes["images"] == {"1": {"state": "labelled", "unsure": None, "top": None}}
    assert changes["version"] == client.labels(1)["version"] != old["version"]
    (tmp_path / "photos" / "labels" / "1.json").write_text('{"labels": ["cat"], "boxes": [[0, 0, 9, 9]]}')  # another program
    assert json.loads(client.send("GET", "/changes?since=9999&image=1")[1])["version"] == client.labels(1)["version"] != changes["version"]
    (tmp_path / "photos" / "labels" / "1.json").write_text("{")
    assert client.send("GET", "/labels/1")[0] == 422 and client.send("GET", "/changes?since=x&image=1")[0] == 200


def test_a_save_over_labels_that_cannot_be_read_may_be_tried_again(client, tmp_path):
    assert client.put(0, objects=[BOX])[0] == 200
    path, version = tmp_path / "photos" / "labels" / "0.json", client.labels(0)["version"]
    content = path.read_bytes()
    path.write_text("{")
    request = json.dumps({"version": version, "labelled": True, "objects": []}).encode()
    status, text, _ = client.send("PUT", "/labels/0", request)
    assert status == 422 and b"0.json" in text and path.read_text() == "{"
    path.write_bytes(content)
    assert client.send("PUT", "/labels/0", request)[0] == 200


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_full_or_read_only_disk_is_told_and_the_file_stays(client, tmp_path, monkeypatch, number):
    client.put(0, objects=[BOX])
    before = files_of(tmp_path)

    def fail(*_):
        raise OSError(number, os.strerror(number))
    monkeypatch.setattr("os.fsync", fail)
    status, text, _ = client.put(0)
    assert status == 507 and os.strerror(number) in text.decode() and files_of(tmp_path) == before
    monkeypatch.undo()
    assert client.put(0)[0] == 200


def test_many_writers_lose_no_change(client, site):
    def write(name: str) -> None:
        for _ in range(10):
            while True:
                labels = client.labels(0)
                status = client.send("PUT", "/labels/0", json.dumps({"version": labels["version"], "labelled": True, "objects": [
                    *labels["objects"], BOX | {"name": name}]}).encode())[0]
                if status == 200:
                    break
                assert status == 409
    threads = [threading.Thread(target=write, args=(name,)) for name in site.labels.classes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    names = [entry["name"] for entry in client.labels(0)["objects"]]
    assert [names.count(name) for name in site.labels.classes] == [10, 10]


def test_an_image_that_becomes_a_link_out_of_the_folder_is_not_served(client, site, tmp_path):
    Image.new("RGB", (60, 40)).save(tmp_path / "secret.png")
    assert client.send("GET", "/image/0")[0] == 200
    os.unlink(site.labels.images[0])
    os.symlink(tmp_path / "secret.png", site.labels.images[0])
    assert client.send("GET", "/image/0")[0] == 422


def test_images_are_shown_as_training_sees_them(tmp_path):
    root = tmp_path / "odd"
    root.mkdir()
    ramp = np.arange(64 * 48, dtype=np.uint16).reshape(48, 64) * 20
    Image.fromarray(ramp).save(root / "deep.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.uint8(ramp // 256)).save(root / "turned.jpg", exif=exif)
    Image.new("RGBA", (30, 20), (200, 10, 10, 0)).save(root / "clear.png")
    Image.new("CMYK", (30, 20), (0, 200, 10, 0)).save(root / "print.jpg")
    (root / "broken.jpg").write_bytes(b"no image")
    labels = opened(root, ["cat"])
    with served(Site(labels)) as url:
        client = Client(int(url.split(":")[2].split("/")[0]), url.split("=")[1])
        for index, path in enumerate(labels.images):
            status, content, _ = client.send("GET", f"/image/{index}")
            if path.endswith("broken.jpg"):
                assert status == 422 and b"broken.jpg" in content
                continue
            (tmp_path / "shown.jpg").write_bytes(content)
            shown, expected = read_image(str(tmp_path / "shown.jpg")).int(), read_image(path).int()
            assert shown.shape == expected.shape and (shown - expected).abs().max() <= 12, path


def test_mistakes_in_the_command_are_one_sentence_and_the_address_is_printed(tmp_path, capsys, monkeypatch):
    root = str(photographs(tmp_path))
    run = lambda **changes: annotate.annotate(**{"source": root, "classes": "cat, dog", "split": "", "run": "", "score": 0.5,
                                                 "host": "127.0.0.1", "port": 0, "follow_links": False} | changes)
    for changes, message in (({"classes": ""}, "name the classes, such as --classes"), ({"score": 2}, "--score 2"),
                             ({"port": 70000}, "a port is a number from 0 to 65535. Name another --port"),
                             ({"classes": "cat,,dog"}, "a name is empty"), ({"host": "203.0.113.1"}, "--host"),
                             ({"run": "none"}, "no such run")):
        with pytest.raises(BadInput, match=message):
            run(**changes)
    serve = "http.server.ThreadingHTTPServer.serve_forever"
    monkeypatch.setattr(serve, lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    def interrupted(**changes) -> str:
        with pytest.raises(KeyboardInterrupt):
            run(**changes)
        return capsys.readouterr().out
    output = interrupted()
    assert "http://127.0.0.1:" in output and "/?token=" in output and "ssh -L" in output and "train on it" not in output
    assert "0 of 3 images are labelled; all is saved" in output
    (tmp_path / "my photos").mkdir()
    (tmp_path / "0.png").rename(tmp_path / "my photos" / "0.png")
    labels = opened(tmp_path / "my photos", ["cat"])
    labels.save(0, labels.load(0).version, True, [BOX])
    hint = interrupted(source=str(tmp_path / "my photos")).rpartition("train on it: ")[2]
    subprocess.run(["bash", "-c", hint.partition("&&")[0]], cwd=tmp_path, check=True)
    config = load_config(str(tmp_path / "my photos.yaml"), [])
    assert (config.data.root, config.data.format) == (str(tmp_path / "my photos"), "per_image_json")
    assert hint.strip().endswith("&& fleet-rcnn train 'my photos.yaml'")
    assert "anybody who can reach this machine" in interrupted(host="0.0.0.0")
    for host, shown in (("0.0.0.0", "node7"), ("::", "node7"), ("::1", "[::1]"), ("10.0.0.1", "10.0.0.1")):
        assert f"http://{shown}:80/?token=" in annotate.describe(Site(labels), host, 80, "node7")[1]


def test_labels_that_cannot_be_read_when_a_page_saves_over_them_are_told(client, site, tmp_path, monkeypatch):
    version = client.labels(0)["version"]

    def conflict(*_):
        (tmp_path / "photos" / "labels").mkdir()
        (tmp_path / "photos" / "labels" / "0.json").write_text("{")
        raise Conflict
    monkeypatch.setattr(site.labels, "save", conflict)
    status, text, _ = client.send("PUT", "/labels/0", json.dumps({"version": version, "labelled": True, "objects": []}).encode())
    assert status == 422 and b"0.json" in text


def test_with_host_other_machines_may_come_by_address_or_name_only(site):
    open_site = replace(site, hosts=frozenset({"node7"}), is_open=True)
    with served(open_site) as url:
        client = Client(int(url.split(":")[2].split("/")[0]), site.token)
        for host, status in (("10.1.2.3:80", 200), ("node7", 200), ("[fe80::1]:9", 200), ("evil.example", 403)):
            assert client.send("GET", "/labels/0", Host=host, Origin=f"http://{host}")[0] == status


def test_the_room_has_no_dependency_of_its_own_and_listens_to_this_machine_alone(site):
    assert "starlette" not in (REPO / "pyproject.toml").read_text()
    with open_server(site, "127.0.0.1", 0) as server:
        assert server.server_address[0] == "127.0.0.1" and server.daemon_threads
    assert isinstance(site.labels.files, JsonFiles)
