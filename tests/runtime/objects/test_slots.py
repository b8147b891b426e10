"""Ids are the caller's and stable; slots are dense."""

import numpy as np

from vos_deploy.runtime.objects.slots import ObjectManager


def test_slots_follow_the_order_of_arrival() -> None:
    objects = ObjectManager()
    objects.add([7, 2])
    objects.add([254])
    assert [objects.slot(i) for i in (7, 2, 254)] == [1, 2, 3]


def test_removing_closes_the_gap() -> None:
    objects = ObjectManager()
    objects.add([7, 2, 254])
    objects.remove([7])
    assert objects.ids == [2, 254]
    assert objects.slot(254) == 2


def test_labels_map_slots_to_ids() -> None:
    objects = ObjectManager()
    objects.add([7, 2])
    labels = objects.labels(np.array([[0, 1], [2, 1]], np.uint8))
    assert labels.dtype == np.uint8
    assert labels.tolist() == [[0, 7], [2, 7]]
