"""What a build is asked for, and what follows from it."""

import pytest

from hyperdreambooth_ext.build.options import BuildOptions


@pytest.mark.parametrize(
    ("asked", "words"),
    [({}, 5.0), ({"words_weight": 0.0}, 0.0), ({"photos": "album"}, 0.0), ({"shards": "*.tar"}, 0.0)],
)
def test_words_teach_where_faces_were_drawn_from_words(asked, words):
    assert BuildOptions(**asked).checked().words == words


def test_the_learning_rate_grows_with_the_root_of_the_batch_unless_it_is_given():
    assert BuildOptions(batch=64).learning_rate == pytest.approx(2 * BuildOptions(batch=16).learning_rate)
    assert BuildOptions(lr=1e-3).learning_rate == 1e-3
