"""Scalars and pictures for TensorBoard."""

import time
from collections.abc import Mapping

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.scalar.summary_v2 import scalar_pb
from tensorboard.summary.writer.event_file_writer import EventFileWriter


class TensorBoardEvents:
    """The events of a run in a folder.

    Args:
        folder: path.
        start: int, steps done; TensorBoard drops what was logged for later ones before.
    """

    def __init__(self, folder: str, start: int) -> None:
        self.folder = folder
        self.writer: EventFileWriter | None = None
        session = SessionLog(status=SessionLog.START)
        self.session = Event(wall_time=time.time(), step=start + 1, session_log=session)

    def write(
        self,
        step: int,
        scalars: Mapping[str, float],
        pictures: Mapping[str, tuple[bytes, tuple[int, int]]] | None = None,
    ) -> None:
        """Writes figures and pictures of a step.

        Args:
            step: int, steps done.
            scalars: numbers by tag.
            pictures: by tag, the bytes of a PNG and its (H, W).

        Raises:
            OSError: if they cannot be written; the next call begins another file.
        """
        summaries = [scalar_pb(tag, value) for tag, value in scalars.items()]
        for tag, (png, (height, width)) in (pictures or {}).items():
            image = Summary.Image(
                height=height, width=width, colorspace=3, encoded_image_string=png
            )
            summaries.append(Summary(value=[Summary.Value(tag=tag, image=image)]))
        try:
            if self.writer is None:
                self.writer = EventFileWriter(self.folder)
                self.writer.add_event(self.session)
            for summary in summaries:
                self.writer.add_event(Event(wall_time=time.time(), step=step, summary=summary))
            self.writer.flush()
        except Exception as error:  # of the thread that writes: an OSError, or one of TensorFlow's
            self.writer = None
            raise OSError(f"{self.folder}: {error}") from error

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
