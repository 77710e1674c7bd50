"""Downloads from a faulty server: the file is complete and correct, or does not exist."""

import hashlib
import resource
import subprocess
import sys

import pytest
from loopback import serve

from detector.data.download.fetch import MAX_TRIES, download
from detector.errors import BadInput

CONTENT = bytes(range(256)) * 40  # 10,240 bytes
SHA = "sha256:" + hashlib.sha256(CONTENT).hexdigest()
MD5 = "md5:" + hashlib.md5(CONTENT).hexdigest()


@pytest.fixture
def target(tmp_path):
    return tmp_path / "new" / "folder" / "a.zip"


def check_download(server, target, checksum=SHA) -> None:
    download(f"{server.url}/a.zip", target, checksum, wait_s=0)
    assert target.read_bytes() == CONTENT
    assert [path.name for path in target.parent.iterdir()] == ["a.zip"], "nothing else is left"


@pytest.mark.parametrize("checksum", [SHA, MD5, ""])
def test_a_file_arrives(target, checksum):
    with serve({"/a.zip": CONTENT}) as server:
        check_download(server, target, checksum)
        assert server.requests == [("/a.zip", 0)]


@pytest.mark.parametrize("content", [b"", b"x"])
def test_the_smallest_files_arrive_too(target, content):
    with serve({"/a.zip": content}) as server:
        download(f"{server.url}/a.zip", target, "", wait_s=0)
    assert target.read_bytes() == content


def test_a_broken_connection_is_continued_where_it_broke(target):
    with serve({"/a.zip": CONTENT}, cuts=[4000, 1, 5000]) as server:
        check_download(server, target)
        assert server.requests == [("/a.zip", 0), ("/a.zip", 4000), ("/a.zip", 4001), ("/a.zip", 9001)]


def test_a_connection_that_delivers_something_may_break_any_number_of_times(target):
    with serve({"/a.zip": CONTENT}, cuts=[1000] * 10) as server:
        check_download(server, target)
        assert len(server.requests) == 11 > MAX_TRIES


def test_a_server_without_ranges_begins_anew(target):
    with serve({"/a.zip": CONTENT}, ranges=False, cuts=[4000]) as server:
        check_download(server, target)
        assert len(server.requests) == 2


def test_a_server_that_does_not_state_the_size(target):
    with serve({"/a.zip": CONTENT}, states_size=False) as server:
        check_download(server, target)


@pytest.mark.parametrize("status", [500, 503, 429, 408])
def test_a_server_error_is_retried(target, status):
    with serve({"/a.zip": CONTENT}, errors=[status, status]) as server:
        check_download(server, target)
        assert len(server.requests) == 3


def test_a_server_that_never_delivers_is_an_error(target):
    with serve({"/a.zip": CONTENT}, errors=[503] * 20) as server:
        with pytest.raises(BadInput, match=f"503.*{MAX_TRIES} times in a row.*Start again later"):
            download(f"{server.url}/a.zip", target, SHA, wait_s=0)
        assert len(server.requests) == MAX_TRIES
    with pytest.raises(BadInput, match="refused"):  # the server has gone
        download(f"{server.url}/a.zip", target, SHA, wait_s=0)
    assert not target.exists()


def test_a_wrong_address_is_an_error_at_once(target):
    with serve({}) as server:
        with pytest.raises(BadInput, match=r"404.*put it at .*a\.zip"):
            download(f"{server.url}/a.zip", target, SHA, wait_s=0)
        assert len(server.requests) == 1


def test_a_partial_file_of_an_earlier_start_is_continued(target):
    target.parent.mkdir(parents=True)
    target.with_name("a.zip.part").write_bytes(CONTENT[:6000])
    with serve({"/a.zip": CONTENT}) as server:
        check_download(server, target)
        assert server.requests == [("/a.zip", 6000)]


def test_a_complete_partial_file_is_only_verified(target):
    target.parent.mkdir(parents=True)
    target.with_name("a.zip.part").write_bytes(CONTENT)
    with serve({"/a.zip": CONTENT}) as server:
        check_download(server, target)


def test_a_partial_file_that_is_longer_than_the_file_is_discarded(target):
    target.parent.mkdir(parents=True)
    target.with_name("a.zip.part").write_bytes(CONTENT + b"more")
    with serve({"/a.zip": CONTENT}) as server:
        check_download(server, target)
        assert server.requests == [("/a.zip", len(CONTENT) + 4), ("/a.zip", 0)]


@pytest.mark.parametrize("served, partial", [(CONTENT[:-1] + b"!", b""), (b"<html>Sign in</html>", b""),
                                          (CONTENT[:6000] + CONTENT[7000:], CONTENT[:3000])])
def test_a_wrong_checksum_leaves_no_file_and_the_error_names_both(target, served, partial):
    target.parent.mkdir(parents=True)
    if partial:
        target.with_name("a.zip.part").write_bytes(partial)
    with serve({"/a.zip": served}) as server:
        with pytest.raises(BadInput, match="not the expected file: its sha256 is [0-9a-f]{64}, expected " + SHA[7:]):
            download(f"{server.url}/a.zip", target, SHA, wait_s=0)
    assert not list(target.parent.iterdir())


def test_a_full_disk_is_an_error_and_the_partial_file_is_kept(target):
    """A limit on the file size replaces a full disk: the system refuses further writes."""
    with serve({"/a.zip": CONTENT * 200}) as server:
        code = ("import sys; from pathlib import Path; from detector.data.download.fetch import download\n"
                "from detector.errors import BadInput\n"
                "try: download(sys.argv[1], Path(sys.argv[2]), '', 0)\n"
                "except BadInput as error: print(error); sys.exit(2)")
        limit = 1 << 20
        done = subprocess.run([sys.executable, "-c", code, f"{server.url}/a.zip", str(target)], capture_output=True,
                              text=True, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
        assert done.returncode == 2 and "cannot write" in done.stdout and "Free some space" in done.stdout, done.stderr
        part = target.with_name("a.zip.part")
        assert 0 < part.stat().st_size <= limit and not target.exists()
        download(f"{server.url}/a.zip", target, "", wait_s=0)  # now there is space
        assert target.read_bytes() == CONTENT * 200 and server.requests[-1][1] > 0
