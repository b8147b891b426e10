"""The data sets of the published trainings: where they are, how they lie, what they allow."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DataSet:
    """flag: the option that takes it. layout: what lies in the folder that it is given."""

    name: str
    flag: str
    where: str
    layout: str
    licence: str


UNSTATED = "see its page; research use"

DATA_SETS = (
    DataSet(
        "DAVIS 2017 (TrainVal, 480p)",
        "--davis",
        "davischallenge.org",
        "JPEGImages/480p/<video>/00000.jpg, Annotations/480p/<video>/00000.png, "
        "ImageSets/2017/train.txt: 60 videos for training; the others are left out",
        "CC BY 4.0, a few sequences keep their YouTube terms",
    ),
    DataSet(
        "DAVIS 2016",
        "--davis",
        "davischallenge.org",
        "as DAVIS 2017, masks of 0 and 255, ImageSets/480p/train.txt: 30 videos for training",
        "CC BY 4.0, a few sequences keep their YouTube terms",
    ),
    DataSet(
        "YouTube-VOS 2018 or 2019 (train)",
        "--youtube",
        "youtube-vos.org",
        "[train/]JPEGImages/<video>/*.jpg, Annotations/<video>/*.png, meta.json: 3471 videos, "
        "every fifth frame",
        UNSTATED,
    ),
    DataSet(
        "BL30K",
        "--bl30k",
        "the page of MiVOS (github.com/hkchengrex/MiVOS)",
        "JPEGImages/<video>/*.jpg, Annotations/<video>/*.png: 29,989 rendered videos, 700 GB",
        "derived from ShapeNet: non-commercial",
    ),
    DataSet(
        "ECSSD",
        "--stills",
        "the page of ECSSD (Shi et al.)",
        "images/*.jpg and ground_truth_mask/*.png: 1000",
        UNSTATED,
    ),
    DataSet(
        "MSRA10K",
        "--stills",
        "mmcheng.net/msra10k",
        "a.jpg beside a.png: 10,000",
        UNSTATED,
    ),
    DataSet(
        "PASCAL VOC 2012",
        "--stills",
        "host.robots.ox.ac.uk/pascal/VOC",
        "JPEGImages/*.jpg and SegmentationObject/*.png (255 is void): 2913 with masks",
        "pictures by Flickr's terms",
    ),
    DataSet(
        "COCO",
        "--stills",
        "cocodataset.org",
        "train2017/ and annotations/instances_train2017.json, of which --draw-coco makes "
        "masks_train2017/ with one id per instance",
        "annotations CC BY 4.0, pictures by Flickr's terms",
    ),
    DataSet(
        "DUTS",
        "--stills",
        "saliencydetection.net/duts",
        "DUTS-TR-Image and DUTS-TR-Mask in DUTS-TR, the same for DUTS-TE: 10,553 and 5019",
        UNSTATED,
    ),
    DataSet(
        "FSS-1000",
        "--stills",
        "github.com/HKUSTCV/FSS-1000",
        "<class>/1.jpg beside <class>/1.png: 1000 classes of 10",
        UNSTATED,
    ),
    DataSet(
        "HRSOD",
        "--stills",
        "github.com/yi94code/HRSOD",
        "HRSOD_train and HRSOD_train_mask, or a.jpg beside a.png: 1610",
        UNSTATED,
    ),
    DataSet(
        "BIG",
        "--stills",
        "the page of CascadePSP (github.com/hkchengrex/CascadePSP)",
        "a_im.jpg beside a_gt.png, or a.jpg beside a.png: 150",
        UNSTATED,
    ),
    DataSet(
        "ADE20K",
        "--stills",
        "groups.csail.mit.edu/vision/datasets/ADE20K",
        "images/training/*.jpg and annotations/training/*.png: one id per class",
        UNSTATED,
    ),
    DataSet(
        "optical flow",
        "--flow files",
        "made by yourself: FlowNet2-CSS for DAVIS and RAFT for YouTube-VOS in the publication",
        "OpticalFlow/[480p/]<video>/<frame>.flo beside JPEGImages, from each frame to the one "
        "before; --flow dis needs none",
        "that of the network it is made with",
    ),
)
