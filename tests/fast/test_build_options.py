"""What a build is asked for, and what follows from it."""

import pytest

from hyperdreambooth_ext.build.options import BuildOptions


@pytest.mark.parametrize(
    ("asked", "words", "identity"),
    [
        ({}, 20.0, (0.0, 0.0)),
        ({"photos": "album"}, 0.0, (0.1, 1.0)),
        ({"shards": "*.tar"}, 0.0, (0.1, 1.0)),
        ({"words_weight": 0.0}, 0.0, (0.1, 1.0)),
        ({"drawn_weight": 0.5}, 20.0, (0.0, 0.5)),
        ({"photos": "album", "identity_weight": 0.0, "drawn_weight": 0.0}, 0.0, (0.0, 0.0)),
    ],
)
def test_faces_with_words_are_taught_by_them_and_others_by_recognisers_unless_asked_otherwise(asked, words, identity):
    options = BuildOptions(**asked).checked()
    assert options.words == words and options.identity_weights == identity


def test_the_learning_rate_grows_with_the_root_of_the_batch_unless_it_is_given():
    assert BuildOptions(batch=64).learning_rate == pytest.approx(2 * BuildOptions(batch=16).learning_rate)
    assert BuildOptions(lr=1e-3).learning_rate == 1e-3
