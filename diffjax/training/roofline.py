"""How long a training step takes at least, from what it computes and what it moves: a prediction.

    arithmetic   model FLOP x what is computed again / peak
    memory       the state read and written once, the weights read for each part of the batch, activations
    links        all-gather of the weights forward and backward and reduce-scatter of their gradients over fsdp, for
                 each part; all-reduce of gradients over data; all-reduce of activations over tensor
    network      all-reduce of gradients between slices, each chip its share

A collective of n bytes over k chips sends n (k - 1) / k from each (all-reduce: twice that).  The step takes as long as
the longest term if all of them overlap, and as long as their sum if none does.
"""

from typing import NamedTuple

from .cost import Accelerator

AGAIN = {"none": 1.0, "dots": 1.0, "blocks": 4 / 3}  # arithmetic, in forward and backward passes
KEPT = {"none": 1.0, "dots": 0.5, "blocks": 0.1}  # of the activations, about


class Work(NamedTuple):
    """A step of a model: all devices together."""

    flops: float  # without what is computed again
    weights: float  # bytes of the parameters
    state: float  # bytes of parameters, averages and moments
    activations: float = 0.0  # bytes that the backward pass finds, without rematerialisation
    reduced: float = 0.0  # bytes of activations that a mesh with `tensor` adds up, forward and backward


class Plan(NamedTuple):
    """How it is spread."""

    chips: int
    fsdp: int = 1
    tensor: int = 1
    remat: str = "none"
    accumulate: int = 1


def terms(work: Work, plan: Plan, chip: Accelerator) -> dict[str, float]:
    """Seconds of each resource in a step."""
    data = plan.chips / (plan.fsdp * plan.tensor)
    slices = max(plan.chips / chip.slice, 1)
    inside = max(data / slices, 1)
    shard = work.weights / (plan.fsdp * plan.tensor)
    gathered = plan.accumulate * 3 * _sent(work.weights / plan.tensor, plan.fsdp)
    crossing = plan.fsdp * plan.tensor > chip.slice  # then the weights themselves go over the network
    linked = 2 * _sent(shard, inside) + 2 * _sent(work.reduced / (data * plan.fsdp), plan.tensor)
    moved = 2 * work.state / (plan.fsdp * plan.tensor) + plan.accumulate * 3 * work.weights / plan.tensor
    moved += 3 * work.activations * KEPT[plan.remat] / plan.chips
    return {
        "arithmetic": work.flops * AGAIN[plan.remat] / (plan.chips * chip.flops),
        "memory": moved / chip.bandwidth,
        "links": (linked + (0 if crossing else gathered)) / chip.link,
        "network": (2 * _sent(shard / inside, slices) + (gathered if crossing else 0)) / chip.network,
    }


def held(work: Work, plan: Plan) -> float:
    """Bytes in each chip's memory, about: its share of the state, a gradient, and the activations of one part."""
    shard = (work.state + work.weights) / (plan.fsdp * plan.tensor)
    return shard + work.activations * KEPT[plan.remat] / (plan.chips * plan.accumulate)


def _sent(size: float, chips: float) -> float:
    return size * (chips - 1) / chips
