"""Logits from llama.cpp, of what its converter makes in fp32; and what it leaves out of Q8_0.

Of the given tokens, and of those that it continues them with where the request asks for some.

No tokenizer is converted: the converter knows them by a list of its own, which has nothing to do
with a model's shape.
"""

import ctypes
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from one_by_one import answer


def prepare(request: dict[str, Any]) -> None:
    sys.path.insert(0, request["source"])
    sys.path.insert(0, str(Path(request["source"]) / "gguf-py"))
    import convert_hf_to_gguf  # noqa: F401
    import llama_cpp  # noqa: F401


def read(folder: Path, ids: list[int], request: dict[str, Any]) -> tuple[Any, list[str]]:
    with tempfile.TemporaryDirectory() as scratch:
        whole, short = Path(scratch) / "f32.gguf", Path(scratch) / "q8_0.gguf"
        _convert(folder, whole, "f32")
        logits = _logits(whole, ids, request.get("greedy", 0))
        _convert(folder, short, "q8_0")
        return logits, _unquantised(short)


def _convert(folder: Path, output: Path, form: str) -> None:
    import convert_hf_to_gguf as converter

    find = converter.get_model_class

    def without_tokenizer(*names: Any, **options: Any) -> Any:
        kind = find(*names, **options)

        def set_vocab(model: Any) -> None:
            model._set_vocab_none()
            model.gguf_writer.add_vocab_size(model.hparams["vocab_size"])  # not every type has it

        return type(kind.__name__, (kind,), {"set_vocab": set_vocab, "model_arch": kind.model_arch})

    converter.get_model_class = without_tokenizer
    sys.argv = ["convert", str(folder), "--outfile", str(output), "--outtype", form]
    try:
        converter.main()
    finally:
        converter.get_model_class = find


def _logits(file: Path, ids: list[int], greedy: int) -> Any:
    """Of `ids` and of `greedy` tokens after them, each the likeliest, read one by one."""
    import llama_cpp

    llama_cpp.llama_backend_init()
    model = llama_cpp.llama_model_load_from_file(
        str(file).encode(), llama_cpp.llama_model_default_params()
    )
    if not model:
        raise ValueError("llama_model_load_from_file refused the file (see the log)")
    options = llama_cpp.llama_context_default_params()
    options.n_ctx = options.n_batch = options.n_ubatch = 256
    options.n_threads = options.n_threads_batch = 1
    # Its default cache is in F16, which is the user's choice and not the model's.
    options.type_k = options.type_v = 0  # GGML_TYPE_F32
    options.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
    context = llama_cpp.llama_init_from_model(model, options)
    if not context:
        raise ValueError("llama_init_from_model refused the model (see the log)")
    size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    batch = llama_cpp.llama_batch_init(len(ids), 0, 1)

    def read(tokens: list[int], start: int) -> Any:
        batch.n_tokens = len(tokens)
        for place, token in enumerate(tokens):
            batch.token[place], batch.pos[place] = token, start + place
            batch.n_seq_id[place], batch.seq_id[place][0] = 1, 0
            batch.logits[place] = 1
        if llama_cpp.llama_decode(context, batch):
            raise ValueError("llama_decode failed")
        data = llama_cpp.llama_get_logits(context)
        pointer = ctypes.cast(data, ctypes.POINTER(ctypes.c_float))
        return np.ctypeslib.as_array(pointer, shape=(len(tokens), size)).copy()

    parts = [read(ids, 0)]
    for place in range(greedy):
        parts.append(read([int(parts[-1][-1].argmax())], len(ids) + place))
    return np.concatenate(parts)


def _unquantised(file: Path) -> list[str]:
    """Matrices that are not in the quantised type, without routers, which never are."""
    import gguf

    reader = gguf.GGUFReader(file)
    return [
        tensor.name
        for tensor in reader.tensors
        if len(tensor.shape) > 1
        and tensor.tensor_type.name != "Q8_0"
        and "ffn_gate_inp" not in tensor.name
    ]


if __name__ == "__main__":
    answer(read, prepare)
