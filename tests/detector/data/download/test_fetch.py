"""A file from a server that breaks: what arrives is whole and right, or is not there."""

import hashlib
import resource
import subprocess
import sys

import pytest
from loopback import serve

from detector.data.download.fetch import TRIES, download
from detector.errors import BadInput

CONTENT = bytes(range(256)) * 40  # 10,240 bytes
SHA = "sha256:" + hashlib.sha256(CONTENT).hexdigest()
MD5 = "md5:" + hashlib.md5(CONTENT).hexdigest()


@pytest.fixture
def target(tmp_path):
    return tmp_path / "new" / "folder" / "a.zip"


def fetched(world, target, checksum=SHA) -> None:
    download(f"{world.url}/a.zip", target, checksum, wait_s=0)
    assert target.read_bytes() == CONTENT
    assert [path.name for path in target.parent.iterdir()] == ["a.zip"], "nothing else is left"


@pytest.mark.parametrize("checksum", [SHA, MD5, ""])
def test_a_file_arrives(target, checksum):
    with serve({"/a.zip": CONTENT}) as world:
        fetched(world, target, checksum)
        assert world.asked == [("/a.zip", 0)]


@pytest.mark.parametrize("content", [b"", b"x"])
def test_the_smallest_files_arrive_too(target, content):
    with serve({"/a.zip": content}) as world:
        download(f"{world.url}/a.zip", target, "", wait_s=0)
    assert target.read_bytes() == content


def test_a_broken_connection_is_continued_where_it_broke(target):
    with serve({"/a.zip": CONTENT}, cuts=[4000, 1, 5000]) as world:
        fetched(world, target)
        assert world.asked == [("/a.zip", 0), ("/a.zip", 4000), ("/a.zip", 4001), ("/a.zip", 9001)]


def test_it_may_break_as_often_as_it_likes_while_it_brings_something(target):
    with serve({"/a.zip": CONTENT}, cuts=[1000] * 10) as world:
        fetched(world, target)
        assert len(world.asked) == 11 > TRIES


def test_a_server_without_ranges_begins_anew(target):
    with serve({"/a.zip": CONTENT}, ranges=False, cuts=[4000]) as world:
        fetched(world, target)
        assert len(world.asked) == 2


def test_a_server_that_does_not_say_how_large_it_is(target):
    with serve({"/a.zip": CONTENT}, states_size=False) as world:
        fetched(world, target)


@pytest.mark.parametrize("status", [500, 503, 429, 408])
def test_a_server_in_trouble_is_asked_again(target, status):
    with serve({"/a.zip": CONTENT}, errors=[status, status]) as world:
        fetched(world, target)
        assert len(world.asked) == 3


def test_nothing_comes_at_all(target):
    with serve({"/a.zip": CONTENT}, errors=[503] * 20) as world:
        with pytest.raises(BadInput, match=f"503.*{TRIES} times in a row.*Start again later"):
            download(f"{world.url}/a.zip", target, SHA, wait_s=0)
        assert len(world.asked) == TRIES
    with pytest.raises(BadInput, match="refused"):  # the server has gone
        download(f"{world.url}/a.zip", target, SHA, wait_s=0)
    assert not target.exists()


def test_a_wrong_address_is_told_at_once(target):
    with serve({}) as world:
        with pytest.raises(BadInput, match=r"404.*put it at .*a\.zip"):
            download(f"{world.url}/a.zip", target, SHA, wait_s=0)
        assert len(world.asked) == 1


def test_what_an_earlier_start_left_is_continued(target):
    target.parent.mkdir(parents=True)
    target.with_name("a.zip.part").write_bytes(CONTENT[:6000])
    with serve({"/a.zip": CONTENT}) as world:
        fetched(world, target)
        assert world.asked == [("/a.zip", 6000)]


def test_a_part_that_was_whole_is_only_checked(target):
    target.parent.mkdir(parents=True)
    target.with_name("a.zip.part").write_bytes(CONTENT)
    with serve({"/a.zip": CONTENT}) as world:
        fetched(world, target)


def test_a_part_that_is_longer_than_the_file_is_thrown_away(target):
    target.parent.mkdir(parents=True)
    target.with_name("a.zip.part").write_bytes(CONTENT + b"more")
    with serve({"/a.zip": CONTENT}) as world:
        fetched(world, target)
        assert world.asked == [("/a.zip", len(CONTENT) + 4), ("/a.zip", 0)]


@pytest.mark.parametrize("served, left", [(CONTENT[:-1] + b"!", b""), (b"<html>Sign in</html>", b""),
                                          (CONTENT[:6000] + CONTENT[7000:], CONTENT[:3000])])
def test_a_wrong_checksum_leaves_nothing_and_says_both(target, served, left):
    target.parent.mkdir(parents=True)
    if left:
        target.with_name("a.zip.part").write_bytes(left)
    with serve({"/a.zip": served}) as world:
        with pytest.raises(BadInput, match="not the file it should be: its sha256 is [0-9a-f]{64}, " + SHA[7:]):
            download(f"{world.url}/a.zip", target, SHA, wait_s=0)
    assert not list(target.parent.iterdir())


def test_a_full_disk_is_told_and_what_is_there_is_kept(target):
    """The limit on the size of a file stands in for the end of the disk: the system refuses to write on."""
    with serve({"/a.zip": CONTENT * 200}) as world:
        code = ("import sys; from pathlib import Path; from detector.data.download.fetch import download\n"
                "from detector.errors import BadInput\n"
                "try: download(sys.argv[1], Path(sys.argv[2]), '', 0)\n"
                "except BadInput as error: print(error); sys.exit(2)")
        limit = 1 << 20
        done = subprocess.run([sys.executable, "-c", code, f"{world.url}/a.zip", str(target)], capture_output=True,
                              text=True, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
        assert done.returncode == 2 and "cannot write" in done.stdout and "Make room" in done.stdout, done.stderr
        part = target.with_name("a.zip.part")
        assert 0 < part.stat().st_size <= limit and not target.exists()
        download(f"{world.url}/a.zip", target, "", wait_s=0)  # room was made
        assert target.read_bytes() == CONTENT * 200 and world.asked[-1][1] > 0
