"""A folder as a source of training: its split, its order, its pairs; mirrored images."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sd.train.folder import read_folder
from sd.train.source import Own, Shapes, Split
from tests.support.captioned import captioned, picture

SIDE = 8
SAID = {f"{i}.png": [f"caption {i}", "a"] for i in range(20)}


def own(folder: Path, **settings: object) -> Own:
    return Own(read_folder(captioned(folder, SAID), SIDE), **settings)


def test_the_held_out_images_are_a_share_and_in_no_training(tmp_path: Path) -> None:
    source = own(tmp_path, share=0.25)
    assert len(source.held_out) == 5 and source.count == 15
    assert sorted(source.held_out + source.trained) == list(range(20))
    held = {source.folder.image(i).tobytes() for i in source.held_out}
    seen = source.images(source.order(0, 30)).permute(0, 2, 3, 1).numpy()
    assert not held & {image.tobytes() for image in seen}
    fresh = source.fresh(99).permute(0, 2, 3, 1).numpy()
    assert {image.tobytes() for image in fresh} == held and len(source.fresh(2)) == 2


def test_the_seed_is_of_the_order_and_the_pairs(tmp_path: Path) -> None:
    first, other = own(tmp_path), own(tmp_path, seed=1)
    assert sorted(first.order(0, 20)) == sorted(other.order(0, 20)) == list(range(20))
    assert first.order(0, 20) != other.order(0, 20)
    assert first.pairs(0, 8).captions != other.pairs(0, 8).captions


def test_equal_images_are_on_one_side(tmp_path: Path) -> None:
    captioned(tmp_path, SAID)
    for i in range(10):
        Image.fromarray(picture(0)).save(tmp_path / f"{i}.png")
    for share in (0.1, 0.5, 0.9):
        source = Own(read_folder(tmp_path, SIDE), share)
        places = [source.folder.names.index(f"{i}.png") for i in range(10)]
        assert {place in source.held_out for place in places} in ({True}, {False})


def test_the_split_depends_on_pixels_not_on_names(tmp_path: Path) -> None:
    captioned(tmp_path / "a", SAID)
    captioned(tmp_path / "b", {f"x{name}": said for name, said in SAID.items()})
    splits = []
    for name in ("a", "b"):
        source = Own(read_folder(tmp_path / name, SIDE), 0.3)
        splits.append({source.folder.image(i).tobytes() for i in source.held_out})
    assert splits[0] == splits[1]


def test_every_image_comes_once_before_any_comes_again(tmp_path: Path) -> None:
    source = own(tmp_path, flip=True)
    assert source.count == 40
    order = list(source.order(0, 120))
    epochs = [order[at : at + 40] for at in (0, 40, 80)]
    assert all(sorted(epoch) == list(range(40)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert list(source.order(37, 9)) == order[37:46]  # a function of the place alone
    chosen = source.chosen(np.random.default_rng(0), 4, 9)
    assert chosen.tolist() == order[36:45]


def test_a_mirrored_image_follows_all_others(tmp_path: Path) -> None:
    source = own(tmp_path, share=0.1, flip=True)
    plain, mirrored = source.images([3]), source.images([3 + 18])
    assert (plain.flip(-1) == mirrored).all() and (plain != mirrored).any()
    assert {source.caption(3 + 18, np.random.default_rng(i)) for i in range(20)} == {
        source.caption(3, np.random.default_rng(i)) for i in range(20)
    }
    assert len(source.fresh(99)) == 2


def test_a_caption_is_true_of_every_image_that_has_it(tmp_path: Path) -> None:
    source = own(tmp_path)
    whole, part = source.pairs(1, 8), source.pairs(1, 8, slice(2, 4))
    assert part.captions == whole.captions[2:4] and (part.images == whole.images[2:4]).all()
    assert (part.true == whole.true).all() and whole.true.shape == (8, 8)
    everywhere = [text == "a" for text in whole.captions]
    assert 0 < sum(everywhere) < 8
    assert (whole.true == (np.eye(8, dtype=bool) | np.array(everywhere))).all()


def test_held_out_pairs_evaluate_the_text_encoder(tmp_path: Path) -> None:
    (found,) = own(tmp_path, share=0.2).judged().values()
    assert found(0).captions == found(5).captions and len(found(0).images) == 4
    assert own(tmp_path).judged() == {}


def test_a_split_is_read_from_the_fingerprint(tmp_path: Path) -> None:
    source = own(tmp_path, share=0.25, flip=True)
    assert Split.read(source.fingerprint) == (source.folder.fingerprint, 0.25, True)
    for other in (None, "", "ab 0.1", "ab x True", "ab 0.1 yes", Shapes().fingerprint):
        assert Split.read(other) is None


@pytest.mark.parametrize("changed", [{"share": 0.2}, {"flip": True}])
def test_the_fingerprint_is_of_the_settings_too(changed: dict[str, object], tmp_path: Path) -> None:
    assert own(tmp_path, **changed).fingerprint != own(tmp_path).fingerprint
