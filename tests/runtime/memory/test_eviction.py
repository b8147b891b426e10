"""Which memory frames stay, by the policy's name, and how many by their size in MiB."""

import numpy as np
import pytest

from tests.runtime.memory.test_bank import HW, KEY, VALUE, HostArrays, held, write
from tests.runtime.scenes import scene
from vos_deploy.errors import InputError
from vos_deploy.runtime.memory.bank import MemoryBank
from vos_deploy.runtime.memory.eviction import POLICIES, victim
from vos_deploy.runtime.segmenter import Segmenter
from vos_deploy.runtime.trackers.shared_keys import SharedKeys

FIRST = scene({1: (0, 0)})
MIB = 2**20


class Arrays(HostArrays):
    def upload(self, source, target):
        np.copyto(target, source)

    def download(self, source):
        return source.copy()


def make_bank(capacity, policy):
    return MemoryBank(Arrays(), (HW, KEY), (HW, VALUE), np.float32, capacity, policy)


def contents(policy, capacity, frames):
    bank, seen = make_bank(capacity, policy), []
    for frame in range(frames):
        write(bank, frame, keep=True)
        seen.append(sorted(held(bank)))
    return seen


def test_stride_spreads_what_stays_over_the_video():
    seen = contents("stride", 5, 200)
    assert seen[4] == [0, 1, 2, 3, 4]
    assert seen[5] == [0, 2, 3, 4, 5]
    for frame in range(5, 200):
        kept = seen[frame]
        assert kept[0] == 0
        assert kept[-1] == frame
        gaps = np.diff(kept)
        assert gaps.max() <= max(4, 0.75 * frame)
    assert np.diff(seen[64]).max() <= 32
    assert any(50 < frame < 150 for frame in seen[199])  # "oldest" would hold none of these


def test_oldest_holds_the_last_seconds():
    assert contents("oldest", 4, 50)[-1] == [0, 47, 48, 49]


@pytest.mark.parametrize("policy", POLICIES)
def test_the_first_and_the_newest_stay_whatever_the_room(policy):
    for capacity in (2, 3, 4, 7):
        for frame, kept in enumerate(contents(policy, capacity, 40)):
            assert {0, frame} <= {*kept}
            assert len(kept) == min(capacity, frame + 1)


def test_a_temporary_frame_takes_the_place_of_the_next_to_go():
    bank = make_bank(4, "stride")
    for frame in range(4):
        write(bank, frame, keep=True)
    write(bank, 4, keep=False)
    before = {*held(bank)} - {4}
    write(bank, 5, keep=True)
    assert {*held(bank)} == before | {5}


def read(bank, shares):
    """A read that spends these shares on the frames held, by entry."""
    for entry, share in enumerate(shares):
        bank.next_usage[entry * HW : (entry + 1) * HW] = (
            bank.usage[entry * HW : (entry + 1) * HW] + share / HW
        )
    bank.count()


def test_the_least_used_goes_by_its_use_per_read():
    bank = make_bank(4, "least-used")
    write(bank, 0, keep=True)
    write(bank, 1, keep=True)
    read(bank, [0.0, 1.0])
    read(bank, [0.0, 1.0])
    write(bank, 2, keep=True)
    read(bank, [0.5, 0.1, 0.4])  # frame 1 was read more in all, and by now as much per read
    write(bank, 3, keep=True)
    # 1 was read 2.1 in 3 reads, 2 was read 0.4 in one; the first and the newest are no candidates.
    write(bank, 4, keep=True)
    assert sorted(held(bank)) == [0, 1, 3, 4]
    read(bank, [0, 0, 0, 1])
    write(bank, 5, keep=True)
    assert 0 in held(bank)
    assert 5 in held(bank)


def test_an_entry_that_is_used_again_is_counted_anew():
    bank = make_bank(3, "least-used")
    for frame in range(3):
        write(bank, frame, keep=True)
    read(bank, [1, 5, 5])
    write(bank, 3, keep=True)
    entry = bank.order[-1]
    assert not bank.usage[entry * HW : (entry + 1) * HW].any()
    assert bank.nbytes == 3 * HW * (KEY + VALUE + 2) * 4


def test_victims():
    times = {0: 0, 1: 10, 2: 11, 3: 30}.__getitem__
    use = {1: 0.5, 2: 0.1}.__getitem__
    assert victim("oldest", [0, 1, 2, 3], times, use) == 1
    assert victim("stride", [0, 1, 2, 3], times, use) == 1  # between 0 and 11 there is less lost
    assert victim("least-used", [0, 1, 2, 3], times, use) == 2
    assert [victim(policy, [0, 1], times, use) for policy in POLICIES] == [1, 1, 1]
    assert [victim(policy, [0], times, use) for policy in POLICIES] == [0, 0, 0]


# Of a segmenter


def test_a_policy_reaches_the_memory(make_segmenter):
    segmenter = make_segmenter(memory_policy="stride", memory_frames=3, memory_every=1)
    segmenter.step(*FIRST)
    for _ in range(4):
        segmenter.step(FIRST[0])
    assert str(segmenter.memory).endswith(
        "evicts what lies closest in time, keeps first and newest"
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"memory_policy": "newest"}, "must be one of oldest, stride, least-used, got 'newest'"),
        ({"memory_policy": "least-used"}, "does not count how often .* choose one of oldest, str"),
        ({"memory_policy": "stride", "memory_frames": "unlimited"}, "for a limited memory"),
        ({"memory_mib": 0}, "memory_mib must be a number above 0, got 0"),
    ],
)
def test_what_makes_no_sense(make_segmenter, arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        make_segmenter(**arguments)


def frame_bytes(segmenter):
    """Of a memory frame of the model of conftest.py at 48x64: 12 tokens of 4 + 2 numbers."""
    return 3 * 4 * (4 + 2) * 4


@pytest.mark.parametrize(("mib", "frames"), [(5, 5), (5.9, 5), (2, 2), (1000, 8)])
def test_a_cap_in_mib_is_a_number_of_frames(make_segmenter, mib, frames):
    """At most; what the manifest says stays the limit."""
    segmenter = make_segmenter(memory_mib=mib * frame_bytes(None) / MIB, memory_every=1)
    plan = segmenter.planned_memory((48, 64))
    assert plan.startswith(f"at most {frames} frames, 0.0 MiB per object at the working size of 48")
    assert plan.endswith("evicts oldest, keeps first")
    segmenter.step(*FIRST)
    for _ in range(10):
        segmenter.step(FIRST[0])
    assert segmenter.memory.frames == segmenter.memory.capacity == frames
    assert segmenter.memory.bytes <= mib * frame_bytes(None)


def test_a_cap_of_an_unlimited_memory(make_segmenter):
    cap = 20 * frame_bytes(None) / MIB
    segmenter = make_segmenter(memory_mib=cap, memory_frames="unlimited")
    assert segmenter.planned_memory((48, 64)).startswith("at most 20 frames")
    assert make_segmenter(memory_frames="unlimited").planned_memory((48, 64)).startswith("grows")


def test_a_cap_below_two_frames_says_what_is_needed(make_segmenter):
    segmenter = make_segmenter(memory_mib=frame_bytes(None) / MIB)
    with pytest.raises(InputError, match=r"at least 0\.00 for two memory frames .* 48x64, got"):
        segmenter.planned_memory((48, 64))
    with pytest.raises(InputError, match="memory_mib must be at least"):
        segmenter.step(*FIRST)


# Of other methods


@pytest.fixture
def modules():
    pytest.importorskip("torch")
    from tests.support.modules import modules

    return modules


@pytest.mark.parametrize("method", ["xmem", "cutie"])
def test_methods_that_count_reads_drop_the_least_used(modules, method):
    frame = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    options = {"memory_every": 1, "memory_frames": 4, "long_term": False}
    with Segmenter(
        **modules(method), threads=1, memory_policy="least-used", **options
    ) as segmenter:
        segmenter.step(frame, FIRST[1])
        for shift in range(8):
            segmenter.step(np.roll(frame, shift, 1))
        tracker = segmenter._tracker
        assert isinstance(tracker, SharedKeys)
        bank = tracker.groups[0].memory
        assert bank.counts
        # A read spends one share of every position on the tokens held.
        assert 0 < np.asarray(bank.usage).sum() <= 12 * 8 + 1e-2
        assert segmenter.memory.frames == 4
        assert "least used" in str(segmenter.memory)


@pytest.mark.parametrize(
    ("method", "arguments", "sentence"),
    [
        ("xmem", {"memory_policy": "stride"}, "choose long_term=False"),
        ("rde", {"memory_policy": "stride"}, "choose mode='all-frames'"),
        ("gfrtm", {"memory_policy": "stride"}, "whose memory is fixed: leave it out"),
    ],
)
def test_methods_whose_memory_drops_no_frames(modules, method, arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        Segmenter(**modules(method), threads=1, **arguments)


def test_a_cap_for_a_memory_of_constant_size(modules):
    with (
        Segmenter(**modules("rde"), threads=1, memory_mib=100) as segmenter,
        pytest.raises(InputError, match=r"of constant size, [\d.]+ MiB per object .* leave memory"),
    ):
        segmenter.planned_memory((48, 64))
