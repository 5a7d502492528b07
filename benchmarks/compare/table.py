"""The tables of a comparison, made of what the cells measured."""

import io
import json
from pathlib import Path

import numpy as np

from hyperdreambooth_ext.errors import UserError
from hyperdreambooth_ext.files import write_atomically
from hyperdreambooth_ext.hosts.diffusers import DiffusersHost

from ..evaluate import through_autoencoder
from ..judges import VERSION
from ..people import SYNTHETIC, synthetic
from ..recognizer import Gallery, Recognizer, features_of_all
from .rows import OURS, ROWS, folder_name

CEILING = 20  # people whose photos go through the autoencoder


def read(folder: Path) -> list[dict]:
    """The results of one row or rate, by person. Raises UserError for those of other judges than today's."""
    files = sorted(folder.glob("*.result.json"), key=lambda f: int(f.name.split(".")[0]))
    results = [json.loads(file.read_text()) for file in files]
    if any(result.get("version") != VERSION for result in results):
        raise UserError(f"{folder} was judged in another way than today: give an empty folder.")
    return results


class Identity:
    """Distances to the other photos of all people, dlib's. `reach` is the distance half of the way from strangers to
    what the checkpoint's latents can hold."""

    def __init__(self, gallery: np.ndarray, reach: float) -> None:
        self._gallery, self.reach = Gallery(list(gallery)), round(reach, 3)

    @classmethod
    def read(cls, file: Path, checkpoint: Path, among: int) -> "Identity":
        """From FILE, which is made where it is missing. Raises UserError for one of other judges than today's."""
        if not file.exists():
            host, recognizer = DiffusersHost(checkpoint), Recognizer()
            people = synthetic(SYNTHETIC, among, host.default_size)
            photos = Gallery([features_of_all(person.others, recognizer) for person in people])
            seen = [recognizer.features(through_autoencoder(host, person.crop)) for person in people[:CEILING]]
            best = np.mean([photos.match(features, i).distance for i, features in enumerate(seen)])
            buffer = io.BytesIO()
            np.savez(buffer, gallery=photos.people, reach=(best + photos.strangers) / 2, version=VERSION)
            write_atomically(file, buffer.getvalue())
        stored = np.load(file)
        if "version" not in stored or stored["version"] != VERSION:
            raise UserError(f"{file.parent} was judged in another way than today: give an empty folder.")
        return cls(stored["gallery"], float(stored["reach"]))

    def of(self, features: list[list[float] | None], person: int) -> tuple[float, float]:
        """(mean distance of the pictures to the person's other photo, share of pictures nearest to it); without a face
        a picture is a miss, as far away as strangers are."""
        seen = [self._gallery.match(None if picture is None else np.array(picture), person) for picture in features]
        return float(np.mean([one.distance for one in seen])), float(np.mean([one.rank1 for one in seen]))


def best_rate(identity: Identity, folder: Path, rates: tuple[float, ...]) -> float | None:
    """The rate whose pictures are most alike, among those that still heed at least half of the styles that the most
    obedient rate does; one in the middle where there was no sweep, None where there is nothing to sweep."""
    swept = sweep_figures(identity, folder, rates)
    if not swept:
        return rates[len(rates) // 2] if rates else None
    most = max(figures["style"] for figures in swept.values())
    heeding = {lr: figures["distance"] for lr, figures in swept.items() if figures["style"] >= most / 2}
    return min(heeding, key=heeding.__getitem__)


def sweep_figures(identity: Identity, folder: Path, rates: tuple[float, ...]) -> dict[float, dict[str, float]]:
    """Learning rate -> distance at multiplier 1 and style at 0.8."""
    found = {lr: read(folder / str(lr)) for lr in rates if (folder / str(lr)).is_dir()}
    return {
        lr: {
            "distance": float(np.mean([identity.of(r["at"]["1.0"]["features"], r["cell"]["person"])[0] for r in of])),
            "style": float(np.mean([r["at"]["0.8"]["styles"] for r in of])),
            "people": len(of),
        }
        for lr, of in found.items()
        if of
    }


def write_table(identity: Identity, out: Path, rows: list[str], rates: dict[str, float | None], people: int) -> dict:
    """compare.json and compare.md in OUT; returns what is in compare.json."""
    results = {row: [r for r in read(out / "rows" / folder_name(row)) if r["cell"]["person"] < people] for row in rows}
    first = results[rows[0]][0]
    table = {row: _figures(of, identity) for row, of in results.items()}
    for figures in table.values():
        figures["seconds_to_reach"] = _seconds_to_reach(_with_end(figures), identity.reach)
    sweeps = {row: sweep_figures(identity, out / "sweep" / folder_name(row), ROWS[row].sweep) for row in rows}
    settings = {key: first["cell"][key] for key in ("scale", "picture_steps", "clock")}
    everything = {"people": people, "reach": identity.reach, "settings": settings, "rates": rates, "rows": table,
                  "sweeps": {row: {f"{lr:g}": f for lr, f in s.items()} for row, s in sweeps.items() if s}}  # fmt: skip
    (out / "compare.json").write_text(json.dumps(everything, indent=2) + "\n")
    markdown = "\n".join(_markdown(everything))
    (out / "compare.md").write_text(markdown + "\n", encoding="utf-8")
    print(markdown)
    return everything


def _figures(of: list[dict], identity: Identity) -> dict:
    def at(multiplier: str) -> dict:
        scores = [identity.of(r["at"][multiplier]["features"], r["cell"]["person"]) for r in of]
        return {
            "distance": float(np.mean([s[0] for s in scores])),
            "distance_spread": float(np.std([s[0] for s in scores])),
            "rank1": float(np.mean([s[1] for s in scores])),
            "style": float(np.mean([r["at"][multiplier]["styles"] for r in of])),
            "diversity": float(np.mean([r["at"][multiplier]["diversity"] for r in of])),
        }

    curve = []
    for points in zip(*(r["curve"] for r in of), strict=True):
        scores = [identity.of(p["features"], r["cell"]["person"])[0] for p, r in zip(points, of, strict=True)]
        curve.append({"step": points[0]["step"], "seconds": float(np.mean([p["seconds"] for p in points])),
                      "distance": float(np.mean(scores))})  # fmt: skip
    seconds = [r["seconds"] for r in of]
    return {
        "steps": of[0]["steps"], "lr": of[0]["cell"]["lr"], "seconds": float(np.mean(seconds)),
        "seconds_spread": float(np.std(seconds)), "peak_megabytes": max(r["peak_megabytes"] for r in of),
        "loaded_megabytes": max(r["loaded_megabytes"] for r in of), "bytes": int(np.mean([r["bytes"] for r in of])),
        "curve": curve, "at": {multiplier: at(multiplier) for multiplier in of[0]["at"]},
    }  # fmt: skip


def _with_end(figures: dict) -> list[dict]:
    """The curve, or for a method without steps the only point that it has."""
    end = {"seconds": figures["seconds"], "distance": figures["at"]["1.0"]["distance"]}
    return figures["curve"] or [end]


def _seconds_to_reach(curve: list[dict], reach: float) -> float | None:
    """Where the curve first comes down to `reach`, between two points in proportion; None where it never does."""
    for before, after in zip([None, *curve], curve, strict=False):
        if after["distance"] <= reach:
            if before is None:
                return after["seconds"]
            share = (before["distance"] - reach) / (before["distance"] - after["distance"])
            return before["seconds"] + share * (after["seconds"] - before["seconds"])
    return None


def _kilobytes(size: int) -> str:
    return f"{size / 1000:.0f}" if size >= 10_000 else f"{size / 1000:.1f}"


def _with_spread(figures: dict, name: str, digits: int, people: int) -> str:
    """One person has no spread."""
    spread = f" ± {figures[f'{name}_spread']:.{digits}f}" if people > 1 else ""
    return f"{figures[name]:.{digits}f}{spread}"


def _markdown(everything: dict) -> list[str]:
    table, reach, people = everything["rows"], everything["reach"], everything["people"]
    ours = table.get(OURS)
    lines = [
        f"Learned: {people}. Seconds by the {everything['settings']['clock']} clock.", "",
        f"| | steps | learning rate | seconds | times ours | seconds to {reach:.2f} | peak MB | KB | distance at 1 "
        "| rank-1 | style at 0.8 | style at 1 | diversity |", "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for row, f in table.items():
        one, less = f["at"]["1.0"], f["at"]["0.8"]
        rate = "" if f["lr"] is None else f"{f['lr']:g}"
        times = "" if ours is None else f"{f['seconds'] / ours['seconds']:.1f}"
        reached = "never" if f["seconds_to_reach"] is None else f"{f['seconds_to_reach']:.1f}"
        lines.append(
            f"| {row} | {f['steps']} | {rate} | {_with_spread(f, 'seconds', 1, people)} | {times} | {reached} "
            f"| {f['peak_megabytes']:.0f} | {_kilobytes(f['bytes'])} | {_with_spread(one, 'distance', 3, people)} "
            f"| {one['rank1']:.2f} | {less['style']:.2f} | {one['style']:.2f} | {one['diversity']:.3f} |"
        )
    if everything["sweeps"]:
        lines += ["", "Learning rates: distance at 1 / style at 0.8; the one taken is bold.", ""]
        for row, swept in everything["sweeps"].items():
            taken = everything["rates"][row]
            tried = [f"{lr} {f['distance']:.3f} / {f['style']:.2f}" for lr, f in swept.items()]
            marked = [f"**{one}**" if float(one.split()[0]) == taken else one for one in tried]
            lines.append(f"- {row}: {', '.join(marked)}")
    return lines
