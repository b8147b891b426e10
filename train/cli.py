"""`python -m vos_deploy.train`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import torch

from vos_deploy.commands import make_parser, run_command, setup_logging
from vos_deploy.errors import InputError
from vos_deploy.models import STM, load_checkpoint, load_weights
from vos_deploy.models.imagenet import load_imagenet

from .clips import ClipMixture, StillClips, VideoClips
from .keys import align_keys
from .loop import Settings, Trainer
from .losses import LOSSES
from .stm import STMTask

EXAMPLE = """  python -m vos_deploy.train --method stm --stills ECSSD --davis DAVIS/2017/trainval \\
      --imagenet resnet50.pth --iterations 100000 --output runs/stm
  torchrun --nproc-per-node 4 -m vos_deploy.train ...        (several GPUs)
"""


def parser() -> argparse.ArgumentParser:
    parser = make_parser(
        "python -m vos_deploy.train",
        "Train a network on clips from still images and videos. A run that was stopped goes on "
        "when started again with the same options.",
        EXAMPLE,
    )
    add = parser.add_argument
    add("--method", choices=["stm"], default="stm", help="which network")
    add("--output", type=Path, default=Path("runs/stm"), help="checkpoints and TensorBoard log")

    network = parser.add_argument_group("network").add_argument
    network("--backbone", default="resnet50", help="resnet18, resnet34, resnet50 or resnet101")
    network(
        "--stem",
        choices=("others", "background"),
        default="others",
        help="what the memory encoder sees beside the mask: the other objects, or 1 - mask",
    )
    network("--key-dim", type=int, default=128, help="channels of the keys")
    network("--value-dim", type=int, default=512, help="channels of the values")
    network("--decoder-width", type=int, default=256, help="channels of the decoder")
    network("--imagenet", type=Path, help="ResNet weights by torchvision's names, for both trunks")
    network("--initial", type=Path, help="checkpoint of the same network to start from")
    network(
        "--freeze",
        default="",
        help="comma-separated prefixes of parameters that stay, such "
        "as Encoder_Q.conv1,Encoder_Q.bn1,Encoder_Q.res2",
    )
    network(
        "--align-keys",
        action="store_true",
        help="before the first step, set the key heads so that like looks match",
    )

    data = parser.add_argument_group("data").add_argument
    data("--stills", type=Path, nargs="+", default=[], help="still-image sets (image/ and mask/)")
    data("--davis", type=Path, nargs="+", default=[], help="folders in the DAVIS layout")
    data("--youtube", type=Path, nargs="+", default=[], help="folders in the YouTube-VOS layout")
    data(
        "--video-share",
        type=float,
        default=0.5,
        help="share of clips from videos, where there are stills too",
    )
    data("--crop", type=int, default=384, help="side of the training crop, a multiple of 16")
    data("--frames", type=int, default=3, help="frames of a clip")
    data("--objects", type=int, default=3, help="most objects of a clip")
    data(
        "--skip",
        type=int,
        nargs=2,
        default=(0, 25),
        metavar=("FIRST", "LAST"),
        help="most frames left out between two of a clip, growing over the first half of the run",
    )

    learning = parser.add_argument_group("learning").add_argument
    learning("--iterations", type=int, default=100_000, help="optimiser steps")
    learning("--batch", type=int, default=4, help="clips per step and process")
    learning("--accumulate", type=int, default=1, help="pieces a batch is taken in")
    learning("--learning-rate", type=float, default=1e-5, help="of Adam")
    learning("--weight-decay", type=float, default=0.0, help="of Adam")
    learning("--warm-up", type=int, default=0, help="steps of rising learning rate")
    learning("--schedule", choices=("constant", "cosine"), default="constant", help="after that")
    learning("--loss", choices=LOSSES, default="ce", help="cross-entropy, IoU loss or their sum")
    learning(
        "--bootstrap",
        type=float,
        default=1.0,
        help="share of pixels, the hardest, that count in the cross-entropy",
    )
    learning("--bootstrap-from", type=int, default=0, help="step before which all pixels count")
    learning("--clip-gradient", type=float, default=0.0, help="largest gradient norm; 0: any")
    learning(
        "--average",
        type=float,
        default=0.0,
        help="decay of the moving average of the weights that is saved for export; 0: none",
    )
    learning("--amp", choices=("none", "fp16", "bf16"), default="none", help="mixed precision")
    learning("--workers", type=int, default=2, help="processes that prepare clips")
    learning("--threads", type=int, default=0, help="CPU threads; 0: all")
    learning("--save-every", type=int, default=500, help="steps between checkpoints")
    learning("--seed", type=int, default=0, help="of weights and clips")
    return parser


def build_model(args: argparse.Namespace) -> STM:
    model = STM(
        backbone=args.backbone,
        stem=args.stem,
        key_dim=args.key_dim,
        value_dim=args.value_dim,
        decoder_width=args.decoder_width,
    )
    if args.imagenet:
        for encoder in (model.Encoder_M, model.Encoder_Q):
            load_imagenet(encoder, args.imagenet)
        # Two equal trunks and equal key heads: memory and query match by their looks from the
        # first step on.
        model.KV_M_r4.Key.load_state_dict(model.KV_Q_r4.Key.state_dict())
    if args.initial:
        checkpoint = load_checkpoint(args.initial, args.method)
        load_weights(model, checkpoint.state_dict, source=str(args.initial))
    return model


def train(args: argparse.Namespace) -> None:
    if args.crop % 16 or args.crop < 64:
        raise InputError(f"--crop {args.crop}: expected a multiple of 16 from 64 on")
    if args.batch % args.accumulate:
        raise InputError(f"--batch {args.batch} cannot be taken in --accumulate {args.accumulate}")
    if args.threads:
        torch.set_num_threads(args.threads)
    # Clips draw from their own generators: this is for the initial weights.
    torch.manual_seed(args.seed)
    settings = Settings(
        iterations=args.iterations,
        batch=args.batch,
        accumulate=args.accumulate,
        learning_rate=args.learning_rate,
        weight_decay=args.weight_decay,
        warm_up=args.warm_up,
        schedule=args.schedule,
        bootstrap_from=args.bootstrap_from,
        amp=args.amp,
        average=args.average,
        frozen=tuple(prefix for prefix in args.freeze.split(",") if prefix),
        clip_gradient=args.clip_gradient,
        save_every=args.save_every,
        workers=args.workers,
        seed=args.seed,
    )
    shape = {"crop": args.crop, "frames": args.frames, "objects": args.objects}
    processes = int(os.environ.get("WORLD_SIZE", 1))  # set by torchrun
    clips = ClipMixture(
        [StillClips(args.stills, **shape)] if args.stills else [],
        [VideoClips(root, **shape) for root in [*args.davis, *args.youtube]],
        args.video_share,
        tuple(args.skip),
        args.objects,
        total=args.iterations * args.batch * processes,
        seed=args.seed,
    )
    model = build_model(args)
    if args.align_keys and not (args.output / "last.pth").is_file():
        align_keys(model, clips)
    Trainer(STMTask(model, args.loss, args.bootstrap), model, clips, settings, args.output).train()


def main(argv: Sequence[str] | None = None) -> int:
    def command(arguments: Sequence[str]) -> None:
        args = parser().parse_args(arguments)
        setup_logging(1)
        train(args)

    return run_command(command, argv)
