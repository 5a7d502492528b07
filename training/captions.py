"""Captions from the attributes of a synthetic photo, in many wordings, so that the checkpoint takes free prompts."""

import random

PHOTO = "photo"


def describe(row: dict, style: str, rng: random.Random) -> str:
    """One caption for a photo with the attributes `row` (a line of photos.jsonl) shown in `style`."""
    if rng.random() < 0.25:
        subject = rng.choice(("a face", "a person", "a portrait"))
        parts = []
    else:
        subject = f"a {_age(row['age'])} {_sex(row)}" if rng.random() < 0.8 else f"a {_sex(row)}"
        parts = [part for part in _details(row) if rng.random() < 0.75]
    names = [row["looks"]] if rng.random() < 0.6 else []
    if rng.random() < (0.15 if names else 0.5):
        # Words that mean nothing must do nothing: a rare token later names the person.
        names.append(_rare_word(rng))
    subject = subject.replace("a ", " ".join(["a", *names, ""]), 1)
    rng.shuffle(parts)
    return _in_style(", ".join([subject, *parts]), style, rng)


def _in_style(text: str, style: str, rng: random.Random) -> str:
    article = "an" if style[0] in "aeiou" else "a"
    if style == PHOTO and rng.random() < 0.5:
        return text
    if rng.random() < 0.5:
        return f"{text}, {style}"
    return f"{article} {style} of {text}"


def _rare_word(rng: random.Random) -> str:
    return "".join(rng.choice("bcdfghjklmnpqrstvwxz") + rng.choice("aeiouy") for _ in range(rng.randint(1, 2))) + "k"


def _sex(row: dict) -> str:
    return "woman" if row["gender"] == "female" else "man"


def _age(years: float) -> str:
    return "young" if years < 33 else "middle-aged" if years < 50 else "old"


def _details(row: dict) -> list[str]:
    details = []
    if row["smile"] > 0.5:
        details.append("smiling")
    elif row["smile"] < 0.05:
        details.append("serious")
    if abs(row["yaw"]) > 12:
        details.append("looking right" if row["yaw"] > 0 else "looking left")
    if row["glasses"]:
        details.append("wearing glasses")
    if row["hat"]:
        details.append("wearing a hat")
    if row["brightness"] < 75:
        details.append("dark light")
    elif row["brightness"] > 150:
        details.append("bright light")
    details.append(_hair(row))
    return details


def _hair(row: dict) -> str:
    if row["hair_share"] < 0.02 or "hair_rgb" not in row:
        return "bald"
    red, green, blue = row["hair_rgb"]
    brightness = (red + green + blue) / 3
    if brightness < 55:
        return "black hair"
    if red - blue < 22 and brightness > 100:
        return "gray hair"
    if brightness > 125:
        return "blond hair"
    return "red hair" if red - green > 45 else "brown hair"
