"""vos-deploy-train, or `python -m vos_deploy.train`."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

from vos_deploy.commands import Parser, run_command, setup_logging
from vos_deploy.errors import InputError
from vos_deploy.methods import BUNDLED_WEIGHTS, METHODS, find_part
from vos_deploy.options import add_flags, build

from .apart import MODEL, check_apart
from .options import TrainOptions, read_toml, to_toml
from .stage import Stage, Training

logger = logging.getLogger(__name__)

EXAMPLE = """  python -m vos_deploy.train --method stm --stage main --davis DAVIS --youtube YTVOS \\
      --initial runs/stm-pretrain/model.safetensors --output runs/stm-main
  torchrun --nproc-per-node 4 -m vos_deploy.train ...        (several GPUs)
"""
# Options that name data: with one of them, --stage may be left out where the method has a default.
ROOTS = ("stills", "davis", "youtube", "bl30k")


@dataclass(frozen=True)
class Run:
    """What a command line asks for."""

    method: str
    name: str
    stage: Stage
    options: TrainOptions
    print_config: bool = False
    config: Path | None = None


class StageList(Exception):
    """The command line names a method and nothing else."""


def parser(arguments: Sequence[str] = ()) -> argparse.ArgumentParser:
    """The parser whose options and defaults are those of the method and stage in `arguments`."""
    known, _ = _selectors(argparse.ArgumentParser(add_help=False)).parse_known_args(arguments)
    method, name, _ = _select(known)
    training: Training = find_part(method, "TRAINING")
    shown: dict[str, Any] = {"output": f"runs/{method}"}
    if (stage := training.stages.get(name or training.default or "")) is not None:
        shown |= stage.values
    result = Parser(
        "vos-deploy-train",
        "--method METHOD [--stage STAGE] [options]",
        "Train a network on clips from still images and videos. An interrupted run resumes "
        "when started again with the same options. --method M alone lists the stages of a "
        "method; --method M --stage S --help shows their options and defaults.",
        EXAMPLE,
    )
    _selectors(result)
    result.add_argument(
        "--print-config", action="store_true", help="print the resulting options as TOML and exit"
    )
    add_flags(result, training.options, shown)
    return result


def _selectors(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument(
        "--method", choices=list(METHODS), help=f"which network (default: {BUNDLED_WEIGHTS})"
    )
    parser.add_argument("--stage", help="training stage; sets the defaults of the options")
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE.toml",
        help="options as TOML; the command line overrides it",
    )
    return parser


def _select(known: argparse.Namespace) -> tuple[str, str | None, dict[str, Any]]:
    """Method, stage if there is one, and the options of the configuration file."""
    config = read_toml(known.config) if known.config else {}
    method = known.method or config.pop("method", BUNDLED_WEIGHTS)
    stage = known.stage or config.pop("stage", None)
    config.pop("method", None)
    config.pop("stage", None)
    return method, None if stage is None else str(stage), config


def parse(arguments: Sequence[str]) -> Run:
    """Options in layers: the method's defaults, the stage's, the configuration file's, and those
    of the command line. Raises StageList if there is nothing to train."""
    given = vars(parser(arguments).parse_args(arguments))
    print_config = given.pop("print_config")
    selectors = {name: given.pop(name) for name in ("method", "stage", "config")}
    method, name, config = _select(argparse.Namespace(**selectors))
    training: Training = find_part(method, "TRAINING")
    if name is None:
        # A method alone lists its stages; data alone are trained on by the default one.
        if not print_config and not given and not config:
            raise StageList(stage_list(method, training))
        if training.default is None:
            raise InputError(f"give the --stage of {method}: {', '.join(training.stages)}")
        name = training.default
    stage = training.stage(name)
    output = {"output": Path(f"runs/{method}" if name == "mixed" else f"runs/{method}-{name}")}
    options = build(
        training.options,
        [
            ("default", output),
            (f"stage {name}", stage.values),
            (str(selectors["config"]), config),
            ("command line", given),
        ],
    )
    return Run(method, name, stage, options, print_config, selectors["config"])


def stage_list(method: str, training: Training) -> str:
    lines = [f"stages of {method}:"]
    for name, stage in training.stages.items():
        after = f" (after {stage.after})" if stage.after else ""
        needs = ", ".join(f"--{need}" for need in stage.needs)
        lines.append(f"  {name:10} {stage.summary}{after}" + (f"; needs {needs}" * bool(needs)))
    return "\n".join(lines)


def check(run: Run) -> None:
    """What can be known to be wrong before anything is read."""
    options = run.options
    for need in run.stage.needs:
        if not getattr(options, need):
            roots = [root for root in ROOTS if getattr(options, root)]
            # Part of the data is a choice; none of it is a mistake.
            if not roots:
                raise InputError(
                    f"no training data: stage {run.name} of {run.method} needs "
                    + " and ".join(f"--{n}" for n in run.stage.needs)
                )
            logger.warning("stage %s of %s is meant for --%s too", run.name, run.method, need)
    if not any(getattr(options, root) for root in ROOTS):
        raise InputError("no training data: give --stills, --davis, --youtube or --bl30k")
    if options.batch % options.accumulate:
        raise InputError(
            f"--batch must be a multiple of --accumulate {options.accumulate}, got {options.batch}"
        )
    options.size  # noqa: B018 (raises where --crop is no size)
    check_apart(options, run.config, to_toml(options, method=run.method, stage=run.name))


def train(run: Run) -> None:
    # PyTorch takes seconds to import: listing stages and printing options do without it.
    import torch

    from .data.files import BadFiles
    from .data.mixture import build_clips
    from .loop import Trainer
    from .processes import Processes

    task_type = find_part(run.method, "TASK")
    task_type.check(run.options)
    check(run)
    options = run.options
    rank = os.environ.get("RANK", "0")  # set by torchrun; each process has its own list
    bad = BadFiles(options.output / ("bad_files.txt" if rank == "0" else f"bad_files.{rank}.txt"))
    logger.info("looking through the data")
    clips = build_clips(options, bad)  # wrong folders show here, before anything is built
    if options.threads:
        torch.set_num_threads(options.threads)
    processes = Processes()
    try:
        per_iteration = options.batch * processes.count
        if options.epochs:
            iterations = math.ceil(options.epochs * clips.epoch_clips / per_iteration)
            options = dataclasses.replace(options, iterations=iterations)
        clips.total = options.iterations * per_iteration
        epochs = clips.total / clips.epoch_clips
        published = run.stage.values.get("batch", options.batch) * run.stage.gpus
        if per_iteration != published and run.stage.needs:
            logger.warning("%d clips a step; published: %d", per_iteration, published)
        logger.info(
            "%d iterations, %.1f epochs of %d clips, on %s; building the network",
            options.iterations, epochs, clips.epoch_clips, processes.device,
        )  # fmt: skip
        # Clips draw from their own generators: this is for the initial weights.
        torch.manual_seed(options.seed)
        task = task_type.build(options)
        Trainer(task, clips, options, processes, run.name, epochs, bad).train()
        bad.warn()
        if processes.first:
            print(f"wrote {options.output / MODEL}; export it with: {export_line(run)}")
    finally:
        processes.close()


def export_line(run: Run) -> str:
    """The command that exports what a run has learnt."""
    weights = quote(str(run.options.output / MODEL))
    return f"vos-deploy-export --method {run.method} --checkpoint {weights} --output {run.method}/"


def main(argv: Sequence[str] | None = None) -> int:
    def command(arguments: Sequence[str]) -> None:
        try:
            run = parse(arguments)
        except StageList as stages:
            print(stages)
            return
        if run.print_config:
            print(to_toml(run.options, method=run.method, stage=run.name), end="")
            return
        setup_logging(1)
        train(run)

    return run_command(command, argv)
