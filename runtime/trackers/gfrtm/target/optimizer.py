"""Gauss-Newton steps, each solved by a few conjugate gradients, in float64.

At the start of a fit the directions are of the order 1e17: in float32 the result differs from
machine to machine and by several percent from the true one.
"""

from collections.abc import Callable
from typing import ClassVar, NamedTuple

import numpy as np

from .samples import Samples
from .stencil import Float


class Linear(NamedTuple):
    """A least-squares problem at a point: half the descent direction of the loss, and the map from
    a direction to half the change of the gradient along it. Vectors are flat."""

    descent: Float
    curvature: Callable[[Float], Float]


Problem = Callable[[Float], Linear]


class Optimizer:
    """What conjugate gradients carry from one step to the next.

    The regularisation of each parameter enters the loss squared. A direction is kept with the
    share `forget` of its length: at 0.9^750, as good as forgotten.
    """

    state: ClassVar[tuple[str, ...]] = ("_direction", "_residual", "_rho")

    def __init__(
        self, regularization: Float, preconditioner: Float, forget: float = 0.9**750
    ) -> None:
        self._squared = regularization**2
        self._preconditioner = preconditioner
        self._forget = forget
        self._direction: Float | None = None
        self._residual = np.zeros(0)  # before the last iteration
        self._rho = 0.0

    def step(self, problem: Problem, theta: Float, iterations: int) -> Float:
        """The parameters after one Gauss-Newton step of so many conjugate gradients."""
        linear = problem(theta)
        residual = linear.descent - self._squared * theta
        change = np.zeros_like(theta)
        if self._direction is not None:
            self._rho /= self._forget
        for _ in range(iterations):
            scaled = residual / self._preconditioner
            previous, self._rho = self._rho, float(residual @ scaled)
            if self._direction is None:
                self._direction = scaled
            else:  # Polak-Ribiere, restarted where it would turn back
                beta = max(0.0, (self._rho - float(self._residual @ scaled)) / previous)
                self._direction = scaled + beta * self._direction
            image = linear.curvature(self._direction) + self._squared * self._direction
            length = float(self._direction @ image)
            if length <= 0:  # already solved
                break
            alpha = self._rho / length
            self._residual = residual
            change += alpha * self._direction
            residual = residual - alpha * image
        return theta + change


def filter_problem(samples: Samples) -> Problem:
    """The 3x3 kernel on given features, theta = kernel [9, C]."""

    def at(theta: Float) -> Linear:
        channels = len(theta) // 9

        def curvature(direction: Float) -> Float:
            return samples.normal(direction.reshape(9, channels)).ravel()

        return Linear(-samples.normal(theta.reshape(9, channels), True).ravel(), curvature)

    return at


def joint_problem(samples: Samples, middle: int) -> Problem:
    """A 1x1 projection P [middle, C] and a 3x3 kernel F [9, middle] on it, theta = (P, F).

    Their composition is the kernel F P on the features, so the projected maps are never needed.
    """
    channels = samples.features.shape[2]
    split = middle * channels

    def parts(theta: Float) -> tuple[Float, Float]:
        return theta[:split].reshape(middle, channels), theta[split:].reshape(9, middle)

    def at(theta: Float) -> Linear:
        project, kernel = parts(theta)

        def back(gradient: Float) -> Float:
            return np.concatenate([(kernel.T @ gradient).ravel(), (gradient @ project.T).ravel()])

        def curvature(direction: Float) -> Float:
            d_project, d_kernel = parts(direction)
            return back(samples.normal(kernel @ d_project + d_kernel @ project))

        return Linear(-back(samples.normal(kernel @ project, True)), curvature)

    return at
