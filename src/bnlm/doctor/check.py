"""The rules of the start on one batch, in plain torch: no trainer, no step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bnlm.doctor.diagnosis import Diagnosis
from bnlm.doctor.facts import facts_of
from bnlm.doctor.finding import Finding
from bnlm.doctor.history import History
from bnlm.doctor.observation import Observation, Output
from bnlm.doctor.refusal import refusal
from bnlm.doctor.table import print_findings
from bnlm.doctor.unchanged import unchanged
from bnlm.probe import ActivationTap, StepRecord, real
from bnlm.stats import mean_of, moment_sums, std_of


def check(
    model: nn.Module, batch: Sequence[Any], loss_fn: Callable[[Any, Any], Tensor], *, table: bool = True
) -> list[Finding]:
    """Return what the rules of the start say of a model, from one forward and backward pass.

    The model is as before afterwards, see `unchanged`.

    Args:
        model: Called with the batch's inputs, one after the other.
        batch: Inputs, of which there may be several, and last the targets.
        loss_fn: Called with the model's output and the targets, such as `torch.nn.functional.cross_entropy`; to know
            the loss of a network that has learned nothing, it has to call a loss function of torch's, or to be a
            squared or absolute error or a likelihood of classes that is written out.
        table: Whether to print the findings too.
    Returns:
        The findings, causes before their consequences.
    Raises:
        TypeError: If the batch is of another form.
    """
    if not isinstance(batch, Sequence) or isinstance(batch, str) or len(batch) < 2:
        raise TypeError(
            f"batch: expected (inputs, targets), or (input, input, ..., targets), got {_described(batch)}. "
            "Take out of it what the model is called with, and what its output is compared with."
        )
    *inputs, targets = batch
    tap = ActivationTap(model, losses=True)
    facts = facts_of(model)
    with unchanged(model):
        model.train()
        for parameter in model.parameters():
            parameter.grad = None
        tap.attach()
        try:
            loss = loss_fn(model(*inputs), targets)
            if not loss.requires_grad:
                return _told([_nothing_learns()], table)
            loss.backward()
        except (ValueError, RuntimeError, ArithmeticError) as error:
            if (found := refusal(error, 0)) is None:
                raise
            return _told([found], table)
        finally:
            tap.detach()
        record = tap.record()
        statistics = _statistics(model, record)
    history = History(facts, 1)
    history.losses.add([float(loss.detach())])
    outputs = [Output.of(each) for each in record.losses]
    output, others = next(iter(outputs), None), outputs[1:]
    history.add(Observation(0, statistics, record.kinds, output, others=others, heard=record.heard))
    diagnosis = Diagnosis()
    diagnosis.update(history)
    return _told(diagnosis.findings, table)


def _told(findings: list[Finding], table: bool) -> list[Finding]:
    if table:
        print_findings(findings)
    return findings


def _nothing_learns() -> Finding:
    return Finding(
        "R12", "critical", "loss", 0, 0.0, 0.0,
        "no gradient comes back from the loss: there is nothing that is meant to be trained, or it is cut off.",
        "Set requires_grad=True on what is to learn; look for a detach(), a no_grad() or an argmax before the loss.",
    )  # fmt: skip


def _statistics(model: nn.Module, record: StepRecord) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}

    def add(statistic: str, name: str, value: Tensor) -> None:
        found.setdefault(statistic, {})[name] = float(value)

    for layer, seen in record.activations.items():
        add("activation_mean", layer, mean_of(seen.output))
        add("activation_std", layer, std_of(seen.output))
        add("activation_elements", layer, seen.output[0])
        if seen.input is not None:
            add("preactivation_mean", layer, mean_of(seen.input))
            add("preactivation_std", layer, std_of(seen.input))
        if seen.gradient is not None:
            add("activation_gradient_std", layer, std_of(seen.gradient))
        if seen.responded is not None:
            add("dead_units", layer, 1 - seen.responded.double().mean())
        if seen.flat is not None:
            add("saturation", layer, mean_of(seen.flat))
    gradients = {name: real(p.grad) for name, p in model.named_parameters() if p.grad is not None}
    for name, gradient in gradients.items():
        if gradient.numel() > 1:
            add("gradient_std", name, std_of(moment_sums(gradient)))
    if gradients:
        add("gradient_norm", "total", torch.stack([g.double().norm() for g in gradients.values()]).norm())
    return found


def _described(batch: Any) -> str:
    kind = type(batch).__name__
    if isinstance(batch, Mapping):
        return f"a {kind} with the keys {', '.join(map(str, batch))}"
    return f"a {kind}" + (f" of {len(batch)}" if isinstance(batch, Sequence) else "")
