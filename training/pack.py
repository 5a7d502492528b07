"""Pack generated people into one small file, so that nobody has to generate them again.

    python -m training.pack FOLDER FILE.tar [--quality 45]

FOLDER is what `training.generate` wrote and `training.attributes` labeled. The file, unpacked, is a folder that
`training.faces` reads: photos.jsonl with attributes, sface.npy, and the photos as AVIF; children are left out.
"""

import argparse
import io
import json
import tarfile
from pathlib import Path

import cv2
import numpy as np

from .faces import gathered

NOT_KEPT = ("file", "use", "looks", "moved")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("folder", "file"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--quality", type=int, default=45)
    args = parser.parse_args()
    rows, features = gathered([args.folder])
    lines, table = "", io.BytesIO()
    with tarfile.open(args.file, "w") as tar:
        for row in rows:
            photo = Path(row["photo"]).with_suffix(".avif").name
            options = [cv2.IMWRITE_AVIF_QUALITY, args.quality, cv2.IMWRITE_AVIF_SPEED, 4]
            _, data = cv2.imencode(".avif", cv2.imread(row["file"]), options)
            _add(tar, f"photos/{photo}", data.tobytes())
            kept = {name: value for name, value in row.items() if name not in NOT_KEPT}
            lines += json.dumps(kept | {"photo": photo}) + "\n"
        np.save(table, features.astype(np.float16))
        _add(tar, "sface.npy", table.getvalue())
        _add(tar, "photos.jsonl", lines.encode())
    print(f"{len(rows)} photos, {args.file.stat().st_size / 1e6:.1f} MB")


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """Without times and owners: the same people are the same bytes."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


if __name__ == "__main__":
    main()
