"""Styles made with image operations: each turns an RGB uint8 picture [H, W, 3] into another of the same shape.

The bundled checkpoint learns them as words of the prompt. They are made for frames of 256 pixels.
"""

from collections.abc import Callable

import cv2
import numpy as np

Picture = np.ndarray


def _gray(picture: Picture) -> np.ndarray:
    return cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)


def _rgb(gray: np.ndarray) -> Picture:
    return cv2.cvtColor(gray, cv2.COLOR_GRAY2RGB)


def _dodge(gray: np.ndarray, sigma: float) -> np.ndarray:
    blurred = cv2.GaussianBlur(gray, (0, 0), sigma).astype(np.float32)
    return np.clip(gray / np.maximum(blurred, 1) * 250, 0, 255).astype(np.uint8)


def _ink(gray: np.ndarray, sigma: float, strength: float) -> np.ndarray:
    """How dark a line is, 0 to 1: where a place is darker than what surrounds it."""
    light = gray.astype(np.float32) + 12
    ratio = cv2.GaussianBlur(light, (0, 0), 0.35 * sigma) / cv2.GaussianBlur(light, (0, 0), 2.2 * sigma)
    return np.clip((0.985 - ratio) * strength, 0, 1)


def pencil_sketch(picture: Picture) -> Picture:
    """Lines, and two directions of hatching in the shadows, on white paper."""
    gray = _gray(picture)
    tone = cv2.GaussianBlur(cv2.createCLAHE(2.0, (2, 2)).apply(gray), (0, 0), 1.5).astype(np.float32) / 255
    grain = np.random.default_rng(int(gray.sum())).normal(0, 1, gray.shape)
    grain = cv2.GaussianBlur(grain, (0, 0), 0.7) * 1.6
    y, x = np.mgrid[0 : gray.shape[0], 0 : gray.shape[1]]

    def hatching(angle: float) -> np.ndarray:
        across = x * np.cos(angle) + y * np.sin(angle)
        return 0.5 + 0.5 * np.sin(across * 2 * np.pi / 5 + 0.6 * grain)

    shade = np.clip(1 - tone / 0.62, 0, 1) * hatching(0.8) * 0.55
    shade += np.clip(1 - tone / 0.33, 0, 1) * hatching(2.2) * 0.35
    paper = 0.97 - 0.8 * _ink(gray, 2.0, 4.5) - 0.62 * shade + 0.015 * grain
    return _rgb((np.clip(paper, 0.08, 1) * 255).astype(np.uint8))


def charcoal(picture: Picture) -> Picture:
    gray = cv2.createCLAHE(3.0, (4, 4)).apply(_gray(picture))
    grain = np.random.default_rng(int(gray.sum())).normal(0, 14, gray.shape)
    strokes = cv2.GaussianBlur(grain, (0, 0), sigmaX=2.5, sigmaY=0.5) * 2
    levels = 255 / (1 + np.exp(-(gray.astype(np.float32) - 110 + strokes) / 26))
    return _rgb(levels.clip(0, 255).astype(np.uint8))


def oil_painting(picture: Picture) -> Picture:
    """The mean of the most frequent brightness around each pixel: what the classic oil filter does."""
    levels = (_gray(picture) // 26).astype(np.int32)
    best, result = np.zeros(levels.shape, np.float32), np.zeros(picture.shape, np.float32)
    for level in range(10):
        here = (levels == level).astype(np.float32)
        count = cv2.boxFilter(here, -1, (9, 9), normalize=False)
        mean = cv2.boxFilter(picture * here[..., None], -1, (9, 9), normalize=False) / np.maximum(count, 1)[..., None]
        wins = count > best
        best[wins], result[wins] = count[wins], mean[wins]
    hsv = cv2.cvtColor(result.clip(0, 255).astype(np.uint8), cv2.COLOR_RGB2HSV).astype(np.float32)
    hsv[..., 1] *= 1.35
    return cv2.cvtColor(hsv.clip(0, 255).astype(np.uint8), cv2.COLOR_HSV2RGB)


def watercolor(picture: Picture) -> Picture:
    washed = cv2.stylization(picture, sigma_s=40, sigma_r=0.35).astype(np.float32)
    return (washed * 0.75 + 70).clip(0, 255).astype(np.uint8)


def cartoon(picture: Picture) -> Picture:
    """Few shades of strong colors within thick outlines."""
    flat = picture
    for _ in range(7):
        flat = cv2.bilateralFilter(flat, 9, 32, 7)
    lab = cv2.cvtColor(flat, cv2.COLOR_RGB2LAB).astype(np.float32)
    shades = lab[..., 0] / 42
    lab[..., 0] = (np.floor(shades) + 0.5 + 0.5 * np.tanh(5 * (shades % 1 - 0.5))) * 40 + 32
    lab[..., 1:] = (lab[..., 1:] - 128) * 1.7 + 128
    colors = cv2.medianBlur(cv2.cvtColor(lab.clip(0, 255).astype(np.uint8), cv2.COLOR_LAB2RGB), 5)
    outlines = np.clip(_ink(cv2.bilateralFilter(_gray(picture), 5, 25, 5), 2.4, 9) - 0.25, 0, 1)
    return (colors * (1 - outlines[..., None])).astype(np.uint8)


def pixel_art(picture: Picture) -> Picture:
    """Squares of a 32nd of the side, in twelve colors."""
    height, width = picture.shape[:2]
    small = cv2.resize(cv2.bilateralFilter(picture, 9, 50, 7), (32, 32), interpolation=cv2.INTER_AREA)
    hsv = cv2.cvtColor(small, cv2.COLOR_RGB2HSV).astype(np.float32)
    hsv[..., 1] = (hsv[..., 1] * 1.3).clip(0, 255)
    small = cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2RGB).astype(np.float32)
    small = (small - small.mean()) * 1.2 + small.mean()
    cv2.setRNGSeed(0)
    rule = (cv2.TERM_CRITERIA_MAX_ITER + cv2.TERM_CRITERIA_EPS, 20, 1.0)
    _, labels, palette = cv2.kmeans(small.reshape(-1, 3), 12, None, rule, 2, cv2.KMEANS_PP_CENTERS)
    small = palette[labels.ravel()].reshape(32, 32, 3).clip(0, 255).astype(np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST)


def sepia(picture: Picture) -> Picture:
    tones = np.array([[0.393, 0.769, 0.189], [0.349, 0.686, 0.168], [0.272, 0.534, 0.131]], np.float32)
    return (picture.astype(np.float32) @ tones.T).clip(0, 255).astype(np.uint8)


def black_and_white(picture: Picture) -> Picture:
    return _rgb(cv2.createCLAHE(1.5, (4, 4)).apply(_gray(picture)))


def pop_art(picture: Picture) -> Picture:
    palette = np.array([[30, 20, 110], [220, 30, 120], [250, 140, 40], [255, 235, 90]], np.uint8)
    gray = cv2.equalizeHist(cv2.GaussianBlur(_gray(picture), (0, 0), 1.5))
    return palette[gray // 64]


def blueprint(picture: Picture) -> Picture:
    lines = (255 - _dodge(_gray(picture), 5).astype(np.float32))[..., None] / 255 * 2.2
    return (np.array([24, 60, 150]) * (1 - lines) + 240 * lines).clip(0, 255).astype(np.uint8)


def thermal(picture: Picture) -> Picture:
    gray = cv2.GaussianBlur(_gray(picture), (0, 0), 1.5)
    return cv2.cvtColor(cv2.applyColorMap(gray, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)


STYLES: dict[str, Callable[[Picture], Picture]] = {
    "pencil sketch": pencil_sketch,
    "charcoal drawing": charcoal,
    "oil painting": oil_painting,
    "watercolor": watercolor,
    "cartoon": cartoon,
    "pixel art": pixel_art,
    "sepia photo": sepia,
    "black and white photo": black_and_white,
    "pop art": pop_art,
    "blueprint": blueprint,
    "thermal image": thermal,
}
