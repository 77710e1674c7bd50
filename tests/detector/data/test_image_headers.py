"""Sizes and orientations from headers, and metadata that cannot be parsed: it never changes whether an image is read."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from detector.data import image_io
from detector.data.image_headers import exif_block_orientation, read_jpeg_header, read_png_header
from detector.data.image_io import decoder_note, exif_orientation, image_size, read_image
from detector.errors import BadInput

NOISE = np.random.RandomState(0).randint(0, 256, (24, 40, 3)).astype(np.uint8)


def png_chunk(kind: bytes, content: bytes, checksum_is_right: bool = True) -> bytes:
    checksum = zlib.crc32(kind + content) ^ (0 if checksum_is_right else 1)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def png_with(*chunks: bytes, after_pixels: bool = False) -> bytes:
    """Returns a PNG of NOISE with more chunks, before or after its pixels."""
    buffer = io.BytesIO()
    Image.fromarray(NOISE).save(buffer, "PNG")
    data = buffer.getvalue()
    at = data.index(b"IEND") - 4 if after_pixels else data.index(b"IDAT") - 4
    return data[:at] + b"".join(chunks) + data[at:]


def jpeg_with(exif: bytes) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(NOISE).save(buffer, "JPEG")
    data = buffer.getvalue()
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 8) + b"Exif\0\0" + exif + data[2:]


def exif_block(orientation: int, order: str = "<", kind: int = 3) -> bytes:
    value = struct.pack(order + {1: "B3x", 3: "H2x", 4: "I"}[kind], orientation)
    return {"<": b"II", ">": b"MM"}[order] + struct.pack(f"{order}HIHHHI", 42, 8, 1, 0x0112, kind, 1) + value + bytes(4)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [1, 3, 4])
def test_the_orientation_is_read_from_a_block_of_either_byte_order_and_any_integer_type(order, kind):
    assert exif_block_orientation(exif_block(6, order, kind)) == 6
    assert exif_block_orientation(b"Exif\0\0" + exif_block(3, order, kind)) == 3


@pytest.mark.parametrize("block", [b"", b"II", b"XX*\0\x08\0\0\0", b"II*\0\xff\xff\xff\xff", exif_block(6)[:12], exif_block(0),
                                   exif_block(9),
                                   b"II*\0\x08\0\0\0\xff\xff", bytes(100)])
def test_a_block_that_cannot_be_parsed_states_no_orientation(block):
    assert exif_block_orientation(block) == 1


@pytest.mark.parametrize("chunk", [
    png_chunk(b"tEXt", b"Comment\0hello", checksum_is_right=False), png_chunk(b"eXIf", b"no exif at all"),
    png_chunk(b"eXIf", b"II*\0\xff\xff\xff\xff"),
    png_chunk(b"eXIf", exif_block(6), checksum_is_right=False), png_chunk(b"iCCP", b"profile\0\0not compressed"),
    png_chunk(b"zTXt", b"a\0\0broken"),
    png_chunk(b"tRNS", b"\0"), png_chunk(b"pHYs", b""), png_chunk(b"gAMA", b"\0\0\0\0"), png_chunk(b"acTL", b"\0"),
    png_chunk(b"iTXt", b"")])
@pytest.mark.parametrize("after_pixels", [False, True])
def test_metadata_of_a_png_that_cannot_be_parsed_is_ignored(tmp_path, chunk, after_pixels):
    path = tmp_path / "a.png"
    path.write_bytes(png_with(chunk, after_pixels=after_pixels))
    assert torch.equal(read_image(str(path)), torch.from_numpy(NOISE).permute(2, 0, 1))
    assert image_size(str(path)) == (24, 40) and exif_orientation(str(path)) == 1


@pytest.mark.parametrize("after_pixels", [False, True])
def test_exif_of_a_png_is_applied_wherever_it_stands(tmp_path, after_pixels):
    path = tmp_path / "a.png"
    path.write_bytes(png_with(png_chunk(b"eXIf", exif_block(6)), after_pixels=after_pixels))
    assert image_size(str(path)) == tuple(read_image(str(path)).shape[1:]) == (40, 24) and exif_orientation(str(path)) == 6


@pytest.mark.parametrize("exif, orientation", [(b"garbage", 1), (b"", 1), (exif_block(6)[:-8], 1), (exif_block(6), 6), (exif_block(77), 1)])
def test_exif_of_a_jpeg_that_cannot_be_parsed_is_ignored(tmp_path, exif, orientation):
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg_with(exif))
    assert exif_orientation(str(path)) == orientation
    assert image_size(str(path)) == tuple(read_image(str(path)).shape[1:]) == ((40, 24) if orientation == 6 else (24, 40))


def test_the_orientation_of_no_image_is_that_of_an_unturned_one(tmp_path):
    (tmp_path / "text.jpg").write_text("no image")
    assert exif_orientation(str(tmp_path / "text.jpg")) == exif_orientation(str(tmp_path / "none.jpg")) == 1


def test_headers_that_are_not_as_usual_are_left_to_the_decoder():
    for data in (b"\xff\xd8\xff\xd9", b"\xff\xd8\xff\xe0\0\0", b"\xff\xd8\xff", b"\xff\xd8\xff\xda\0\2", b"\xff\xd8garbage"):
        assert read_jpeg_header(io.BytesIO(data)) is None
    for chunks in (b"", png_chunk(b"IDAT", b""), png_chunk(b"IHDR", bytes(13))):
        assert read_png_header(io.BytesIO(b"\x89PNG\r\n\x1a\n" + chunks)) is None


@pytest.mark.parametrize("damage, message", [
    (lambda data: data[:len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1:], "checksum of a chunk IDAT"),
    (lambda data: data[:-40], "truncated"), (lambda data: data[:33] + png_chunk(b"CgBI", bytes(4)) + data[33:], "CgBI")])
def test_a_png_with_one_changed_byte_is_refused_by_name(tmp_path, damage, message):
    path = tmp_path / "a.png"
    path.write_bytes(damage(png_with()))
    with pytest.raises(BadInput, match=f"corrupt image .*a.png: .*{message}"):
        read_image(str(path))


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 30, "subsampling": 2},
                                     {"subsampling": 0, "restart_marker_blocks": 2}])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_pixels_of_a_jpeg_do_not_depend_on_whether_simplejpeg_is_installed(tmp_path, monkeypatch, options, mode):
    path = str(tmp_path / "a.jpg")
    Image.fromarray(NOISE).convert(mode).save(path, **options)
    with_it = [read_image(path), read_image(path, (24, 40), 2)]
    with open(path, "ab") as file:
        file.write(b"bytes after the end")
    assert torch.equal(read_image(path), with_it[0])
    monkeypatch.setattr(image_io, "_simplejpeg", lambda: None)
    assert torch.equal(read_image(path), with_it[0]) and torch.equal(read_image(path, (24, 40), 2), with_it[1])
    assert "pip install simplejpeg" in decoder_note()


def test_a_jpeg_that_viewers_repair_is_read_as_pillow_reads_it(tmp_path):
    """Stray bytes before the end are common in data sets; simplejpeg alone refuses them."""
    buffer = io.BytesIO()
    Image.fromarray(NOISE).save(buffer, "JPEG")
    path = tmp_path / "a.jpg"
    path.write_bytes(buffer.getvalue()[:-2] + b"stray" + buffer.getvalue()[-2:])
    assert torch.equal(read_image(str(path)), torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1))


@pytest.mark.parametrize("read", [read_image, image_size])
def test_a_file_that_may_not_be_read_is_not_called_corrupt(tmp_path, monkeypatch, read):
    def denied(path, *args, **kwargs):
        raise PermissionError(13, "Permission denied", path)
    monkeypatch.setattr("builtins.open", denied)
    with pytest.raises(BadInput, match="^cannot read image file a.jpg: Permission denied"):
        read("a.jpg")


@pytest.mark.parametrize("error", [MemoryError(), OverflowError("too large"), ZeroDivisionError(), struct.error("x"), KeyError(3),
                                   RecursionError()])
def test_whatever_a_decoder_raises_is_one_line_with_the_name(tmp_path, monkeypatch, error):
    path = tmp_path / "a.bmp"
    Image.fromarray(NOISE).save(path)
    monkeypatch.setattr(image_io, "open_with_pillow", lambda file, path: (_ for _ in ()).throw(error))
    for read in (read_image, image_size):
        with pytest.raises(BadInput, match="^corrupt image .*a.bmp: ") as caught:
            read(str(path))
        assert len(str(caught.value).splitlines()) == 1


def test_pillow_limits_and_warnings_of_the_program_are_kept(tmp_path, recwarn):
    path = str(tmp_path / "a.bmp")
    Image.fromarray(NOISE).save(path)
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = 100
    try:
        assert image_size(path) == (24, 40) and tuple(read_image(path).shape) == (3, 24, 40)
        assert Image.MAX_IMAGE_PIXELS == 100
    finally:
        Image.MAX_IMAGE_PIXELS = before
    assert not recwarn.list
