"""Styles made with image operations: each turns an RGB uint8 picture [H, W, 3] into another of the same shape.

The embedded checkpoint learns them as words of the prompt. They are drawn at twice the size, so that strokes
and outlines stay finer than the face's features at 128 pixels.
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


def _flatten(picture: Picture, rounds: int) -> Picture:
    for _ in range(rounds):
        picture = cv2.bilateralFilter(picture, 7, 40, 5)
    return picture


def _edges(picture: Picture, block: int, offset: int) -> np.ndarray:
    gray = cv2.medianBlur(_gray(picture), 5)
    return cv2.adaptiveThreshold(gray, 255, cv2.ADAPTIVE_THRESH_GAUSSIAN_C, cv2.THRESH_BINARY, block, offset)


def pencil_sketch(picture: Picture) -> Picture:
    gray = _gray(picture)
    return _rgb((0.75 * _dodge(gray, 6) + 0.25 * gray + 20).clip(0, 255).astype(np.uint8))


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
    flat = _flatten(picture, 3) // 43 * 43 + 20
    return cv2.bitwise_and(flat, _rgb(_edges(picture, 15, 5)))


def pixel_art(picture: Picture) -> Picture:
    height, width = picture.shape[:2]
    small = cv2.resize(picture, (width // 8, height // 8), interpolation=cv2.INTER_AREA)
    return cv2.resize(small // 32 * 32 + 16, (width, height), interpolation=cv2.INTER_NEAREST)


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
