"""The layer map and the legend of written shapes."""

from pruning import Architecture
from search.page.shapes import Shaped, layer_map, legend

TEACHER = Architecture(4, 64, 8, 2, 100)
STUDENT = Architecture(2, 64, 2, 2, 50)


def test_a_student_stands_in_the_layers_that_it_kept() -> None:
    found = layer_map([Shaped("teacher", TEACHER), Shaped("student", STUDENT, [0, 3])])
    heads, ffn = found.models[1][1]
    assert found.of_teacher
    assert [cell.text for cell in heads.cells] == ["2/2", "–", "–", "2/2"]
    assert [cell.text for cell in ffn.cells] == ["50", "–", "–", "50"]
    assert [cell.shade for cell in ffn.cells] == [2, 0, 0, 2]


def test_without_the_teachers_layers_each_has_its_own() -> None:
    found = layer_map([Shaped("student", STUDENT), Shaped("other", Architecture(3, 8, 4, 4, 90))])
    assert not found.of_teacher
    assert [len(row.cells) for row in found.rows] == [3] * 4
    assert max(cell.shade for row in found.rows for cell in row.cells) == 5


def test_a_layer_without_a_part_is_empty_there() -> None:
    shape = Architecture.parse("L3 H64 A[8/2 - 4/2] F[100 - 50]")
    found = layer_map([Shaped("teacher", TEACHER), Shaped("student", shape, [0, 1, 2])])
    assert [row.cells[1].text for row in found.models[1][1]] == ["–", "–"]


def test_experts_have_a_row_and_a_letter() -> None:
    shape = Architecture(2, 64, 4, 2, 0, experts=8, expert_ffn=96)
    small = Architecture(2, 64, 4, 2, 0, experts=4, expert_ffn=48)
    found = layer_map([Shaped("teacher", shape), Shaped("student", small, [0, 1])])
    assert [row.part for row in found.models[1][1]] == ["heads / KV heads", "experts x FFN"]
    assert found.models[1][1][1].cells[0].text == "4 x 48"
    assert [letter for letter, _ in legend(small, [shape, small])] == ["L", "H", "A", "E"]
