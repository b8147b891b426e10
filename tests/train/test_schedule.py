from __future__ import annotations

import math

import pytest

from vos_deploy.errors import InputError
from vos_deploy.train.options import TrainOptions
from vos_deploy.train.schedule import Curriculum, Step, bootstrap_share, learning_rate


def rates(options: TrainOptions, *iterations: int) -> list[float]:
    return [learning_rate(options, i) for i in iterations]


def test_warm_up_then_constant() -> None:
    options = TrainOptions(learning_rate=2.0, warm_up=4, iterations=10)
    assert rates(options, 0, 1, 3, 4, 9) == [0.5, 1.0, 2.0, 2.0, 2.0]


def test_milestones_are_iterations_or_shares() -> None:
    options = TrainOptions(
        learning_rate=1.0, schedule="steps", milestones=(300.0, 0.5), iterations=1000
    )
    found = rates(options, 299, 300, 499, 500, 999)
    assert found == pytest.approx([1, 0.1, 0.1, 0.01, 0.01])


def test_cosine() -> None:
    options = TrainOptions(learning_rate=1.0, schedule="cosine", iterations=100)
    assert rates(options, 0, 50, 75) == pytest.approx(
        [1, 0.5, 0.5 + 0.5 * math.cos(0.75 * math.pi)]
    )
    floor = TrainOptions(learning_rate=1.0, schedule="cosine", iterations=110, warm_up=10,
                    rate_floor=0.01)  # fmt: skip
    assert rates(floor, 4, 10, 60, 110) == pytest.approx([0.5, 1, 0.505, 0.01])


def test_cosine_in_plateaus() -> None:
    """Four epochs of 25 iterations: the rate changes with the epoch."""
    options = TrainOptions(learning_rate=1.0, schedule="cosine", iterations=100, rate_plateaus=4)
    expected = [1, 1, (1 + math.cos(math.pi / 4)) / 2, 0.5, 0.5]
    assert rates(options, 0, 24, 25, 50, 74) == pytest.approx(expected)


def test_share_of_hard_pixels() -> None:
    linear = TrainOptions(bootstrap=0.2, bootstrap_from=100, bootstrap_until=300)
    found = [bootstrap_share(linear, i) for i in (0, 99, 100, 200, 300, 999)]
    assert found == pytest.approx([1, 1, 1, 0.6, 0.2, 0.2])
    jump = TrainOptions(bootstrap=0.4, bootstrap_from=200)
    assert [bootstrap_share(jump, i) for i in (199, 200)] == [1, 0.4]
    assert bootstrap_share(TrainOptions(), 0) == 1


def test_curricula() -> None:
    assert Curriculum.parse(["7"]).at(0.9) == 7
    growing = Curriculum.parse(["0", "25"])
    assert [growing.at(s) for s in (0, 0.1, 0.25, 0.5, 1)] == [0, 5, 12, 25, 25]
    steps = Curriculum.parse(["0:5", "0.4:25", "0.9:5"])
    assert [steps.at(s) for s in (0, 0.39, 0.4, 0.89, 0.9, 1)] == [5, 5, 25, 25, 5, 5]


@pytest.mark.parametrize("words", [[], ["a"], ["1", "2", "3"], ["0.1:5"], ["0:5", "0.1"], ["-1"]])
def test_wrong_curricula(words: list[str]) -> None:
    with pytest.raises(InputError, match="--skip"):
        Curriculum.parse(words)


def test_where_a_run_is() -> None:
    step = Step(50, 200, epochs=8)
    assert (step.share, step.epoch) == (0.25, 2)
