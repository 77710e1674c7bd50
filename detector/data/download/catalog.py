"""The data sets of the tables: where their files come from, where they go, and what has to be there in the end.

Checksums are the ones that torchvision (VOC, md5), TensorFlow Datasets (COCO, SHA-256) and the MLPerf reference code
(minival, md5) carry. Visual Genome publishes none: its archives are held against the size that the server states and
the check sums inside the zip.
"""

from dataclasses import dataclass

ROBOTS = "https://thor.robots.ox.ac.uk/pascal/VOC"
COCO = "http://images.cocodataset.org"
GENOME = "https://homes.cs.washington.edu/~ranjay/visualgenome/data/dataset"
SPLITS = "https://raw.githubusercontent.com/peteanderson80/bottom-up-attention/master/data/genome"
MSRA = "https://dl.fbaipublicfiles.com/detectron2/ImageNetPretrained/MSRA"
VOCABULARY = 2500  # classes of the published Visual Genome row


@dataclass(frozen=True)
class Remote:
    """One file to fetch: an archive, which is unpacked, or a plain file, which stays as it is."""

    url: str
    megabytes: int      # about, for the table and the space check; what counts is what the server says
    checksum: str = ""  # "md5:..." or "sha256:..."; empty: nobody publishes one

    @property
    def name(self) -> str:
        return self.url.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class Source:
    """One data set."""

    about: str
    licence: str
    folder: str                  # below --root, where the files are unpacked
    use: str                     # what to write into a config
    files: tuple[Remote, ...]    # none: it cannot be had without an account; `by_hand` says how
    expected: dict[str, int]     # below `folder`: a folder and its number of files, or a file and its number of lines
    by_hand: str = ""


VOC_LICENCE = "photographs from flickr, under flickr's terms of use"
COCO_LICENCE = "annotations CC BY 4.0; photographs under flickr's terms of use"

SOURCES = {
    "voc2007": Source(
        "PASCAL VOC 2007, trainval and test, 20 classes", VOC_LICENCE, ".",
        "data: {format: voc, root: ROOT/VOCdevkit, train: VOC2007/trainval, val: VOC2007/test, classes: [voc]}",
        (Remote(f"{ROBOTS}/voc2007/VOCtrainval_06-Nov-2007.tar", 460, "md5:c52e279531787c972589f7e41ab4ae64"),
         Remote(f"{ROBOTS}/voc2007/VOCtest_06-Nov-2007.tar", 451, "md5:b6e924de25625d8de591ea690078ad9f")),
        {"VOCdevkit/VOC2007/ImageSets/Main/trainval.txt": 5011, "VOCdevkit/VOC2007/ImageSets/Main/test.txt": 4952,
         "VOCdevkit/VOC2007/Annotations": 9963, "VOCdevkit/VOC2007/JPEGImages": 9963}),
    "voc2012": Source(
        "PASCAL VOC 2012, trainval, 20 classes", VOC_LICENCE, ".",
        "data: {format: voc, root: ROOT/VOCdevkit, train: [VOC2007/trainval, VOC2012/trainval], val: VOC2007/test}",
        (Remote(f"{ROBOTS}/voc2012/VOCtrainval_11-May-2012.tar", 2000, "md5:6cd6e144f989b92b3379bac3b3de84fd"),),
        {"VOCdevkit/VOC2012/ImageSets/Main/trainval.txt": 11540, "VOCdevkit/VOC2012/Annotations": 17125,
         "VOCdevkit/VOC2012/JPEGImages": 17125}),
    "coco2017": Source(
        "COCO 2017, train and val, 80 classes", COCO_LICENCE, "coco",
        "data: {format: coco, root: ROOT/coco, train: train2017, val: val2017}",
        (Remote(f"{COCO}/annotations/annotations_trainval2017.zip", 253,
                "sha256:113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268"),
         Remote(f"{COCO}/zips/val2017.zip", 816,
                "sha256:4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05"),
         Remote(f"{COCO}/zips/train2017.zip", 19337,
                "sha256:69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929")),
        {"annotations/instances_train2017.json": 0, "annotations/instances_val2017.json": 0, "val2017": 5000,
         "train2017": 118287}),
    "coco2014+minival": Source(
        "COCO 2014, train and val, with the split into valminusminival (35k) and minival (5k)", COCO_LICENCE, "coco",
        "data: {format: coco, root: ROOT/coco, train: [train2014, valminusminival2014], val: minival2014}",
        (Remote("https://dl.fbaipublicfiles.com/detectron/coco/coco_annotations_minival.tgz", 74,
                "md5:2d2b9d2283adb5e3b8d25eec88e65064"),
         Remote(f"{COCO}/annotations/annotations_trainval2014.zip", 253,
                "sha256:031296bbc80c45a1d1f76bf9a90ead27e94e99ec629208449507a4917a3bf009"),
         Remote(f"{COCO}/zips/val2014.zip", 6645,
                "sha256:fe9be816052049c34717e077d9e34aa60814a55679f804cd043e3cbee3b9fde0"),
         Remote(f"{COCO}/zips/train2014.zip", 13511,
                "sha256:ede4087e640bddba550e090eae701092534b554b42b05ac33f0300b984b31775")),
        {"annotations/instances_train2014.json": 0, "annotations/instances_valminusminival2014.json": 0,
         "annotations/instances_minival2014.json": 0, "val2014": 40504, "train2014": 82783}),
    "visual_genome": Source(
        "Visual Genome 1.4, 2500 most frequent object names, the splits of bottom-up-attention", "CC BY 4.0",
        "visual_genome",
        "data: {format: visual_genome, root: ROOT/visual_genome, train: 2500/train, val: 2500/test}",
        (Remote(f"{SPLITS}/train.txt", 4), Remote(f"{SPLITS}/val.txt", 1), Remote(f"{SPLITS}/test.txt", 1),
         Remote(f"{GENOME}/image_data.json.zip", 2), Remote(f"{GENOME}/objects.json.zip", 414),
         Remote("https://cs.stanford.edu/people/rak248/VG_100K_2/images2.zip", 5470),
         Remote("https://cs.stanford.edu/people/rak248/VG_100K_2/images.zip", 9730)),
        {"train.txt": 98077, "val.txt": 5000, "test.txt": 5000, "image_data.json": 0, "objects.json": 0,
         "VG_100K": 0, "VG_100K_2": 0,
         f"{VOCABULARY}/objects_vocab.txt": VOCABULARY}),
    "caffe_weights": Source(
        "Caffe's ImageNet weights, which the rows of the tables start from: VGG16 with fc6 and fc7, ResNet-50 and -101",
        "VGG16: CC BY 4.0; ResNets: MIT", "weights", "model: {weights: ROOT/weights/R-101.pkl, pixel_format: caffe}",
        # VGG16 as its record at Zenodo keeps and checks it; the ResNets are detectron2's copies of MSRA's models
        (Remote("https://zenodo.org/records/4515252/files/vgg16_caffe.pth", 553,
                "md5:433ad40ddbd662d6448e13a6cef812f2"),
         Remote(f"{MSRA}/R-50.pkl", 103), Remote(f"{MSRA}/R-101.pkl", 179)),
        {"vgg16_caffe.pth": 0, "R-50.pkl": 0, "R-101.pkl": 0}),
    "imagenet_det": Source(
        "ImageNet DET (ILSVRC 2014 to 2017), 200 classes", "for research and education, by agreement with ImageNet",
        "ILSVRC",
        "data: {format: imagenet_det, root: ROOT/ILSVRC, train: train, val: val}", (),
        {"ImageSets/DET/train.txt": 0, "ImageSets/DET/val.txt": 0, "Annotations/DET/val": 0, "Data/DET/val": 0},
        "Register at https://image-net.org/download-images, take the DET archive (ILSVRC2017_DET.tar.gz) and its "
        "development kit, and unpack them so that FOLDER holds Data/DET/{train,val}, Annotations/DET/{train,val}, "
        "ImageSets/DET/{train,val}.txt and devkit/data/map_det.txt"),
}
