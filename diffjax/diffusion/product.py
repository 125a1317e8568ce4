"""Several kinds of noise at once: a process over a dict of parts, such as positions and tokens.

Noise acts on each part apart; what couples the parts is the denoiser, which sees them all:

    q(x_t | x_0)  =  prod_k q_k(x_t[k] | x_0[k])                 loss  =  sum_k loss_k(x_0[k], x_t[k], t, x0_hat[k])

Every method maps over the dict: x, x0_hat and raw have one entry for each part; a time is shared, or a dict of the
parts' own.  Part k draws with fold_in(key, k), k its place in the order of names (as in a JAX tree).
"""

from collections.abc import Mapping

import jax

from .masked import draw
from .types import Process


def product(processes: Mapping[str, Process]) -> Process:
    """The process of the named parts, which may be products themselves.  Raises ValueError for data with other names.

    There is no one schedule: solvers and laws of times that ask for it get a ValueError; `ancestral` does not ask.
    """
    parts = {name: processes[name] for name in sorted(processes)}

    def each(method, *values):
        """(part's method, part's values) for each part; the first of the values is data, which parts do not share."""
        given = sorted(values[0]) if isinstance(values[0], dict) else "no dict"
        if given != list(parts):
            raise ValueError(f"a product of {list(parts)} needs one entry for each in its data; got {given}")
        for name, part in parts.items():
            yield name, getattr(part, method), [v[name] if isinstance(v, dict) else v for v in values]

    def keyed(method):
        def draws(key, *values):
            fold = lambda i: draw(lambda k: jax.random.fold_in(k, i), key)  # noqa: E731
            return {name: rule(fold(i), *own) for i, (name, rule, own) in enumerate(each(method, *values))}

        return draws

    def mapped(method):
        return lambda *values: {name: rule(*own) for name, rule, own in each(method, *values)}

    def prepare(xt, t):
        pairs = mapped("prepare")(xt, t)
        return {name: x_in for name, (x_in, _) in pairs.items()}, {name: level for name, (_, level) in pairs.items()}

    def schedule(t):
        raise ValueError(f"a product of {list(parts)} has no one schedule; use a part's, or the solver `ancestral`")

    return Process(
        schedule, keyed("prior"), keyed("corrupt"), prepare, mapped("estimate"), mapped("loss"), keyed("reverse")
    )
