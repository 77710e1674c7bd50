"""Any image file becomes uint8 RGB as viewers show it, or an error with its name and the cause."""

import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from detector.data.image_io import image_size, read_image
from detector.data.image_walk import IMAGE_EXTENSIONS
from detector.errors import BadInput

HEIGHT, WIDTH = 16, 32
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
LETTERS = {RED: "r", GREEN: "g", BLUE: "b", WHITE: "w"}

# The corners as viewers show them, left to right and top to bottom, of pixels stored as rg/bw.
# (EXIF 2.32, tag 0x0112: where the stored first row and first column belong.)
TURNED = {1: "rgbw", 2: "grwb", 3: "wbgr", 4: "bwrg", 5: "rbgw", 6: "brwg", 7: "wgbr", 8: "gwrb"}


def quarters(height: int = HEIGHT, width: int = WIDTH) -> Image.Image:
    """Red and green above blue and white."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:height // 2, :width // 2], pixels[:height // 2, width // 2:] = RED, GREEN
    pixels[height // 2:, :width // 2], pixels[height // 2:, width // 2:] = BLUE, WHITE
    return Image.fromarray(pixels)


def corners(image: torch.Tensor) -> str:
    """The colour in the middle of each quarter, as a letter; compression may change it a little."""
    _, height, width = image.shape
    middles = [image[:, y, x].tolist() for y in (height // 4, 3 * height // 4) for x in (width // 4, 3 * width // 4)]
    return "".join(LETTERS.get(tuple(255 if value > 127 else 0 for value in middle), "?") for middle in middles)


def saved(tmp_path, ending: str, orientation: int = 1, image: Image.Image | None = None) -> str:
    exif, path = Image.Exif(), str(tmp_path / f"photo{ending}")
    exif[0x0112] = orientation
    (image or quarters()).save(path, **({"exif": exif} if orientation > 1 else {}))
    return path


def values(tmp_path, image: Image.Image, name: str, **options) -> list[list[int]]:
    """The first and the last pixel as they are read."""
    image.save(tmp_path / name, **options)
    pixels = read_image(str(tmp_path / name))
    assert pixels.dtype == torch.uint8
    assert tuple(pixels.shape) == (3, image.height, image.width) == (3, *image_size(str(tmp_path / name)))
    return [pixels[:, 0, 0].tolist(), pixels[:, -1, -1].tolist()]


def two(mode: str, first, last) -> Image.Image:
    """32 x 16 pixels, the left half of one value and the right half of another."""
    image = Image.new(mode, (WIDTH, HEIGHT), first)
    image.paste(last, (WIDTH // 2, 0, WIDTH, HEIGHT))
    return image


def png_16_bit_rgb(path, pixels: np.ndarray) -> None:
    """uint16 [H, W, 3] as PNG, colour type 2, bit depth 16, written by hand. (PNG specification, 11.2)"""
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0))
                     + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


# Formats

@pytest.mark.parametrize("ending", IMAGE_EXTENSIONS)
def test_every_listed_extension_can_be_read(tmp_path, ending):
    path = saved(tmp_path, ending)
    image = read_image(path)
    assert image.dtype == torch.uint8 and tuple(image.shape) == (3, HEIGHT, WIDTH)
    assert image_size(path) == (HEIGHT, WIDTH)
    assert corners(image) == "rgbw"


def test_the_content_of_a_file_decides_and_not_its_extension(tmp_path):
    quarters().save(tmp_path / "photo.jpg", format="PNG")
    quarters().save(tmp_path / "photo.png", format="JPEG")
    quarters().save(tmp_path / "photo.jpeg", format="BMP")
    for name in ("photo.jpg", "photo.png", "photo.jpeg"):
        assert corners(read_image(str(tmp_path / name))) == "rgbw"


def test_a_name_may_have_any_letters(tmp_path):
    quarters().save(tmp_path / "Übung 1 (#2)%20.png")
    assert corners(read_image(str(tmp_path / "Übung 1 (#2)%20.png"))) == "rgbw"


@pytest.mark.parametrize("width", [1, 3])
def test_an_image_may_be_as_small_as_one_pixel(tmp_path, width):
    Image.new("RGB", (width, 1), RED).save(tmp_path / "dot.png")
    assert read_image(str(tmp_path / "dot.png")).tolist() == [[[255] * width], [[0] * width], [[0] * width]]


# Colours

@pytest.mark.parametrize("name", ["grey.png", "grey.jpg", "grey.bmp", "grey.tif"])
def test_grey_becomes_three_equal_channels(tmp_path, name):
    first, last = values(tmp_path, two("L", 10, 200), name)
    assert first == pytest.approx([10] * 3, abs=1) and last == pytest.approx([200] * 3, abs=1)
    assert len(set(first)) == len(set(last)) == 1


@pytest.mark.parametrize("name", ["deep.png", "deep.tif"])
@pytest.mark.parametrize("stored, seen", [(0, 0), (257 * 100, 100), (257 * 128, 128), (65535, 255)])
def test_sixteen_bit_grey_becomes_eight(tmp_path, name, stored, seen):
    deep = Image.fromarray(np.full((HEIGHT, WIDTH), stored, np.uint16))
    assert values(tmp_path, deep, name) == [[seen] * 3] * 2


def test_sixteen_bit_colour_becomes_eight(tmp_path):
    png_16_bit_rgb(tmp_path / "deep.png", np.array([[[0, 257 * 100, 65535], [65535, 0, 257]]], np.uint16))
    image = read_image(str(tmp_path / "deep.png"))
    assert image.dtype == torch.uint8
    assert image[:, 0].T.tolist() == [[0, 100, 255], [255, 0, 1]]
    assert image_size(str(tmp_path / "deep.png")) == (1, 2)


@pytest.mark.parametrize("name", ["clear.png", "clear.tif"])
def test_transparency_is_dropped_and_the_colour_below_it_stays(tmp_path, name):
    assert values(tmp_path, two("RGBA", (10, 20, 30, 0), (40, 50, 60, 128)), name) == [[10, 20, 30], [40, 50, 60]]


def test_transparent_grey(tmp_path):
    assert values(tmp_path, two("LA", (10, 0), (200, 255)), "clear.png") == [[10] * 3, [200] * 3]


@pytest.mark.parametrize("name", ["few.png", "few.gif", "few.bmp", "few.tif"])
def test_a_palette_is_looked_up(tmp_path, name):
    few = two("P", 0, 1)
    few.putpalette([10, 20, 30, 40, 50, 60])
    assert values(tmp_path, few, name) == [[10, 20, 30], [40, 50, 60]]


def test_a_palette_with_a_transparent_colour(tmp_path):
    few = two("P", 0, 1)
    few.putpalette([10, 20, 30, 40, 50, 60])
    assert values(tmp_path, few, "few.png", transparency=0) == [[10, 20, 30], [40, 50, 60]]


def test_black_and_white(tmp_path):
    assert values(tmp_path, two("1", 0, 1), "bits.png") == [[0] * 3, [255] * 3]


@pytest.mark.parametrize("name", ["print.jpg", "print.tif"])
@pytest.mark.parametrize("ink, seen", [((0, 0, 0, 0), (255, 255, 255)), ((0, 0, 0, 255), (0, 0, 0)),
                                       ((255, 0, 0, 0), (0, 255, 255)), ((0, 255, 255, 0), (255, 0, 0))])
def test_the_four_inks_of_print_become_red_green_blue(tmp_path, name, ink, seen):
    for pixel in values(tmp_path, Image.new("CMYK", (WIDTH, HEIGHT), ink), name):
        assert pixel == pytest.approx(list(seen), abs=2)


def test_the_first_picture_of_several_counts(tmp_path):
    first, second = two("L", 10, 10), two("L", 200, 200)
    first.save(tmp_path / "film.gif", save_all=True, append_images=[second])
    assert read_image(str(tmp_path / "film.gif"))[:, 0, 0].tolist() == [10] * 3
    first.convert("RGB").save(tmp_path / "two.mpo", save_all=True, append_images=[second.convert("RGB")])
    assert read_image(str(tmp_path / "two.mpo"))[:, 0, 0].tolist() == pytest.approx([10] * 3, abs=1)


# Photographs that lie on their side

@pytest.mark.parametrize("ending", [".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize("orientation", TURNED)
def test_an_image_is_turned_as_its_camera_says(tmp_path, ending, orientation):
    path = saved(tmp_path, ending, orientation)
    image = read_image(path)
    assert corners(image) == TURNED[orientation]
    assert tuple(image.shape[1:]) == ((HEIGHT, WIDTH) if orientation < 5 else (WIDTH, HEIGHT))


@pytest.mark.parametrize("ending", [".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize("orientation", TURNED)
def test_the_size_in_the_header_is_that_of_the_pixels_that_are_read(tmp_path, ending, orientation):
    path = saved(tmp_path, ending, orientation)
    assert image_size(path) == tuple(read_image(path).shape[1:])


@pytest.mark.parametrize("ending", [".jpg", ".png", ".webp"])
@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_the_annotated_size_decides_whether_the_image_was_turned_when_its_boxes_were_drawn(tmp_path, ending,
                                                                                          orientation):
    path = saved(tmp_path, ending, orientation)
    assert corners(read_image(path, (WIDTH, HEIGHT))) == TURNED[orientation]
    assert corners(read_image(path, (HEIGHT, WIDTH))) == "rgbw"


@pytest.mark.parametrize("orientation", TURNED)
def test_a_square_is_turned_as_its_camera_says_since_its_size_does_not_tell(tmp_path, orientation):
    path = saved(tmp_path, ".jpg", orientation, quarters(32, 32))
    assert corners(read_image(path, (32, 32))) == TURNED[orientation]


@pytest.mark.parametrize("annotated", [(HEIGHT + 1, WIDTH), (WIDTH, HEIGHT), (2 * HEIGHT, 2 * WIDTH)])
def test_another_size_than_annotated_is_an_error_with_both(tmp_path, annotated):
    path = saved(tmp_path, ".jpg")
    with pytest.raises(BadInput) as caught:
        read_image(path, annotated)
    for part in (path, f"{WIDTH}x{HEIGHT}", f"{annotated[1]}x{annotated[0]}"):
        assert part in str(caught.value)


def test_an_orientation_that_does_not_exist_turns_nothing(tmp_path):
    for orientation in (9, 0xFFFF):
        path = saved(tmp_path, ".jpg", orientation)
        assert corners(read_image(path)) == "rgbw"
        assert image_size(path) == (HEIGHT, WIDTH)


# Files that are no image

@pytest.mark.filterwarnings("ignore:Truncated File Read")  # Pillow's own remark about a TIFF
@pytest.mark.parametrize("ending", [".jpg", ".png", ".bmp", ".gif", ".webp", ".tif", ".avif", ".jp2", ".ppm", ".mpo"])
@pytest.mark.parametrize("fraction", [0, 0.01, 0.5, 0.9])
def test_a_truncated_file_is_an_error_with_its_name_and_a_remedy(tmp_path, ending, fraction):
    noise = np.arange(64 * 64 * 3, dtype=np.uint32).reshape(64, 64, 3) * 2654435761 >> 24  # compresses badly
    path = tmp_path / f"cut{ending}"
    Image.fromarray(noise.astype(np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:int(fraction * path.stat().st_size)])
    with pytest.raises(BadInput) as caught:
        read_image(str(path))
    assert f"corrupt image {path}: " in str(caught.value) and "data.unreadable_images=grey" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("content, reason", [
    (b"", "the file is empty"), (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a pointer of Git LFS"),
    (b"\n<!DOCTYPE html><html></html>", "a web page"), (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC"),
    (b"PK\3\4", "a zip archive"), (b"text", "unknown image format")])
def test_a_file_that_is_something_else_is_called_by_its_name(tmp_path, content, reason):
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(BadInput, match=reason):
        read_image(str(tmp_path / "a.jpg"))


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"<html>404</html>", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"])
@pytest.mark.parametrize("read", [read_image, image_size])
def test_a_file_that_is_no_image_is_an_error_with_its_name_and_a_remedy(tmp_path, content, read):
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    with pytest.raises(BadInput) as caught:
        read(str(path))
    assert f"corrupt image {path}: " in str(caught.value)
    # Without a size from the annotations no grey picture can stand in.
    assert ("data.unreadable_images=grey" if read is read_image else "remove it and its annotations") in str(caught.value)


@pytest.mark.parametrize("read", [read_image, image_size])
def test_an_image_of_too_many_pixels_is_refused_with_their_number(tmp_path, read):
    path = tmp_path / "bomb.png"
    png_16_bit_rgb(path, np.zeros((1, 2, 3), np.uint16))
    data = bytearray(path.read_bytes())
    data[16:24] = struct.pack(">II", 30_000, 30_000)          # width and height,
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))  # and the checksum that belongs to them
    path.write_bytes(data)
    with pytest.raises(BadInput, match="bomb.png: 30000x30000 pixels, 900,000,000 in all, .* Cut it into tiles"):
        read(str(path))


@pytest.mark.parametrize("read", [read_image, image_size])
def test_a_missing_file_is_called_missing(tmp_path, read):
    with pytest.raises(BadInput, match=f"no such image file: {tmp_path}/gone.jpg"):
        read(str(tmp_path / "gone.jpg"))


@pytest.mark.parametrize("read", [read_image, image_size])
def test_a_folder_is_no_image(tmp_path, read):
    with pytest.raises(BadInput, match=str(tmp_path)):
        read(str(tmp_path))
