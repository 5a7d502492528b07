"""Words for looks: a few rare words say what a face is like, as a person's name does in captions from the web.

Photo collections from the web name the people in them, so Stable Diffusion has learned ways from words to faces.
Here they come from a recogniser: its features of a person, in groups of principal components, are rounded to the
nearest of a few centers, and every center has a word. Two people who share a word are alike in that respect.
"""

import re

import cv2
import numpy as np
from transformers import CLIPTokenizer

from hyperdreambooth_ext.hosts.checkpoint import TOKENIZER

GROUPS, COMPONENTS, CENTERS = 6, 8, 32


def looks(features: np.ndarray, identities: np.ndarray, fitted: np.ndarray) -> dict[int, str]:
    """The words of each identity, from a recogniser's features [photos, channels] and the photos' identities.

    Components and centers are fitted on the photos where `fitted` is true.
    """
    people = np.unique(identities)
    means = np.stack([features[identities == person].astype(np.float32).mean(0) for person in people])
    known = np.isin(people, np.unique(identities[fitted]))
    center = means[known].mean(0)
    _, _, components = np.linalg.svd(means[known] - center, full_matrices=False)
    # Of few people there are fewer components and centers.
    projected = np.zeros((len(people), GROUPS * COMPONENTS), np.float32)
    components = components[: GROUPS * COMPONENTS]
    projected[:, : len(components)] = (means - center) @ components.T
    words = _rare_words(GROUPS * CENTERS)
    chosen: list[list[str]] = [[] for _ in people]
    for group in range(GROUPS):
        part = np.ascontiguousarray(projected[:, group * COMPONENTS : (group + 1) * COMPONENTS])
        cv2.setRNGSeed(group)
        rule = (cv2.TERM_CRITERIA_MAX_ITER + cv2.TERM_CRITERIA_EPS, 50, 1e-4)
        _, _, centers = cv2.kmeans(part[known], min(CENTERS, int(known.sum())), None, rule, 3, cv2.KMEANS_PP_CENTERS)
        nearest = np.linalg.norm(part[:, None] - centers[None], axis=-1).argmin(1)
        for i, code in enumerate(nearest):
            chosen[i].append(words[group * CENTERS + code])
    return {int(person): " ".join(of) for person, of in zip(people, chosen, strict=True)}


def _rare_words(count: int) -> list[str]:
    """The last `count` words of three letters in CLIP's vocabulary that end in no k (captions invent words in -k)."""
    vocabulary = CLIPTokenizer.from_pretrained(TOKENIZER).get_vocab()
    short = [word for word in vocabulary if re.fullmatch(r"[b-z][aeiou][b-jl-z]</w>", word)]
    return [word.removesuffix("</w>") for word in sorted(short, key=vocabulary.__getitem__)[-count:]]
