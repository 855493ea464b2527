import copy
import pickle

import pytest
import torch

from bnlm.data import Vocabulary


def test_ids_follow_the_order_given() -> None:
    vocabulary = Vocabulary("zab")
    assert len(vocabulary) == 4
    assert vocabulary.encode("abz") == [2, 3, 1]
    assert vocabulary.decode([2, 3, 1]) == "abz"


def test_from_words_sorts() -> None:
    assert Vocabulary.from_words(["zoé", "anna"]) == Vocabulary("anozé")
    assert len(Vocabulary.from_words(["zoé", "anna"])) == 6


def test_end_marks_are_left_out() -> None:
    vocabulary = Vocabulary("ab")
    assert vocabulary.decode([0, 0, 1, 2, 0]) == "ab"
    assert vocabulary.decode(torch.tensor([0, 2, 1])) == "ba"


def test_dot_is_a_character_of_its_own() -> None:
    vocabulary = Vocabulary.from_words(["st.john"])
    assert 0 not in vocabulary.encode("st.john")
    assert vocabulary.decode([*vocabulary.encode("st.john"), 0]) == "st.john"


def test_characters_beyond_the_basic_plane() -> None:
    vocabulary = Vocabulary.from_words(["a🙂b"])
    assert vocabulary.decode(vocabulary.encode("🙂ab")) == "🙂ab"


def test_unknown_characters_are_named() -> None:
    with pytest.raises(ValueError, match=r"^unknown characters '!', 'q'; known are 'abc'\.$"):
        Vocabulary("abc").encode("aq!bq")


@pytest.mark.parametrize("identity", [-1, 4])
def test_unknown_id(identity: int) -> None:
    with pytest.raises(ValueError, match=rf"^id {identity} is not in the vocabulary; expected 0 to 3"):
        Vocabulary("abc").decode([1, identity])


def test_a_character_twice() -> None:
    with pytest.raises(ValueError, match=r"^characters='abca': 'a' occurs more than once"):
        Vocabulary("abca")


def test_copies() -> None:
    vocabulary = Vocabulary("ab")
    for other in (copy.deepcopy(vocabulary), pickle.loads(pickle.dumps(vocabulary))):
        assert other == vocabulary
        assert other.encode("ba") == [2, 1]
