"""Train the UNet and the text encoder of the bundled checkpoint, then write the checkpoint in SD1 layout.

    python -m training.checkpoint encode DATA INNER/autoencoder.safetensors OUT
    python -m training.checkpoint train  DATA OUT RUN --size 64 [--steps 2000] [--minutes 60]
    python -m training.checkpoint train  DATA OUT RUN2 --size 96 --weights RUN/text_to_image.safetensors
    python -m training.checkpoint train  DATA OUT RUN3 --size 192 --weights RUN2/text_to_image.safetensors
    torchrun --nproc-per-node 2 -m training.checkpoint train DATA OUT RUN3 --size 192 …
    python -m training.checkpoint export OUT RUN3 AUTOENCODER.safetensors models/faces192.safetensors

`encode` caches latents of all pictures at three sizes, upright and mirrored, photos in two versions (`varied`), and
eight captions of each as tokens; the latents are the inner autoencoder's, which the whole one keeps. Most samples are
seen at the small sizes, where they cost a quarter. The latents have unit variance; their scale goes into the
autoencoder's 1x1 convolutions, so that the checkpoint keeps Stable Diffusion's own factor 0.18215.

On a processor `train` is faster in float32 in several processes of one thread each than in one of several, sees the
same samples, and does not stand still when something else wants a core; in half precision one process is faster.
"""

import argparse
import random
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import yaml
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import CLIPTokenizer

from hyperdreambooth_ext.hosts.checkpoint import CONFIGS, TOKENIZER, ddpm_alphas_cumprod
from hyperdreambooth_ext.pretrain.loop import append_line
from hyperdreambooth_ext.sampling.schedule import add_noise

from .captions import PHOTO, describe
from .convolutions import speed_up_convolutions, with_channels_last
from .held_out import as_many, loss_of
from .loop import Run, precision_of, train
from .models import AUTOENCODER, SIZE, UNET, Autoencoder, InnerAutoencoder, new_text_encoder, new_unet
from .photos import Photos, resized, varied
from .shared_memory import started_processes
from .sheet import save_sheet

SCALE_FACTOR = 0.18215
SIZES = (64, 96, SIZE)
TIMESTEPS = 1000
SCALE_PHOTOS = 512
"""How many photos say how large latents are."""
CAPTIONS = 8
VERSIONS = 2
"""A photo as it is, and slightly changed: fewer samples are of a picture that was seen before."""
NOISES = 4
"""How often a batch holds each picture, at different noise levels: its caption is read once."""
WORDLESS = 0.1
"""The share of samples whose caption is left out, for classifier-free guidance."""
MIN_SNR_GAMMA = 5.0
SHEET_MINUTES = 60


def noise_schedule() -> torch.Tensor:
    """Stable Diffusion's own: the product of 1 - β up to each of 1,000 timesteps, float32."""
    return ddpm_alphas_cumprod(linear_start=0.00085, linear_end=0.0120, timesteps=TIMESTEPS)


class TextToImage(nn.Module):
    """UNet and text encoder as one module, so that one optimizer trains both."""

    def __init__(self) -> None:
        super().__init__()
        self.unet, self.text_encoder = new_unet(), new_text_encoder()

    def forward(self, latents: torch.Tensor, timesteps: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """The predicted noise, from noisy latents [B, 4, h, w], timesteps [B] and token numbers [B / NOISES, 77]."""
        context = self.text_encoder(tokens)[0]
        return self.unet(latents, timesteps, context=context.repeat(len(latents) // len(context), 1, 1))


def is_adamw(name: str) -> bool:
    """Embeddings, first and last layers are no matrices in Muon's sense."""
    return any(part in name for part in ("embedding", "input_blocks.0.", "unet.out.", "time_embed"))


def tokenized(captions: list[str]) -> np.ndarray:
    """Token numbers, uint16 [N, 77]."""
    tokenizer = CLIPTokenizer.from_pretrained(TOKENIZER)
    tokens = tokenizer(captions, padding="max_length", max_length=77, truncation=True, return_tensors="np")
    return tokens.input_ids.astype(np.uint16)


@torch.no_grad()
def encode(args: argparse.Namespace) -> None:
    """Cache latents' means, float16 [N, 2 * VERSIONS, 4, h, w] for each size, their scale, and tokens [N, 8, 77]."""
    device = torch.device(args.device)
    whole = Autoencoder()
    whole.load(args.autoencoder)
    photos = Photos(args.data, device)
    model = with_channels_last(InnerAutoencoder(whole).to(device)).eval()
    args.out.mkdir(parents=True, exist_ok=True)
    words = random.Random(0)
    captions = [describe(_mirrored(row, n), row["style"], words) for row in photos.rows for n in range(CAPTIONS)]
    np.save(args.out / "tokens.npy", tokenized(captions).reshape(len(photos.rows), CAPTIONS, 77))
    shift, scale = _scale(photos, model, args.out / "scale.safetensors")
    for size in args.size:
        file = args.out / f"latents-{size}.npy"
        if not file.exists():
            np.save(args.out / "unfinished.npy", latents_of(photos, model, size, shift, scale))
            (args.out / "unfinished.npy").replace(file)
            print(file.name, flush=True)
    print(f"{len(photos.rows)} pictures; shift {shift.tolist()}, scale {scale.tolist()}")


def _scale(photos: Photos, model: InnerAutoencoder, file: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of the latents' channels, [4] each, of some photos; kept in `file`."""
    if not file.exists():
        chosen = np.random.default_rng(0).choice(photos.trained, SCALE_PHOTOS)
        parts = np.array_split(chosen, SCALE_PHOTOS // 64)
        latents = torch.cat([_encoded(photos, model, part, SIZE) for part in parts])
        moments = {"shift": latents.mean((0, 2, 3)), "scale": latents.std((0, 2, 3))}
        save_file({name: value.cpu() for name, value in moments.items()}, file)
    kept = load_file(file)
    return kept["shift"], kept["scale"]


def _encoded(
    photos: Photos, model: InnerAutoencoder, chosen: np.ndarray, size: int, version: int = 0, mirrored: bool = False
) -> torch.Tensor:
    """Means of the latents [B, 4, size / 8, size / 8]."""
    pictures, device = photos.pictures(chosen), photos.device
    if version:
        pictures = varied(pictures, np.random.default_rng((version, *chosen[:1])))
    pictures = resized(pictures, size // 2)
    with torch.autocast(device.type, torch.bfloat16, enabled=precision_of(device) == "bf16"):
        return model.moments(pictures.flip(-1) if mirrored else pictures)[0].float()


@torch.no_grad()
def latents_of(
    photos: Photos, model: InnerAutoencoder, size: int, shift: torch.Tensor, scale: torch.Tensor
) -> np.ndarray:
    """Latents of unit variance, float16 [N, 2 * VERSIONS, 4, h, w]: each version upright, then mirrored, first the
    picture as it is. Of pictures in a style, and of those that nothing is trained on, all versions are alike."""
    every = np.arange(len(photos.rows))
    changed = np.array([i for i in photos.trained if photos.rows[i]["style"] == PHOTO], int)
    latents = np.empty((len(every), 2 * VERSIONS, 4, size // 8, size // 8), np.float16)
    for version in range(VERSIONS):
        latents[:, 2 * version : 2 * version + 2] = latents[:, :2]
        chosen = changed if version else every
        for part in np.array_split(chosen, max(1, len(chosen) // 64)):
            for mirrored in (False, True):
                found = _encoded(photos, model, part, size, version, mirrored).cpu()
                latents[part, 2 * version + mirrored] = ((found - shift.view(4, 1, 1)) / scale.view(4, 1, 1)).half()
    return latents


def _mirrored(row: dict, number: int) -> dict:
    """The later half of a picture's captions are for its mirror images."""
    return row if number < CAPTIONS // 2 else row | {"yaw": -row["yaw"]}


class Samples:
    """Latents of one size with captions, on the device that computes."""

    def __init__(self, photos: Photos, cache: Path, size: int, device: torch.device) -> None:
        self.latents = torch.from_numpy(np.load(cache / f"latents-{size}.npy")).to(device)
        self.tokens = torch.from_numpy(np.load(cache / "tokens.npy").astype(np.int32)).to(device)
        self.empty = torch.from_numpy(tokenized([""])[0].astype(np.int32)).to(device)
        self.trained, self.held_out = photos.trained, photos.held_out
        self.are_photos = np.array([row["style"] == PHOTO for row in photos.rows])

    def plain(self, chosen: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents and tokens of pictures as they are, each with its first caption."""
        place = torch.from_numpy(chosen).to(self.latents.device)
        return self.latents[place, 0].float(), self.tokens[place, 0].long()

    def batch(self, rng: np.random.Generator, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents float32 [B, 4, h, w] of B pictures and their tokens int64 [B, 77]."""
        chosen, version = rng.choice(self.trained, count), rng.integers(0, self.latents.shape[1], count)
        caption = version % 2 * (CAPTIONS // 2) + rng.integers(0, CAPTIONS // 2, count)
        device = self.latents.device
        place, seen, words = (torch.from_numpy(part).to(device) for part in (chosen, version, caption))
        wordless = torch.from_numpy(rng.random(count) < WORDLESS).to(device)
        tokens = torch.where(wordless[:, None], self.empty, self.tokens[place, words])
        return self.latents[place, seen].float(), tokens.long()


def train_checkpoint(args: argparse.Namespace) -> None:
    """Train on the noise-prediction loss, weighted by min-SNR (arXiv 2303.09556); a sheet of samples each hour."""
    device = torch.device(args.device)
    processes = started_processes(device)
    samples = Samples(Photos(args.data), args.cache, args.size, device)
    torch.manual_seed(0)
    model, alphas_cumprod = TextToImage().to(device), noise_schedule().to(device)
    if args.weights:
        model.load_state_dict(load_file(args.weights), strict=False)
    speed_up_convolutions(model) if precision_of(device) == "fp32" else with_channels_last(model)
    snr = alphas_cumprod / (1 - alphas_cumprod)
    pictures = args.batch // NOISES
    own = processes.slice_of(pictures)

    def losses(step: int, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        latents, tokens = samples.batch(rng, pictures)
        generator = torch.Generator(device).manual_seed(step)
        noise = torch.randn((NOISES, *latents.shape), generator=generator, device=device)[:, own].flatten(0, 1)
        timesteps = spread_timesteps(args.batch, rng).view(NOISES, pictures)[:, own].flatten().to(device)
        latents, tokens = latents[own].repeat(NOISES, 1, 1, 1), tokens[own]
        predicted = model(add_noise(latents, noise, alphas_cumprod[timesteps]), timesteps, tokens).float()
        errors = F.mse_loss(predicted, noise, reduction="none").mean((1, 2, 3))
        weights = (MIN_SNR_GAMMA / snr[timesteps]).clamp(max=1)
        return {"loss": (errors * weights).mean(), "mse": errors.mean()}

    def sheet(average: nn.Module, step: int) -> None:
        _log_held_out(args.out / "held_out.jsonl", step, average, samples, alphas_cumprod)
        save_sheet(args.out / f"sheet-{step:07d}.png", average, args.autoencoder, args.cache, alphas_cumprod, args.size)

    run = Run(
        args.steps, args.lr, args.minutes, args.whole, ema=args.ema, warm_up=100, precision=precision_of(device),
        sheet_minutes=SHEET_MINUTES,
    )  # fmt: skip
    drawn = sheet if args.autoencoder else None
    average = train(args.out, model, losses, run, is_adamw=is_adamw, sheet=drawn, processes=processes)
    if processes.first:
        save_file({k: v.contiguous() for k, v in average.state_dict().items()}, args.out / "text_to_image.safetensors")


def _log_held_out(file: Path, step: int, model: nn.Module, samples: Samples, alphas_cumprod: torch.Tensor) -> None:
    """Add a line with the moving average's loss on photos that it has seen, and on as many that it has not;
    nothing where no photos are kept out."""
    if not len(samples.held_out):
        return
    seen = as_many(samples.trained[samples.are_photos[samples.trained]], samples.held_out)
    parts = (("seen", seen), ("held_out", samples.held_out))
    losses = {n: loss_of(model.eval(), *samples.plain(of), alphas_cumprod, MIN_SNR_GAMMA) for n, of in parts}
    append_line(file, {"step": step} | {name: round(value, 5) for name, value in losses.items()})


def spread_timesteps(count: int, rng: np.random.Generator) -> torch.Tensor:
    """Timesteps int64 [count] at equal distances from a random first one (arXiv 2107.00630): a steadier loss."""
    places = (rng.random() + np.arange(count) / count) % 1
    return torch.from_numpy((places * TIMESTEPS).astype(np.int64))


def export(args: argparse.Namespace) -> None:
    """Write FILE (float16, SD1 layout) and FILE's sidecar yaml."""
    tensors = {}
    for key, value in load_file(args.run / "text_to_image.safetensors").items():
        if key.startswith("unet."):
            tensors["model.diffusion_model." + key.removeprefix("unet.")] = value
        else:
            name = key.removeprefix("text_encoder.").removeprefix("text_model.")
            tensors["cond_stage_model.transformer.text_model." + name] = value
    scale = load_file(args.cache / "scale.safetensors")
    scaled = _scaled(load_file(args.autoencoder), scale["shift"], scale["scale"])
    tensors |= {"first_stage_model." + key: value for key, value in scaled.items()}
    half = {key: value.half().contiguous() for key, value in tensors.items() if not key.endswith("position_ids")}
    save_file(half, args.file)
    args.file.with_suffix(".yaml").write_text(_sidecar(), encoding="utf-8")
    print(f"{args.file}: {args.file.stat().st_size / 1e6:.1f} MB")


def _scaled(weights: dict[str, torch.Tensor], shift: torch.Tensor, scale: torch.Tensor) -> dict[str, torch.Tensor]:
    """The autoencoder with latents of mean 0 and standard deviation 1 / SCALE_FACTOR."""
    gain = 1 / (scale * SCALE_FACTOR)
    rows = torch.cat([gain, torch.ones(4)])
    weights = dict(weights)
    weights["quant_conv.weight"] = weights["quant_conv.weight"] * rows.view(8, 1, 1, 1)
    weights["quant_conv.bias"] = (weights["quant_conv.bias"] - torch.cat([shift, torch.zeros(4)])) * rows
    weights["quant_conv.bias"][4:] += 2 * gain.log()
    convolution = weights["post_quant_conv.weight"]
    weights["post_quant_conv.bias"] = weights["post_quant_conv.bias"] + convolution[:, :, 0, 0] @ shift
    weights["post_quant_conv.weight"] = convolution / gain.view(1, 4, 1, 1)
    return weights


def _sidecar() -> str:
    config = yaml.safe_load((CONFIGS / "sd15.yaml").read_text(encoding="utf-8"))
    params = config["model"]["params"]
    params["image_size"] = UNET["image_size"]
    params["unet_config"]["params"] = UNET
    params["first_stage_config"]["params"]["ddconfig"] = AUTOENCODER
    params["cond_stage_config"]["params"] = {"version": "clip"}
    note = f"# A small Stable Diffusion 1 for faces at {SIZE} px. `version`: the folder of its text encoder's config.\n"
    return note + yaml.safe_dump(config, sort_keys=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="action", required=True)
    encoding, training, exporting = (actions.add_parser(name) for name in ("encode", "train", "export"))
    for name in ("data", "autoencoder", "out"):
        encoding.add_argument(name, type=Path)
    encoding.add_argument("--size", type=int, choices=SIZES, nargs="+", default=SIZES, help="those that exist stay")
    for name in ("data", "cache", "out"):
        training.add_argument(name, type=Path)
    training.add_argument("--size", type=int, choices=SIZES, default=SIZE, help="of the pictures")
    training.add_argument("--steps", type=int, default=20000)
    training.add_argument("--minutes", type=float, default=float("inf"), help="of this call; the next one goes on")
    training.add_argument("--whole", action="store_true", help="the learning rate falls before the minutes end")
    training.add_argument("--batch", type=int, default=256, help=f"a multiple of {NOISES}")
    training.add_argument("--lr", type=float, default=1e-3)
    training.add_argument("--ema", type=float, default=0.9995)
    training.add_argument("--weights", type=Path, help="text_to_image.safetensors of an earlier run")
    training.add_argument("--autoencoder", type=Path, help="for the hourly sheet")
    for name in ("cache", "run", "autoencoder", "file"):
        exporting.add_argument(name, type=Path)
    for action in (encoding, training):
        action.add_argument("--device", default="cpu")
    args = parser.parse_args()
    if args.action == "train" and (args.batch < NOISES or args.batch % NOISES):
        parser.error(
            f"--batch {args.batch}: each picture is seen at {NOISES} noise levels, give a multiple of {NOISES}."
        )
    {"encode": encode, "train": train_checkpoint, "export": export}[args.action](args)


if __name__ == "__main__":
    main()
