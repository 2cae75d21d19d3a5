"""Files made to cost time and memory: the programs answer within a limit of address space, a small multiple of the file and a
fixed amount. Nothing is timed, but for the two minutes after which every test of the programs gives up."""

import json
import os
import resource
import struct

import h5py
import pytest

import invoke

MILLION = 1_000_000
pytestmark = pytest.mark.skipif(invoke.SANITIZED, reason="sanitizers have memory of their own")


def write(folder, parts):
    """A weights file of an empty data buffer whose header is these parts, one after the other."""
    path = folder / "adapter_model.safetensors"
    with path.open("wb") as file:
        file.write(bytes(8))
        for part in parts:
            file.write(part)
        length = file.tell() - 8
        file.seek(0)
        file.write(struct.pack("<Q", length))
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    return length


FIXED = 320 << 20  # address space that the program takes for itself, libraries, stacks and arenas included


def limited(folder, bytes_more):
    """Exit status and standard error under a limit of address space: FIXED, and bytes_more."""
    output = folder / "pool.hlp"
    most = FIXED + bytes_more
    status, _, stderr = invoke.run_bytes("hilora-compile", "-q", "--threads", "1", "--no-stats=allow", "-o", output, folder,
                                         preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (most, most)),
                                         env={**os.environ, "OPENBLAS_NUM_THREADS": "1"})
    assert not output.exists()
    return status, stderr.decode(errors="replace")


def blank(size):
    return [b"{}", b" " * (size - 2)]


def many(count, form):
    """count entries; form of their number."""
    yield b"{"
    for first in range(0, count, 100_000):
        block = ",".join(form % {"i": i} for i in range(first, min(count, first + 100_000)))
        yield (b"," if first else b"") + block.encode()
    yield b"}"


OVERLAPPING = '"%(i)x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}'
EMPTY = '"%(i)x":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
CASES = {
    "100 MB of white space": (blank(100_000_000), "holds no tensor", 2),
    "a name of 100 MB": ([b'{"', b"a" * 99_999_996, b'"}'], "is not a JSON object", 2),
    "a string of 100 MB without end": ([b'{"a":"', b"a" * 99_999_990], "a string does not end", 2),
    "100 MB of brackets": ([b'{"a":' + b"[" * 99_999_000], "nested more than 128 deep", 2),
    "a shape of 10 million numbers": ([b'{"a":{"dtype":"U8","shape":[1' + b",1" * 10 * MILLION, b'],"data_offsets":[0,1]}}'],
                                      "1 bytes too short", 2),
    "100 thousand overlapping entries": (many(100_000, OVERLAPPING), "its data overlaps another tensor's", 8),
    "400 thousand overlapping entries": (many(400_000, OVERLAPPING), "and 399899 more faults of its tensors", 8),
    "400 thousand empty tensors": (many(400_000, EMPTY), "LoRA weight", 8),
    "400 thousand equal names": (many(400_000, '"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'), "more than once", 8),
    "400 thousand halves": (many(400_000, '"%(i)x.lora_A.weight":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'),
                           "the module has lora_A but no lora_B", 8),
}


@pytest.mark.parametrize("parts, message, multiple", CASES.values(), ids=CASES)
def test_a_header_costs_a_small_multiple_of_its_size(parts, message, multiple, tmp_path):
    size = write(tmp_path, parts)
    assert size <= 100_000_000
    status, stderr = limited(tmp_path, multiple * size)
    assert status == 1 and message in stderr, stderr[-2000:]


def test_ten_million_overlapping_entries(tmp_path):
    """They do not fit into the 100 MB that a header may have: refused by its length, in no memory at all."""
    size = write(tmp_path, many(100_000, OVERLAPPING)) * 100
    with (tmp_path / "adapter_model.safetensors").open("r+b") as file:
        file.write(struct.pack("<Q", size))
        file.truncate(8 + size)  # the rest is a hole: nobody looks
    assert size > 500_000_000
    status, stderr = limited(tmp_path, 0)
    assert status == 1 and f"the header's length is {size} bytes; at most 100000000" in stderr


def test_tensors_of_terabytes_cost_nothing(tmp_path):
    entry = {"dtype": "F32", "shape": [2**20, 2**20], "data_offsets": [0, 2**42]}
    write(tmp_path, [json.dumps({"m.lora_A.weight": entry}).encode()])
    status, stderr = limited(tmp_path, 0)
    assert status == 1 and "bytes too short" in stderr


def test_a_sparse_file_of_terabytes_costs_nothing(tmp_path):
    with (tmp_path / "adapter_model.safetensors").open("wb") as file:
        file.truncate(1 << 42)
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    status, stderr = limited(tmp_path, 0)
    assert status == 1 and "the header's length is 0" in stderr


CONFIGS = {"values": '{"peft_type":"LORA","x":[' + "1," * 499_000 + "1]}",
           "patterns": '{"peft_type":"LORA","rank_pattern":{' + ",".join(f'"a{i}":1' for i in range(65_000)) + "}}",
           "bytes": '{"peft_type":"LORA","x":"' + "y" * (15 << 20) + '"}'}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_a_configuration_costs_little(config, tmp_path):
    write(tmp_path, [b'{"m.lora_A.weight":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}'])
    (tmp_path / "adapter_config.json").write_text(config)
    status, stderr = limited(tmp_path, 4 * len(config) + (160 << 20))  # and a tree of 500,000 values, or 64 MiB of patterns
    assert status == 1 and "m.lora_A.weight" in stderr


@pytest.mark.parametrize("kind", ["npy", "h5"])
def test_embeddings_that_claim_gigabytes(kind, tmp_path):
    write(tmp_path, [b"{}"])
    path = tmp_path / f"embeddings.{kind}"
    if kind == "npy":
        dictionary = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000), }\n"
        path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(dictionary)) + dictionary + bytes(4000))
    else:
        with h5py.File(path, "w") as file:
            file.create_dataset("embeddings", (1_000_000, 1000), "f4", chunks=(1000, 1000), compression="gzip")
    status, stderr = limited(tmp_path, 0)
    assert status == 1 and f"embeddings.{kind}" in stderr and ("needs 4000000000 bytes" in stderr or "declares 4000000000 bytes" in stderr)
