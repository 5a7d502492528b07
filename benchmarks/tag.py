"""What a LiDB costs beside the pictures: loading one, listing a folder of them, what a step of sampling pays for it.

    python run.py tag [--files 1000]

On SD 1.5's shapes at the default rank, with a thumbnail in each file. A step of sampling is measured on the bundled
checkpoint, with and without a LiDB in turn; inside the WebUI the tag is merged into the weights, and
`WEBUI_ROOT=… run.py test tests/webui/real -rP` measures it there.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from hyperdreambooth_ext.hosts.diffusers import DiffusersHost
from hyperdreambooth_ext.jobs.library import entries
from hyperdreambooth_ext.lidb import file
from hyperdreambooth_ext.lidb.injection import Applied, injected
from hyperdreambooth_ext.lidb.layers import Architecture
from hyperdreambooth_ext.lidb.lora import lora_tensors
from hyperdreambooth_ext.personalize.finetune import FinetuneOptions
from hyperdreambooth_ext.shipped import CHECKPOINT

from .random_host import random_lidb, sd15_architecture

THUMBNAIL = bytes(range(256)) * 20
RUNS = 15


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=1000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    lidb = random_lidb(sd15_architecture(), FinetuneOptions().rank)
    with TemporaryDirectory() as folder:
        first = Path(folder) / "0.safetensors"
        file.save(first, lidb, file.Info(name="0", thumbnail=THUMBNAIL))
        print("Processor time, one thread: median (quartiles)\n")
        show("a LiDB read and checked", timed(lambda: file.load(first)))
        read = file.load(first)[0]
        show("and made into what the loader takes", timed(lambda: lora_tensors(read)))
        for number in range(1, args.files):
            first.with_name(f"{number}.safetensors").write_bytes(first.read_bytes())
        show(f"a folder of {args.files} listed", timed(lambda: entries(Path(folder)), runs=5))
    step_with_and_without()


def timed(what: Callable[[], object], runs: int = RUNS) -> list[float]:
    """Processor seconds of each run, after one that is not counted."""
    what()
    times = []
    for _ in range(runs):
        began = time.process_time()
        what()
        times.append(time.process_time() - began)
    return times


def show(name: str, times: list[float]) -> None:
    low, middle, high = statistics.quantiles(times, n=4)
    print(f"- {name}: {middle * 1e3:.1f} ms ({low * 1e3:.1f} to {high * 1e3:.1f})", flush=True)


@torch.no_grad()
def step_with_and_without() -> None:
    """A UNet pass as the command line makes it, two samples, with and without a LiDB in turn."""
    host = DiffusersHost(CHECKPOINT)
    lidb = random_lidb(Architecture.of(host.linears()), FinetuneOptions().rank)
    latents, timesteps = torch.randn(2, 4, 16, 16), torch.tensor([500, 500])
    times: dict[str, list[float]] = {"without": [], "with": []}
    with host.frozen():
        embeds = host.encode_prompts(["a sks face", ""])
        for run in range(RUNS * 2 + 2):
            name = "with" if run % 2 else "without"
            with injected(host.linears(), *([Applied(lidb)] if run % 2 else [])):
                # The first step of a picture prepares the layers for all others.
                host.predict(latents, timesteps, embeds)
                began = time.process_time()
                host.predict(latents, timesteps, embeds)
                times[name].append(time.process_time() - began)
    for name, of in times.items():
        show(f"a step of sampling {name} a LiDB", of[1:])
    more = statistics.median(times["with"][1:]) / statistics.median(times["without"][1:]) - 1
    print(f"- that is {more:+.1%}")


if __name__ == "__main__":
    main()
