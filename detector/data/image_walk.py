"""Finds the images below a folder, through links, and says which folders could not be read."""

import os
from collections import deque
from dataclasses import dataclass, field
from typing import Callable

from detector.data.text_files import cannot_read
from detector.errors import BadInput, combine_mistakes, count_of

USUAL_EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif")
# Files of the others may be copies or masks: of images that differ in their ending alone, a usual one counts.
IMAGE_EXTENSIONS = (*USUAL_EXTENSIONS, ".jfif", ".jpe", ".mpo", ".avif", ".jp2", ".ppm", ".pgm")
HEIC_EXTENSIONS = (".heic", ".heif")  # photographs of phones, which are not decoded


@dataclass
class ImageListing:
    """The images below a folder."""

    paths: list[str] = field(default_factory=list)       # sorted
    unreadable: list[str] = field(default_factory=list)  # a message for each folder that cannot be listed
    skipped: list[str] = field(default_factory=list)     # folders that the caller leaves out
    heic: list[str] = field(default_factory=list)        # HEIC files, sorted, without those that an image is a copy of


def image_files(source: str) -> list[str]:
    """Returns the image file itself, or every image below a folder, sorted by path.

    Raises:
        BadInput: there is no such file or folder, a folder cannot be read, or no image is found.
    """
    listing = list_images(source)
    if listing.unreadable:
        raise combine_mistakes(source, listing.unreadable)
    return listing.paths


def list_images(source: str, leave_out: Callable[[str, list[str]], bool] = lambda folder, names: False) -> ImageListing:
    """Returns the image file itself, or the images below a folder: those whose name ends in one of IMAGE_EXTENSIONS.

    Hidden files and folders are left out. Linked folders are followed; every folder is listed once, under its own place
    if that lies below the source, too.

    Args:
        leave_out: called with the path of a folder below the source and the names in it; True leaves the folder out.

    Raises:
        BadInput: there is no such file or folder, it cannot be read, or all folders could be read and hold no image.
    """
    if not os.path.isdir(source):
        try:
            os.stat(source)
        except OSError as error:
            raise cannot_read(source, error, "image or folder") from error
        return ImageListing([source])
    listing, visited = ImageListing(), set()
    folders, links = deque([source]), deque()
    while folders or links:
        folder = folders.popleft() if folders else links.popleft()
        try:
            place = os.stat(folder)
            with os.scandir(folder) as scanned:
                entries = sorted(scanned, key=lambda entry: entry.name)
        except OSError as error:
            message = cannot_read(folder, error, "folder")
            if folder == source:
                raise message from error
            listing.unreadable.append(str(message))
            continue
        if (place.st_dev, place.st_ino) in visited:
            continue
        visited.add((place.st_dev, place.st_ino))
        if folder != source and leave_out(folder, [entry.name for entry in entries]):
            listing.skipped.append(folder)
            continue
        for entry in entries:
            if not entry.name.startswith("."):
                _add(entry, listing, folders, links)
    listing.paths.sort()
    stems = {os.path.splitext(path)[0] for path in listing.paths}
    listing.heic = sorted(path for path in listing.heic if os.path.splitext(path)[0] not in stems)
    if not listing.paths and not listing.unreadable:
        heic = f". {describe_heic(listing.heic)}" if listing.heic else ""
        raise BadInput(f"no image in {source}: no file name ends in one of {', '.join(IMAGE_EXTENSIONS)}{heic}")
    return listing


def describe_heic(paths: list[str]) -> str:
    """Returns a sentence about HEIC files."""
    return count_of(len(paths), "file is HEIC, which is not read",
                    "files are HEIC, which is not read") + f"; first: {paths[0]}. Save as JPEG"


def _add(entry: os.DirEntry, listing: ImageListing, folders: deque, links: deque) -> None:
    """Adds a path to the images, or to the folders and links that are listed later."""
    try:
        is_folder, is_file = entry.is_dir(), entry.is_file()
    except OSError:
        is_folder, is_file = False, False
    if is_folder:
        (links if entry.is_symlink() else folders).append(entry.path)
    # A link to nothing counts as an image: its reader says so. Pipes and devices are left out.
    elif (is_file or entry.is_symlink()) and entry.name.lower().endswith(IMAGE_EXTENSIONS):
        listing.paths.append(entry.path)
    elif is_file and entry.name.lower().endswith(HEIC_EXTENSIONS):
        listing.heic.append(entry.path)
