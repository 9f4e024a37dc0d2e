"""TensorBoard: a folder of event files for each candidate and each adapter, and one for the sweep.

The name of an event file depends on what it holds: logging the same again replaces the file.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.hparams.api_pb2 import Status
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo, SessionStartInfo
from tensorboard.summary.writer.record_writer import RecordWriter

from autotune.durable import put
from autotune.results.columns import Cell
from autotune.results.rows import CurvePoint, Trial
from autotune.trackers.tracker import (
    About,
    Ending,
    adapter_title,
    metrics_of,
    numbers_of,
    params_of,
    seconds_of,
    tags_of,
    title_of,
)

_ENDED = {"ok": Status.STATUS_SUCCESS, "stopped": Status.STATUS_SUCCESS, "over_limit": Status.STATUS_SUCCESS}
_KEY = "autotune-sweep.txt"
"""The file that holds the id of the results folder whose sweep is shown."""


class TensorboardTracker:
    """A sweep in TensorBoard."""

    def __init__(self, about: About, options: Mapping[str, Any]) -> None:
        """`options`: `folder`, as in the sweep file."""
        self._about = about
        given = options.get("folder")
        self._root = _free(Path(given), about) if given else about.place / "tensorboard"
        self.place = self._root.resolve().as_posix()
        self.fresh = not self._root.exists()
        self._root.mkdir(parents=True, exist_ok=True)
        (self._root / _KEY).write_text(about.key + "\n", encoding="utf-8")

    def row(self, row: Trial) -> None:
        """Log a candidate: settings and status as hyperparameters, numbers as scalars with the trial's number as step."""
        began = seconds_of(row.started) or 0.0
        ended = seconds_of(row.ended) or began
        step = row.trial or 0
        settings: dict[str, Cell] = {**params_of(row), "status": row.status, "kind": row.kind}
        start = HParamsPluginData(session_start_info=SessionStartInfo(start_time_secs=began, group_name=row.candidate))
        for name, value in settings.items():
            field = start.session_start_info.hparams[name]
            if isinstance(value, bool):
                field.bool_value = value
            elif isinstance(value, int | float):
                field.number_value = value
            else:
                field.string_value = str(value)
        status = _ENDED.get(row.status, Status.STATUS_FAILURE)
        end = HParamsPluginData(session_end_info=SessionEndInfo(status=status, end_time_secs=ended))
        texts = "\n".join(f"- {name}: {value}" for name, value in {"title": title_of(row), **tags_of(row)}.items())
        values = [
            Summary.Value(tag=metadata.SESSION_START_INFO_TAG, metadata=metadata.create_summary_metadata(start)),
            *_scalars(metrics_of(row)),
            _text("about", texts),
            Summary.Value(tag=metadata.SESSION_END_INFO_TAG, metadata=metadata.create_summary_metadata(end)),
        ]
        folder = "candidates" if row.trial else "base"
        place = Path(folder) / (f"{row.target}-{row.candidate}" if row.target else row.candidate)
        self._write(place, f"attempt-{row.attempt or 1:04d}", [_event(ended, step, values)])

    def curve(self, adapter: str, of: Trial, points: Sequence[CurvePoint], known: int) -> None:
        """Log points of an adapter's curve as scalars by training step."""
        at = seconds_of(of.started) or 0.0
        events = [] if known else [_event(at, 0, [_text("about", f"- {adapter_title(of)}\n- adapter: {adapter}")])]
        events += [_event(at, point.step or 0, _scalars(numbers_of(point))) for point in points]
        self._write(Path("adapters") / adapter[:16], f"from-{known:08d}", events)

    def end(self, ending: Ending) -> None:
        """Log the choice, the winner's place, and a PNG picture of the front where there is one."""
        best = "\n".join(f"- best: {place}" for place in ending.best)
        files = "\n".join(f"- {file.name}: {file.resolve().as_uri()}" for file in ending.files)
        text = f"```\n{ending.text}\n```\n{best}\n{files}"
        values = [_text("choice", text), *_pictures(ending.files)]
        values += _scalars({name: value for name, value in ending.values().items() if not isinstance(value, str)})
        self._write(Path("sweep"), "end", [_event(time.time(), 0, values)])

    def _write(self, place: Path, name: str, events: Iterable[Event]) -> None:
        """Write a file of events under another name, and rename it: a reader sees a whole file or none."""
        folder = self._root / place
        folder.mkdir(parents=True, exist_ok=True)
        aside = folder / f".{name}.new"
        with aside.open("wb") as stream:
            writer = RecordWriter(stream)
            writer.write(Event(file_version="brain.Event:2").SerializeToString())
            for event in events:
                writer.write(event.SerializeToString())
        put(aside, folder / f"events.out.tfevents.0000000000.{name}", sync=False)


def _free(folder: Path, about: About) -> Path:
    """Return the sweep's folder; its name ends with the id of the results folder if another folder's sweep has the same name."""
    place = folder / about.name
    with contextlib.suppress(OSError, UnicodeDecodeError):
        if (place / _KEY).read_text(encoding="utf-8").strip() != about.key:
            return folder / f"{about.name}-{about.key[:8]}"
    return place


def _event(at: float, step: int, values: Iterable[Summary.Value]) -> Event:
    return Event(wall_time=at, step=step, summary=Summary(value=list(values)))


def _scalars(numbers: Mapping[str, float]) -> Iterator[Summary.Value]:
    for name, value in numbers.items():
        plugin = SummaryMetadata.PluginData(plugin_name="scalars")
        yield Summary.Value(
            tag=name,
            simple_value=value,
            metadata=SummaryMetadata(plugin_data=plugin, data_class="DATA_CLASS_SCALAR"),
        )


def _text(tag: str, text: str) -> Summary.Value:
    plugin = SummaryMetadata.PluginData(plugin_name="text")
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)])
    tensor = TensorProto(dtype="DT_STRING", string_val=[text.encode("utf-8")], tensor_shape=shape)
    about = SummaryMetadata(plugin_data=plugin, data_class="DATA_CLASS_TENSOR")
    return Summary.Value(tag=tag, metadata=about, tensor=tensor)


def _pictures(files: Iterable[Path]) -> Iterator[Summary.Value]:
    """Yield PNG pictures beside the SVG ones, which TensorBoard does not show."""
    for file in files:
        png = file.with_suffix(".png")
        if file.suffix == ".svg" and png.is_file():
            yield Summary.Value(tag=file.stem, image=Summary.Image(encoded_image_string=png.read_bytes()))
