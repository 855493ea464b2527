import hashlib
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from lightning import LightningModule, Trainer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from bnlm.data import EvaluationBatches, WordsDataModule, minibatch_indices, windows

# Lightning 2.6 asks torch 2.13 in a way that torch is about to drop; nothing of ours is meant
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*is deprecated:FutureWarning")

WORDS = ["ava", "mia", "zoé", "st.john", "emma", "olivia", "ada", "amelia", "eva", "noah", "liam", "ava"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "words.txt"
    path.write_text("\n".join(WORDS), encoding="utf-8")
    return path


def module(file: Path, **changes: Any) -> WordsDataModule:
    return WordsDataModule(**({"path": str(file), "context": 2, "batch_size": 4, "steps_per_batch": 5} | changes))


class Recorder(LightningModule):
    """The smallest language model that trains in chunks; remembers what arrived."""

    def __init__(self, vocab_size: int, context: int = 2) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.embedding = nn.Embedding(vocab_size, 3)
        self.head = nn.Linear(context * 3, vocab_size)
        self.contexts: list[Tensor] = []
        self.targets: list[Tensor] = []
        self.chunks: list[int] = []
        self.validated = 0

    def loss(self, contexts: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(self.head(self.embedding(contexts).flatten(1)), targets)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        optimizer = self.optimizers()
        self.chunks.append(len(batch[0]))
        for contexts, targets in zip(*batch, strict=True):
            self.contexts.append(contexts)
            self.targets.append(targets)
            optimizer.zero_grad()
            self.manual_backward(self.loss(contexts, targets))
            optimizer.step()

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.validated += len(batch[1])

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.validated += len(batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer(max_steps: int, **changes: Any) -> Trainer:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "num_sanity_val_steps": 0}
    quiet |= {"enable_model_summary": False, "accelerator": "cpu", "devices": 1}
    return Trainer(max_steps=max_steps, max_epochs=-1, **(quiet | changes))


def expected_minibatches(data: WordsDataModule, start: int, stop: int) -> tuple[Tensor, Tensor]:
    contexts, targets = windows(data.words["train"], data.vocabulary, data.context)
    indices = minibatch_indices(len(targets), data.batch_size, start, stop, data.seed)
    return contexts[indices], targets[indices]


def test_shipped_names() -> None:
    data = WordsDataModule()
    assert data.vocab_size == len(data.vocabulary) == 27
    assert data.vocabulary.characters == "abcdefghijklmnopqrstuvwxyz"
    assert {split: len(words) for split, words in data.words.items()} == {"train": 25_742, "val": 3_218, "test": 3_218}


def test_file_is_read_and_split_at_construction(file: Path) -> None:
    data = module(file)
    file.unlink()
    assert sorted(word for words in data.words.values() for word in words) == sorted(WORDS)
    assert list(data.words) == ["train", "val", "test"]
    assert data.vocabulary.characters == "".join(sorted(set("".join(WORDS))))
    assert data.vocab_size == len(set("".join(WORDS))) + 1


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_evaluation_sees_every_example_in_order(file: Path, split: str) -> None:
    data = module(file, eval_batch_size=7)
    loader = data.evaluation_dataloader(split)
    contexts, targets = (torch.cat(parts) for parts in zip(*loader, strict=True))
    expected_contexts, expected_targets = windows(data.words[split], data.vocabulary, 2)
    assert isinstance(loader, EvaluationBatches)
    assert_close(contexts, expected_contexts, rtol=0, atol=0)
    assert_close(targets, expected_targets, rtol=0, atol=0)


def test_loaders_need_what_they_need(file: Path) -> None:
    data = module(file)
    assert len(data.val_dataloader().targets) == sum(len(word) + 1 for word in data.words["val"])
    assert len(data.test_dataloader().targets) == sum(len(word) + 1 for word in data.words["test"])
    with pytest.raises(RuntimeError, match="needs a trainer"):
        data.train_dataloader()
    with pytest.raises(ValueError, match=r"^split='dev': expected one of train, val, test\."):
        data.evaluation_dataloader("dev")


def test_windows_are_made_once(file: Path) -> None:
    data = module(file)
    data.setup("fit")
    first = data.examples("train")
    data.setup("fit")
    again = data.examples("train")
    assert [tensor.data_ptr() for tensor in first] == [tensor.data_ptr() for tensor in again]


@pytest.mark.parametrize("steps_per_batch", [1, 5, 64])
def test_fit_counts_optimizer_steps_and_sees_the_stream(file: Path, steps_per_batch: int) -> None:
    data = module(file, steps_per_batch=steps_per_batch, seed=3)
    model = Recorder(data.vocab_size)
    fitting = trainer(max_steps=73, limit_val_batches=0)
    fitting.fit(model, datamodule=data)
    contexts, targets = expected_minibatches(data, 0, 73)
    assert fitting.global_step == 73
    assert sum(model.chunks) == 73  # nothing fetched beyond what was trained
    assert model.chunks == [steps_per_batch] * (73 // steps_per_batch) + [73 % steps_per_batch] * (steps_per_batch > 1)
    assert_close(torch.stack(model.contexts), contexts, rtol=0, atol=0)
    assert_close(torch.stack(model.targets), targets, rtol=0, atol=0)


def test_chunk_is_drawn_when_its_turn_comes(file: Path) -> None:
    drawn_at: list[tuple[int, int]] = []

    class Watching(WordsDataModule):
        def train_dataloader(self) -> Any:
            loader = super().train_dataloader()
            count = loader.current_step

            def current_step() -> int:
                drawn_at.append((count(), len(model.targets)))
                return count()

            loader.current_step = current_step
            return loader

    data = Watching(path=str(file), context=2, batch_size=4, steps_per_batch=5)
    model = Recorder(data.vocab_size)
    trainer(max_steps=23, limit_val_batches=0).fit(model, datamodule=data)
    assert drawn_at == [(step, step) for step in (0, 5, 10, 15, 20)]  # each after all steps before it were taken


def test_fit_validates_and_tests_on_every_example(file: Path) -> None:
    data = module(file, eval_batch_size=3)
    model = Recorder(data.vocab_size)
    whole = trainer(max_steps=5, val_check_interval=1, check_val_every_n_epoch=None)
    whole.fit(model, datamodule=data)
    assert model.validated == sum(len(word) + 1 for word in data.words["val"])
    model.validated = 0
    whole.test(model, datamodule=data, verbose=False)
    assert model.validated == sum(len(word) + 1 for word in data.words["test"])


@pytest.mark.parametrize(("before", "after"), [(5, 5), (1, 5), (5, 1), (5, 64)])
def test_resumed_fit_continues_the_straight_run(file: Path, tmp_path: Path, before: int, after: int) -> None:
    def build(steps_per_batch: int) -> tuple[WordsDataModule, Recorder]:
        lightning.seed_everything(1, verbose=False)
        data = module(file, steps_per_batch=steps_per_batch)
        return data, Recorder(data.vocab_size)

    data, straight = build(before)
    trainer(max_steps=41, limit_val_batches=0).fit(straight, datamodule=data)
    data, first = build(before)
    interrupted = trainer(max_steps=13, limit_val_batches=0)
    interrupted.fit(first, datamodule=data)
    interrupted.save_checkpoint(tmp_path / "last.ckpt")
    data, second = build(after)
    resumed = trainer(max_steps=41, limit_val_batches=0)
    resumed.fit(second, datamodule=data, ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    assert resumed.global_step == 41
    assert len(second.targets) == 41 - 13
    assert_close(torch.stack(first.targets + second.targets), torch.stack(straight.targets), rtol=0, atol=0)
    assert second.chunks[0] == min(after - 13 % after, 41 - 13)  # back on the grid
    for ours, theirs in zip(second.parameters(), straight.parameters(), strict=True):
        assert_close(ours, theirs, rtol=0, atol=0)


def test_state_fits_the_same_data(file: Path) -> None:
    module(file, steps_per_batch=1, eval_batch_size=5).load_state_dict(module(file).state_dict())


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"seed": 1}, r"seed: the checkpoint has seed=0, this run has 1;"),
        ({"batch_size": 8}, r"data\.batch_size: the checkpoint has batch_size=4, this run has 8;"),
        ({"context": 3}, r"data\.context: the checkpoint has context=2, this run has 3;"),
        ({"split_seed": 1}, r"data\.path, .*, data\.shuffle or data\.split_seed: the checkpoint has train_"),
        ({"shuffle": "torch"}, r"data\.path, .*, data\.shuffle or data\.split_seed: the checkpoint has train_"),
        ({"splits": [0.5, 0.25, 0.25]}, r"data\.path, data\.splits, .*: the checkpoint has train_"),
        ({"path": None}, r"data\.path: the checkpoint has characters="),
    ],
)
def test_state_of_other_data_is_refused(file: Path, changes: dict[str, Any], key: str) -> None:
    with pytest.raises(ValueError, match="^" + key):
        module(file, **changes).load_state_dict(module(file).state_dict())


def test_other_words_of_the_same_size_are_refused(file: Path) -> None:
    before = module(file).state_dict()
    file.write_text("\n".join(word[::-1] for word in WORDS), encoding="utf-8")
    with pytest.raises(ValueError, match=r"^data\.path, .*: the checkpoint has train_sha256="):
        module(file).load_state_dict(before)


def test_foreign_state_is_refused(file: Path) -> None:
    with pytest.raises(ValueError, match=r"^checkpoint: its data state lacks 'context'"):
        module(file).load_state_dict({"seed": 0})


def test_evaluation_asks_for_the_same_vocabulary_only(file: Path, tmp_path: Path) -> None:
    data = module(file)
    model = Recorder(data.vocab_size)
    fitted = trainer(max_steps=3, limit_val_batches=0)
    fitted.fit(model, datamodule=data)
    fitted.save_checkpoint(tmp_path / "last.ckpt")
    checkpoint = {"ckpt_path": tmp_path / "last.ckpt", "verbose": False, "weights_only": True}
    trainer(max_steps=3).test(model, datamodule=module(file, seed=5, batch_size=2), **checkpoint)
    with pytest.raises(ValueError, match=r"^data\.context: the checkpoint has"):
        trainer(max_steps=3).test(model, datamodule=module(file, context=5), **checkpoint)


@pytest.mark.parametrize(
    ("key", "value", "least"),
    [
        ("data.context", 0, 1),
        ("data.context", True, 1),
        ("data.context", 2.0, 1),
        ("data.batch_size", 0, 1),
        ("data.batch_size", "32", 1),
        ("data.eval_batch_size", -1, 1),
        ("data.eval_batch_size", None, 1),
        ("data.split_seed", -1, 0),
        ("data.split_seed", 4.2, 0),
        ("steps_per_batch", 0, 1),
        ("steps_per_batch", False, 1),
        ("seed", -1, 0),
        ("seed", True, 0),
    ],
)
def test_bad_numbers(file: Path, key: str, value: object, least: int) -> None:
    with pytest.raises(ValueError, match=rf"^{key}={value!r}: expected a whole number of at least {least}\.$"):
        module(file, **{key.removeprefix("data."): value})


@pytest.mark.parametrize("path", [3, True, "", ["words.txt"]])
def test_bad_path(path: Any) -> None:
    with pytest.raises(ValueError, match=r"^data\.path=.*: expected the path of a text file"):
        WordsDataModule(path=path)


def test_bad_lists_show_at_construction(file: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^data\.path='.*': no such file"):
        module(tmp_path / "gone.txt")
    with pytest.raises(ValueError, match=r"^data\.splits=\[0\.8, 0\.1, 0\.2\]"):
        module(file, splits=[0.8, 0.1, 0.2])
    file.write_text("ava\nmia\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"^data\.splits=.*: of 2 words none is left for the val split"):
        module(file)


def test_published_list(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    downloaded = WordsDataModule(url=file.as_uri(), sha256=sha256)
    given = WordsDataModule(path=str(file), url="https://example.invalid", sha256=sha256)
    assert downloaded.words == given.words == module(file).words
    with pytest.raises(ValueError, match=r"^data\.path='.*': its sha256 is"):
        WordsDataModule(path=str(file), url="https://example.invalid", sha256="0" * 64)


@pytest.mark.parametrize("sha256", [None, "abc", "g" * 64, 5])
def test_bad_checksum(sha256: Any) -> None:
    with pytest.raises(ValueError, match=rf"^data\.sha256={sha256!r}: expected the 64 hexadecimal digits"):
        WordsDataModule(url="https://example.invalid", sha256=sha256)


def test_checksum_without_address() -> None:
    with pytest.raises(ValueError, match=r"^data\.url=None: expected the address"):
        WordsDataModule(sha256="0" * 64)


def test_one_very_long_word_trains(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("\n".join(["ab" * 50_000, *WORDS]), encoding="utf-8")
    data = module(path, context=8)
    model = Recorder(data.vocab_size, context=8)
    trainer(max_steps=7, limit_val_batches=2).fit(model, datamodule=data)
    assert len(model.targets) == 7
