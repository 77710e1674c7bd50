"""Damaged image files of seven formats: each gives pixels or one error with its name; and the speed of decoders.

    python tests/benchmarks/image_files.py [--files 10000] [--seed 0] [--images 40]

Files are drawn from a seed: JPEG, PNG, WebP, TIFF, GIF, BMP and PPM of several kinds of pixels, each damaged at random. Child
processes read them with limited memory, so that a signal, a hang or the end of memory is counted and not fatal. What a
decoder prints is counted, too. Where a file gives pixels, image_size has to give their height and width.

The decoders of clean JPEGs and PNGs are measured on one core, interleaved: read_image, read_image without simplejpeg, and
those of torchvision and torchcodec, where they are installed. Appends a JSON line to tests/benchmarks/results/image_files.jsonl.
"""

import argparse
import collections
import io
import os
import random
import resource
import select
import signal
import tempfile
import warnings
import zlib
from pathlib import Path

import numpy as np
import torch
from measuring import append_result, draw_jpegs, draw_picture, format_spread, ratio, run_interleaved, spread
from PIL import Image

from detector.data import image_io
from detector.data.image_io import image_size, read_image
from detector.errors import BadInput

FORMATS = ("jpg", "png", "webp", "tif", "gif", "bmp", "ppm")
SECONDS_A_FILE = 20
MEMORY = 4 << 30  # bytes of address space that a child may use beyond its start
OUTCOMES = {b"p": "pixels", b"r": "refused", b"s": "another size than in the header", b"o": "another exception"}
BAD = ("another size than in the header", "another exception", "signal", "hang")


def draw_sources(height: int = 48, width: int = 72) -> dict[str, list[bytes]]:
    """Returns whole files of each format, of several kinds of pixels."""
    color = Image.fromarray(draw_picture(np.random.RandomState(0), height, width))
    deep = Image.fromarray(np.asarray(color.convert("L")).astype(np.uint16) * 16)
    real = Image.fromarray(np.asarray(color.convert("L")).astype(np.float32) / 255)
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a description"
    grey, few, alpha = color.convert("L"), color.convert("P", palette=Image.Palette.ADAPTIVE, colors=16), color.convert("RGBA")
    kinds = {
        "jpg": [(color, {"exif": exif}), (color, {"progressive": True}), (grey, {}), (color.convert("CMYK"), {}),
                (color, {"restart_marker_blocks": 3, "subsampling": 0})],
        "png": [(color, {"exif": exif}), (few, {}), (deep, {}), (alpha, {}), (color.convert("1"), {})],
        "webp": [(color, {"exif": exif}), (color, {"lossless": True}), (alpha, {})],
        "tif": [(color, {}), (color, {"compression": "tiff_lzw"}), (color, {"compression": "tiff_adobe_deflate"}),
                (color, {"compression": "jpeg"}), (deep, {}), (real, {"compression": "packbits"}), (few, {}),
                (color.convert("CMYK"), {})],
        "gif": [(few, {}), (few, {"save_all": True, "append_images": [few.rotate(90)]})],
        "bmp": [(color, {}), (few, {}), (color.convert("1"), {})],
        "ppm": [(color, {}), (grey, {}), (deep.convert("I"), {})]}
    return {name: [encode(image, name, options) for image, options in kinds[name]] for name in FORMATS}


def encode(image: Image.Image, name: str, options: dict) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, {"jpg": "JPEG", "tif": "TIFF"}.get(name, name.upper()), **options)
    return buffer.getvalue()


def damage(content: bytes, name: str, rng: random.Random) -> bytes:
    """Returns a file with bytes changed, removed, inserted or copied, often in its header; half of all PNGs with right checksums."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        reach = rng.choice((32, 400, len(data)))
        start = rng.randrange(min(reach, len(data)))
        count = rng.choice((1, 1, 2, 4, 64))
        kind = rng.randrange(7)
        if kind < 3:
            data[start:start + count] = rng.randbytes(count) if kind else bytes([rng.choice((0, 1, 127, 128, 255))]) * count
        elif kind == 3:
            del data[start:start + count]
        elif kind == 4:
            data[start:start] = rng.randbytes(count)
        elif kind == 5:
            source = rng.randrange(len(data))
            data[start:start + count] = data[source:source + count]
        else:
            del data[start + 1:]
        data = data or bytearray(b"\0")
    return right_checksums(bytes(data)) if name == "png" and rng.random() < 0.5 else bytes(data)


def right_checksums(data: bytes) -> bytes:
    """Returns a PNG whose chunks have the checksums of their content, so that decoders look at the content."""
    fixed, position = bytearray(data), 8
    while position + 12 <= len(fixed):
        end = position + 8 + int.from_bytes(fixed[position:position + 4], "big")
        if end + 4 > len(fixed):
            break
        fixed[end:end + 4] = zlib.crc32(fixed[position + 4:end]).to_bytes(4, "big")
        position = end + 4
    return bytes(fixed)


def read_one(path: str) -> bytes:
    """Returns the letter of an outcome, see OUTCOMES."""
    try:
        shape = tuple(read_image(path).shape)
    except BadInput as error:
        return b"r" if path in str(error) and len(str(error).splitlines()) == 1 else b"o"
    except BaseException:
        return b"o"
    try:
        return b"p" if (3, *image_size(path)) == shape else b"s"
    except BaseException:
        return b"s"


def run_child(sources: dict[str, list[bytes]], numbers: range, seed: int, folder: Path, pipe: int) -> None:
    """Draws and reads the files of these numbers; writes a letter before each and another one after it."""
    output = os.open(folder / "printed.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    for number in numbers:
        rng, name = random.Random(f"{seed} {number}"), FORMATS[number % len(FORMATS)]
        path = folder / f"{number}.{name}"
        path.write_bytes(damage(rng.choice(sources[name]), name, rng))
        os.write(pipe, b".")
        outcome = read_one(str(path))
        os.write(pipe, outcome)
        if outcome in b"pr":
            path.unlink()
    os.write(pipe, b"m%08d" % (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10))


def read_damaged(files: int, seed: int, folder: Path) -> dict:
    """Returns how many files had which outcome, by format; files with a bad outcome stay in `folder`."""
    sources, first = draw_sources(), 0
    counts = {name: collections.Counter() for name in FORMATS}
    line = {"peak_mib": 0, "bad": []}
    while first < files:
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                run_child(sources, range(first, files), seed, folder, writer)
            finally:
                os._exit(0)
        os.close(writer)
        first, end = follow(child, reader, first, counts, line)
        os.close(reader)
        if end:
            name = FORMATS[first % len(FORMATS)]
            counts[name][end.split()[0]] += 1
            line["bad"].append(f"{first}.{name}: {end}")
            first += 1
    printed = folder / "printed.txt"
    return {**line, "counts": {name: dict(counter) for name, counter in counts.items()},
            "printed_bytes": printed.stat().st_size if printed.exists() else 0}


def follow(child: int, reader: int, number: int, counts: dict, line: dict) -> tuple[int, str]:
    """Counts the outcomes of a child; returns the number of its next file and how it ended early: "" if it did not."""
    while select.select([reader], [], [], SECONDS_A_FILE)[0]:
        letter = os.read(reader, 1)
        if letter == b"m":
            line["peak_mib"] = max(line["peak_mib"], int(os.read(reader, 8)))
        elif letter in OUTCOMES:
            name = FORMATS[number % len(FORMATS)]
            counts[name][OUTCOMES[letter]] += 1
            if OUTCOMES[letter] in BAD:
                line["bad"].append(f"{number}.{name}: {OUTCOMES[letter]}")
            number += 1
        elif not letter:
            _, status = os.waitpid(child, 0)
            return number, f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else ""
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return number, "hang"


def measure_decoders(folder: Path, count: int, rounds: int) -> dict:
    """Returns images/s of one core by file format and decoder; decoders that are not installed are left out."""
    torch.set_num_threads(1)
    jpegs = draw_jpegs(folder / "speed", count, 480, 640)
    pngs = [path.with_suffix(".png") for path in jpegs]
    for jpeg, png in zip(jpegs, pngs):
        Image.open(jpeg).save(png)
    return {name: {decoder: [count / seconds for seconds in times] for decoder, times in run_interleaved(
        {decoder: lambda read=read: [read(str(path)) for path in paths] for decoder, read in decoders().items()}, rounds).items()}
        for name, paths in (("jpg", jpegs), ("png", pngs))}


def decoders() -> dict:
    """Returns functions that read a file, by name."""
    simplejpeg = image_io._simplejpeg

    def without_simplejpeg(path: str) -> torch.Tensor:
        image_io._simplejpeg = lambda: None
        try:
            return read_image(path)
        finally:
            image_io._simplejpeg = simplejpeg
    found = {"read_image": read_image, "Pillow": without_simplejpeg}
    warnings.simplefilter("ignore")
    try:
        from torchvision.io import ImageReadMode, decode_image
        found["torchvision"] = lambda path: decode_image(torch.from_numpy(np.fromfile(path, np.uint8)), ImageReadMode.RGB,
                                                         apply_exif_orientation=True)
    except ImportError:
        pass
    try:
        from torchcodec.decoders import decode_image as decode
        found["torchcodec"] = lambda path: decode(torch.from_numpy(np.fromfile(path, np.uint8)), mode="RGB")
    except ImportError:
        pass
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("files", 10_000), ("seed", 0), ("images", 40), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--out", default="", help="file to which the JSON line is appended")
    parser.add_argument("--keep", default="", help="folder in which files with a bad outcome stay")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(args.keep or temporary)
        folder.mkdir(parents=True, exist_ok=True)
        line = {"files": args.files, "seed": args.seed, **read_damaged(args.files, args.seed, folder)}
        for name, counter in line["counts"].items():
            print(f"{name:>5}: " + ", ".join(f"{count} {outcome}" for outcome, count in counter.items()))
        print(f"{len(line['bad'])} bad outcomes{': ' if line['bad'] else ''}{', '.join(line['bad'][:10])}; decoders printed "
              f"{line['printed_bytes']} bytes; {line['peak_mib']} MiB at the peak", flush=True)
        line["images_per_s"] = measure_decoders(Path(temporary), args.images, args.rounds)
    for name, by_decoder in line["images_per_s"].items():
        for decoder, values in by_decoder.items():
            print(f"{name:>5}, {decoder}: {format_spread(spread(values), 1)} images/s of one core, read_image is "
                  f"{format_spread(ratio(by_decoder['read_image'], values))} times as fast", flush=True)
    append_result("image_files", line, args.out)


if __name__ == "__main__":
    main()
