"""Pack generated people into one small file, so that nobody has to generate them again.

    python -m training.pack FOLDER FILE.tar [--quality 45]

FOLDER is what `training.generate` wrote and `training.attributes` labeled. The file, unpacked, is a folder that
`training.faces` reads: photos.jsonl with attributes, sface.npy, and the photos as AVIF. Nobody is younger than 22.
"""

import argparse
import io
import json
import tarfile
from pathlib import Path

import cv2
import numpy as np

from .faces import gathered


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("folder", "file"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--quality", type=int, default=45)
    args = parser.parse_args()
    rows, features = gathered([args.folder])
    lines, table = [], io.BytesIO()
    with tarfile.open(args.file, "w") as tar:
        for row in rows:
            photo = Path(row["photo"]).with_suffix(".avif").name
            options = [cv2.IMWRITE_AVIF_QUALITY, args.quality, cv2.IMWRITE_AVIF_SPEED, 4]
            _, data = cv2.imencode(".avif", cv2.imread(row["file"]), options)
            _add(tar, f"photos/{photo}", data.tobytes())
            lines.append(
                {k: v for k, v in row.items() if k not in ("file", "use", "looks", "moved")} | {"photo": photo}
            )
        np.save(table, features.astype(np.float16))
        _add(tar, "sface.npy", table.getvalue())
        _add(tar, "photos.jsonl", "".join(json.dumps(line) + "\n" for line in lines).encode())
    print(
        f"{len(lines)} photos of {len({line['identity'] for line in lines})} people, {args.file.stat().st_size} bytes"
    )


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """Without times and owners: the same people are the same bytes."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


if __name__ == "__main__":
    main()
