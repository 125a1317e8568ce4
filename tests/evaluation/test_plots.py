"""Figures say what they are asked to say."""

import numpy as np

from diffjax.evaluation import plots


def test_a_curve_names_its_least_y_where_asked():
    points = np.array([[2.0, 3.0], [0.25, 1.0], [1.0, 2.0]])
    texts = lambda **asked: [text.get_text() for text in plots.curve(points, x="x", y="y", **asked).axes[0].texts]  # noqa: E731
    assert texts(least=True) == ["0.25"] and texts() == []
