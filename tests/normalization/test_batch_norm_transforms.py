"""BatchNorm under torch.compile, torch.func, autocast, export and ONNX: as in plain calls, which torch.nn is for."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from bnlm.normalization import BatchNorm

VARIANTS: list[dict[str, Any]] = [
    {},
    {"unbiased": True},
    {"momentum": None},
    {"channel_dim": -1, "momentum": None, "unbiased": True},
    {"track_running_stats": False},
    {"affine": False},
]


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype) + 2


def built(**arguments: Any) -> BatchNorm:
    layer = BatchNorm(5, dtype=torch.float64, **arguments)
    for seed, parameter in enumerate(layer.parameters()):
        parameter.data = draw(5, seed=100 + seed)
    return layer


@pytest.mark.parametrize("variant", VARIANTS)
def test_first_and_second_numerical_gradients(variant: dict[str, Any]) -> None:
    layer = built(**variant)
    names = [name for name, _ in layer.named_parameters()]

    def run(x: Tensor, *parameters: Tensor) -> Tensor:
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (x,))

    layer(draw(6, 5))
    inputs = [draw(6, 5).requires_grad_(), *(draw(5, seed=i + 1).requires_grad_() for i in range(len(names)))]
    for training in (True, False):
        layer.train(training)
        assert torch.autograd.gradcheck(run, inputs)
        assert torch.autograd.gradgradcheck(run, inputs)


@pytest.mark.parametrize("variant", VARIANTS)
def test_one_graph_without_breaks(variant: dict[str, Any]) -> None:
    torch._dynamo.reset()
    plain = built(**variant)
    compiled = copy.deepcopy(plain)
    compiled.compile(fullgraph=True, backend="aot_eager")
    for seed, n in enumerate((8, 6, 7)):
        inputs = [draw(n, 5, seed=seed).requires_grad_() for _ in range(2)]
        outputs = [plain(inputs[0]), compiled(inputs[1])]
        for y in outputs:
            y.backward(draw(n, 5, seed=50 + seed))
        assert_close(outputs[1], outputs[0])
        assert_close(inputs[1].grad, inputs[0].grad)
        assert_close([p.grad for p in compiled.parameters()], [p.grad for p in plain.parameters()])
        assert_close(compiled.state_dict(), plain.state_dict())
    x = draw(1, 5, seed=9)
    if variant.get("track_running_stats", True):
        assert_close(compiled.eval()(x), plain.eval()(x))


@pytest.mark.parametrize("variant", VARIANTS)
def test_stacked_replicas_by_vmap_of_grad(variant: dict[str, Any]) -> None:
    layer = built(**variant)
    parameters = {name: p.detach() for name, p in layer.named_parameters()}
    buffers = {name: torch.stack([b] * 4) for name, b in layer.named_buffers()}
    xs = draw(4, 8, 5)

    def loss(x: Tensor, parameters: dict[str, Tensor], buffers: dict[str, Tensor]) -> tuple[Tensor, Any]:
        y = torch.func.functional_call(layer, (parameters, buffers), (x,))
        return y.pow(3).sum(), buffers

    gradient = torch.func.grad(loss, argnums=(0, 1), has_aux=True)
    (of_x, of_parameters), moved = torch.vmap(gradient, (0, None, 0))(xs, parameters, buffers)
    for i, x in enumerate(xs):
        alone, x = built(**variant), x.clone().requires_grad_()
        alone(x).pow(3).sum().backward()
        assert_close(of_x[i], x.grad)
        for name, parameter in alone.named_parameters():
            assert_close(of_parameters[name][i], parameter.grad)
        assert_close({name: value[i] for name, value in moved.items()}, dict(alone.named_buffers()))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_trains_float32_parameters_and_buffers(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), BatchNorm(5))
    reference = nn.Sequential(copy.deepcopy(model[0]), nn.BatchNorm1d(5))
    x = draw(7, 4, dtype=torch.float32)
    for net in (model, reference):
        with torch.autocast("cpu", dtype=dtype):
            y = net(x)
        y.float().pow(3).sum().backward()
    assert y.dtype == dtype
    assert {t.dtype for t in model.state_dict().values()} == {torch.float32, torch.long}
    assert_close(dict(model.state_dict()), dict(reference.state_dict()), rtol=0, atol=0)
    assert_close([p.grad for p in model.parameters()], [p.grad for p in reference.parameters()], rtol=0, atol=0)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("variant", VARIANTS)
def test_exported_program_takes_other_batch_sizes(variant: dict[str, Any], training: bool) -> None:
    layer = built(**variant).train(training)
    n = torch.export.Dim("n", min=2)
    only_this_size = training and layer.unbiased  # as its docstring tells
    size = None if only_this_size else ({0: n},)
    program = torch.export.export(copy.deepcopy(layer), (draw(8, 5),), dynamic_shapes=size).module()
    x = draw(8 if only_this_size else 6, 5, seed=1)
    assert_close(program(x), layer(x))
    assert_close(dict(program.named_buffers()), dict(layer.named_buffers()))


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (BatchNorm(5, unbiased=True), (8, 5)),
        (BatchNorm(5, channel_dim=-1), (4, 3, 5)),
        (BatchNorm(5, affine=False), (4, 5, 3, 2)),
    ],
)
def test_onnx_graph_gives_the_eval_outputs(layer: BatchNorm, shape: tuple[int, ...]) -> None:
    reference = pytest.importorskip("onnx.reference", reason="needs the package onnx")
    pytest.importorskip("onnxscript", reason="needs the package onnxscript")
    x = draw(*shape, dtype=torch.float32)
    layer(x)
    exported = torch.onnx.export(layer.eval(), (x,), dynamo=True, verbose=False)
    session = reference.ReferenceEvaluator(exported.model_proto)
    (y,) = session.run(None, {session.input_names[0]: x.numpy()})
    assert_close(torch.from_numpy(y), layer(x).detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("way", ["deepcopy", "pickle", "torch.save"])
def test_copies_go_on_by_themselves(way: str) -> None:
    layer = built(momentum=None, unbiased=True, channel_dim=-1)
    layer(draw(8, 5))
    if way == "deepcopy":
        other = copy.deepcopy(layer)
    elif way == "pickle":
        other = pickle.loads(pickle.dumps(layer))
    else:
        file = io.BytesIO()
        torch.save(layer, file)
        file.seek(0)
        other = torch.load(file, weights_only=False)
    assert repr(other) == repr(layer)
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    other(draw(8, 5, seed=1))
    assert_close(dict(layer.state_dict()), before, rtol=0, atol=0)
    layer(draw(8, 5, seed=1))
    assert_close(dict(layer.state_dict()), dict(other.state_dict()), rtol=0, atol=0)


@pytest.mark.parametrize("variant", VARIANTS)
def test_on_the_meta_device_and_materialised_from_it(variant: dict[str, Any]) -> None:
    layer = BatchNorm(5, device="meta", **variant)
    assert {t.device.type for t in layer.state_dict().values()} <= {"meta"}
    assert layer(torch.empty(8, 5, device="meta")).shape == (8, 5)
    layer.to_empty(device="cpu")
    layer.reset_parameters()
    x = draw(8, 5, dtype=torch.float32)
    assert_close(layer(x), BatchNorm(5, **variant)(x), rtol=0, atol=0)
