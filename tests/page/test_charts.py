"""What a chart draws lies where its numbers say."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from labelmill.page.charts import row_bar
from labelmill.page.curves import Curve, Mark, curve_chart
from labelmill.page.matrix import Shade, matrix
from labelmill.page.pictures import heat_image

TICKS = [(0.0, "0"), (10.0, "10")]


def points(svg: str) -> list[tuple[float, float]]:
    (found,) = re.findall(r'<polyline class="[^"]*" points="([^"]*)"', svg)
    return [(float(x), float(y)) for x, y in (pair.split(",") for pair in found.split())]


def test_a_curve_lies_between_its_ticks():
    left, middle, right = points(curve_chart([Curve([(0, 0), (5, 1), (10, 0.5)])], "made", x_ticks=TICKS, y=(0, 1)))
    assert left[0] < middle[0] < right[0] and middle[0] - left[0] == pytest.approx(right[0] - middle[0], abs=0.2)
    assert middle[1] < right[1] < left[1] and right[1] - middle[1] == pytest.approx(left[1] - right[1], abs=0.2)


def test_a_curve_of_one_point_is_seen():
    svg = curve_chart([Curve([(5, 0.5)])], "made", x_ticks=TICKS)
    assert "<polyline" not in svg and svg.count("<circle") == 1


def test_equal_values_make_a_chart_not_a_division_by_zero():
    svg = curve_chart([Curve([(0, 0.5), (10, 0.5)])], "made", x_ticks=TICKS)
    assert len({y for _, y in points(svg)}) == 1
    assert "nan" not in svg and "inf" not in svg


def test_the_words_of_a_mark_stay_within_the_chart():
    for x in (0.5, 9.5):
        svg = curve_chart([Curve([(0, 0), (10, 1)])], "made", x_ticks=TICKS, marks=[Mark(x, "point of departure")])
        place, anchored = re.search(r'<text x="([\d.]+)"( text-anchor="end")? y="21', svg).groups()
        width = 5.2 * len("point of departure")
        left = float(place) - (width if anchored else 0)
        assert left > 0 and left + width < 360


def test_shades_stand_row_by_row_and_figures_only_where_there_is_room():
    names = ["cat", "dog"]
    cells = [[Shade(0.25 * (2 * row + column), f"{row}{column}", "") for column in range(2)] for row in range(2)]
    svg = matrix(cells, names, "made", row_word="true", column_word="answered")
    assert re.findall(r'fill-opacity="([\d.]+)"', svg) == ["0.000", "0.250", "0.500", "0.750"]
    assert re.findall(r">(\d\d)</text>", svg) == ["00", "01", "10", "11"]
    many = [[Shade(0.5, "77", "")] * 20] * 20
    assert ">77</text>" not in matrix(many, ["cat"] * 20, "made", row_word="true", column_word="answered")


def test_names_in_a_matrix_are_short_and_escaped():
    svg = matrix([[Shade(1, "", "")]], ["<b>a name going on and on"], "made", row_word="", column_word="")
    assert "&lt;b&gt;a name going…" in svg and "<b>" not in svg


def test_an_interval_lies_over_its_bar():
    bar = row_bar(0.5, (0.4, 0.75))
    assert '<rect class="bar" width="50.00"' in bar
    assert 'class="whisker" x="40.00" y="3" width="35.00"' in bar
    assert "whisker" not in row_bar(0.5)


def test_heat_is_clear_where_there_is_none_and_red_where_it_is_most():
    heat_hw = np.zeros((64, 64), dtype=np.float32)
    heat_hw[:32] = 1
    data = base64.b64decode(re.search(r"base64,([^\"]*)", heat_image(heat_hw))[1])
    assert len(data) < 3000
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))
    red, green, blue, opacity = pixels[2, 20]
    assert red > 150 and green < 60 and blue < 100 and opacity > 150
    assert pixels[-2, 20, 3] == 0
