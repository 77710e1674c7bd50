"""Downloading data sets from a local server, and the output of `data list`."""

import hashlib
import io
import json
import shutil
import tarfile
import zipfile

import pytest
import yaml
from loopback import serve

from detector.__main__ import main
from detector.config.schema import Data
from detector.data.cache import read_cached
from detector.data.download import get as get_module
from detector.data.download.catalog import CATALOG, CatalogEntry, RemoteFile
from detector.data.download.get import fold
from detector.errors import BadInput

IMAGES = {f"train/{n}.jpg": bytes([n]) * 3000 for n in range(5)}


def zipped(files: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, inside in files.items():
            archive.writestr(name, inside)
    return content.getvalue()


def tarred(files: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for name, inside in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(inside)
            archive.addfile(entry, io.BytesIO(inside))
    return content.getvalue()


FILES = {"/images.zip": zipped(IMAGES), "/notes.tar": tarred({"notes/a.json": b"[]"}), "/list.txt": b"1\n2\n3\n"}


def small_entry(server, wrong: str = "") -> CatalogEntry:
    """Three files, the first with a checksum (`wrong`: with this one)."""
    checksum = wrong or "sha256:" + hashlib.sha256(FILES["/images.zip"]).hexdigest()
    return CatalogEntry("three files", "free", "small", "data: {root: ROOT/small}", (
        RemoteFile(f"{server.url}/images.zip", 0, checksum), RemoteFile(f"{server.url}/notes.tar", 0),
        RemoteFile(f"{server.url}/list.txt", 0)), {"train": 5, "notes/a.json": 0, "list.txt": 3})


def get(server, root, **options):
    get_module.download_entry("small", small_entry(server, **options), root, wait_s=0)


def tree(root) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


WHOLE = {*(f"small/{name}" for name in IMAGES), "small/notes/a.json", "small/list.txt",
         *(f"downloads/{name}.unpacked" for name in ("images.zip", "notes.tar", "list.txt")), "downloads/lock"}


def test_all_files_are_downloaded_and_a_second_start_does_nothing(tmp_path, capsys):
    with serve(FILES) as server:
        get(server, tmp_path)
        assert tree(tmp_path) == WHOLE and len(server.requests) == 3
        assert "no checksum is published" in capsys.readouterr().out
        get(server, tmp_path)
        assert len(server.requests) == 3 and f"small is complete in {tmp_path / 'small'}" in capsys.readouterr().out


def test_a_data_set_that_was_copied_by_hand_is_left_unchanged(tmp_path):
    with serve(FILES) as server:
        get(server, tmp_path)
        shutil.rmtree(tmp_path / "downloads")
        get(server, tmp_path)
        assert len(server.requests) == 3


def test_a_broken_connection_is_continued_in_one_start_and_over_two(tmp_path):
    with serve(FILES, cuts=[500], errors=[]) as server:
        get(server, tmp_path / "one")
        assert [first for path, first in server.requests if path == "/images.zip"] == [0, 500]
    with serve(FILES, cuts=[700]) as server:
        def interrupted(*_):
            raise KeyboardInterrupt
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("time.sleep", interrupted)  # the user presses Ctrl-C while the download waits for its next try
            with pytest.raises(KeyboardInterrupt):
                get(server, tmp_path / "two")
        get(server, tmp_path / "two")
        assert [first for path, first in server.requests if path == "/images.zip"] == [0, 700]
    assert tree(tmp_path / "one") == tree(tmp_path / "two") == WHOLE


def test_an_archive_that_was_downloaded_by_hand_is_used(tmp_path):
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads" / "images.zip").write_bytes(FILES["/images.zip"])
    with serve({path: content for path, content in FILES.items() if path != "/images.zip"}) as server:
        get(server, tmp_path)
    assert tree(tmp_path) == WHOLE


def test_archives_are_kept_on_request(tmp_path):
    with serve(FILES) as server:
        get_module.download_entry("small", small_entry(server), tmp_path, keep=True)
    assert tree(tmp_path) == WHOLE | {f"downloads{path}" for path in FILES}


def test_a_wrong_checksum_is_an_error_and_nothing_is_unpacked(tmp_path):
    with serve(FILES) as server:
        with pytest.raises(BadInput, match="expected 0000"):
            get(server, tmp_path, wrong="md5:0000")
        assert tree(tmp_path) == {"downloads/lock"}
        get(server, tmp_path)
    assert tree(tmp_path) == WHOLE


def test_a_damaged_archive_is_removed_and_downloaded_again(tmp_path):
    with serve({**FILES, "/notes.tar": FILES["/notes.tar"][:700]}) as server:
        with pytest.raises(BadInput, match="notes.tar is damaged.*has been removed; start again"):
            get(server, tmp_path)
        server.files["/notes.tar"] = FILES["/notes.tar"]
        get(server, tmp_path)
        assert [path for path, _ in server.requests] == ["/images.zip", "/notes.tar", "/notes.tar", "/list.txt"]
    assert tree(tmp_path) == WHOLE


def test_an_archive_that_leads_outside_writes_nothing(tmp_path):
    with serve({**FILES, "/notes.tar": tarred({"../../evil": b"!"})}) as server:
        with pytest.raises(BadInput, match="outside the target folder.*removed"):
            get(server, tmp_path / "root")
    assert not list(tmp_path.rglob("evil"))


def test_too_little_space_is_an_error_before_the_download(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10 ** 9))
    remotes = [RemoteFile("http://127.0.0.1:9/a.zip", 300), RemoteFile("http://127.0.0.1:9/b.zip", 500)]
    with pytest.raises(BadInput, match="1.4 GB are needed, 1.0 GB are free"):  # (300 + 500 + 500) x 1.05
        get_module.check_space(remotes, tmp_path / "not" / "there" / "yet")
    get_module.check_space(remotes[:1], tmp_path)  # (300 + 300) x 1.05
    get_module.check_space([], tmp_path)
    with pytest.raises(BadInput, match="GB are needed"):
        get_module.download_dataset("coco2017", str(tmp_path / "data"))
    assert not (tmp_path / "data").exists(), "nothing was written"


def test_missing_parts_after_the_download_are_an_error(tmp_path):
    with serve({**FILES, "/images.zip": zipped({"train/0.jpg": b""}), "/list.txt": b"1\n"}) as server:
        incomplete = small_entry(server, "md5:" + hashlib.md5(zipped({"train/0.jpg": b""})).hexdigest())
        with pytest.raises(BadInput, match="lacks 4 of 5 files in .*train; 2 of 3 lines of .*list.txt"):
            get_module.download_entry("small", incomplete, tmp_path, wait_s=0)


def test_two_processes_do_not_write_the_same_file(tmp_path):
    with serve(FILES) as server, get_module.exclusive_lock(tmp_path):
        with pytest.raises(BadInput, match="another `data get` is running"):
            get(server, tmp_path)


def test_visual_genome_gets_its_vocabulary(tmp_path, monkeypatch):
    objects = [{"image_id": n, "objects": [{"names": [name], "x": 0, "y": 0, "w": 9, "h": 9}
                                           for name in (["man"] * n + ["Tree."])]} for n in (1, 2, 3)]
    lists = {f"/{name}.txt": f"VG_100K/{n}.jpg xml/{n}.xml\n".encode() for name, n in (("train", 2), ("test", 3))}
    files = {**lists, "/objects.json.zip": zipped({"objects.json": json.dumps(objects).encode()}),
             "/image_data.json.zip": zipped({"image_data.json": json.dumps(
                 [{"image_id": n, "height": 20, "width": 30} for n in (1, 2, 3)]).encode()}),
             "/images.zip": zipped({f"VG_100K/{n}.jpg": b"" for n in (1, 2, 3)})}
    with serve(files) as server:
        genome = CatalogEntry("", "", "vg", "", tuple(RemoteFile(server.url + path, 0) for path in files),
                        {"2/objects_vocab.txt": 2, "train.txt": 1})
        monkeypatch.setattr(get_module, "VOCABULARY_SIZE", 2)
        get_module.download_entry("visual_genome", genome, tmp_path, wait_s=0)
    assert (tmp_path / "vg" / "2" / "objects_vocab.txt").read_text() == "man\ntree\n"
    dataset = read_cached(Data(format="visual_genome", cache=str(tmp_path / "cache")), str(tmp_path / "vg"), "2/test")
    assert dataset.labels.tolist() == [1, 1, 1, 2] and dataset.image_ids.tolist() == [3]


def test_the_list_shows_the_state_of_each_data_set_and_how_to_get_it(tmp_path, capsys):
    (tmp_path / "coco" / "annotations").mkdir(parents=True)
    (tmp_path / "coco" / "annotations" / "instances_val2017.json").write_text("{}")
    assert main(["data", "list", "--root", str(tmp_path)]) == 0
    paragraphs = {text.split(":")[0]: text for text in capsys.readouterr().out.split("\n\n")}
    assert list(paragraphs) == list(CATALOG)
    for name, text in paragraphs.items():
        assert "licence: " in text and f"{tmp_path}" in text
        assert name == "imagenet_det" or f"data get {name} --root {tmp_path}" in text
        assert all(len(line) <= 80 or str(tmp_path) in line for line in text.splitlines())
    assert "voc2007: missing" in paragraphs["voc2007"] and "lacks" not in paragraphs["voc2007"]
    assert "incomplete" in paragraphs["coco2017"] and "lacks " + str(tmp_path / "coco" / "train2017") in paragraphs["coco2017"]
    assert "Register" in paragraphs["imagenet_det"] and "map_det.txt" in paragraphs["imagenet_det"]


@pytest.mark.parametrize("root", ["data", "/a rather long folder/" + "of-data/" * 5])
def test_the_config_of_a_data_set_stays_yaml_in_several_lines(root):
    for entry in CATALOG.values():
        line = entry.config_line.replace("ROOT", root)
        folded = "  " + fold(line)
        assert yaml.safe_load(folded) == yaml.safe_load(line)
        assert max(map(len, folded.splitlines())) <= 80 and (len(line) < 79 or "\n" in folded)


@pytest.mark.parametrize("name, pattern", [("voc2008", "Data sets: voc2007, "), ("imagenet_det", "Register at")])
def test_a_data_set_that_cannot_be_downloaded_is_an_error_with_a_remedy(name, pattern, tmp_path, capsys):
    assert main(["data", "get", name, "--root", str(tmp_path / "data")]) == 2
    assert pattern in capsys.readouterr().err and not (tmp_path / "data").exists()


def test_catalog_entries_are_complete_and_checksums_are_torchvisions():
    from torchvision.datasets.voc import DATASET_YEAR_DICT
    known = {entry["url"]: f"md5:{entry['md5']}" for entry in DATASET_YEAR_DICT.values()}
    for name in ("voc2007", "voc2012"):
        assert all(known[remote.url] == remote.checksum for remote in CATALOG[name].files)
    lengths = {"md5": 32, "sha256": 64}
    for entry in CATALOG.values():
        assert entry.expected and entry.licence and entry.config_line.startswith(("data: {format: ", "model: {weights: "))
        for remote in entry.files:
            kind, _, digits = remote.checksum.partition(":")
            assert remote.url.startswith("http") and remote.megabytes > 0
            assert not remote.checksum or len(digits) == lengths[kind] and int(digits, 16)
