"""Captions from what a photo shows, in many wordings, so that the checkpoint takes free prompts."""

import random

PHOTO = "photo"
BARE = 0.05
"""The share of captions that say nothing but "a face"."""


def describe(row: dict, style: str, rng: random.Random) -> str:
    """One caption for a photo with the attributes `row` (a line of index.jsonl) shown in `style`."""
    if rng.random() < BARE:
        subject, parts = rng.choice(("a face", "a person", "a portrait")), []
    else:
        subject = _subject(row, rng)
        parts = [part for part in _details(row, rng) if rng.random() < 0.8]
    names = [row["looks"]] if rng.random() < 0.6 else []
    if rng.random() < (0.15 if names else 0.5):
        # Words that mean nothing must do nothing: a rare token later names the person.
        names.append(_rare_word(rng))
    article, rest = subject.split(" ", 1)
    subject = " ".join(["a" if names else article, *names, rest])
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


def _subject(row: dict, rng: random.Random) -> str:
    if rng.random() < 0.15:
        return rng.choice(("a face", "a person", "a portrait"))
    sex = "woman" if row["gender"] == "female" else "man"
    if rng.random() < 0.2:
        return f"a {sex}"
    years = row["age"]
    age = "young" if years < 30 else "middle-aged" if 38 <= years < 52 else "old" if years >= 52 else ""
    if age and rng.random() < 0.7:
        return f"a {age} {sex}"
    decade = max(2, round(years) // 10) * 10
    return f"a {sex} in {'her' if sex == 'woman' else 'his'} {decade}s"


def _details(row: dict, rng: random.Random) -> list[str]:
    details = [_expression(row, rng), _hair(row, rng), _gaze(row), _light(row), _background(row), _skin(row)]
    details += [f"wearing {what}" for what, name in (("glasses", "glasses"), ("a hat", "hat")) if row[name]]
    if row["earring"]:
        details.append("with earrings")
    return [detail for detail in details if detail]


def _expression(row: dict, rng: random.Random) -> str:
    if row["jaw_open"] > 0.25:
        return rng.choice(("open mouth", "laughing" if row["smile"] > 0.5 else "speaking"))
    if row["smile"] > 0.6:
        return rng.choice(("smiling", "a broad smile", "happy"))
    if row["smile"] > 0.15:
        return "a slight smile"
    return rng.choice(("serious", "neutral expression", "not smiling"))


def _gaze(row: dict) -> str:
    if abs(row["yaw"]) > 12:
        return "looking right" if row["yaw"] > 0 else "looking left"
    return "facing the camera" if abs(row["yaw"]) < 5 else ""


def _light(row: dict) -> str:
    if row["brightness"] < 75:
        return "dark light"
    return "bright light" if row["brightness"] > 150 else ""


def _skin(row: dict) -> str:
    """By the individual typology angle of the cheeks (Chardon et al. 1991), in degrees."""
    angle = row["skin_angle"]
    return "dark skin" if angle < 5 else "light skin" if angle > 45 else ""


def _background(row: dict) -> str:
    red, green, blue = row["background_rgb"]
    light, spread = (red + green + blue) / 3, max(red, green, blue) - min(red, green, blue)
    if spread > 45:
        hue = {"red": red, "green": green, "blue": blue}
        return f"{max(hue, key=hue.__getitem__)} background"
    return f"{'white' if light > 190 else 'gray' if light > 85 else 'dark'} background"


def _hair(row: dict, rng: random.Random) -> str:
    share = row["hair_share"]
    if share < 0.02 or "hair_rgb" not in row:
        return "bald"
    length = "long " if share > 0.3 else "short " if share < 0.13 else ""
    return f"{length if rng.random() < 0.6 else ''}{_hair_color(row['hair_rgb'])} hair"


def _hair_color(rgb: list[float]) -> str:
    red, green, blue = rgb
    brightness = (red + green + blue) / 3
    if brightness < 55:
        return "black"
    if red - blue < 22 and brightness > 100:
        return "gray"
    if brightness > 125:
        return "blond"
    return "red" if red - green > 45 else "brown"
