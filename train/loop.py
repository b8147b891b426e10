"""The training loop: one process, or one per GPU under torchrun."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset, Subset
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from vos_deploy.errors import InputError
from vos_deploy.masks import overlay
from vos_deploy.models import Network

from . import checkpoints
from .apart import LAST
from .data.files import BadFiles
from .data.mixture import Sample, collate
from .interruption import Interruption, ignore_interruption
from .options import TrainOptions
from .processes import Processes, random_state, restore_random_state
from .schedule import Step, learning_rate
from .task import Task

logger = logging.getLogger(__name__)

Batches = Iterator[tuple[dict[str, Tensor], list[tuple[str, str]]]]
LINE_EVERY = 50
# The first line comes sooner: whoever waits for it sees that all is well, and how long it takes.
FIRST_LINE = 10


class Trainer:
    """Trains a task and keeps `options.output`: `last.pth` to resume from, `model.safetensors` to
    export, `bad_files.txt` if there are any, and a TensorBoard log."""

    def __init__(
        self,
        task: Task,
        clips: Dataset[Sample],
        options: TrainOptions,
        processes: Processes,
        stage: str = "",
        epochs: float = 1.0,
        bad: BadFiles | None = None,
    ) -> None:
        """options.iterations is final here; epochs: the passes through the data that it makes."""
        self.task, self.clips, self.options = task, clips, options
        self.processes, self.stage, self.epochs = processes, stage, epochs
        if not self.last.is_file():
            task.prepare(clips)
        self.bad = BadFiles() if bad is None else bad
        device = processes.device
        task.to(device)
        for parameter in task.parameters():
            # oneDNN and cuDNN convolutions both run faster channels-last.
            if parameter.dim() == 4:
                parameter.data = parameter.data.to(memory_format=torch.channels_last)
        task.train()
        for name, parameter in task.model.named_parameters():
            parameter.requires_grad = not task.frozen(name)
        adam = torch.optim.AdamW if options.decoupled_decay else torch.optim.Adam
        self.optimizer = adam(
            task.parameter_groups(),
            options.learning_rate,
            eps=options.epsilon,
            weight_decay=options.weight_decay,
            amsgrad=options.amsgrad,
        )
        self.scaler = torch.amp.GradScaler(device.type, enabled=options.amp == "fp16")
        # The average of the weights over the last iterations scores better than any one of them.
        average = get_ema_multi_avg_fn(options.average) if options.average else None
        self.averaged = AveragedModel(task.model, multi_avg_fn=average) if average else None
        self.distributed: nn.Module = task
        if processes.count > 1:
            self.distributed = DistributedDataParallel(
                task,
                [device.index] if device.type == "cuda" else None,
                find_unused_parameters=task.unused_parameters,
            )
        self.iteration, self.saved = 0, -1
        self.picture: tuple[Tensor, Tensor] | None = None

    @property
    def last(self) -> Path:
        return self.options.output / LAST

    @property
    def now(self) -> Step:
        return Step(self.iteration, self.options.iterations, self.epochs)

    def train(self) -> None:
        """Run up to `options.iterations`, from where `last.pth` stopped if it is there.

        Raises KeyboardInterrupt after Ctrl-C, with the step done and saved.
        """
        options, first = self.options, self.processes.first
        options.output.mkdir(parents=True, exist_ok=True)
        if self.last.is_file():
            self.resume()
        log = SummaryWriter(str(options.output), purge_step=self.iteration) if first else None
        bar = tqdm(
            initial=self.iteration, total=options.iterations, disable=None if first else True
        )
        try:
            # Several processes would each stop at a step of their own.
            with Interruption(self.processes.count == 1) as stop:
                self.steps(bar, log, stop)
        finally:
            bar.close()
            if log is not None:
                log.close()

    def steps(self, bar: Any, log: SummaryWriter | None, stop: Interruption) -> None:
        """All steps that are left, with a line in the terminal and a checkpoint from time to
        time."""
        options, first = self.options, self.processes.first
        batches = self.batches()
        smooth, since, counted = None, time.perf_counter(), self.iteration
        while self.iteration < options.iterations:
            pictures = bool(first and options.pictures_every
                            and self.iteration % options.pictures_every == 0)  # fmt: skip
            losses = self.step(batches, pictures)
            self.iteration += 1
            smooth = losses["loss"] if smooth is None else 0.98 * smooth + 0.02 * losses["loss"]
            bar.update()
            bar.set_postfix(loss=f"{smooth:.4f}")
            if log is not None:
                self.log(log, losses)
            if first and (self.iteration == FIRST_LINE or self.iteration % LINE_EVERY == 0):
                pace = (time.perf_counter() - since) / (self.iteration - counted)
                since, counted = time.perf_counter(), self.iteration
                logger.info("%s", self.line(smooth, pace))
            if stop.asked or self.iteration % options.save_every == 0:
                self.save()
            if stop.asked:
                logger.warning("saved at %d; the same command goes on from there", self.iteration)
                raise KeyboardInterrupt
        if self.saved != self.iteration:
            self.save()

    def line(self, loss: float, pace: float) -> str:
        """How far, how well, how fast and how long still; pace: seconds of an iteration."""
        total = self.options.iterations
        clips = self.options.batch * self.processes.count / pace
        minutes = round((total - self.iteration) * pace / 60)
        return (
            f"{self.iteration}/{total} loss {loss:.4f}, {pace:.2f} s each, {clips:.1f} clips/s, "
            f"{minutes // 60} h {minutes % 60:02d} min left"
        )

    def log(self, log: SummaryWriter, losses: dict[str, float]) -> None:
        for name, value in losses.items():
            log.add_scalar(name, value, self.iteration)
        log.add_scalar("rate", self.optimizer.param_groups[0]["lr"], self.iteration)
        if self.picture is not None:
            log.add_image("clip", picture(*self.picture), self.iteration, dataformats="HWC")
            self.picture = None

    def step(self, batches: Batches, pictures: bool = False) -> dict[str, float]:
        """One optimiser step; the losses by name, means over its pieces."""
        options, device = self.options, self.processes.device
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(options, self.iteration) * group.get("rate", 1.0)
        self.optimizer.zero_grad(set_to_none=True)
        totals: dict[str, float] = {}
        for piece in range(options.accumulate):
            content, bad = next(batches)
            self.bad.extend(bad)
            batch = {k: v.to(device, non_blocking=True) for k, v in content.items()}
            last = piece == options.accumulate - 1
            # Gradients of the processes are averaged once, with the last piece.
            wait = contextlib.nullcontext() if last else self.no_sync()
            with wait:
                with self.autocast():
                    losses = self.distributed(batch, self.now)
                self.scaler.scale(losses["loss"] / options.accumulate).backward()
            for name, value in losses.items():
                totals[name] = totals.get(name, 0.0) + value.item() / options.accumulate
            if pictures and last:
                # Looking must not change what follows.
                random = random_state()
                with self.autocast():
                    self.picture = self.task.pictures(batch)
                restore_random_state(random)
        if options.clip_gradient:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.task.model.parameters(), options.clip_gradient)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.averaged is not None:
            self.averaged.update_parameters(self.task.model)
        return totals

    def no_sync(self) -> contextlib.AbstractContextManager[None]:
        if isinstance(self.distributed, DistributedDataParallel):
            return self.distributed.no_sync()
        return contextlib.nullcontext()

    def autocast(self) -> torch.autocast:
        amp = self.options.amp
        dtype = torch.float16 if amp == "fp16" else torch.bfloat16
        return torch.autocast(self.processes.device.type, dtype, enabled=amp != "none")

    def batches(self) -> Batches:
        """This process's share of the samples, in order, from the current iteration on."""
        options, processes = self.options, self.processes
        piece = options.batch // options.accumulate
        start = self.iteration * options.batch * processes.count
        end = options.iterations * options.batch * processes.count
        loader = DataLoader(
            Subset(self.clips, range(start + processes.rank, end, processes.count)),
            batch_size=piece,
            num_workers=options.workers,
            collate_fn=collate,
            worker_init_fn=_one_thread,
            pin_memory=processes.device.type == "cuda",
            # Its own generator: making the loader leaves the random state of the run alone.
            generator=torch.Generator(),
        )
        try:
            for sample in loader:
                yield sample.tensors, sample.bad
        except InputError as error:
            # One from a worker comes with its traceback, what it says in the last line.
            raise InputError(str(error).splitlines()[-1].rpartition("InputError: ")[2]) from None

    def save(self) -> None:
        """Every process takes part; the first one writes."""
        self.saved = self.iteration
        random = self.processes.gather(random_state())
        if not self.processes.first:
            return
        state: dict[str, Any] = {
            "iteration": self.iteration,
            "state_dict": self.task.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "averaged": self.averaged.state_dict() if self.averaged is not None else None,
            "random": random,
        }
        final = self.averaged.module if self.averaged is not None else self.task.model
        assert isinstance(final, Network)
        checkpoints.save(self.last, state, final, self.options, self.stage)

    def resume(self) -> None:
        state = checkpoints.load(self.last, self.task.model, self.options, self.stage)
        with checkpoints.fitting(self.last):
            self.task.model.load_state_dict(state["state_dict"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.scaler.load_state_dict(state["scaler"])
            if self.averaged is not None:
                self.averaged.load_state_dict(state["averaged"])
        self.iteration = state["iteration"]
        if len(state["random"]) == self.processes.count:
            restore_random_state(state["random"][self.processes.rank])
        else:
            logger.warning(
                "the run had %d processes and now has %d: it resumes with different clips",
                len(state["random"]),
                self.processes.count,
            )
        logger.info("resumed at iteration %d", self.iteration)


def picture(frames: Tensor, labels: Tensor) -> Any:
    """Frames float [T, 3, H, W] in [0, 1] with their labels [T, H, W] painted over them, side by
    side: uint8 [H, T*W, 3]."""
    images = (frames.float().clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    ids = labels.byte().cpu().numpy()
    return np.concatenate([overlay(i, m) for i, m in zip(images, ids, strict=True)], 1)


def _one_thread(worker: int) -> None:
    # Workers run beside the training threads: one thread each.
    ignore_interruption()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
