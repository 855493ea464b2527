"""Models that learn a whole word at once: no position sees a later one, nothing sees a padding."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from bnlm.data import Vocabulary, sequences
from bnlm.metrics import loss_of
from bnlm.models import BagOfWords, Recurrent, Transformer
from bnlm.models.positions import Positions
from bnlm.models.steps import PackedSteps
from bnlm.normalization import BatchNorm, LayerNorm

Make = Callable[..., nn.Module]
MODELS: dict[str, Make] = {
    "rnn": lambda **k: Recurrent(7, 12, "rnn", 6, 4, **k),
    "gru": lambda **k: Recurrent(7, 12, "gru", 6, 4, **k),
    "lstm": lambda **k: Recurrent(7, 12, "lstm", 6, 4, **k),
    "transformer": lambda **k: Transformer(7, 12, 2, 2, 6, **k),
    "bow": lambda **k: BagOfWords(7, 12, 6, 4, **k),
}
WORDS = ["abcdef", "a", "fade", "cab", "bed"]
VOCABULARY = Vocabulary("abcdef")


def batch_norm(num_features: int) -> BatchNorm:
    return BatchNorm(num_features, channel_dim=-1)


def padded(words: list[str], length: int) -> tuple[Tensor, Tensor]:
    return sequences(words, VOCABULARY, length)


@pytest.fixture(params=MODELS)
def make(request: pytest.FixtureRequest) -> Make:
    torch.manual_seed(0)
    return MODELS[request.param]


def test_a_word_in_eval_has_one_result_whatever_pads_the_batch(make: Make) -> None:
    model = make(normalization=batch_norm).double()
    for _ in range(3):
        model(padded(WORDS, 9)[0])  # running statistics that are not those of the start
    model.eval()
    alone = model(padded(["fade"], 5)[0])[0]
    for others, length in ((["fade", "a"], 8), (["abcdef", "fade", "b"], 12)):
        together = model(padded(others, length)[0])[others.index("fade")]
        assert_close(together[:5], alone, rtol=1e-10, atol=1e-10)
        assert together.shape == (length, 7)
        assert together[5:].count_nonzero() == 0


def test_padding_is_in_no_statistic_no_loss_and_no_gradient(make: Make) -> None:
    short, long = make(normalization=batch_norm).double(), make(normalization=batch_norm).double()
    long.load_state_dict(short.state_dict())
    losses = []
    for model, length in ((short, 7), (long, 12)):
        idx, targets = padded(WORDS, length)
        losses.append(loss_of(model(idx), targets))
        losses[-1].backward()
    assert_close(losses[0], losses[1], rtol=1e-12, atol=0)
    for name, buffer in short.named_buffers():
        assert_close(buffer, long.state_dict()[name], rtol=1e-12, atol=1e-12)
    for ours, theirs in zip(short.parameters(), long.parameters(), strict=True):
        assert_close(ours.grad, theirs.grad, rtol=1e-9, atol=1e-12)


def test_the_loss_is_the_mean_over_characters_of_all_words(make: Make) -> None:
    model = make().double().eval()
    idx, targets = padded(WORDS, 10)
    one_by_one = []
    for word in WORDS:
        alone, following = padded([word], len(word) + 1)
        one_by_one.append(F.cross_entropy(model(alone)[0], following[0], reduction="none"))
    expected = torch.cat(one_by_one)
    assert len(expected) == sum(len(word) + 1 for word in WORDS)
    assert_close(loss_of(model(idx), targets), expected.mean(), rtol=1e-12, atol=0)


def test_no_position_sees_a_later_one(make: Make) -> None:
    model = make(normalization=LayerNorm).double()
    idx = padded(["abcdef"], 7)[0]
    other = idx.clone()
    other[0, 4:] = torch.tensor([1, 1, 2])
    before, after = model(idx)[0], model(other)[0]
    assert_close(before[:4], after[:4], rtol=1e-12, atol=1e-12)
    assert bool((before[4:] != after[4:]).any(dim=1).all())


def test_words_longer_than_the_model_are_refused() -> None:
    for model in (Transformer(7, 4, 1, 1, 6), BagOfWords(7, 4, 6, 4)):
        with pytest.raises(ValueError, match=r"5 positions given; the model was built for at most 4"):
            model(torch.ones(2, 5, dtype=torch.long))


def test_the_transformer_is_torchs() -> None:
    torch.manual_seed(0)
    model = Transformer(7, 12, 2, 3, 6, normalization=LayerNorm).double()
    for norm in (m for m in model.modules() if isinstance(m, LayerNorm)):
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    idx = torch.randint(1, 7, (4, 9))
    x = model.embedding(idx) + model.position_embedding.weight[:9]
    mask = nn.Transformer.generate_square_subsequent_mask(9, dtype=torch.float64)
    for block in model.blocks:
        reference = nn.TransformerEncoderLayer(6, 3, 24, 0.0, "gelu", batch_first=True, norm_first=True).double()
        for theirs, ours in {
            "self_attn.in_proj_": "attention.qkv.", "self_attn.out_proj.": "attention.projection.",
            "norm1.": "attention_normalization.", "norm2.": "mlp_normalization.",
            "linear1.": "mlp.hidden.linear.", "linear2.": "mlp.projection.",
        }.items():  # fmt: skip
            for kind in ("weight", "bias"):
                reference.get_parameter(theirs + kind).data = block.get_parameter(ours + kind).data
        x = reference(x, src_mask=mask)
    expected = model.normalization(x) @ model.output.weight.T
    assert_close(model(idx), expected, rtol=1e-9, atol=1e-9)


def test_makemores_transformer_has_its_size() -> None:
    # makemore.py, 27 characters, 16 positions: 204,544 parameters
    assert sum(p.numel() for p in Transformer(27, 16, normalization=LayerNorm).parameters()) == 204_544


def test_the_bag_of_words_by_hand() -> None:
    torch.manual_seed(0)
    model = BagOfWords(7, 12, 6, 4).double()
    idx = torch.randint(1, 7, (3, 5))
    logits = model(idx)
    for n in range(3):
        x = model.embedding.weight[idx[n]] + model.position_embedding.weight[:5]
        for t in range(5):
            y = x[t] + x[: t + 1].mean(0)
            y = y + model.projection(torch.tanh(model.hidden.linear(y)))
            assert_close(logits[n, t], model.output(y), rtol=1e-10, atol=1e-10)


def test_positions() -> None:
    idx = torch.tensor([[0, 3, 4, 0], [0, 0, 0, 0], [0, 5, 0, 0]])
    positions = Positions(idx)
    assert positions.times.tolist() == [0, 1, 2, 0, 0, 1]
    assert positions.pack(idx).tolist() == [0, 3, 4, 0, 0, 5]
    rows = torch.arange(12.0).view(6, 2)
    assert_close(positions.pack(positions.unpack(rows)), rows, rtol=0, atol=0)
    assert positions.unpack(rows)[1, 1:].count_nonzero() == 0
    steps = positions.in_steps()
    assert isinstance(steps, PackedSteps)
    assert steps.sizes == [3, 2, 1]
    assert positions.rows.tolist() == [0, 8, 4, 1, 9, 2]  # words 0, 2, 1: longer ones first
    assert positions.times.tolist() == [0, 0, 0, 1, 1, 2]


def test_the_heads_must_divide_the_width_and_cells_exist() -> None:
    with pytest.raises(ValueError, match=r"model\.n_head=4: expected a number that divides model\.n_embd=6"):
        Transformer(7, 12, n_head=4, n_embd=6)
    with pytest.raises(ValueError, match=r"model\.cell='gruu': expected one of rnn, gru, lstm"):
        Recurrent(7, 12, "gruu")  # type: ignore[arg-type]
