"""A mask means what its viewer sees, or is refused with the cure."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vos_deploy.errors import InputError
from vos_deploy.mask_kinds import soft_edges
from vos_deploy.masks import read_mask, read_mask_kind, write_mask
from vos_deploy.palette import PALETTE

SIZE = (60, 80)


def discs(*ids: int) -> np.ndarray:
    """One disc for each id, uint8 [60, 80]; they do not touch."""
    mask = np.zeros(SIZE, np.uint8)
    for place, object_id in enumerate(ids):
        cv2.circle(mask, (14 + 24 * (place % 3), 15 + 30 * (place // 3)), 10, object_id, -1)
    return mask


def soft_disc(top: int = 255) -> np.ndarray:
    """White on black with soft edges, and its mask at half."""
    large = np.zeros((4 * SIZE[0], 4 * SIZE[1]), np.uint8)
    cv2.circle(large, (160, 120), 70, top, -1)
    return cv2.resize(large, SIZE[::-1], interpolation=cv2.INTER_AREA)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "mask.png"


def indexed(ids, palette):
    image = Image.fromarray(ids).convert("L")
    image.putpalette(np.asarray(palette, np.uint8).tobytes())
    return image


def check(path, picture, ids, kind, **options):
    """What is read from a picture, whatever format keeps it exactly."""
    for suffix in (".png", ".tif", ".PNG"):
        file = path.with_suffix(suffix)
        picture.save(file)
        found, found_kind = read_mask_kind(file, **options)
        assert np.array_equal(found, ids)
        assert found_kind == kind


@pytest.mark.parametrize("ids", [(1,), (1, 2, 3), (7, 200), (254, 1), (64, 128, 191)])
def test_id_maps(path, ids):
    mask = discs(*ids)
    check(path, Image.fromarray(mask), mask, "object ids")
    write_mask(path, mask)
    assert np.array_equal(read_mask(path), mask)
    check(path, Image.fromarray(np.dstack([mask] * 3)), mask, "object ids")
    check(path, Image.fromarray(mask).convert("LA"), mask, "object ids")
    assert np.array_equal(read_mask(path, binary=True), mask > 0)


def test_void_and_single_pixels_stay(path):
    mask = discs(1, 5)
    mask[0] = 255
    mask[58, 78] = 9
    mask[40:42, 40] = 77
    check(path, Image.fromarray(mask), mask, "object ids")


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("ids", [(1,), (2,), (1, 2, 3), (255, 3), (200, 8)])
def test_davis_colours(path, mode, ids):
    mask = discs(*ids)
    picture = Image.fromarray(PALETTE[mask]).convert(mode)
    if mode == "RGBA":  # what is not drawn is transparent, and white underneath
        pixels = np.array(picture)
        pixels[mask == 0] = (255, 255, 255, 0)
        picture = Image.fromarray(pixels)
    check(path, picture, mask, "DAVIS colours")
    found, kind = read_mask_kind(path, binary=True)
    assert kind.startswith("one object")
    assert np.array_equal(found, mask > 0)


@pytest.mark.parametrize("order", [(3, 2, 1, 0), (0, 2, 1, 3), (1, 0, 3, 2)])
def test_davis_colours_in_a_palette_of_another_order(path, order):
    mask = discs(1, 2, 3)
    places = np.argsort(order).astype(np.uint8)
    check(path, indexed(places[mask], PALETTE[list(order)]), mask, "DAVIS colours")


@given(st.permutations(range(9)))
@settings(max_examples=30, deadline=None)
def test_quantised_davis_colours_in_any_order(tmp_path_factory, order):
    path = tmp_path_factory.mktemp("palette") / "mask.png"
    mask = discs(1, 2, 5, 8)
    indexed(np.argsort(order).astype(np.uint8)[mask], PALETTE[order]).save(path)
    assert np.array_equal(read_mask(path), mask)


@pytest.mark.parametrize("colours", [None, 4, 16])
def test_what_pillow_quantises(path, colours):
    mask = discs(1, 2)
    picture = Image.fromarray(PALETTE[mask])
    picture.quantize(colours or 256).save(path)
    assert np.array_equal(read_mask(path), mask)


@pytest.mark.parametrize("objects", [[(255, 0, 0), (0, 255, 0)], [(0, 128, 0), (90, 9, 9)]])
def test_other_palettes_hold_ids_where_index_0_is_black(path, objects):
    mask = discs(1, 2)
    check(path, indexed(mask, [(0, 0, 0), *objects]), mask, "object ids")


def test_a_palette_in_grey_holds_ids(path):
    mask = discs(1, 2)
    check(path, indexed(mask, [(0, 0, 0), (128,) * 3, (255,) * 3]), mask, "object ids")


def test_a_transparent_index_0_is_background(path):
    mask = discs(1, 2)
    indexed(mask, [(9, 9, 9), (255, 0, 0), (0, 255, 0)]).save(path, transparency=0)
    assert np.array_equal(read_mask(path), mask)


@pytest.mark.parametrize("black", [0, 1, 200])
def test_black_and_white_in_a_palette(path, black):
    mask = discs(1)
    white = (black + 1) % 256 if black != 1 else 0
    palette = np.full((256, 3), 255, np.uint8)
    palette[black] = 0
    check(
        path,
        indexed(np.where(mask > 0, white, black).astype(np.uint8), palette),
        mask,
        "object ids" if black == 0 else "black and white",
    )


def test_one_bit(path):
    mask = discs(1)
    check(path, Image.fromarray(mask > 0), mask, "black and white")


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_white_on_black_of_a_paint_program(path, mode):
    mask = discs(1)
    Image.fromarray(mask * 255).convert(mode).save(path)
    assert np.array_equal(read_mask(path, binary=True), mask)
    # Without: 255, which is void in an id map. Whoever starts from it is told.
    assert set(np.unique(read_mask(path))) == {0, 255}


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_soft_edges_are_refused_or_cut_at_half(path, mode):
    soft = soft_disc()
    Image.fromarray(soft).convert(mode).save(path)
    with pytest.raises(InputError, match=r"values.*on rims: a mask with soft edges.*--binary-mask"):
        read_mask(path)
    found, kind = read_mask_kind(path, binary=True)
    assert kind == "one object, thresholded at half"
    assert np.array_equal(found, soft >= 128)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_jpeg(path, mode):
    mask = discs(1, 1, 1)
    file = path.with_suffix(".jpg")
    Image.fromarray(mask * 255).convert(mode).save(file, quality=70)
    with pytest.raises(InputError, match=r"a JPEG, which does not keep ids.*--binary-mask"):
        read_mask(file)
    assert np.array_equal(read_mask(file, binary=True), mask)
    Image.open(file).save(path)  # a JPEG that was saved as PNG
    with pytest.raises(InputError, match="soft edges"):
        read_mask(path)
    assert np.array_equal(read_mask(path, binary=True), mask)


@pytest.mark.parametrize("colour", [(255, 0, 0), (0, 100, 0), (255, 255, 0)])
def test_one_paint_colour(path, colour):
    mask = discs(1)
    picture = np.zeros((*SIZE, 3), np.uint8)
    picture[mask > 0] = colour
    Image.fromarray(picture).save(path)
    with pytest.raises(InputError, match=r"2 colours that are not those of DAVIS.*--binary-mask"):
        read_mask(path)
    assert np.array_equal(read_mask(path, binary=True), mask)
    file = path.with_suffix(".jpg")
    Image.fromarray(picture).save(file, subsampling=0)
    agree = read_mask(file, binary=True) == mask
    assert agree.mean() > 0.99


def test_painted_on_nothing(path):
    mask = discs(1)
    pixels = np.zeros((*SIZE, 4), np.uint8)
    pixels[..., 3] = mask * 255  # black ink on a transparent page
    Image.fromarray(pixels).save(path)
    assert np.array_equal(read_mask(path, binary=True), mask)


def test_exif_turns_a_mask_as_it_turns_frames(path):
    mask = discs(1, 2)
    exif = Image.Exif()
    exif[0x0112] = 6
    indexed(mask, PALETTE).save(path, exif=exif)
    assert np.array_equal(read_mask(path), np.rot90(mask, -1))


@pytest.mark.parametrize("mode", ["I;16", "F"])
def test_more_than_8_bits_are_refused(path, mode):
    array = discs(1).astype(np.uint16 if mode == "I;16" else np.float32)
    file = path if mode == "I;16" else path.with_suffix(".tif")
    Image.fromarray(array).save(file)
    with pytest.raises(InputError, match="more than 8 bits"):
        read_mask(file)


def test_a_palette_whose_index_0_is_no_background_is_refused(path):
    indexed(discs(1, 2), [(90, 9, 200), (255, 0, 0), (0, 255, 0)]).save(path)
    with pytest.raises(InputError, match="colours that are not those of DAVIS"):
        read_mask(path)


# Soft edges and ids


@given(
    ids=st.lists(st.integers(1, 254), min_size=2, max_size=6, unique=True),
    factor=st.sampled_from([2, 3, 4]),
)
@settings(max_examples=40, deadline=None)
def test_ids_are_not_soft_and_white_discs_made_small_are(ids, factor):
    assert soft_edges(discs(*ids)) == ""
    large = cv2.resize(discs(*[255] * len(ids)), None, fx=5, fy=5, interpolation=0)
    height, width = (side // factor for side in large.shape)
    small = cv2.resize(large, (width, height), interpolation=cv2.INTER_AREA)
    if len(np.unique(small)) > 2:
        assert soft_edges(small)


@pytest.mark.parametrize("ids", [(7, 3), (2, 200, 9), (10, 250)])
def test_id_maps_that_were_resized_smoothly_are_soft(ids):
    resized = cv2.resize(discs(*ids), (123, 97), interpolation=cv2.INTER_LINEAR)
    assert soft_edges(resized)


def test_objects_that_touch_are_not_soft():
    mask = np.zeros(SIZE, np.uint8)
    for object_id in range(1, 40):
        mask[5 + object_id : 40 + object_id // 2, 2 * object_id : 2 * object_id + 2] = object_id
    mask[10:30, 10:14] = 3
    cells = np.kron(np.arange(1, 49).reshape(6, 8), np.ones((10, 10))).astype(np.uint8)
    assert soft_edges(cells) == ""
    thin = np.zeros(SIZE, np.uint8)
    thin[10:50, 20:60] = 2
    thin[5:45, 40] = 1  # a leash across a dog
    assert soft_edges(thin) == ""
