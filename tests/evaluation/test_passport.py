"""Numbers are compared only if what their passports say agrees, but for what is meant to differ."""

import json

import pytest

from diffjax.errors import InputError
from diffjax.evaluation.passport import PARTS, compare, differences, read_numbers, write_numbers


def passport(**changes):
    plain = {part: part for part in PARTS} | {"n": 1000, "sampler": {"solver": "ddim", "steps": 50}}
    return plain | changes


def stored(path, value, *, half=0.1, **changes):
    number = {"value": value, "interval": [value - half, value + half], "level": 0.95}
    write_numbers(path, {"kid": number}, passport(**changes))
    return path


def test_a_number_is_read_back_with_its_passport(tmp_path):
    path = stored(tmp_path / "new" / "a.json", 1.25)
    assert read_numbers(path)["passport"] == passport()
    assert read_numbers(path)["numbers"]["kid"]["value"] == 1.25


def test_a_passport_lacks_nothing(tmp_path):
    with pytest.raises(ValueError, match="parts"):
        write_numbers(tmp_path / "a.json", {}, {"n": 3})
    assert not list(tmp_path.iterdir())


def test_every_part_that_differs_is_refused_unless_it_is_meant_to(tmp_path):
    a = stored(tmp_path / "a.json", 1.0)
    for part in PARTS:
        b = stored(tmp_path / "b.json", 2.0, **{part: "other"})
        with pytest.raises(InputError, match=rf"{part}.*--vary {part}"):
            compare(a, b)
        assert "differs" in compare(a, b, vary=[part])


def test_differences_name_the_entry(tmp_path):
    other = passport(sampler={"solver": "ddim", "steps": 20, "eta": 1.0})
    assert differences(passport(), other) == {"sampler.eta": (None, 1.0), "sampler.steps": (50, 20)}


def test_apart_means_further_than_both_intervals_allow(tmp_path):
    a = stored(tmp_path / "a.json", 1.0, half=0.3)
    near, far = stored(tmp_path / "b.json", 1.49, half=0.4), stored(tmp_path / "c.json", 1.51, half=0.4)
    assert "not told apart" in compare(a, near)
    assert "not" not in compare(a, far) and "apart" in compare(a, far)


def test_refusals_are_sentences(tmp_path):
    a = stored(tmp_path / "a.json", 1.0)
    with pytest.raises(InputError, match="did you mean 'sampler'"):
        compare(a, a, vary=["sampling"])
    for text in ("", "[]", "{}", json.dumps({"passport": passport(), "numbers": {"kid": 3}})):
        (tmp_path / "b.json").write_text(text)
        with pytest.raises(InputError, match="b.json holds no numbers"):
            compare(a, tmp_path / "b.json")
    write_numbers(tmp_path / "b.json", {"frechet": {"value": 1, "interval": [0, 2]}}, passport())
    with pytest.raises(InputError, match="share no metric"):
        compare(a, tmp_path / "b.json")
