"""Opens SOURCE of `annotate`: a data set of a layout that can be written in place, or a folder of photographs."""

import os
from collections.abc import Sequence

from detector.annotation.coco_layout import CocoFiles
from detector.annotation.json_layout import JsonFiles
from detector.annotation.label_set import LabelSet
from detector.annotation.layouts import AnnotationFiles
from detector.annotation.voc_layout import VocFiles
from detector.annotation.yolo_layout import YoloFiles
from detector.config.schema import Data
from detector.data.formats import coco, per_image_json, voc, yolo
from detector.data.formats.detect import detect_layout
from detector.data.formats.file_index import FileIndex
from detector.data.formats.layouts import LAYOUTS
from detector.data.formats.listing import forget_folders
from detector.data.formats.subfolder_images import image_in_subfolder
from detector.data.formats.unusable import unusable_splits
from detector.data.formats.yolo_data_file import find_split, listed_names
from detector.data.formats.yolo_folders import images_of
from detector.data.formats.yolo_label_files import LabelFiles
from detector.data.image_io import image_size
from detector.data.image_walk import USUAL_EXTENSIONS, describe_heic, list_images
from detector.data.text_files import check_reachable
from detector.errors import BadInput, combine_mistakes, shorten

# images, their annotation files, classes, height and width of each image as annotated, sentences about what is left out
Opened = tuple[list[str], AnnotationFiles, Sequence[str], Sequence[Sequence[int]] | None, list[str]]
PREFERRED = (".jpg", ".jpeg")  # of images that differ in their ending alone


def open_source(source: str, classes: Sequence[str], split: str, follow_links: bool) -> tuple[LabelSet, list[str]]:
    """Returns the labels of SOURCE, and sentences about what was left out.

    Args:
        classes: that may be given to objects, besides those of the annotations.
        split: "": the only one that is there.
        follow_links: also take files that lie outside the folder, to which links or annotations lead.

    Raises:
        BadInput: the source cannot be read, its layout cannot be written, or there is no class.
    """
    check_reachable(source, "file or folder")
    if not os.path.exists(source):
        raise BadInput(f"no such file or folder: {source}. Name a folder of images, or of a data set")
    if os.path.basename(os.path.abspath(source)) in per_image_json.IMAGE_FOLDERS and _is_plain(source):
        source = os.path.dirname(os.path.abspath(source))
    if _is_plain(source):
        layout, root = "per_image_json", source
        split, opened = "all", _open_photographs(os.path.normpath(root))
    else:
        data, splits = detect_layout(Data(root=source), (split,) if split else ())
        layout, root, split = data.format, data.root, _one_split(splits)
        if layout not in OPEN:
            raise BadInput(f"{source} is read as {layout}, which cannot be written. Convert it first: fleet-rcnn "
                           f"convert {source} --to coco OUT")
        opened = OPEN[layout](root, split)
    images, files, known_names, sizes, notes = opened
    if not images:
        raise BadInput(f"the split {split} of {source} has no image. Add images, or name another --split")
    own_order = layout in ("coco", "yolo")  # else that of the command: so a class keeps its number and color
    names = list(dict.fromkeys([*known_names, *classes] if own_order else [*classes, *known_names]))
    if layout == "yolo" and len(names) > len(known_names):
        raise BadInput(f"--classes {','.join(classes)}: the classes of this data set are {', '.join(known_names)}. Add "
                       "others to its data.yaml or list of names")
    labels = LabelSet(layout, root, split, images, files, names, sizes)
    notes = notes if follow_links else notes + _leave_out_links(labels)
    files.paths[:] = map(os.path.realpath, files.paths)  # a file that is written would replace a link
    _read_all(labels)
    return labels, notes


def _is_plain(source: str) -> bool:
    """Returns whether a folder holds images and no annotations of any layout."""
    forget_folders()
    return os.path.isdir(source) and not any(layout.splits(source) for layout in LAYOUTS.values()) \
        and not any(unusable_splits(name, source) for name in LAYOUTS)


def _one_split(splits: Sequence[str]) -> str:
    if len(splits) > 1 and "all" not in splits:
        raise BadInput(f"several splits: {', '.join(splits)}. Name one with --split, such as --split {splits[0]}")
    return "all" if "all" in splits else splits[0]


def _open_coco(root: str, split: str) -> Opened:
    data = coco.read(root, split)
    files = CocoFiles([coco.annotation_file(root, split)])
    files.read()
    return [data.path(i) for i in range(len(data))], files, data.classes, data.sizes.tolist(), []


def _open_voc(root: str, split: str) -> Opened:
    data, tree = voc.read(root, split), voc.find_tree(root, split, "")
    images = [data.path(i) for i in range(len(data))]
    paths = [voc.annotation_file(tree, stem) for stem in voc.listed_stems(tree)]
    sizes = data.sizes.tolist()
    if not tree.list_file:  # then images without an annotation file belong to the split, too
        known = set(images)
        for stem in tree.images.stems(tree.recursive):
            image = os.path.join(root, tree.images.find(stem)[0])
            if not tree.annotations.find(stem) and image not in known:
                images.append(image)
                paths.append(os.path.join(root, tree.annotations.folder, f"{stem}.xml"))
                sizes.append(list(image_size(image)))
    return images, VocFiles(paths, images, sizes), data.classes, sizes, []


def _open_yolo(root: str, split: str) -> Opened:
    data, name = find_split(root, split)
    labels = LabelFiles(root, name)
    images, notes = _one_per_stem(images_of(root, split))
    names = data.names or listed_names(root) or yolo.read(root, split).classes
    sizes = [image_size(image) for image in images]
    paths = [labels.find(image) or labels.new_path(image) for image in images]
    return images, YoloFiles(paths, sizes, list(names), data.keypoints), names, None, notes


def _open_photographs(root: str) -> Opened:
    """Returns the images of a folder without annotations; their files will be in its sub-folder labels."""
    folders = [path for path in (os.path.join(root, name) for name in per_image_json.IMAGE_FOLDERS)
               if os.path.isdir(path)]
    folder = folders[0] if folders else root
    all_images, heic_notes = _list_images(folder)
    images, notes = _leave_out_sub_folders(all_images, folder, ())
    if not images:
        raise BadInput(f"{folder} itself holds no image: name the folder with the images, such as "
                       f"{os.path.dirname(all_images[0])}")
    images, twin_notes = _one_per_stem(images)
    paths = [os.path.join(root, "labels", f"{_stem(path, folder)}.json") for path in images]
    return images, JsonFiles(paths), [], None, notes + twin_notes + heic_notes


def _list_images(folder: str) -> tuple[list[str], list[str]]:
    """Returns all images below a folder, and a sentence about its HEIC files."""
    listing = list_images(folder)
    if listing.unreadable:
        raise combine_mistakes(folder, listing.unreadable)
    heic = [path for path in listing.heic if not os.path.dirname(_stem(path, folder))]
    return listing.paths, [describe_heic(heic)] if heic else []


def _open_json(root: str, split: str) -> Opened:
    annotations, pictures = per_image_json.find_folders(root, split, "")
    image_folder, label_folder = (os.path.join(root, index.folder) for index in (pictures, annotations))
    (images, heic_notes), notes = _list_images(image_folder), []
    files = {path: _json_of(path, root, pictures, annotations) for path in images}
    if split == "all":
        images, notes = _leave_out_sub_folders(images, image_folder, [path for path in images if files[path]])
    elif f"/{split}/" not in f"/{annotations.folder}/":  # a list, or a range
        listed = set(per_image_json.listed_stems(root, split, annotations))
        images = [path for path in images if _stem(path, image_folder) in listed]
    images, twin_notes = _one_per_stem(images)
    paths = [os.path.join(root, files[path][0]) if files[path] else
             os.path.join(label_folder, f"{_stem(path, image_folder)}.json") for path in images]
    names = {name for path in paths if os.path.exists(path) for name, _, _ in per_image_json.read_objects(path)}
    return images, JsonFiles(paths), sorted(names), None, notes + twin_notes + heic_notes


def _json_of(path: str, root: str, pictures: FileIndex, annotations: FileIndex) -> list[str]:
    """Returns the JSON files of an image: in the same sub-folder, or of the same name in none."""
    stem = _stem(path, os.path.join(root, pictures.folder))
    name = os.path.basename(stem)
    if (files := annotations.find(stem)) or name == stem or pictures.find(name) or not annotations.find(name):
        return files
    image = os.path.join(root, image_in_subfolder(pictures, annotations, name, os.path.basename(path)))
    return annotations.find(name) if os.path.samefile(image, path) else []


# Layout -> (root, split) -> Opened.
OPEN = {"coco": _open_coco, "voc": _open_voc, "yolo": _open_yolo, "per_image_json": _open_json}


def _stem(path: str, folder: str) -> str:
    return os.path.splitext(os.path.relpath(path, folder))[0]


def _leave_out_sub_folders(images: list[str], folder: str, labelled: Sequence[str]) -> tuple[list[str], list[str]]:
    """Returns the images of a folder itself and the labelled ones, and a sentence about the others.

    A first label below labels/NAME/ would make NAME a split, to which the images of the folder itself do not belong.
    """
    known = set(labelled)
    kept = [path for path in images if path in known or not os.path.dirname(_stem(path, folder))]
    others = [os.path.relpath(path, folder) for path in sorted({*images} - {*kept})]
    note = f"left out, in sub-folders: {shorten(others)}. Move them into {os.path.normpath(folder)} to label them"
    return kept, [note] if others else []


def _one_per_stem(images: list[str]) -> tuple[list[str], list[str]]:
    """Returns the images without those that differ from another one in their ending alone, and a sentence about these.

    Of such images the JPEG counts, else the first of USUAL_EXTENSIONS.
    """
    by_stem: dict[str, str] = {}
    ranks = (PREFERRED, USUAL_EXTENSIONS)
    for image in sorted(images, key=lambda path: [not path.lower().endswith(endings) for endings in ranks]):
        by_stem.setdefault(os.path.splitext(image)[0], image)
    kept = set(by_stem.values())
    others = [os.path.basename(image) for image in dict.fromkeys(images) if image not in kept]
    notes = [f"left out, as another image differs in its ending alone: {shorten(others)}"] if others else []
    return [image for image in dict.fromkeys(images) if image in kept], notes


def _leave_out_links(labels: LabelSet) -> list[str]:
    """Removes images that lie outside the folder, and returns a sentence about them.

    Raises:
        BadInput: an annotation file lies outside, or all images do.
    """
    root = os.path.join(os.path.realpath(labels.root), "")
    outside = [path for path in labels.files.paths if not os.path.realpath(path).startswith(root)]
    kept = [i for i, path in enumerate(labels.images) if os.path.realpath(path).startswith(root)]
    remedy = "Add --follow-links to take it all the same, or name the folder that holds everything"
    if outside:
        raise BadInput(f"the annotations {shorten(outside, 1)} lie outside {labels.root}. {remedy}")
    if not kept and labels.images:
        raise BadInput(f"all images lie outside {labels.root}, such as {os.path.realpath(labels.images[0])}. {remedy}")
    left_out = [labels.name(i) for i in sorted({*range(len(labels.images))} - {*kept})]
    labels.indices, labels.inside = kept, root
    return [f"left out, outside {labels.root}: {shorten(left_out)}. {remedy}"] if left_out else []


def _read_all(labels: LabelSet) -> None:
    """Reads the labels of all images once, for their states. Raises BadInput that lists what cannot be read."""
    mistakes = []
    for index in labels.indices:
        try:
            labels.load(index)
        except BadInput as error:
            mistakes.append(str(error))
    if mistakes:
        raise combine_mistakes(f"labels of {labels.root}", mistakes)
