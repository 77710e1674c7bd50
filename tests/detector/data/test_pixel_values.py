"""Pixels of any depth become uint8 by one rule, the same for a file, a PIL image, an array and a tensor."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from detector.data.image_io import array_to_tensor, is_blank, pil_to_tensor, read_image
from detector.data.pixel_values import apply_orientation, rgb_from_array, to_uint8
from detector.errors import BadInput
from detector.inference.predictor import to_image_tensor

RAMP = np.linspace(0, 1, 64 * 48).reshape(48, 64)


def write_png(path, pixels: np.ndarray) -> None:
    """Writes uint16 [H, W, C] as a PNG of 16 bits: grey, grey with alpha, RGB or RGBA. (PNG specification, 11.2)"""
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    height, width, channels = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels],
                     0, 0, 0)) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


@pytest.mark.parametrize("values, expected", [
    (np.array([0, 7, 255], np.uint8), [0, 7, 255]), (np.array([False, True]), [0, 255]),
    (np.array([0, 100, 255], np.uint16), [0, 100, 255]),           # 8 bits in 16
    (np.array([0, 400, 1023], np.uint16), [0, 100, 255]),          # 10
    (np.array([0, 1600, 4095], np.uint16), [0, 100, 255]),         # 12
    (np.array([0, 6400, 16383], np.int32), [0, 100, 255]),         # 14
    (np.array([0, 25600, 65535], ">u2"), [0, 100, 255]), (np.array([0, 25600, 65535], np.uint32), [0, 100, 255]),
    (np.array([0, 12800, 32767], np.int16), [0, 100, 255]), (np.array([0, 12800, 32767], ">i2"), [0, 100, 255]),  # 15
    (np.array([0, 12800, 32767], np.int32), [0, 50, 127]),
    (np.array([0, 25600, 65535], np.float32), [0, 100, 255]), (np.array([0, 1600, 4095], np.float64), [0, 100, 255]),
    (np.array([0, 99.6, 255], np.float32), [0, 100, 255]), (np.array([0, 100 / 255, 1], np.float16), [0, 100, 255]),
    (np.array([-0.004, 0.5, 1.007]), [0, 128, 255]),               # interpolation exceeds the range a little
    (np.zeros(3), [0, 0, 0]), (np.zeros(0), [])])
def test_values_of_every_depth_become_eight_bits(values, expected):
    assert to_uint8(values).dtype == np.uint8 and to_uint8(values).tolist() == expected


@pytest.mark.parametrize("values, message", [
    (np.array([-5, 100], np.int16), "range from -5 to 100"), (np.array([0, 70000], np.int32), "to 70000"),
    (np.array([-1.0, 1.0]), "-1 to 1"),
    (np.array([-2.1, 2.64]), "-2.1"), (np.array([0, np.nan]), "NaN"), (np.array([0, np.inf]), "infinite"), (np.array([1e9]), "1e\\+09"),
    (np.array([1j]), "complex"), (np.array(["a"]), "type <U1"), (np.array([-2.0, -1.0]), "-2 to -1")])
def test_values_that_no_rule_covers_are_refused_with_their_range(values, message):
    with pytest.raises(BadInput, match=message):
        to_uint8(values)


@pytest.mark.parametrize("name, top, dtype", [
    ("a.png", 65535, np.uint16), ("a.png", 4095, np.uint16), ("a.png", 255, np.uint16), ("a.tif", 65535, np.uint16),
    ("a.tif", 65535, ">u2"),
    ("a.tif", 1023, ">u2"), ("a.tif", 255, np.int32), ("a.tif", 65535, np.int32), ("a.tif", 1, np.float32), ("a.tif", 255, np.float32),
    ("a.tif", 65535, np.float32)])
def test_deep_grey_files_are_as_bright_as_people_see_them_and_equal_the_pil_image_and_the_array(tmp_path, name, top, dtype):
    values = (RAMP * top).astype(dtype)
    path = tmp_path / name
    Image.fromarray(values).save(path)
    pixels = read_image(str(path))
    assert (pixels[0].numpy() - RAMP * 255).__abs__().max() <= 1.01
    for other in (Image.open(path), values, str(path), torch.from_numpy(values.astype(values.dtype.newbyteorder("=")))):
        assert torch.equal(to_image_tensor(other), pixels)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("top", [65535, 16383, 4095, 1023, 255])
def test_deep_colors_of_a_png_are_as_bright_as_deep_grey(tmp_path, channels, top):
    values = np.repeat((RAMP * top).astype(np.uint16)[..., None], channels, axis=2)
    if channels in (2, 4):
        values[..., -1] = 65535
    if channels > 2:
        values[..., 1] = 0
    write_png(tmp_path / "deep.png", values)
    pixels = read_image(str(tmp_path / "deep.png"))
    assert np.abs(pixels[0].numpy() - RAMP * 255).max() <= 1.01
    assert torch.equal(pixels, array_to_tensor(values)) and torch.equal(pixels, pil_to_tensor(Image.open(tmp_path / "deep.png")))
    loaded = Image.open(tmp_path / "deep.png")
    pil_to_tensor(loaded)
    assert loaded.size == (64, 48)  # the caller's image stays usable


@pytest.mark.parametrize("values", [np.full((4, 5), -1, np.int32), np.full((4, 5), np.nan, np.float32), np.full((4, 5), 1e6, np.float32)])
def test_a_file_of_values_that_no_rule_covers_is_refused_by_name_and_not_called_corrupt(tmp_path, values):
    Image.fromarray(values).save(tmp_path / "heights.tif")
    with pytest.raises(BadInput, match="^image .*heights.tif: .* Save it with 8 bits|^image .*heights.tif: .*save it with 8 bits"):
        read_image(str(tmp_path / "heights.tif"))


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "CMYK", "YCbCr", "LAB", "RGBX", "PA", "HSV", "I;16B"])
def test_pil_images_of_every_mode_become_rgb(mode):
    image = Image.new("RGB", (6, 4), (250, 250, 250))
    image = Image.new(mode, (6, 4), 64250) if mode == "I;16B" else image.convert("P").convert(mode) if mode == "PA" else (
        Image.new("LAB", (6, 4), (250, 128, 128)) if mode == "LAB" else image.convert(mode))
    pixels = pil_to_tensor(image)
    assert tuple(pixels.shape) == (3, 4, 6) and pixels.dtype == torch.uint8 and int(pixels.min()) > 200


def test_a_pil_image_is_turned_as_its_file(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    for ending in (".jpg", ".png", ".webp", ".tif"):
        Image.fromarray((RAMP * 255).astype(np.uint8)).convert("RGB").save(tmp_path / f"a{ending}", exif=exif)
        pixels = read_image(str(tmp_path / f"a{ending}"))
        assert tuple(pixels.shape) == (3, 64, 48)
        assert torch.equal(to_image_tensor(Image.open(tmp_path / f"a{ending}")), pixels)


def test_a_pil_image_whose_file_is_damaged_is_bad_input(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(np.random.RandomState(0).randint(0, 255, (40, 40, 3)).astype(np.uint8)).save(buffer, "PNG")
    (tmp_path / "cut.png").write_bytes(buffer.getvalue()[:2000])
    with pytest.raises(BadInput, match="cut.png"):
        to_image_tensor(Image.open(tmp_path / "cut.png"))


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 1), (4, 5, 2), (4, 5, 3), (4, 5, 4)])
def test_arrays_and_tensors_of_one_to_four_channels(shape):
    values = np.random.RandomState(0).randint(0, 256, shape).astype(np.uint8)
    pixels = to_image_tensor(values)
    assert tuple(pixels.shape) == (3, 4, 5)
    channels = values.reshape(4, 5, -1)
    assert torch.equal(pixels[0], torch.from_numpy(channels[..., 0]))
    assert torch.equal(pixels[2], torch.from_numpy(channels[..., 2 if channels.shape[2] > 2 else 0]))
    assert torch.equal(to_image_tensor(torch.from_numpy(channels).permute(2, 0, 1)), pixels)
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        assert (to_image_tensor(torch.from_numpy(channels).permute(2, 0, 1).to(dtype)).int() - pixels.int()).abs().max() <= 1


@pytest.mark.parametrize("shape", [(5,), (4, 5, 5), (4, 5, 0), (0, 5, 3), (1, 4, 5, 3), ()])
def test_other_shapes_are_no_image(shape):
    with pytest.raises(BadInput, match="shape"):
        rgb_from_array(np.zeros(shape, np.uint8))


@pytest.mark.parametrize("orientation, back", [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (6, 8), (7, 7), (8, 6)])
def test_every_turn_has_one_that_takes_it_back(orientation, back):
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    turned = apply_orientation(pixels, orientation)
    assert turned.shape[:2] == ((4, 2) if orientation > 4 else (2, 4)) and (apply_orientation(turned, back) == pixels).all()


@pytest.mark.parametrize("pixels, blank", [
    (torch.zeros(3, 4, 4), True), (torch.full((3, 4, 4), 200), True), (torch.arange(48).reshape(3, 4, 4) % 15, True),
    (torch.arange(48).reshape(3, 4, 4) * 5, False)])
def test_an_image_without_contrast_or_light_is_blank(pixels, blank):
    assert is_blank(pixels.to(torch.uint8)) == blank


def write_tiff(path, pixels: np.ndarray, sample_format: int) -> None:
    """Writes grey pixels [H, W] as an uncompressed TIFF; sample_format: 1 unsigned, 2 signed, 3 floats. (TIFF 6.0)"""
    order, data = pixels.dtype.str[0].replace("|", "<"), pixels.tobytes()
    tags = [(256, pixels.shape[1]), (257, pixels.shape[0]), (258, pixels.itemsize * 8), (259, 1), (262, 1), (273, 8), (277, 1),
            (278, pixels.shape[0]), (279, len(data)), (339, sample_format)]
    directory = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in tags)
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8 + len(data))
    path.write_bytes(start + data + struct.pack(f"{order}H", len(tags)) + directory + bytes(4))


@pytest.mark.parametrize("kind", ["<i2", ">i2"])
def test_signed_integers_of_16_bits_in_a_file_become_as_bright_as_in_an_array(tmp_path, kind):
    values = (RAMP * 32767).astype(kind)
    write_tiff(tmp_path / "a.tif", values, 2)
    pixels = read_image(str(tmp_path / "a.tif"))
    assert pixels.max() == 255 and torch.equal(pixels, array_to_tensor(values))


def test_a_whole_tiff_of_a_type_that_is_not_decoded_is_not_called_corrupt(tmp_path):
    write_tiff(tmp_path / "a.tif", (RAMP * 100).astype("<u8"), 1)
    with pytest.raises(BadInput, match=r"a\.tif cannot be decoded: a TIFF whose type of pixels, .* Save it with 8 bits"):
        read_image(str(tmp_path / "a.tif"))
