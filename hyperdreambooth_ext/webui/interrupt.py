"""The WebUI's Interrupt, pressed while a face is learned: it is meant for the pictures that wait, not for the job."""

from modules import progress, shared


class WaitingPictures:
    """Remembers for which waiting pictures Interrupt was pressed, until their turn comes."""

    def __init__(self) -> None:
        self._interrupted: set[str] = set()

    def take_interrupt(self) -> None:
        """Called by a job at each step. The WebUI forgets the press when the next picture begins (State.begin)."""
        state = shared.state
        if state.interrupted or state.stopping_generation:
            state.interrupted = state.stopping_generation = False
            self._interrupted |= set(progress.pending_tasks)

    def begin(self) -> None:
        """Called when a picture begins: interrupts it if that was asked for while it waited."""
        if progress.current_task in self._interrupted:
            self._interrupted.discard(progress.current_task)
            shared.state.interrupted = True
