"""Modules say what they answer when somebody listens, and otherwise nothing has changed."""

import jax
import jax.numpy as jnp
import numpy as np

from diffjax.nets.capture import capture


def test_what_modules_answer_is_seen_inside_a_program(small, randomised, batch):
    net, (x, level, label) = small("mlp", depth=3), batch()
    params, paths = randomised(net), []

    def run(params):
        with capture() as seen:
            output = net.apply(params, x, level, label)
        paths[:] = [path for path, _ in seen]
        return output, [array for _, array in seen]

    output, answers = jax.jit(run)(params)
    np.testing.assert_allclose(output, jax.jit(net.apply)(params, x, level, label), rtol=1e-5, atol=1e-6)
    assert paths[-1] == "" and np.array_equal(answers[-1], output)  # the whole comes last
    assert [path for path in paths if path.startswith("blocks/")] == [f"blocks/{i}" for i in range(3)]
    stem = params["stem"]
    want = x.reshape(len(x), -1) @ stem["kernel"] + stem["bias"][None]
    np.testing.assert_allclose(answers[paths.index("stem")], want, rtol=1e-5, atol=1e-5)


def test_stacked_blocks_answer_once_each(small, randomised, batch):
    net, (x, level, label) = small("dit", remat="none"), batch()
    with capture() as seen:
        jax.eval_shape(net.apply, randomised(net), x, level, label)
    assert [path for path, _ in seen].count("blocks") == 2


def test_nothing_is_kept_of_listening(small, randomised, batch):
    net, (x, level, label) = small("mlp", depth=1), batch()
    with capture() as seen:
        jax.eval_shape(net.apply, randomised(net), x, level, label)
    before = len(seen)
    kinds = jax.eval_shape(net.apply, randomised(net), jnp.asarray(x), level, label)
    assert len(seen) == before > 3 and kinds.shape == x.shape
