"""R20: units that are alike, and weights that are zero."""

from __future__ import annotations

from collections.abc import Iterator

from bnlm.doctor.finding import Finding, in_words
from bnlm.doctor.history import History

#: Share of a matrix's rows that point where the first one does.
COLLINEAR = 0.9
#: Observed steps without a gradient after which zero weights are taken to stay so.
SEEN_OFTEN = 3
#: How far outputs of different examples differ by rounding alone, as a share of the largest.
BLIND = 1e-5
#: How the weights of torch's recurrences begin by which their inputs come in, and by no other way.
OF_RECURRENCES = "weight_ih"
DRAW = "Draw the weights at random: init=kaiming_normal, or torch.nn.init.kaiming_normal_."


def symmetry_findings(history: History) -> Iterator[Finding]:
    """Yield what is alike or nothing at the first observed step."""
    assert history.first is not None
    gradients = history.first.of("gradient_std")
    hidden = [p for p in history.facts.parameters.values() if p.role == "hidden"]
    alike = [p.name for p in hidden if p.collinear_rows > COLLINEAR]
    weights = [p for p in history.facts.parameters.values() if p.role != "vector"]
    if len(weights) > 1 and not any(p.std or p.zero for p in weights):
        alike = [p.name for p in weights]  # nothing is there to tell one unit, or one column of a table, from another
    # A zero matrix that gets a gradient starts a residual branch or an adapter; one without can never leave zero.
    # What the backward pass does not come to at all is R12's.
    zero = [p.name for p in hidden if p.zero]
    stuck = zero if all(gradients.get(name) == 0 for name in zero) else []
    # Before an output that is zero nothing has a gradient in the first step alone.
    outputs = [p.name for p in history.facts.parameters.values() if p.role == "output" and p.zero]
    if any(gradients.get(name, 0.0) > 0 for name in outputs):
        stuck = []
    if hidden and outputs and len(zero) == len(hidden):
        # What is learned then, by biases and the output layer, is no more than units differ by their biases.
        stuck = zero
    # One matrix of zeros may be a mistake, one in each block is how blocks are started.
    cut = _cut_off(history, gradients) if len(zero) == 1 and not stuck else []
    if not stuck and not outputs and _is_blind(history):
        cut = zero
    cut = cut or [name for name in zero if name not in stuck and name.rpartition(".")[2].startswith(OF_RECURRENCES)]
    if alike or stuck or cut:
        where = in_words(alike + stuck + cut)
        if alike:
            how = "all units start alike and get the same gradient, so that but for their biases they learn the same"
        elif stuck:
            how = (
                "all weights are zero, as is their gradient: nothing of the input passes, and nothing is learned of it"
            )
        else:
            how = "all weights are zero, so that nothing of the input passes, and no gradient back"
        yield Finding(
            "R20", "critical", where, 0, 1.0, COLLINEAR,
            f"{where}: {how}.",
            DRAW,
        )  # fmt: skip


def zero_findings(history: History) -> Iterator[Finding]:
    """Yield R20 of weights that were zero at the start and have had no gradient ever since.

    Each is why another has none, as with both matrices of a residual branch; to start one of them at zero alone is as
    it should be.
    """
    if not history.warm or history.first is None or history.first.step > 0 or history.observed < SEEN_OFTEN:
        return
    observed = [o.of("gradient_std") for o in history.recent]
    zero = [p.name for p in history.facts.parameters.values() if p.zero and p.role == "hidden"]
    stuck = [name for name in zero if all(gradients.get(name) == 0 for gradients in observed)]
    if stuck:
        yield Finding(
            "R20", "critical", in_words(stuck), 0, 1.0, COLLINEAR,
            f"{in_words(stuck)}: all weights were zero at the start, and no gradient has come to them since.",
            DRAW,
        )  # fmt: skip


def _is_blind(history: History) -> bool:
    """Return whether the network starts with the same output for all examples; False where that is not known."""
    output = history.first.output if history.first is not None else None
    return output is not None and output.spread < BLIND and not history.facts.frozen


def _cut_off(history: History, gradients: dict[str, float]) -> list[str]:
    """Return the zero matrices that feed an activation alone, a module or a call, and keep all before from the loss.

    Beside a residual connection what is before has a gradient; an adapter's zero matrix comes with frozen weights.
    """
    facts = history.facts
    if facts.frozen:
        return []
    assert history.first is not None
    silent = not all(history.first.of("activation_std").values())
    before: list[str] = []
    for parameter in facts.parameters.values():
        feeds = silent or parameter.name in facts.weight_of.values()
        if parameter.zero and parameter.role == "hidden" and feeds:
            graded = [name for name in before if name in gradients]
            return [parameter.name] if graded and not any(gradients[name] for name in graded) else []
        if parameter.role != "vector":
            before.append(parameter.name)
    return []
