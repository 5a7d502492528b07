"""The trainings' own parts: what they compute, not what comes out of hours of them."""

import os
import random
import socket
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from ldm.modules.diffusionmodules.model import Decoder
from ldm.modules.diffusionmodules.openaimodel import UNetModel
from safetensors.torch import load_file, save_file
from torch.multiprocessing import spawn
from torch.optim.swa_utils import AveragedModel

from hyperdreambooth_ext.pretrain.processes import Processes
from training.captions import describe
from training.checkpoint import spread_timesteps
from training.compiled import can_compile
from training.convolutions import speed_up_convolutions
from training.faces import measured
from training.group_norm import speed_up_group_norms
from training.loop import averaged
from training.models import AUTOENCODER, UNET, Autoencoder, InnerAutoencoder, OpenedAutoencoder, new_unet
from training.muon import MuonAdamW, orthogonalized, orthogonalized_in_half
from training.parts import EMBEDDING, PART_BYTES, join, split
from training.photos import Photos, resized
from training.sface import TEMPLATE, similarity
from training.shared_memory import FOLDER, PREFIX, started_processes
from training.styles import STYLES

ROW = {
    "age": 41, "gender": "female", "smile": 0.0, "jaw_open": 0.0, "yaw": 0.0, "pitch": 0.0, "glasses": 1, "hat": 0,
    "earring": 0, "hair_share": 0.3, "hair_rgb": [40, 35, 30], "brightness": 120.0, "background_rgb": [220, 222, 219],
    "skin_angle": -10.0, "looks": "pud mov",
}  # fmt: skip


def test_captions_say_what_the_photo_shows() -> None:
    captions = [describe(ROW, "photo", random.Random(seed)) for seed in range(300)]
    for said in ("woman", "middle-aged", "glasses", "black hair", "white background", "dark skin", "pud mov"):
        assert any(said in caption for caption in captions), said
    for not_there in ("smiling,", "hat", " man", "bald", "looking"):
        assert not any(f" {not_there}" in f" {caption}," for caption in captions if "not smiling" not in caption)


def test_nearly_all_captions_are_rich() -> None:
    captions = [describe(ROW, "photo", random.Random(seed)) for seed in range(300)]
    assert np.mean([caption.count(",") >= 2 for caption in captions]) > 0.75


def test_a_caption_names_its_style() -> None:
    assert all("pixel art" in describe(ROW, "pixel art", random.Random(seed)) for seed in range(50))


@pytest.mark.parametrize("style", sorted(STYLES))
def test_a_style_changes_a_picture_and_keeps_its_shape(style: str) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    styled = STYLES[style](picture)
    assert styled.shape == picture.shape and styled.dtype == np.uint8
    assert np.abs(styled.astype(int) - picture).mean() > 5


def test_what_the_pixels_say_of_a_photo() -> None:
    photo = np.full((256, 256, 3), (30, 160, 40), np.uint8)
    landmarks = [96, 120, 160, 121, 128, 158, 98, 185, 156, 186]
    photo[80:230, 60:196] = (224, 190, 170)
    of_light_skin = measured(photo, {"landmarks": landmarks})
    assert of_light_skin["background_rgb"] == [30, 160, 40]
    photo[80:230, 60:196] = (92, 62, 48)
    assert measured(photo, {"landmarks": landmarks})["skin_angle"] < 0 < of_light_skin["skin_angle"]


def test_orthogonalized_matrices_have_singular_values_of_about_one() -> None:
    for shape in ((16, 64), (64, 16)):
        values = torch.linalg.svdvals(orthogonalized(torch.randn(shape, generator=torch.Generator().manual_seed(0))))
        assert values.min() > 0.6 and values.max() < 1.3


@pytest.mark.parametrize("shape", [(8, 40), (40, 8)])
def test_orthogonalizing_by_the_gram_matrix_is_the_plain_iteration(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    x = matrix / matrix.norm()
    for _ in range(5):
        x = 3.4445 * x - 4.7750 * x @ x.T @ x + 2.0315 * x @ x.T @ x @ x.T @ x
    assert torch.allclose(orthogonalized(matrix), x, atol=1e-4)


def test_the_timesteps_of_a_batch_are_spread_over_all_noise_levels() -> None:
    timesteps = spread_timesteps(8, np.random.default_rng(0))
    assert sorted(t // 125 for t in timesteps.tolist()) == list(range(8))
    assert not torch.equal(timesteps, spread_timesteps(8, np.random.default_rng(1)))


def test_orthogonalizing_in_half_precision_is_nearly_the_same() -> None:
    matrices = torch.randn((3, 24, 60), generator=torch.Generator().manual_seed(0))
    exact = orthogonalized(matrices)
    assert (orthogonalized_in_half(matrices) - exact).norm() < 0.03 * exact.norm()


def test_muon_and_adamw_minimize_together_and_resume_to_the_bit() -> None:
    def run(steps: int, state: dict | None = None) -> tuple[list[torch.Tensor], dict, float]:
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.SiLU(), torch.nn.Conv2d(8, 3, 1))
        optimizer = MuonAdamW(model, 1e-2)
        if state:
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
        pictures, loss = torch.randn(4, 3, 8, 8), torch.tensor(0.0)
        for _ in range(steps):
            optimizer.zero_grad()
            loss = (model(pictures) - pictures[..., 1:-1, 1:-1]).square().mean()
            loss.backward()
            optimizer.step()
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
        return [p.detach() for p in model.parameters()], state, float(loss.detach())

    first, whole = run(1), run(30)
    assert whole[2] < 0.8 * first[2]
    resumed = run(20, run(10)[1])
    assert all(torch.equal(a, b) for a, b in zip(whole[0], resumed[0], strict=True))


class OneOfTwo(Processes):
    """One of two processes, which here are threads."""

    def __init__(self, rank: int, all_parts: list[list[torch.Tensor]], barrier: threading.Barrier) -> None:
        super().__init__(rank, 2)
        self._all_parts, self._barrier = all_parts, barrier

    def mean(self, tensors: Sequence[torch.Tensor]) -> None:
        self._all_parts[self.rank] = [tensor.clone() for tensor in tensors]
        self._barrier.wait()
        for tensor, *parts in zip(tensors, *self._all_parts, strict=True):
            tensor.copy_(sum(parts) / 2)
        self._barrier.wait()


def test_two_processes_share_muons_work_and_move_as_one() -> None:
    def moved(processes: Processes) -> list[torch.Tensor]:
        generator = torch.Generator().manual_seed(0)
        tall = torch.nn.Conv2d(1, 20, 3)
        model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Conv2d(8, 6, 1), torch.nn.Linear(5, 7), tall)
        optimizer = MuonAdamW(model, 1e-2, processes=processes)
        for parameter in model.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator)
        for _ in range(3):
            for parameter in model.parameters():
                parameter.grad = torch.randn(parameter.shape, generator=generator)
            optimizer.step()
        return [parameter.detach() for parameter in model.parameters()]

    barrier, parts = threading.Barrier(2, timeout=60), [[], []]
    with ThreadPoolExecutor(2) as pool:
        of_two = list(pool.map(moved, [OneOfTwo(rank, parts, barrier) for rank in (0, 1)]))
    for alone, first, second in zip(moved(Processes()), *of_two, strict=True):
        assert torch.equal(first, second)
        torch.testing.assert_close(alone, first)


def meet(rank: int, port: int, folder: str) -> None:
    """One of two processes; writes the means of tensors of growing size."""
    os.environ.update(RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    processes = started_processes(torch.device("cpu"))
    for size in (3, 2, 50, 50, 7):
        tensors = [torch.full((size, 2), float(rank)), torch.arange(size) * float(1 + 2 * rank)]
        processes.mean(tensors)
        assert torch.equal(tensors[0], torch.full((size, 2), 0.5))
        assert torch.equal(tensors[1], torch.arange(size) * 2.0)
    (Path(folder) / str(rank)).touch()


def test_processes_of_one_machine_take_means_through_memory(tmp_path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spawn(meet, (port, str(tmp_path)), nprocs=2)
    assert len(list(tmp_path.iterdir())) == 2 and not list(FOLDER.glob(f"{PREFIX}*"))


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_the_moving_average_of_a_short_training_has_forgotten_its_first_weights() -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(100)
        average = AveragedModel(model, multi_avg_fn=averaged(0.9999))
        average.update_parameters(model)
        model.weight.fill_(1)
        for _ in range(50):
            average.update_parameters(model)
    assert abs(float(average.module.weight) - 1) < 0.1


@pytest.mark.skipif(not can_compile(), reason="no C++ compiler, or torch has another BLAS")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
@pytest.mark.parametrize("silu", [False, True])
def test_faster_group_norms_are_torchs_with_all_their_gradients(silu, dtype, tolerance) -> None:
    torch.manual_seed(0)
    plain = torch.nn.Sequential(torch.nn.GroupNorm(32, 64), *[torch.nn.SiLU()] * silu)
    for parameter in plain.parameters():
        torch.nn.init.normal_(parameter)
    faster = deepcopy(plain)
    speed_up_group_norms(faster)
    x, gradient = (torch.randn(3, 64, 9, 11).to(dtype) for _ in range(2))
    results = []
    for norm, own in ((plain, x.float()), (faster, x)):
        output = norm(own.requires_grad_())
        gradients = torch.autograd.grad(output, (own, *norm.parameters()), gradient.to(output))
        results.append((output, *gradients))
    for theirs, ours in zip(*results, strict=True):
        assert (ours.float() - theirs).norm() <= tolerance * theirs.norm()


@torch.no_grad()
def test_faster_networks_compute_what_ldms_do() -> None:
    """The UNet in half precision too, where its attention goes another way."""
    torch.manual_seed(0)
    faster, plain = new_unet().eval(), UNetModel(**UNET).eval()
    for parameter in faster.parameters():
        parameter.add_(0.02 * torch.randn_like(parameter))
    plain.load_state_dict(faster.state_dict())
    inputs = (torch.randn(2, 4, 8, 8), torch.tensor([3, 700]), torch.randn(2, 77, UNET["context_dim"]))
    wanted = plain(inputs[0], inputs[1], context=inputs[2])
    for half, tolerance in ((False, 1e-4), (True, 3e-2)):
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            predicted = faster(inputs[0], inputs[1], context=inputs[2]).float()
        assert (predicted - wanted).norm() < tolerance * wanted.norm()

    autoencoder, decoder = Autoencoder().eval(), Decoder(**AUTOENCODER).eval()
    decoder.load_state_dict(autoencoder.decoder.state_dict())
    torch.testing.assert_close(autoencoder.decoder(inputs[0]), decoder(inputs[0]), rtol=1e-3, atol=1e-4)


@pytest.mark.skipif(not can_compile(), reason="no C++ compiler, or torch has another BLAS")
@pytest.mark.parametrize(
    ("layer", "side"),
    [
        (torch.nn.Conv2d(16, 24, 3, padding=1), 16),
        (torch.nn.Conv2d(24, 8, 3, padding=1), 6),
        (torch.nn.Conv2d(8, 8, 3, padding=1), 3),
        (torch.nn.Conv2d(8, 16, 3, padding=1), 5),
        (torch.nn.Conv2d(8, 16, 3, stride=2, padding=1), 8),
        (torch.nn.Conv2d(4, 16, 3, padding=1), 8),
        (torch.nn.Conv2d(16, 8, 1), 8),
    ],
)
def test_faster_convolutions_are_torchs_with_all_their_gradients(layer, side) -> None:
    """Pictures that are worked on in one part and in several, with tiles of four, of three, and what has none."""
    torch.manual_seed(0)
    faster = deepcopy(layer)
    speed_up_convolutions(faster)
    for pictures in (1, 50):
        x = torch.randn(pictures, layer.in_channels, side, side)
        results = []
        for one in (layer, faster):
            own = x.clone().requires_grad_()
            output = one(own)
            gradients = torch.autograd.grad(output.square().sum(), (own, *one.parameters()))
            results.append((output, *gradients))
        for ours, theirs in zip(*results, strict=True):
            assert (ours - theirs).norm() <= 1e-5 * theirs.norm() + 1e-6


@torch.no_grad()
def test_the_outermost_level_is_opened_without_losing_what_the_inner_ones_learned() -> None:
    torch.manual_seed(0)
    inner = InnerAutoencoder(Autoencoder())
    smooth = torch.nn.functional.interpolate(torch.randn(1, 3, 4, 4), (64, 64), mode="bicubic")
    half = torch.nn.functional.avg_pool2d(smooth, 2)
    latents = inner.moments(half)[0]
    pictures = inner.decode(latents)
    whole = inner.open()
    assert all(parameter.requires_grad for parameter in whole.parameters())
    for got, wanted in (
        (whole.encode(smooth), latents),
        (torch.nn.functional.avg_pool2d(whole.decode(latents), 2), pictures),
    ):
        assert torch.corrcoef(torch.stack([got.flatten(), wanted.flatten()]))[0, 1] > 0.8


def test_the_whole_encoder_learns_the_inner_ones_latents() -> None:
    torch.manual_seed(0)
    inner = InnerAutoencoder(Autoencoder())
    pictures = resized(torch.randn(2, 3, 8, 8), 32)
    latents = inner.moments(resized(pictures, 16))[0].detach()
    opened = OpenedAutoencoder(inner)
    trained = [parameter for parameter in opened.parameters() if parameter.requires_grad]
    optimizer, errors = torch.optim.Adam(trained, 1e-3), []
    for _ in range(6):
        errors.append(opened.encoder_error(pictures))
        optimizer.zero_grad()
        errors[-1].backward()
        optimizer.step()
    assert errors[-1] < 0.7 * errors[0]
    assert torch.equal(opened.moments(pictures)[0], latents)


def test_faces_are_aligned_by_the_nearest_similarity() -> None:
    template = torch.tensor(TEMPLATE)[None]
    turn = torch.tensor([[0.9, -0.3], [0.3, 0.9]])
    moved = template @ turn.T + torch.tensor([12.0, -7.0])
    found = similarity(template, moved)[0]
    assert torch.allclose(found, torch.cat([turn, torch.tensor([[12.0], [-7.0]])], 1), atol=1e-3)


def test_photos_are_read_whole_and_in_crops_of_any_scale(tmp_path: Path) -> None:
    images = np.zeros((2, 256, 256, 3), np.uint8)
    images[1] = 255
    np.save(tmp_path / "images.npy", images)
    (tmp_path / "index.jsonl").write_text(
        '{"landmarks": [0, 0, 0, 0, 0, 0, 0, 0, 0, 0], "use": "measure"}\n'
        '{"landmarks": [0, 0, 0, 0, 0, 0, 0, 0, 0, 0], "use": "train"}\n'
    )
    photos = Photos(tmp_path)
    assert list(photos.trained) == [1] and list(photos.held_out) == [0]
    rng = np.random.default_rng(0)
    for side in (256, 192, 128):
        assert torch.allclose(photos.crops(photos.trained, rng, 64, side), torch.ones(1, 3, 64, 64), atol=1e-5)
    assert torch.equal(photos.pictures(np.array([0])), -torch.ones(1, 3, 256, 256))


def test_weights_travel_in_parts_and_come_back(tmp_path: Path) -> None:
    large = {"a": torch.randn(3_000_000), "b": torch.randn(6_000_000), "number": torch.tensor([7])}
    large["matrix"] = torch.randn(8, 5, 3, 3)
    save_file(large, tmp_path / "one.safetensors")
    rows = torch.zeros(49408, 4)
    rows[[3, 40000]] = torch.tensor([[1.0, 2, 3, 4], [5, 6, 7, 8]])
    save_file({f"text.{EMBEDDING}": rows}, tmp_path / "two.safetensors")
    split(
        {"one": tmp_path / "one.safetensors", "two": tmp_path / "two.safetensors"}, tmp_path / "parts",
        torch.tensor([3, 40000]), coarse=["one"],
    )  # fmt: skip
    parts = list((tmp_path / "parts").iterdir())
    assert len(parts) > 1 and all(part.stat().st_size < PART_BYTES + 100_000 for part in parts)
    join(tmp_path / "parts", tmp_path / "back")
    back = load_file(tmp_path / "back/one.safetensors")
    assert torch.allclose(back["a"], large["a"], atol=5e-3) and back["number"] == 7
    assert torch.allclose(back["matrix"], large["matrix"], atol=large["matrix"].abs().max().item() / 254)
    assert torch.equal(load_file(tmp_path / "back/two.safetensors")[f"text.{EMBEDDING}"], rows)
