"""What a checkpoint is asked to draw: different people, the same ones for the same seed."""

import re

from hyperdreambooth_ext.hosts.checkpoint import file_sha256
from hyperdreambooth_ext.pretrain.prompts import Portraits
from hyperdreambooth_ext.shipped import CHECKPOINT
from training.looks import CENTERS, GROUPS, _rare_words

ANY, OWN = Portraits.of("0123456789"), Portraits.of(file_sha256(CHECKPOINT)[:10])


def test_the_same_numbers_give_the_same_prompt_and_others_other_people():
    for portraits in (ANY, OWN):
        prompts = [portraits.prompt(number, 0) for number in range(200)]
        assert prompts == [portraits.prompt(number, 0) for number in range(200)]
        assert len(set(prompts)) > 195 and prompts[0] != portraits.prompt(0, 1)


def test_any_checkpoint_is_asked_for_a_grown_up_with_a_name():
    for number in range(200):
        prompt = ANY.prompt(number, 3)
        assert re.match(r"an? [\w -]+ (woman|man) named \w", prompt), prompt
        assert prompt.endswith("looking at the camera, portrait photo") and "  " not in prompt and ", ," not in prompt
        assert not (" woman " in prompt and ("beard" in prompt or "moustache" in prompt))
        assert not re.match(r"a [aeiou]|an [^aeiou]", prompt)


def test_the_bundled_checkpoint_is_asked_in_the_words_of_its_captions():
    words = _rare_words(GROUPS * CENTERS)
    for number in range(100):
        named = OWN.prompt(number, 0).split()[1 : 1 + GROUPS]
        # One word of each group: together they are somebody's looks (training/looks.py).
        assert [words.index(word) // CENTERS for word in named] == list(range(GROUPS))
