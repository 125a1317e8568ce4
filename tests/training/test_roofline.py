"""The predicted step: its laws, and a figure by hand."""

import pytest

from bench.scale import CHIPS, best, dit_xl_2
from diffjax.training.cost import ACCELERATORS
from diffjax.training.roofline import Plan, Work, held, terms

WORK = Work(flops=1e15, weights=4e9, state=20e9, activations=1e11, reduced=1e9)
V5P = ACCELERATORS["v5p"]


def test_by_hand():
    """Eight chips, all of them fsdp: 1e15 / (8 x 459e12); 3 x 4e9 x 7/8 over a link of 180e9."""
    found = terms(WORK, Plan(8, fsdp=8), V5P)
    assert found["arithmetic"] == pytest.approx(1e15 / 8 / 459e12)
    assert found["links"] == pytest.approx(3 * 4e9 * 7 / 8 / 180e9) and found["network"] == 0
    assert found["memory"] == pytest.approx((2 * 20e9 / 8 + 3 * 4e9 + 3 * 1e11 / 8) / 2.765e12)


def test_laws():
    one, many = terms(WORK, Plan(1), V5P), terms(WORK, Plan(64, fsdp=8), V5P)
    assert one["links"] == one["network"] == 0 and one["arithmetic"] == pytest.approx(64 * many["arithmetic"])
    assert terms(WORK, Plan(8, fsdp=8, accumulate=4), V5P)["links"] == pytest.approx(
        4 * terms(WORK, Plan(8, fsdp=8), V5P)["links"]
    )
    again = terms(WORK, Plan(8, remat="blocks"), V5P)["arithmetic"] / terms(WORK, Plan(8), V5P)["arithmetic"]
    assert again == pytest.approx(4 / 3)
    more, less = (terms(WORK._replace(reduced=n), Plan(8, tensor=2), V5P)["links"] for n in (1e9, 0))
    assert more - less == pytest.approx(2 * 1e9 / 4 / 2 / 180e9)
    assert held(WORK, Plan(8, fsdp=8)) < held(WORK, Plan(8)) and held(WORK, Plan(8, accumulate=2)) < held(WORK, Plan(8))


def test_beyond_a_slice_the_network_carries_the_gradients():
    h200 = ACCELERATORS["h200"]
    assert terms(WORK, Plan(8, fsdp=8), h200)["network"] == 0
    assert terms(WORK, Plan(64, fsdp=8), h200)["network"] == pytest.approx(2 * 4e9 / 8 * 7 / 8 / 50e9)
    assert terms(WORK, Plan(64, fsdp=64), h200)["links"] == 0  # the weights cross too
    assert terms(WORK, Plan(64, fsdp=64), h200)["network"] > terms(WORK, Plan(64, fsdp=8), h200)["network"]


def test_what_is_counted_by_hand_is_what_the_paper_counts():
    """DiT-XL/2: 118.64 G multiply-adds forward, 675 million parameters (Peebles & Xie 2023, table 9)."""
    assert dit_xl_2().flops / 6 == pytest.approx(118.64e9, rel=0.002)
    assert dit_xl_2().parameters == pytest.approx(675e6, rel=0.01)


def test_more_chips_are_never_slower_and_ever_less_used():
    for name in ("v5p", "h200"):
        times = [max(best(dit_xl_2(), name, chips)[1].values()) for chips in CHIPS]
        assert all(more < 1.02 * less for less, more in zip(times, times[1:], strict=False))
        assert times[0] / times[-1] < CHIPS[-1] / CHIPS[0]
