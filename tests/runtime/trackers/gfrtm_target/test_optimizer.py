"""The optimiser against recorded steps in double precision, and against what it stands for."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support import golden
from tests.support.golden import error, needs_golden
from vos_deploy.runtime.trackers.gfrtm.target.optimizer import (
    Optimizer,
    filter_problem,
    joint_problem,
)
from vos_deploy.runtime.trackers.gfrtm.target.samples import Samples
from vos_deploy.runtime.trackers.gfrtm.target.stencil import pixel_weights, upsampling

EXACT = 1e-12


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    return error(found, expected) / float(np.abs(expected).max())


def recorded_samples() -> Samples:
    arrays = golden.arrays("gfrtm")
    x, y, p, a = (
        arrays[f"opt/{name}"].astype(np.float64)
        for name in ("x", "y", "pixel_weights", "sample_weights")
    )
    samples = Samples(4, (5, 7), 6, np.float64)
    samples.features[:] = x.reshape(4, 6, 35).transpose(0, 2, 1)
    for slot in range(4):
        samples.set_label(slot, y[slot, 0], p[slot, 0] ** 2)
    samples.count, samples.weights[:] = 4, a
    return samples


@needs_golden
@pytest.mark.parametrize(
    ("name", "scale", "forget"),
    [("joint750", (1e-4, 1e-2), 0.9**750), ("joint75", (1e-5, 1e-4), 0.9**75)],
)
def test_joint_steps(name: str, scale: tuple[float, float], forget: float) -> None:
    arrays, samples = golden.arrays("gfrtm"), recorded_samples()
    scales = np.repeat(scale, [18, 27])
    optimizer = Optimizer(scales, scales, forget)
    start = arrays["opt/filter0"].astype(np.float64).reshape(3, 9).T
    theta = np.concatenate([arrays["opt/project0"].astype(np.float64).ravel(), start.ravel()])
    for step, iterations in enumerate((3, 4, 4)):
        theta = optimizer.step(joint_problem(samples, 3), theta, iterations)
        project = arrays[f"opt/{name}/f64/gn{step}/project"].reshape(3, 6)
        kernel = arrays[f"opt/{name}/f64/gn{step}/filter"].reshape(3, 9).T
        assert relative(theta[:18].reshape(3, 6), project) < EXACT
        assert relative(theta[18:].reshape(9, 3), kernel) < EXACT


@needs_golden
def test_filter_steps_with_other_sample_weights() -> None:
    arrays, samples = golden.arrays("gfrtm"), recorded_samples()
    scales = np.full(54, 1e-2)
    optimizer = Optimizer(scales, scales)
    start = golden.weights().tensor("opt.filter2.weight", (1, 6, 3, 3)).astype(np.float64)
    theta = start.reshape(6, 9).T.ravel()
    for step in range(2):
        theta = optimizer.step(filter_problem(samples), theta, 5)
        expected = arrays[f"opt/filter/f64/gn{step}/filter"].reshape(6, 9).T
        assert relative(theta.reshape(9, 6), expected) < EXACT
        # Recorded with weights in single precision.
        samples.weights[:] = np.array([0.3, 0.1, 0.25, 0.35], np.float32)


def random_samples(rng: np.random.Generator) -> tuple[Samples, np.ndarray, np.ndarray]:
    samples = Samples(3, (4, 6), 5, np.float64)
    samples.features[:] = rng.normal(size=samples.features.shape)
    labels = rng.random((3, 19, 31)) > 0.9
    for slot in range(3):
        samples.set_label(slot, labels[slot])
    samples.start(3)
    return samples, samples.features, labels


def loss(kernel: np.ndarray, samples: Samples, labels: np.ndarray) -> float:
    """At the full size, as it is defined."""
    total = 0.0
    rows, columns = upsampling(4, 19), upsampling(6, 31)
    for features, label, weight in zip(samples.features, labels, samples.weights, strict=True):
        grid = np.pad(features.reshape(4, 6, 5), ((1, 1), (1, 1), (0, 0)))
        score = sum(
            grid[y : y + 4, x : x + 6] @ kernel[3 * y + x] for y in range(3) for x in range(3)
        )
        residual = rows @ score @ columns.T - label
        total += weight * (pixel_weights(label) * residual**2).sum()
    return total


def test_products_are_the_gradient_of_the_loss() -> None:
    rng = np.random.default_rng(0)
    samples, _, labels = random_samples(rng)
    kernel, direction = rng.normal(size=(2, 9, 5))
    step = 1e-5
    slope = (
        loss(kernel + step * direction, samples, labels)
        - loss(kernel - step * direction, samples, labels)
    ) / (2 * step)
    gradient = 2 * (samples.normal(kernel, minus_target=True) * direction).sum()
    assert gradient == pytest.approx(slope, rel=1e-6)


def test_enough_iterations_solve_the_normal_equations() -> None:
    rng = np.random.default_rng(1)
    samples, _, _ = random_samples(rng)
    scales = np.full(45, 0.1)
    theta = Optimizer(scales, scales).step(filter_problem(samples), np.zeros(45), 60)
    matrix = np.stack([samples.normal(e.reshape(9, 5)).ravel() for e in np.eye(45)])
    right = -samples.normal(np.zeros((9, 5)), minus_target=True).ravel()
    expected = np.linalg.solve(matrix + 0.01 * np.eye(45), right)
    assert relative(theta, expected) < 1e-8


def test_solved_problem_stays_where_it_is() -> None:
    samples = Samples(1, (2, 2), 3, np.float64)
    samples.features[:] = 0
    samples.set_label(0, np.zeros((8, 8)))
    samples.start(1)
    scales = np.full(27, 0.1)
    assert not Optimizer(scales, scales).step(filter_problem(samples), np.zeros(27), 5).any()
