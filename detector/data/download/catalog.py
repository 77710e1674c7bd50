"""The data sets of the published tables: URLs, checksums, target folders and the expected result.

The checksums are those that torchvision (VOC, md5), TensorFlow Datasets (COCO, SHA-256) and the MLPerf reference code
(minival, md5) use. None is published for Visual Genome: its archives are checked by the size that the server states and
by the checksums inside the zip. DeepPCB's archive is made anew by its server; its files are checked by their git tree.
"""

from dataclasses import dataclass

VOC_URL = "https://thor.robots.ox.ac.uk/pascal/VOC"
COCO_URL = "http://images.cocodataset.org"
VISUAL_GENOME_URL = "https://homes.cs.washington.edu/~ranjay/visualgenome/data/dataset"
SPLITS_URL = "https://raw.githubusercontent.com/peteanderson80/bottom-up-attention/master/data/genome"
MSRA_URL = "https://dl.fbaipublicfiles.com/detectron2/ImageNetPretrained/MSRA"
DEEPPCB_URL = "https://github.com/tangsanli5201/DeepPCB/archive"
VOCABULARY_SIZE = 2500  # classes of the published Visual Genome row


@dataclass(frozen=True)
class RemoteFile:
    """One file to download: an archive, which is unpacked, or a plain file, which is copied."""

    url: str
    megabytes: int      # approximate, for `data list` and the check of the disk space
    checksum: str = ""  # "md5:..." or "sha256:..."; empty: none is published

    @property
    def name(self) -> str:
        return self.url.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class CatalogEntry:
    """One data set."""

    description: str
    licence: str
    folder: str                     # below --root: where the files are unpacked
    config_line: str                # the lines of a configuration that use it
    files: tuple[RemoteFile, ...]   # empty: an account is needed, see `instructions`
    expected: dict[str, int]        # below `folder`: a folder and its number of files, or a file and its number of
                                    # lines; 0: any number
    instructions: str = ""          # how to get a data set that cannot be downloaded automatically


VOC_LICENCE = "photographs from flickr, under flickr's terms of use"
COCO_LICENCE = "annotations CC BY 4.0; photographs under flickr's terms of use"

CATALOG = {
    "voc2007": CatalogEntry(
        "PASCAL VOC 2007, trainval and test, 20 classes", VOC_LICENCE, ".",
        "data: {format: voc, root: ROOT/VOCdevkit, train: VOC2007/trainval, val: VOC2007/test, classes: [voc]}",
        (RemoteFile(f"{VOC_URL}/voc2007/VOCtrainval_06-Nov-2007.tar", 460, "md5:c52e279531787c972589f7e41ab4ae64"),
         RemoteFile(f"{VOC_URL}/voc2007/VOCtest_06-Nov-2007.tar", 451, "md5:b6e924de25625d8de591ea690078ad9f")),
        {"VOCdevkit/VOC2007/ImageSets/Main/trainval.txt": 5011, "VOCdevkit/VOC2007/ImageSets/Main/test.txt": 4952,
         "VOCdevkit/VOC2007/Annotations": 9963, "VOCdevkit/VOC2007/JPEGImages": 9963}),
    "voc2012": CatalogEntry(
        "PASCAL VOC 2012, trainval, 20 classes", VOC_LICENCE, ".",
        "data: {format: voc, root: ROOT/VOCdevkit, train: [VOC2007/trainval, VOC2012/trainval], val: VOC2007/test}",
        (RemoteFile(f"{VOC_URL}/voc2012/VOCtrainval_11-May-2012.tar", 2000, "md5:6cd6e144f989b92b3379bac3b3de84fd"),),
        {"VOCdevkit/VOC2012/ImageSets/Main/trainval.txt": 11540, "VOCdevkit/VOC2012/Annotations": 17125,
         "VOCdevkit/VOC2012/JPEGImages": 17125}),
    "coco2017": CatalogEntry(
        "COCO 2017, train and val, 80 classes", COCO_LICENCE, "coco",
        "data: {format: coco, root: ROOT/coco, train: train2017, val: val2017}",
        (RemoteFile(f"{COCO_URL}/annotations/annotations_trainval2017.zip", 253,
                "sha256:113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268"),
         RemoteFile(f"{COCO_URL}/zips/val2017.zip", 816,
                "sha256:4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05"),
         RemoteFile(f"{COCO_URL}/zips/train2017.zip", 19337,
                "sha256:69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929")),
        {"annotations/instances_train2017.json": 0, "annotations/instances_val2017.json": 0, "val2017": 5000,
         "train2017": 118287}),
    "coco2014+minival": CatalogEntry(
        "COCO 2014, train and val, with the split into valminusminival (35k) and minival (5k)", COCO_LICENCE, "coco",
        "data: {format: coco, root: ROOT/coco, train: [train2014, valminusminival2014], val: minival2014}",
        (RemoteFile("https://dl.fbaipublicfiles.com/detectron/coco/coco_annotations_minival.tgz", 74,
                "md5:2d2b9d2283adb5e3b8d25eec88e65064"),
         RemoteFile(f"{COCO_URL}/annotations/annotations_trainval2014.zip", 253,
                "sha256:031296bbc80c45a1d1f76bf9a90ead27e94e99ec629208449507a4917a3bf009"),
         RemoteFile(f"{COCO_URL}/zips/val2014.zip", 6645,
                "sha256:fe9be816052049c34717e077d9e34aa60814a55679f804cd043e3cbee3b9fde0"),
         RemoteFile(f"{COCO_URL}/zips/train2014.zip", 13511,
                "sha256:ede4087e640bddba550e090eae701092534b554b42b05ac33f0300b984b31775")),
        {"annotations/instances_train2014.json": 0, "annotations/instances_valminusminival2014.json": 0,
         "annotations/instances_minival2014.json": 0, "val2014": 40504, "train2014": 82783}),
    "visual_genome": CatalogEntry(
        "Visual Genome 1.4, 2500 most frequent object names, the splits of bottom-up-attention", "CC BY 4.0",
        "visual_genome",
        "data: {format: visual_genome, root: ROOT/visual_genome, train: 2500/train, val: 2500/test}",
        (RemoteFile(f"{SPLITS_URL}/train.txt", 4), RemoteFile(f"{SPLITS_URL}/val.txt", 1),
         RemoteFile(f"{SPLITS_URL}/test.txt", 1), RemoteFile(f"{VISUAL_GENOME_URL}/image_data.json.zip", 2),
         RemoteFile(f"{VISUAL_GENOME_URL}/objects.json.zip", 414),
         RemoteFile("https://cs.stanford.edu/people/rak248/VG_100K_2/images2.zip", 5470),
         RemoteFile("https://cs.stanford.edu/people/rak248/VG_100K_2/images.zip", 9730)),
        {"train.txt": 98077, "val.txt": 5000, "test.txt": 5000, "image_data.json": 0, "objects.json": 0,
         "VG_100K": 0, "VG_100K_2": 0,
         f"{VOCABULARY_SIZE}/objects_vocab.txt": VOCABULARY_SIZE}),
    "deeppcb": CatalogEntry(
        "DeepPCB, photographs of circuit boards with six kinds of defects, 1,000 for training and 500 for testing",
        "MIT; its authors ask for use in research only", "deeppcb",
        "data: {format: coco, root: ROOT/deeppcb, train: train, val: test}",
        (RemoteFile(f"{DEEPPCB_URL}/08e98c4db5922613fb97176eb3d6497d48260cb1.zip", 128),),
        {"annotations/instances_train.json": 0, "annotations/instances_test.json": 0, "images": 1500}),
    "caffe_weights": CatalogEntry(
        "Caffe's ImageNet weights, from which the published tables start: VGG16 with fc6 and fc7, ResNet-50 and -101",
        "VGG16: CC BY 4.0; ResNets: MIT", "weights", "model: {weights: ROOT/weights/R-101.pkl, pixel_format: caffe}",
        # VGG16 from Zenodo, with the checksum of its record; the ResNets are detectron2's copies of MSRA's models
        (RemoteFile("https://zenodo.org/records/4515252/files/vgg16_caffe.pth", 553,
                "md5:433ad40ddbd662d6448e13a6cef812f2"),
         RemoteFile(f"{MSRA_URL}/R-50.pkl", 103), RemoteFile(f"{MSRA_URL}/R-101.pkl", 179)),
        {"vgg16_caffe.pth": 0, "R-50.pkl": 0, "R-101.pkl": 0}),
    "imagenet_det": CatalogEntry(
        "ImageNet DET (ILSVRC 2014 to 2017), 200 classes", "for research and education, by agreement with ImageNet",
        "ILSVRC",
        "data: {format: imagenet_det, root: ROOT/ILSVRC, train: train, val: val}", (),
        {"ImageSets/DET/train.txt": 0, "ImageSets/DET/val.txt": 0, "Annotations/DET/val": 0, "Data/DET/val": 0},
        "Register at https://image-net.org/download-images, download the DET archive (ILSVRC2017_DET.tar.gz) and its "
        "development kit, and unpack them so that FOLDER contains Data/DET/{train,val}, Annotations/DET/{train,val}, "
        "ImageSets/DET/{train,val}.txt and devkit/data/map_det.txt"),
}
