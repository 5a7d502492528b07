"""Jobs run one at a time, tell where they are, stop within one step, and lose nothing that was learned."""

import io
import threading

import numpy as np
import pytest
import torch
from PIL import Image

from hyperdreambooth_ext.errors import UserError
from hyperdreambooth_ext.jobs.jobs import MAX_WAITING, QueueFull, Studio, UnknownJob
from hyperdreambooth_ext.jobs.task import Task
from hyperdreambooth_ext.lidb import file
from hyperdreambooth_ext.personalize.options import PRESETS, PersonalizeOptions
from hyperdreambooth_ext.sampling.sampler import sample
from tests.studio import ended, short_task
from tests.tiny import SIZE


def stages(studio):
    return list(dict.fromkeys(stage for stage, _, _ in studio.backend.reports))


def pixels(jpeg):
    return np.asarray(Image.open(io.BytesIO(jpeg))).astype(int)


def interrupt_at(studio, stage, step, keep=False):
    """Press Interrupt when the job reports this step."""

    def press(now, at):
        if (now, at) == (stage, step):
            studio.interrupt(studio.jobs()[-1].id, keep)

    studio.backend.on_report = press


def test_a_job_passes_its_stages_and_leaves_a_file_and_pictures(studio, small_photo):
    status = ended(studio, studio.submit(short_task(small_photo, "anna", steps=2, size=None)))
    assert status.stage == "done" and stages(studio) == ["face", "predict", "finetune", "saving", "pictures"]
    result = status.result
    _, info = file.load(result.path)
    assert (info.name, info.steps, info.start) == ("anna", 2, "hypernetwork") and result.path.parent.name == "lidb"
    assert result.file_bytes == result.path.stat().st_size < 120_000 and result.seconds > 0
    assert pixels(result.before).shape == pixels(result.after).shape == pixels(result.photo).shape == (SIZE, SIZE, 3)
    assert np.abs(pixels(result.before) - pixels(result.after)).mean() > 0.5
    assert result.prompt == "a sks face <lidb:anna:1>" and "made for this checkpoint" in result.start_reason
    assert result.identity is not None or result.identity_words
    assert len(result.pictures) == 2 and len({pair.after for pair in result.pictures}) == 2
    assert (result.size, result.cfg) == (SIZE, 2.0), "what the checkpoint was made for"


def test_the_program_hears_of_a_saved_file_before_anybody_else_gets_the_model(studio, small_photo):
    ended(studio, studio.submit(short_task(small_photo, "anna")))
    assert studio.backend.saved_while_lent == [True]


def test_previews_and_pictures_have_the_same_prompt(studio, small_photo, monkeypatch):
    prompts = []

    def sampled(host, prompt, *args):
        prompts.append(prompt)
        return sample(host, prompt, *args)

    monkeypatch.setattr("hyperdreambooth_ext.jobs.work.sample", sampled)
    result = ended(studio, studio.submit(short_task(small_photo, "anna", preview_every=1, steps=2))).result
    assert len(prompts) > 4 and set(prompts) == {"a sks face"} and result.prompt.startswith("a sks face <")


def test_the_next_job_is_foretold_by_the_last(studio, small_photo):
    with studio.backend.model():
        pass
    first = studio.forecast(PersonalizeOptions(size=64, steps=10, picture_steps=1))
    assert (first.checkpoint, first.size, first.start, first.seconds) == ("tiny", 64, "hypernetwork", None)
    done = ended(studio, studio.submit(short_task(small_photo, "anna", steps=3)))
    told = studio.forecast(PersonalizeOptions(size=64, steps=3, pictures=2, picture_steps=1))
    assert told.seconds == pytest.approx(done.result.seconds, rel=0.6) and told.megabytes > 100
    more = studio.forecast(PersonalizeOptions(size=64, steps=300, picture_steps=1))
    assert more.seconds > 5 * told.seconds
    assert studio.forecast(PersonalizeOptions(start="zero")).start == "zero"


def test_the_bar_never_goes_back_and_the_time_left_is_told(studio, small_photo):
    seen = []
    studio.backend.on_report = lambda stage, step: seen.append(studio.jobs()[-1])
    ended(studio, studio.submit(short_task(small_photo, "anna", preview_every=1, steps=3)))
    fractions = [status.fraction for status in seen]
    assert fractions == sorted(fractions) and fractions[-1] > 0.9
    finetune = [status for status in seen if status.stage == "finetune"]
    assert any(status.preview for status in finetune) and finetune[-1].preview_step >= 1
    assert all(status.eta_seconds > 0 for status in finetune if status.step > 1)


def test_the_model_is_given_back_as_it_was(studio, small_photo):
    with studio.backend.model() as host:
        before = {key: module.weight.clone() for key, module in host.linears().items()}
        wanted = {name: parameter.requires_grad for name, parameter in host.unet.named_parameters()}
    ended(studio, studio.submit(short_task(small_photo, "anna")))
    with studio.backend.model() as host:
        assert all(torch.equal(before[key], module.weight) for key, module in host.linears().items())
        assert not any("forward" in vars(module) for module in host.linears().values())
        assert wanted == {name: parameter.requires_grad for name, parameter in host.unet.named_parameters()}


def test_an_interrupt_acts_within_one_step_and_saves_nothing(studio, small_photo):
    interrupt_at(studio, "finetune", 2)
    status = ended(studio, studio.submit(short_task(small_photo, "anna", steps=500)))
    assert status.stage == "cancelled" and status.can_keep and status.step == 2
    assert status.message == "Interrupted after 2 iterations: nothing is saved yet."
    assert not studio.backend.lidb_dir().exists()


def test_what_an_interrupted_job_learned_can_be_kept_once(studio, small_photo):
    interrupt_at(studio, "finetune", 1)
    id = studio.submit(short_task(small_photo, "anna", steps=500))
    ended(studio, id)
    studio.keep(id)
    status = ended(studio, id)
    assert status.stage == "done" and status.result.steps == 1 and status.result.after
    with pytest.raises(UserError, match="nothing to keep"):
        studio.keep(id)


def test_an_interrupted_job_goes_on_where_it_was(studio, small_photo):
    interrupt_at(studio, "finetune", 2)
    id = studio.submit(short_task(small_photo, "anna", steps=5))
    assert ended(studio, id).can_continue
    studio.backend.on_report, studio.backend.reports = lambda stage, step: None, []
    studio.resume(id)
    status = ended(studio, id)
    assert [step for stage, step, _ in studio.backend.reports if stage == "finetune"] == [0, 3, 4, 5]
    assert status.stage == "done" and status.result.steps == 5 and file.load(status.result.path)[1].steps == 5
    with pytest.raises(UserError, match="nothing to keep"):
        studio.resume(id)


def test_what_was_begun_on_another_checkpoint_is_not_gone_on_with(studio, small_photo, monkeypatch):
    interrupt_at(studio, "finetune", 2)
    id = studio.submit(short_task(small_photo, "anna", steps=5))
    ended(studio, id)
    monkeypatch.setattr(studio.backend._host, "checkpoint_hash", "another")
    studio.resume(id)
    status = ended(studio, id)
    assert status.stage == "failed" and "load that, then continue" in status.message and status.can_keep


def test_the_time_of_what_was_kept_includes_the_learning(studio, small_photo):
    interrupt_at(studio, "finetune", 3)
    id = studio.submit(short_task(small_photo, "anna", steps=500))
    ended(studio, id)
    learned = studio._find(id).seconds
    studio.keep(id)
    assert ended(studio, id).result.seconds > learned > 0


def test_a_job_can_be_kept_the_moment_it_has_ended(studio, small_photo, monkeypatch):
    interrupt_at(studio, "finetune", 1)
    told, go_on = threading.Event(), threading.Event()
    do = studio._do

    def pause_after(job):
        do(job)
        told.set()
        go_on.wait(30)

    monkeypatch.setattr(studio, "_do", pause_after)
    id = studio.submit(short_task(small_photo, "anna", steps=500))
    assert told.wait(60)
    studio.keep(id)
    go_on.set()
    assert ended(studio, id).stage == "done"


def test_a_job_that_must_wait_to_be_kept_can_still_be_kept(studio, small_photo):
    interrupt_at(studio, "finetune", 1)
    id = studio.submit(short_task(small_photo, "anna", steps=500))
    ended(studio, id)
    studio.backend.on_report = lambda stage, step: None
    with studio.backend.model():
        other = studio.submit(short_task(small_photo, "anna"))
        with pytest.raises(UserError, match="under way"):
            studio.keep(id)
        assert studio.job(id).can_keep
    assert ended(studio, other).stage == "done"


def test_an_interrupt_that_keeps_goes_on_to_the_pictures(studio, small_photo):
    interrupt_at(studio, "finetune", 1, keep=True)
    status = ended(studio, studio.submit(short_task(small_photo, "anna", steps=500)))
    assert status.stage == "done" and status.result.steps == 1 and status.result.after


def test_an_interrupt_while_drawing_leaves_the_pictures_out_and_keeps_the_file(studio, small_photo):
    interrupt_at(studio, "pictures", 1)
    status = ended(studio, studio.submit(short_task(small_photo, "anna")))
    assert status.stage == "done" and status.result.path.exists() and not status.result.after
    assert "left out" in status.result.identity_words


def test_an_interrupt_before_the_first_step_leaves_nothing(studio, small_photo):
    interrupt_at(studio, "predict", 0)
    status = ended(studio, studio.submit(short_task(small_photo, "anna")))
    assert status.stage == "cancelled" and not status.can_keep and "nothing to keep" in status.message


def test_a_small_queue_one_at_a_time_and_a_waiting_job_can_leave_it(studio, small_photo):
    with studio.backend.model():
        running = studio.submit(short_task(small_photo, "a0"))
        waiting = [studio.submit(short_task(small_photo, f"a{i}")) for i in range(1, MAX_WAITING + 1)]
        with pytest.raises(QueueFull, match="wait already"):
            studio.submit(short_task(small_photo, "more"))
        assert [studio.job(id).waiting for id in waiting] == [1, 2, 3, 4]
        for id in waiting[1:]:
            assert studio.interrupt(id).stage == "cancelled"
        with pytest.raises(UserError, match="under way"):
            studio.submit(short_task(small_photo, "a1", overwrite=True))
    assert ended(studio, running).stage == ended(studio, waiting[0]).stage == "done"
    begun = [report for report in studio.backend.reports if report[0] == "face"]
    assert len(begun) == 2


def test_a_full_disk_costs_nothing_that_was_learned(studio, small_photo):
    folder = studio.backend.lidb_dir()
    folder.write_text("a file where the folder should be")
    id = studio.submit(short_task(small_photo, "anna"))
    status = ended(studio, id)
    assert status.stage == "failed" and status.can_keep and status.message.endswith(".")
    folder.unlink()
    studio.keep(id)
    assert ended(studio, id).stage == "done"


def test_no_face_and_memory_that_is_full_are_sentences(studio, small_photo):
    status = ended(studio, studio.submit(short_task(np.full((200, 200, 3), 90, np.uint8), "wall")))
    assert status.stage == "failed" and "No face was found" in status.message

    def out_of_memory(stage, step):
        raise torch.cuda.OutOfMemoryError("out of memory")

    studio.backend.on_report = out_of_memory
    assert "memory is full" in ended(studio, studio.submit(short_task(small_photo, "anna"))).message


def test_any_other_failure_is_told_and_the_queue_goes_on(studio, small_photo):
    def broken(stage, step):
        raise RuntimeError("broken pipe")

    studio.backend.on_report = broken
    status = ended(studio, studio.submit(short_task(small_photo, "anna")))
    assert status.stage == "failed" and "RuntimeError (broken pipe)" in status.message
    studio.backend.on_report = lambda stage, step: None
    assert ended(studio, studio.submit(short_task(small_photo, "anna"))).stage == "done"


def test_without_a_hypernetwork_it_starts_along_the_gradient_and_says_so(studio, small_photo, monkeypatch):
    monkeypatch.setattr(type(studio.backend), "hypernetwork", lambda self, host, name: None)
    result = ended(studio, studio.submit(short_task(small_photo, "anna"))).result
    assert result.start == "gradient" and "No hypernetwork fits this checkpoint" in result.start_reason
    status = ended(studio, studio.submit(short_task(small_photo, "bea", start="hypernetwork")))
    assert "choose the gradient start" in status.message


def test_a_hypernetwork_can_be_chosen_by_name(studio, small_photo, tiny):
    name = tiny.hypernetwork_file.name
    result = ended(studio, studio.submit(short_task(small_photo, "anna", hypernetwork=name))).result
    assert result.start == "hypernetwork" and f"{name}, which was chosen" in result.start_reason
    status = ended(studio, studio.submit(short_task(small_photo, "bea", hypernetwork="gone.safetensors")))
    assert status.stage == "failed" and "gone.safetensors is not there any more" in status.message


def test_a_model_that_cannot_be_used_is_refused_before_anything_starts(studio, small_photo, monkeypatch):
    monkeypatch.setattr(type(studio.backend), "unfit", lambda self: "This model cannot be trained on: load another.")
    with pytest.raises(UserError, match="load another"):
        studio.submit(short_task(small_photo, "anna"))


def test_a_name_that_is_taken_is_refused_and_replaced_on_demand(studio, small_photo):
    ended(studio, studio.submit(short_task(small_photo, "anna")))
    with pytest.raises(UserError, match="exists already"):
        studio.submit(short_task(small_photo, "anna"))
    assert ended(studio, studio.submit(short_task(small_photo, "anna", overwrite=True))).stage == "done"


@pytest.mark.parametrize(
    "bad",
    [
        {"name": "a/b"}, {"name": ""}, {"quality": "ultra"}, {"start": "magic"}, {"steps": 0}, {"rank": 65},
        {"lr": float("nan")}, {"size": 100}, {"face": 0}, {"seed": -1}, {"picture_steps": 0},
    ],
)  # fmt: skip
def test_a_value_that_cannot_be_is_a_sentence(bad, small_photo):
    with pytest.raises(UserError) as error:
        Task(small_photo, **{"name": "anna", **bad}).checked()
    assert str(error.value).endswith(".")


def test_the_qualities_and_what_is_changed_beside_them():
    photo = np.zeros((1, 1, 3), np.uint8)
    steps = [Task(photo, "a", quality=quality).finetune().steps for quality in PRESETS]
    assert steps == sorted(steps) and list(PRESETS) == ["fast", "balanced", "best"]
    changed = Task(photo, "a", quality="fast", steps=7, rank=3, lr=0.5, text=True).finetune()
    assert (changed.steps, changed.rank, changed.lr, changed.text) == (7, 3, 0.5, True)


def test_a_job_that_is_not_known(studio):
    for ask in (studio.job, studio.interrupt, studio.keep):
        with pytest.raises(UnknownJob):
            ask("nothing")


def test_the_photo_is_forgotten_when_the_job_has_ended(studio, small_photo):
    id = studio.submit(short_task(small_photo, "anna"))
    ended(studio, id)
    with pytest.raises(UserError, match="has ended"):
        _ = studio._find(id).task


def test_old_jobs_are_forgotten(loaded_backend, tmp_path, small_photo, monkeypatch):
    monkeypatch.setattr("hyperdreambooth_ext.jobs.jobs.MAX_REMEMBERED", 2)
    studio = Studio(loaded_backend.again(tmp_path))
    wall = np.full((100, 100, 3), 90, np.uint8)
    for name in "abcd":
        ended(studio, studio.submit(short_task(wall, name)))
    assert len(studio.jobs()) <= 3
