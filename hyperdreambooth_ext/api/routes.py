"""The HTTP API under /hyperdreambooth/v1, for scripts: the same jobs as the tab's."""

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, FastAPI

from .. import __version__
from ..images.photo import Photo, photo_from_bytes
from ..jobs.jobs import Studio
from ..jobs.library import entries
from ..jobs.task import Task
from .models import (
    Exported,
    ExportRequest,
    InterruptRequest,
    Job,
    ListedLidb,
    PersonalizeRequest,
    Submitted,
    Version,
    job_model,
    listed_model,
    photo_bytes,
)
from .route import sentence_route

PREFIX = "/hyperdreambooth/v1"


def mount_api(app: FastAPI, studio: Studio, dependencies: Sequence[Any] = ()) -> None:
    """Add the routes to an application.

    `dependencies` are fastapi.Depends(…) that every route asks first: the WebUI's --api-auth does not cover routes
    that an extension adds, so its credentials are checked by one of these.
    """
    # A full queue has no use for a photo: it is told before the photo is read.
    route = sentence_route(studio.check_room)
    router = APIRouter(prefix=PREFIX, tags=["HyperDreamBooth"], dependencies=list(dependencies), route_class=route)
    _add_job_routes(router, studio)
    _add_file_routes(router, studio)
    # `include_router` would make each route a second time, half of our part of the WebUI's start.
    app.router.routes.extend(router.routes)
    # An application that was asked for its schema before has it in store.
    app.openapi_schema = None


def _add_job_routes(router: APIRouter, studio: Studio) -> None:
    @router.post("/personalize", response_model=Submitted, status_code=202)
    def personalize(request: PersonalizeRequest) -> Submitted:  # type: ignore[valid-type]
        """Start learning the face of a photo; ask for the job until its stage is done, failed or cancelled."""
        photo = Photo(photo_from_bytes(photo_bytes(request.photo)))
        return Submitted(id=studio.submit(Task(photo, request.name, **request.options())))

    @router.get("/jobs/{id}", response_model=Job)
    def job(id: str) -> Job:
        """Where a job is; pictures are base64 JPEGs."""
        return job_model(studio.job(id))

    @router.post("/jobs/{id}/interrupt", response_model=Job)
    def interrupt(id: str, request: InterruptRequest) -> Job:
        """Stop within one step. With `keep` what was learned is saved, also after an interrupt without it."""
        later = request.keep and studio.job(id).can_keep
        return job_model(studio.keep(id) if later else studio.interrupt(id, request.keep))

    @router.post("/jobs/{id}/continue", response_model=Job)
    def resume(id: str) -> Job:
        """Learn on where an interrupted job stopped."""
        return job_model(studio.resume(id))


def _add_file_routes(router: APIRouter, studio: Studio) -> None:
    @router.get("/lidbs", response_model=list[ListedLidb])
    def lidbs() -> list[ListedLidb]:
        """The LiDBs that are there; thumbnails are base64 JPEGs."""
        return [listed_model(entry) for entry in entries(studio.backend.lidb_dir())]

    @router.post("/export", response_model=Exported)
    def export_lora(request: ExportRequest) -> Exported:
        """Write a LiDB as an ordinary LoRA, NAME_lora.safetensors, into the same folder."""
        path = studio.export(studio.backend.lidb_dir(), request.name, request.overwrite)
        return Exported(file=str(path), bytes=path.stat().st_size)

    @router.get("/version", response_model=Version)
    def version() -> Version:
        """The extension's version, the program that it runs in, and why it cannot personalize now, if so."""
        return Version(version=__version__, program=studio.backend.name, unfit=studio.backend.unfit())
