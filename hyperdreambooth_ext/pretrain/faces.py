"""Faces to learn from: sampled by the checkpoint itself until there are enough, or out of photos."""

from collections.abc import Callable, Iterator

import numpy as np

from ..errors import UserError
from ..images.face import Face as FoundFace
from ..images.face import Framing, align_matrix, crop_face, find_faces
from ..images.tensors import to_tensor
from ..sampling.sampler import Sampling, sample_many
from .context import Context
from .photos import Candidate, photo_candidates
from .prompts import Portraits, noise_seed, read_prompts
from .store import FACES_PER_SHARD, Face, FaceStore

MIN_SCORE = 0.8
# The crop comes from a picture at least this share as large, and leaves it by no more than that share.
MIN_SHARE, MAX_OUTSIDE = 0.3, 0.18
# Two photos of one person are above 0.77 in 95 % of cases (tests/fast/test_likeness.py): this is one face twice.
SAME_FACE = 0.9
# A checkpoint that sampled this many pictures and in them less than one face in fifty makes no faces.
GIVE_UP_AFTER, WORST_SHARE = 96, 0.02


def gather(context: Context, faces: int, enough: Callable[[int], bool] = lambda found: False) -> FaceStore:
    """Add faces until the folder has so many, or `enough` of them, and return them.

    What was found is kept, whatever happens. Raises UserError when the checkpoint makes none, or when the photos hold
    too few; Paused.
    """
    store, processes = FaceStore(context.folder.faces), context.processes
    processes.wait()
    # What is missing is shared out; a folder may have been begun by another number of processes.
    missing, rank = max(0, faces - len(store)), processes.rank
    quota = store.of_rank(rank) + missing // processes.count + (rank < missing % processes.count)
    if store.of_rank(processes.rank) < quota:
        _Gathering(context, store, quota, enough).run()
    processes.wait()
    return FaceStore(context.folder.faces) if processes.count > 1 else store


class _Gathering:
    """One process's search."""

    def __init__(self, context: Context, store: FaceStore, quota: int, enough: Callable[[int], bool]) -> None:
        self.context, self.store, self.quota, self.enough = context, store, quota, enough
        self.options, self.processes = context.options, context.processes
        self.found: list[Face] = []
        self.tell = context.reporter.begin("faces", store.of_rank(self.processes.rank), quota)
        self.known = [store.identities]

    @property
    def count(self) -> int:
        return self.store.of_rank(self.processes.rank) + len(self.found)

    def run(self) -> None:
        rank, count = self.processes.rank, self.processes.count
        # Photos that are shared out among another number of processes are read again: whom the folder has is passed
        # over.
        photos = photo_candidates(self.options, self.store.next_number(rank, count), rank, count)
        try:
            for batch in self._sampled() if self.options.samples_faces else photos:
                self._judge(batch)
                if len(self.found) >= FACES_PER_SHARD or self.count >= self.quota:
                    self._flush()
                self.tell(self.count)
                if self.count >= self.quota or self.enough(self.count * self.processes.count):
                    return
                self.context.reporter.check()
        finally:
            # Interrupted, out of photos, or worse: what was found is not lost.
            self._flush()
        self._too_few()

    def _sampled(self) -> Iterator[list[Candidate]]:
        """Pictures that the checkpoint makes, in batches of always the same numbers."""
        size, rank, count = self.options.sample_batch, self.processes.rank, self.processes.count
        # Behind everything that another number of processes has sampled: the same number is the same face again.
        behind = -(-self.store.tried_by_others(count) // count)
        following, tried = max(self.store.next_number(rank, count), behind), 0
        first = following // size * size
        sampling = Sampling(self.options.sample_steps, self.options.cfg, self.context.size, self.options.negative)
        own = read_prompts(self.options.prompts) if self.options.prompts else []
        portraits = Portraits.of(self.context.host.checkpoint_hash)
        while True:
            # Each process has candidates of its own.
            numbers = [number * count + rank for number in range(first, first + size)]
            prompts = [own[n % len(own)] if own else portraits.prompt(n, self.options.seed) for n in numbers]
            seeds = [noise_seed(number, self.options.seed) for number in numbers]
            pictures = sample_many(self.context.host, prompts, seeds, sampling, should_stop=self.context.reporter.check)
            yield [
                Candidate(first + i, picture, {"prompt": prompts[i], "seed": seeds[i]})
                for i, picture in enumerate(pictures)
                if first + i >= following
            ]
            first, tried = first + size, tried + size
            if tried >= GIVE_UP_AFTER and self.count < WORST_SHARE * tried:
                made = f"The checkpoint made {tried} pictures and {self.count} usable faces"
                raise UserError(f"{made}: check that it makes portraits, or use photos.", "photos")

    def _judge(self, batch: list[Candidate]) -> None:
        """Keep of the candidates what is one good face that is not there yet."""
        good = [(candidate, crop) for candidate in batch if (crop := self._crop(candidate.picture)) is not None]
        if not good:
            return
        identities = self.context.embedder.identities(to_tensor([crop for _, crop in good])).cpu().numpy()
        for (candidate, crop), identity in zip(good, identities, strict=True):
            if self.count < self.quota and not self._known(identity):
                self.found.append(Face(candidate.number, crop, identity, candidate.source))
                self.known.append(identity[None])

    def _crop(self, picture: np.ndarray) -> np.ndarray | None:
        faces, size, framing = find_faces(picture), self.context.size, self.context.embedder.framing
        if len(faces) != 1 or not usable(faces[0], (picture.shape[0], picture.shape[1]), size, framing):
            return None
        return crop_face(picture, faces[0], size, framing)

    def _known(self, identity: np.ndarray) -> bool:
        if len(self.known) > 256:
            self.known = [np.concatenate(self.known)]
        return any(len(of) and float((of @ identity).max()) > SAME_FACE for of in self.known)

    def _flush(self) -> None:
        found, self.found = self.found, []
        self.store.append(found, self.processes.rank, self.processes.count)

    def _too_few(self) -> None:
        where = self.options.photos or self.options.shards
        if not self.count:
            raise UserError(f"No usable face was found in {where}: give photos with one face each, from the front.")
        raise UserError(f"Only {self.count} usable faces were found in {where}: add photos, or ask for fewer.", "faces")


def usable(face: FoundFace, picture: tuple[int, int], size: int, framing: Framing) -> bool:
    """Whether a face is sure, large, from the front, and whole in a picture of this height and width.

    `size` is the side of the crop that is made of it, `framing` what it shows.
    """
    if face.score < MIN_SCORE:
        return False
    matrix = align_matrix(face.landmarks, size, framing)
    scale = float(np.hypot(matrix[0, 0], matrix[0, 1]))
    height, width = picture
    if 1 / scale < MIN_SHARE * min(height, width) / size:
        return False
    eyes, nose = face.landmarks[:2], face.landmarks[2]
    across = eyes[1] - eyes[0]
    # From the front the nose lies between the eyes; turned away it comes near one of them.
    along = float((nose - eyes[0]) @ across / (across @ across + 1e-9))
    if not 0.25 < along < 0.75:
        return False
    inverse = np.linalg.inv(matrix[:, :2])
    corners = np.array([[0, 0], [size, 0], [0, size], [size, size]], dtype=float)
    places = (corners - matrix[:, 2]) @ inverse.T / [width, height]
    return bool((places > -MAX_OUTSIDE).all() and (places < 1 + MAX_OUTSIDE).all())
