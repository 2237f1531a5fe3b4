"""Pictures of a folder."""

import sys

import numpy as np
import pytest

from edgeloop.data.item import Item, Labels
from edgeloop.data.sources import ImagesSource, make_source
from edgeloop.errors import ConfigError, DataError

Image = pytest.importorskip("PIL.Image")
CLASSES = Labels(["cat", "dog"])
PIXELS = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]],
                   [[0, 0, 0], [51, 51, 51], [255, 255, 255]]], np.uint8)  # [2, 3, 3]


@pytest.fixture
def save(tmp_path):
    def save(name, pixels=PIXELS, **options):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
        image.save(path, **options)
        return path

    return save


def read(path, **options):
    return list(ImagesSource(path, labels=CLASSES, **{"order": "name", **options}).items())


@pytest.mark.parametrize("ending", ["png", "bmp", "gif", "PNG"])
def test_pixels_are_fractions_of_full_scale(save, tmp_path, ending):
    save(f"dog/a.{ending}")
    (item,) = read(tmp_path)
    assert (item.x.dtype, item.x.shape) == (np.float32, (2, 3, 3))
    assert np.allclose(item.x, PIXELS / 255, atol=1e-7)
    assert item.x.max() == 1.0
    assert (item.y, item.key, item.time) == (1, f"dog/a.{ending}", None)


def test_jpeg_comes_near(save, tmp_path):
    save("dog/a.jpg", np.full((8, 8, 3), 100, np.uint8))
    (item,) = read(tmp_path)
    assert np.allclose(item.x, 100 / 255, atol=0.02)


def test_grey(save, tmp_path):
    save("dog/a.png")
    (item,) = read(tmp_path, channels=1)
    assert item.x.shape == (2, 3, 1)
    # ITU-R 601 luma, as Pillow documents it
    assert np.allclose(item.x[:, :, 0], PIXELS @ np.array([299, 587, 114]) / 255e3, atol=1 / 255)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA"])
def test_other_modes_become_the_channels_asked_for(save, tmp_path, mode):
    save("dog/a.png", Image.fromarray(PIXELS).convert(mode))
    assert [i.x.shape for c in (1, 3) for i in read(tmp_path, channels=c)] == [(2, 3, 1), (2, 3, 3)]


def test_only_the_first_frame_counts(save, tmp_path):
    frames = [Image.fromarray(np.full((2, 2), v, np.uint8)) for v in (0, 255)]
    save("dog/a.gif", frames[0], save_all=True, append_images=frames[1:])
    (item,) = read(tmp_path)
    assert item.x.max() == 0


def test_labels_and_order(save, tmp_path):
    for name in ("cat-1.png", "cat-2.png", "dog-1.png", "dog-2.png", "dog-3.png"):
        save(name)
    found = read(tmp_path, label="name")
    assert [i.y for i in found] == [0, 0, 1, 1, 1]
    assert [i.y for i in read(tmp_path, label="none")] == [None] * 5
    shuffled = ImagesSource(tmp_path, label="name", labels=CLASSES)
    keys = [i.key for i in shuffled.items()]
    assert sorted(keys) == [i.key for i in found] != keys
    assert [i.key for i in shuffled.items(3)] == keys[3:]
    assert len(shuffled) == 5


def test_a_name_without_a_label_says_how_to_name_it(save, tmp_path):
    save("a.png")
    (bad,) = read(tmp_path, label="name")
    assert "name it LABEL-NUMBER.png" in str(bad)


def test_bad_pictures_are_errors_of_their_own(save, tmp_path):
    noise = (np.arange(64 * 64 * 3) * 7919 % 251).astype(np.uint8).reshape(64, 64, 3)
    for i, ending in enumerate(("png", "jpg", "bmp", "gif")):
        path = save(f"cat/{i}.{ending}", noise)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    (tmp_path / "cat/4.png").write_bytes(b"no picture")
    (tmp_path / "cat/5.png").write_bytes(b"")
    save("cat/6.png", Image.fromarray(np.zeros((2, 2), np.uint16)))
    save("swim/7.png")
    save("tail/8.tiff").rename(tmp_path / "tail/8.png")  # not of the formats read here
    save("dog/9.png")
    found = sorted(read(tmp_path), key=lambda i: isinstance(i, Item))
    assert [type(i) for i in found] == [DataError] * 9 + [Item]
    text = " ".join(map(str, found[:-1]))
    assert "more than 8 bits" in text
    assert "label 'swim'" in text


@pytest.mark.parametrize(("limit", "kind"), [(5, DataError), (6, Item)])
def test_a_large_picture_is_refused_before_it_is_decoded(
    save, tmp_path, monkeypatch, limit, kind
):
    decoded = []
    convert = Image.Image.convert
    monkeypatch.setattr(
        Image.Image, "convert", lambda image, mode: decoded.append(mode) or convert(image, mode))
    save("dog/a.png")
    (item,) = read(tmp_path, max_pixels=limit)
    assert type(item) is kind
    assert bool(decoded) == (kind is Item)


def test_a_bomb_is_one_error(save, tmp_path):
    """A small file that says it is huge; neither our limit nor Pillow's lets it through."""
    path = save("dog/a.bmp")
    data = bytearray(path.read_bytes())
    data[18:26] = (60_000).to_bytes(4, "little") * 2
    path.write_bytes(data)
    for limit in (1 << 24, 1 << 40):
        (bad,) = read(tmp_path, max_pixels=limit)
        assert isinstance(bad, DataError)


def test_options(save, tmp_path):
    with pytest.raises(DataError, match=r"holds no \.png or \.jpg"):
        ImagesSource(tmp_path / "absent")
    for options in ({"channels": 2}, {"max_pixels": 0}, {"label": "x"}, {"order": "x"}):
        with pytest.raises(ConfigError, match="images source: "):
            ImagesSource(tmp_path, **options)
    save("dog/a.png")
    table = {"kind": "images", "path": ".", "channels": 1}
    (item,) = make_source(table, labels=CLASSES, root=tmp_path).items()
    assert item.x.shape == (2, 3, 1)


def test_without_pillow_the_error_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ConfigError, match=r"pip install 'edgeloop\[image\]'"):
        ImagesSource(tmp_path)
