"""Numbers on axes and text in Markdown."""

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowrl_core.report.chart import Chart, Line
from knowrl_core.report.markdown import code, plain
from knowrl_core.report.scale import axis
from knowrl_core.report.svg import draw


def test_signs_of_markdown_mean_nothing():
    assert plain("a_b <x> (p < 0.001)\n~ `c`") == r"a\_b \<x\> (p \< 0.001) \~ \`c\`"
    assert code("a `b`\n c") == "`a b c`"


@given(st.text(st.characters(exclude_characters="\\")))
def test_nothing_but_white_space_is_lost(text):
    assert re.sub(r"\\(.)", r"\1", plain(text)) == re.sub(r"\s+", " ", text)


@pytest.mark.parametrize("most", [1e-14, 3e-12, 0.02, 1.0, 7e9])
def test_ticks_differ_whatever_the_size(most):
    made = axis([most / 2, most], 100)
    assert 3 <= len(set(made.ticks)) == len(made.ticks) <= 7
    assert made.ticks[-1] >= most
    assert 0 <= made.y(most) < made.y(most / 2) <= 100


@pytest.mark.parametrize("iterations", [1, 9, 10, 18_001, 250_000])
def test_a_chart_has_at_most_nine_iterations_below_it_however_long_the_run(iterations):
    values = [None] * iterations
    values[-1] = 0.5
    _, area = draw(Chart("c", "C", "Long.", [*range(iterations)], [Line("x", values)]))
    labels = [int(text) for text in re.findall(r">(\d+)</text>", area)]
    assert min(iterations, 4) <= len(labels) <= 9
    assert labels[0] == 0
    assert len({later - at for at, later in pairwise(labels)}) <= 1, "not evenly spread"
