"""What is in the event files beside the scalars, and what other loggers get."""

import csv
import io
import re
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from tensorboard.plugins.custom_scalar import layout_pb2
from torch import Tensor, nn
from torch.utils.data import DataLoader

from bnlm.callbacks import ActivationMonitor, GradientMonitor, UpdateMonitor, figures
from bnlm.callbacks.event_checksum import speed_up_checksums, write_record
from bnlm.callbacks.monitor import Monitor
from bnlm.callbacks.tensorboard import Values, write_steps

MakeTrainer = Callable[..., Trainer]

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers")


def all_three(**options: Any) -> list[Monitor]:
    return [ActivationMonitor(**options), GradientMonitor(**options), UpdateMonitor(**options)]


class Classifier(LightningModule):
    """A tanh and a relu."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return F.cross_entropy(self.net(3 * batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.5)


def batches(count: int) -> DataLoader:
    generator = torch.Generator().manual_seed(1)
    drawn = [
        [torch.randn(9, 4, generator=generator), torch.randint(3, (9,), generator=generator)] for _ in range(count)
    ]
    return DataLoader(drawn, batch_size=None)


def test_figures_histograms_and_layout(make_trainer: MakeTrainer, events: Callable[..., Any], tmp_path: Path) -> None:
    cadences = {"every_n_steps": 2, "histograms_every_n_steps": 4, "figures_every_n_steps": 6}
    make_trainer(callbacks=all_three(**cadences), max_steps=12).fit(Classifier(), batches(12))
    read = events(tmp_path / "run")
    tags = read.Tags()
    assert set(tags["images"]) == {
        "figures/activations",
        "figures/activation_gradients",
        "figures/weight_gradients",
        "figures/update_to_data",
        "figures/saturation_map/net.1",
    }
    for tag in tags["images"]:  # the first step, each sixth, and the last observed one
        assert [image.step for image in read.Images(tag)] == [0, 6, 10], tag
        assert read.Images(tag)[0].encoded_image_string[:4] == b"\x89PNG"
        assert (read.Images(tag)[0].width, read.Images(tag)[0].height) > (400, 100)
    parameters = [f"net.{layer}.{name}" for layer in (0, 2, 4) for name in ("weight", "bias")]
    assert (
        set(tags["distributions"])
        == set(tags["histograms"])
        == {
            *(f"{statistic}/net.{layer}" for statistic in ("activations", "activation_gradients") for layer in (1, 3)),
            *(f"gradients/{name}" for name in parameters),
        }
    )
    for tag in tags["histograms"]:
        assert [histogram.step for histogram in read.Histograms(tag)] == [0, 4, 8], tag
    (layout,) = read.Tensors("custom_scalars__config__")
    charts = layout_pb2.Layout.FromString(layout.tensor_proto.string_val[0]).category[0].chart
    shown = {chart.title: list(chart.multiline.tag) for chart in charts}
    assert shown["saturation"] == ["saturation/.*"]
    assert shown["gradient norm"] == ["gradient_norm/total"]
    for tag in tags["scalars"]:  # all of them have a chart
        assert tag == "epoch" or any(re.fullmatch(p, tag) for patterns in shown.values() for p in patterns), tag


def test_a_histogram_is_that_of_the_values(
    make_trainer: MakeTrainer, events: Callable[..., Any], tmp_path: Path
) -> None:
    model, data = Classifier(), batches(1)
    with torch.no_grad():
        values = torch.tanh(model.net[0](3 * data.dataset[0][0])).double().numpy()
    make_trainer(callbacks=[ActivationMonitor(figures_every_n_steps=None)], max_steps=1).fit(model, data)
    counts, edges = np.histogram(values, bins=64)
    (event,) = events(tmp_path / "run").Histograms("activations/net.1")
    written = event.histogram_value
    assert list(written.bucket) == counts.tolist()
    np.testing.assert_allclose(written.bucket_limit, edges[1:], rtol=1e-6)
    assert (written.min, written.max, written.num) == (values.min(), values.max(), 54)
    assert written.sum == pytest.approx(values.sum(), abs=54 * (edges[1] - edges[0]) / 2)


def test_a_figure_is_drawn_at_the_last_observed_step_though_it_is_not_due(
    make_trainer: MakeTrainer, events: Callable[..., Any], tmp_path: Path
) -> None:
    make_trainer(callbacks=[UpdateMonitor(every_n_steps=4)], max_steps=7).fit(Classifier(), batches(7))
    assert [image.step for image in events(tmp_path / "run").Images("figures/update_to_data")] == [0, 4]


def test_switched_off_histograms_and_figures(
    make_trainer: MakeTrainer, events: Callable[..., Any], tmp_path: Path
) -> None:
    options = {"every_n_steps": 1, "histograms_every_n_steps": None, "figures_every_n_steps": None}
    make_trainer(callbacks=all_three(**options), max_steps=2).fit(Classifier(), batches(2))
    tags = events(tmp_path / "run").Tags()
    assert tags["images"] == []
    assert tags["histograms"] == []
    assert "saturation/net.1" in tags["scalars"]


def test_without_a_logger(make_trainer: MakeTrainer) -> None:
    callbacks = all_three(every_n_steps=2)
    make_trainer(callbacks=callbacks, max_steps=5, logger=False).fit(Classifier(), batches(5))
    assert [step for step, _ in callbacks[2].state_dict()["history"]["net.0.weight"]] == [0, 2, 4]


def test_other_loggers_get_the_same_scalars(
    make_trainer: MakeTrainer, monitored: Callable[..., dict[int, dict[str, float]]], tmp_path: Path
) -> None:
    loggers = [
        CSVLogger(tmp_path, name="csv", version=""),
        TensorBoardLogger(tmp_path, name="tensorboard", version=""),
    ]
    trainer = make_trainer(callbacks=all_three(every_n_steps=2), max_steps=4, logger=loggers)
    trainer.fit(Classifier(), batches(4))
    with (tmp_path / "csv" / "metrics.csv").open() as file:
        rows: dict[int, dict[str, float]] = {}
        for row in csv.DictReader(file):
            found = {tag: float(value) for tag, value in row.items() if value and "/" in tag}
            rows.setdefault(int(row["step"]), {}).update(found)
    written = monitored(tmp_path / "tensorboard")
    assert list(rows) == [0, 2]
    for step, tags in rows.items():
        assert tags == pytest.approx(written[step], rel=1e-6, nan_ok=True)


def test_values_that_are_not_finite_break_nothing(
    make_trainer: MakeTrainer, events: Callable[..., Any], tmp_path: Path
) -> None:
    """A diverged run goes on being watched: what can be told is told."""
    model = Classifier()
    with torch.no_grad():
        model.net[0].weight[0, 0] = float("nan")
    make_trainer(callbacks=all_three(every_n_steps=1), max_steps=2).fit(model, batches(2))
    read = events(tmp_path / "run")
    assert np.isnan(read.Scalars("activation_std/net.1")[0].value)
    assert "grad_to_data/net.0.weight" not in read.Tags()["scalars"]
    assert "activations/net.1" in read.Tags()["histograms"]  # of its finite values


@pytest.mark.parametrize("count", [0, 1, 40])
def test_figures_of_odd_histograms(count: int) -> None:
    """Layers without spread, without values, and more of them than a legend can name."""
    plain = np.concatenate([[-1.0, 2.0], np.arange(64.0)])
    odd = {
        "constant": np.concatenate([[0.5, 0.5], [9.0], np.zeros(63)]),
        "empty": np.concatenate([[np.nan, np.nan], np.zeros(64)]),
    }
    curves = odd | {f"layer {i} {'x' * i}": plain for i in range(count)}
    for image in (
        figures.distributions(curves, "title"),
        figures.updates({f"p{i}": [(0, -3.0), (5, -2.0)] for i in range(count + 1)}),
        figures.saturation_map(np.eye(5, 4 + count, dtype=bool), "title"),
    ):
        assert image.width == 800
        assert len(np.unique(np.asarray(image))) > 2  # not a blank page


def test_checksums_in_c_are_tensorboards_own():
    from tensorboard.summary.writer.record_writer import RecordWriter

    for data in (b"", b"123456789", bytes(range(256)) * 41):
        theirs, ours = io.BytesIO(), io.BytesIO()
        RecordWriter(theirs).write(data)
        write_record(ours, data)
        assert ours.getvalue() == theirs.getvalue()


@pytest.mark.parametrize("built_otherwise", [False, True])
def test_several_events_are_written_at_once(built_otherwise: bool, tmp_path: Path, events: Callable[..., Any]):
    logger = TensorBoardLogger(tmp_path, name="run", version="")
    writer = logger.experiment._get_file_writer()
    if built_otherwise:
        of_theirs = writer.event_writer
        writer.event_writer = SimpleNamespace(add_event=of_theirs.add_event, close=of_theirs.close)
    write_steps([logger], [Values(step, {"a": step / 3, "b": -1.0}, {}) for step in range(0, 50, 5)])
    write_steps([logger], [Values(60, {"b": 2.0}, {}), Values(70, {}, {})])
    writer.event_writer.close()
    written = events(tmp_path / "run")
    assert [(e.step, e.value) for e in written.Scalars("a")] == [(s, pytest.approx(s / 3)) for s in range(0, 50, 5)]
    assert [e.step for e in written.Scalars("b")] == [*range(0, 50, 5), 60]
    times = [e.wall_time for e in written.Scalars("b")]
    assert times == sorted(times)
    assert time.time() - 60 < times[0] <= times[-1] <= time.time()


def test_the_installed_tensorboard_takes_the_faster_checksums(tmp_path: Path):
    writer = TensorBoardLogger(tmp_path).experiment._get_file_writer()
    speed_up_checksums(writer)
    assert "write" in vars(writer.event_writer._async_writer._writer)
    writer.close()


def test_a_writer_that_is_built_otherwise_stays_as_it_is():
    writer = object()
    speed_up_checksums(writer)
