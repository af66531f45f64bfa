"""The table of model types: a sample of them, and what it looks like."""

from pathlib import Path

from experiments.benchmarks.families import (
    BEGIN,
    END,
    cuttable,
    tables,
    types,
    verdict_of,
    write_docs,
)


def test_a_sample_of_types() -> None:
    rows = [{"type": name, **verdict_of(name)} for name in ("llama", "opt", "falcon", "mamba")]
    llama, opt, falcon, mamba = rows
    assert {*types()} >= {row["type"] for row in rows}
    assert [row["row"] for row in rows] == ["written", "inferred", "inferred", "refused"]
    assert all(cuttable(row) for row in (llama, opt, falcon))
    assert not cuttable(mamba)
    assert not llama["inference"]["missed"]
    text = tables(rows, "transformers 5")
    assert "1 have a written row, 2 are inferred, 1 are refused. 3 can be" in text
    assert "| opt | inferred | yes | yes | yes | yes |" in text
    assert "| mamba | no projection of its layers was found that reads heads |" in text
    assert "| llama | layers, hidden, heads, kv_heads, ffn |  |  |" in text


def test_the_tables_take_their_place_in_a_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    write_docs(page, "new")
    assert page.read_text() == f"before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"
