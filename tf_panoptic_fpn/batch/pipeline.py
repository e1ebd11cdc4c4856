"""The Beam pipeline: a pattern of files -> shards of predictions."""

import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence

import apache_beam as beam
from apache_beam.io import fileio
from apache_beam.io.filesystems import FileSystems
from apache_beam.ml.inference.base import RunInference
from apache_beam.options.pipeline_options import (
    DirectOptions,
    PipelineOptions,
    StandardOptions,
    WorkerOptions,
)
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from tf_panoptic_fpn.batch.handler import Shard, ShardHandler, ShardResult
from tf_panoptic_fpn.batch.shards import (
    PARTIAL,
    RUN,
    Shards,
    absolute,
    read_bytes,
    write_bytes,
)
from tf_panoptic_fpn.errors import ConfigError, DataError, PanopticError
from tf_panoptic_fpn.inference.model_source import find_model
from tf_panoptic_fpn.messages import one_line
from tf_panoptic_fpn.paths import expand
from tf_panoptic_fpn.workdir import Workdir

SHARD_SIZE = 100  # images, where the number of shards is not given


def predict_beam(
    model: str,
    pattern: str,
    output: str,
    *,
    num_shards: int | None = None,
    batch_size: int = 1,
    beam_options: Sequence[str] = (),
) -> tuple[int, int]:
    """Predicts all files of a pattern into `predictions-*.parquet`, see `shards.SCHEMA`.

    A shard is done at once and is there whole or not at all, so a run that was killed goes on with
    the shards that are not there; those of which the files have changed are done again. What is no
    image is listed in `dead-*.jsonl`.

    Args:
        model: as `load_predictor` takes it; every worker must find it there.
        pattern: of files, such as "photos/**.jpg" or "gs://bucket/*.jpg"; `**` stands for any
            folders.
        output: folder.
        num_shards: int; by default one for 100 images, or as many as the folder has.
        batch_size: int, images of one size to run at once.
        beam_options: Beam's flags. Without `--runner` the pipeline runs here, embedded.

    Returns:
        How many images were predicted and how many inputs are dead, in all shards.

    Raises:
        PanopticError: if no file matches, the folder is that of another run, or the pipeline fails.
    """
    pattern, output = absolute(pattern), absolute(output)
    source = find_model(model)
    if source.path is not None:
        model = absolute(expand(model))
    run = {"model": source.fingerprint(), "pattern": pattern}
    shards = _open_folder(output, run, num_shards)
    options = PipelineOptions(list(beam_options))
    pipeline = beam.Pipeline(_runner(options), options)
    root = re.match(r"[^[*?]*/", pattern)
    handler = ShardHandler(model, root.group() if root else "", batch_size)
    build(pipeline, pattern, shards, handler)
    try:
        pipeline.run().wait_until_finish()
    except Exception as error:  # of many kinds, by the runner
        raise PanopticError(f"{output}: the pipeline failed: {_reason(error)}") from error
    return _count(shards)


def build(pipeline: beam.Pipeline, pattern: str, shards: Shards, handler: ShardHandler) -> None:
    """Puts the steps into a `beam.Pipeline`."""
    files = (
        pipeline
        | "Match" >> fileio.MatchFiles(pattern)
        | "Assign" >> beam.Map(lambda file: (shards.number_of(file.path), file.path))
    )
    # So that a shard is written, and known to be done, of which there are no files.
    numbers = pipeline | "Shards" >> beam.Create([(n, None) for n in range(shards.count)])
    _ = (
        (files, numbers)
        | beam.Flatten()
        | beam.GroupByKey()
        | "Unfinished" >> beam.FlatMap(_unfinished, shards)
        | "Predict" >> RunInference(handler)
        | "Write" >> beam.Map(_write, shards)
    )


def _reason(error: Exception) -> str:
    """What went wrong: Beam's message holds the traceback of the worker."""
    ours = re.search(r"tf_panoptic_fpn\.errors\.\w+: (.*)", str(error))
    return ours.group(1) if ours else one_line(error)


def _unfinished(grouped: tuple[int, Iterable[str | None]], shards: Shards) -> Iterator[Shard]:
    number, paths = grouped
    wanted = {path for path in paths if path is not None}
    if shards.inputs_of(number) != wanted:
        yield Shard(number, tuple(sorted(wanted)))


def _write(result: ShardResult, shards: Shards) -> None:
    shards.write(result.number, result.rows, result.dead, result.categories)


def _runner(options: PipelineOptions) -> FnApiRunner | None:
    """The embedded runner, unless another is asked for: Beam's default would fetch a program."""
    if options.view_as(StandardOptions).runner:
        return None
    worker, direct = options.view_as(WorkerOptions), options.view_as(DirectOptions)
    worker.default_sdk_harness_log_level = worker.default_sdk_harness_log_level or "WARNING"
    if direct.direct_running_mode == "multi_processing":
        # Or the processes fight for the cores: within an operation, and with several at once.
        threads = max(1, (os.cpu_count() or 1) // max(1, direct.direct_num_workers))
        for kind in ("INTRAOP", "INTEROP"):
            os.environ.setdefault(f"TF_NUM_{kind}_THREADS", str(threads))
    return FnApiRunner()


def _open_folder(output: str, run: dict[str, str], num_shards: int | None) -> Shards:
    """Makes the folder, or checks that it is of the same run, and returns its shards."""
    if "://" not in output:
        Workdir(output).create()
    file = FileSystems.join(output, RUN)
    found = FileSystems.match([run["pattern"]])[0].metadata_list
    if not found:
        raise DataError(f"{run['pattern']}: no such file")
    if FileSystems.exists(file):
        known = json.loads(read_bytes(file))
        for name in run:
            if known[name] != run[name]:
                raise ConfigError(
                    f"{output}: holds predictions of another {name}. Received: {run[name]}, there: "
                    f"{known[name]}"
                )
        if num_shards not in (None, known["num_shards"]):
            raise ConfigError(
                f"--num-shards must be {known['num_shards']}, as in {file}. Received: {num_shards}"
            )
        left = FileSystems.match([FileSystems.join(output, f"{PARTIAL}*")])[0].metadata_list
        if left:
            FileSystems.delete([entry.path for entry in left])
        return Shards(output, known["num_shards"])
    num_shards = num_shards or -(-len(found) // SHARD_SIZE)
    write_bytes(file, json.dumps({**run, "num_shards": num_shards}).encode())
    return Shards(output, num_shards)


def _count(shards: Shards) -> tuple[int, int]:
    images = dead = 0
    for number in range(shards.count):
        lost = len(shards.read_dead(number))
        images += len(shards.inputs_of(number) or ()) - lost
        dead += lost
    return images, dead
