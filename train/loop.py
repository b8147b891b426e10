"""The training loop: one process, or one per GPU under torchrun."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset, Subset
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from vos_deploy.errors import ModelError
from vos_deploy.models import STM, save_checkpoint

from .clips import collate

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """How long and how to train. One iteration is one optimiser step of `batch` clips per process,
    taken in `accumulate` pieces."""

    iterations: int
    batch: int = 4
    accumulate: int = 1
    learning_rate: float = 1e-5
    weight_decay: float = 0.0
    warm_up: int = 0
    schedule: str = "constant"
    bootstrap_from: int = 0
    amp: str = "none"
    average: float = 0.0
    frozen: tuple[str, ...] = ()
    clip_gradient: float = 0.0
    save_every: int = 500
    workers: int = 2
    seed: int = 0


class Processes:
    """This process among those that torchrun started; a single one without it."""

    def __init__(self) -> None:
        self.rank = int(os.environ.get("RANK", 0))
        self.count = int(os.environ.get("WORLD_SIZE", 1))
        cuda = torch.cuda.is_available()
        if self.count > 1:
            torch.distributed.init_process_group("nccl" if cuda else "gloo")
        local = int(os.environ.get("LOCAL_RANK", 0))
        self.device = torch.device("cuda", local) if cuda else torch.device("cpu")
        if cuda:
            torch.cuda.set_device(self.device)

    @property
    def first(self) -> bool:
        return self.rank == 0

    def close(self) -> None:
        if self.count > 1:
            torch.distributed.destroy_process_group()


def rate(settings: Settings, iteration: int) -> float:
    """Learning rate of an iteration relative to the full one: warm-up, then constant or cosine."""
    if iteration < settings.warm_up:
        return (iteration + 1) / settings.warm_up
    if settings.schedule == "constant":
        return 1.0
    done = (iteration - settings.warm_up) / max(1, settings.iterations - settings.warm_up)
    return 0.5 * (1 + float(np.cos(np.pi * min(done, 1.0)))) * 0.99 + 0.01


class Trainer:
    """Trains `task` (a module whose forward gives the loss of a batch) and keeps `output`:
    `last.pth` to resume from, `model.safetensors` to export, and a TensorBoard log."""

    def __init__(
        self, task: nn.Module, model: STM, clips: Dataset[Any], settings: Settings, output: Path
    ) -> None:
        self.processes = Processes()
        self.task, self.model, self.clips = task, model, clips
        self.settings, self.output = settings, output
        device = self.processes.device
        # oneDNN and cuDNN convolutions both run faster channels-last.
        task.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        task.train()
        for name, parameter in model.named_parameters():
            parameter.requires_grad = not name.startswith(settings.frozen)
        self.optimizer = torch.optim.Adam(
            [p for p in model.parameters() if p.requires_grad],
            settings.learning_rate,
            weight_decay=settings.weight_decay,
        )
        self.scaler = torch.amp.GradScaler(device.type, enabled=settings.amp == "fp16")
        # The average of the weights over the last iterations scores better than any one of them.
        average = get_ema_multi_avg_fn(settings.average) if settings.average else None
        self.averaged = AveragedModel(model, multi_avg_fn=average) if average else None
        self.distributed = (
            DistributedDataParallel(task, [device.index] if device.type == "cuda" else None)
            if self.processes.count > 1
            else task
        )
        self.iteration = 0

    @property
    def last(self) -> Path:
        return self.output / "last.pth"

    def train(self) -> None:
        """Run up to `settings.iterations`, from where `last.pth` stopped if it is there."""
        self.output.mkdir(parents=True, exist_ok=True)
        if self.last.is_file():
            self.resume()
        first = self.processes.first
        log = SummaryWriter(str(self.output), purge_step=self.iteration) if first else None
        batches = self.batches()
        bar = tqdm(
            initial=self.iteration, total=self.settings.iterations, disable=None if first else True
        )
        smooth, since = None, time.perf_counter()
        try:
            while self.iteration < self.settings.iterations:
                loss = self.step(batches)
                self.iteration += 1
                smooth = loss if smooth is None else 0.98 * smooth + 0.02 * loss
                bar.update()
                bar.set_postfix(loss=f"{smooth:.4f}")
                if log is not None:
                    log.add_scalar("loss", loss, self.iteration)
                    log.add_scalar("rate", self.optimizer.param_groups[0]["lr"], self.iteration)
                if first and self.iteration % 50 == 0:
                    pace = (time.perf_counter() - since) / 50
                    since = time.perf_counter()
                    logger.info("%d loss %.4f, %.2f s each", self.iteration, smooth, pace)
                if first and self.iteration % self.settings.save_every == 0:
                    self.save()
            if first:
                self.save()
        finally:
            bar.close()
            if log is not None:
                log.close()
            self.processes.close()

    def step(self, batches: Iterator[dict[str, Tensor]]) -> float:
        settings, device = self.settings, self.processes.device
        for group in self.optimizer.param_groups:
            group["lr"] = settings.learning_rate * rate(settings, self.iteration)
        self.optimizer.zero_grad(set_to_none=True)
        total = 0.0
        # Early on every pixel counts: the hardest ones alone would be noise.
        share = 1.0 if self.iteration < settings.bootstrap_from else None
        for piece in range(settings.accumulate):
            batch = {k: v.to(device, non_blocking=True) for k, v in next(batches).items()}
            last = piece == settings.accumulate - 1
            # Gradients of the processes are averaged once, with the last piece.
            wait = contextlib.nullcontext() if last else self.no_sync()
            with wait, self.autocast():
                loss = self.distributed(batch, share) / settings.accumulate
            self.scaler.scale(loss).backward()
            total += loss.item()
        if settings.clip_gradient:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), settings.clip_gradient)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.averaged is not None:
            self.averaged.update_parameters(self.model)
        return total

    def no_sync(self) -> contextlib.AbstractContextManager[None]:
        if isinstance(self.distributed, DistributedDataParallel):
            return self.distributed.no_sync()
        return contextlib.nullcontext()

    def autocast(self) -> torch.autocast:
        amp = self.settings.amp
        dtype = torch.float16 if amp == "fp16" else torch.bfloat16
        return torch.autocast(self.processes.device.type, dtype, enabled=amp != "none")

    def batches(self) -> Iterator[dict[str, Tensor]]:
        """This process's share of the samples, in order, from the current iteration on."""
        settings, processes = self.settings, self.processes
        piece = settings.batch // settings.accumulate
        start = self.iteration * settings.batch * processes.count
        end = settings.iterations * settings.batch * processes.count
        own = range(start + processes.rank, end, processes.count)
        return iter(
            DataLoader(
                Subset(self.clips, own),
                batch_size=piece,
                num_workers=settings.workers,
                collate_fn=collate,
                worker_init_fn=_one_thread,
                pin_memory=processes.device.type == "cuda",
                persistent_workers=settings.workers > 0,
            )
        )

    def save(self) -> None:
        state = {
            "iteration": self.iteration,
            "method": self.model.method,
            "config": self.model.config,
            "state_dict": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "averaged": self.averaged.state_dict() if self.averaged is not None else None,
            "torch_random": torch.get_rng_state(),
        }
        partial = self.last.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self.last)
        final = self.averaged.module if self.averaged is not None else self.model
        assert isinstance(final, STM)
        save_checkpoint(self.output / "model.safetensors", final, half=True)

    def resume(self) -> None:
        try:
            state = torch.load(self.last, map_location="cpu", weights_only=True)
            self.model.load_state_dict(state["state_dict"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.scaler.load_state_dict(state["scaler"])
            if self.averaged is not None:
                self.averaged.load_state_dict(state["averaged"])
        except (RuntimeError, KeyError, ValueError, EOFError) as error:
            raise ModelError(
                f"{self.last} does not continue this run ({error}): give the options it was "
                "started with, or another --output"
            ) from error
        torch.set_rng_state(state["torch_random"])
        self.iteration = state["iteration"]
        logger.info("resumed at iteration %d", self.iteration)


def _one_thread(worker: int) -> None:
    # Workers run beside the training threads: one thread each.
    import cv2

    cv2.setNumThreads(0)
    torch.set_num_threads(1)
