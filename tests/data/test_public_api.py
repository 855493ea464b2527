import bnlm.data


def test_every_public_name_is_there() -> None:
    assert bnlm.data.__all__
    for name in bnlm.data.__all__:
        assert getattr(bnlm.data, name).__doc__, name
