"""The digest of a route: the test vectors of docs/ROUTING.md, put together by hashlib alone, and the library's answers to them."""

import hashlib
import re
import struct

import numpy as np
import pytest

import hlp_reader
import programs
from programs import REPOSITORY, example_adapters, run
from routing import ask, make_pool
from tamper import changed

GATES = {1: "magnitude", 2: "contribution", 3: "static"}
ROWS = {1: "source", 2: "f32", 3: "f16"}


def digest(gate, variance_norm, rows, adapters):
    """adapters: (content hash, decomposition, ROCs, weight in 256ths)."""
    head = b"hilora-route-v1\0" + struct.pack("<BBBBI", gate, variance_norm, rows, 0, len(adapters))
    return hashlib.sha256(head + b"".join(sorted(content + struct.pack("<III", *rest) for content, *rest in adapters))).digest()[:16]


def vectors():
    """(gate, variance_norm, rows, adapters, digest) of each row of the table; a content hash is one byte, repeated."""
    text = (REPOSITORY / "docs" / "ROUTING.md").read_text().split("## The route's digest")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (\d) \| (\d) \| (\d) \| (.*?) \| `([0-9a-f]{32})` \|$", text, re.M)
    found = []
    for gate, norm, precision, adapters, expected in rows:
        parts = [] if adapters == "none" else [adapter.split(", ") for adapter in adapters.split("; ")]
        found.append((int(gate), int(norm), int(precision), [(bytes.fromhex(part[0]) * 32, *map(int, part[1:])) for part in parts], expected))
    return found


def test_the_document_has_vectors():
    assert len(vectors()) >= 4 and {len(vector[3]) for vector in vectors()} >= {0, 1, 2, 3}


@pytest.mark.parametrize("vector", vectors(), ids=lambda vector: vector[4][:8])
def test_a_vector_is_the_hash_of_the_documented_bytes(vector):
    *route, expected = vector
    assert digest(*route).hex() == expected


def test_the_worked_bytes_are_those_of_a_vector():
    text = (REPOSITORY / "docs" / "ROUTING.md").read_text().split("## The route's digest")[1]
    block = re.search(r"the bytes of the second:\n\n((?:    [0-9a-f ]+\n)+)", text).group(1)
    assert hashlib.sha256(bytes.fromhex("".join(block.split()))).digest()[:16].hex() == vectors()[1][4]


@pytest.mark.parametrize("isa", [1, 2], ids=["scalar", "avx2"])
@pytest.mark.parametrize("vector", [v for v in vectors() if v[3]], ids=lambda vector: vector[4][:8])
def test_the_library_gives_the_vectors(tmp_path, vector, isa):
    """A pool whose ranks make the ROCs come out: gamma 0.4 of them all, shared as the weights are."""
    gate, norm, rows, adapters, expected = vector
    total = sum(adapter[2] for adapter in adapters)
    rank = next(r for r in range(1, 100) if int(0.4 * float(r * len(adapters)) + 0.5) == total)
    kind = {0: {}, 1: {"svd": True}, 2: {"svd": True, "squeezed": True}}[adapters[0][1]]
    plain = make_pool(tmp_path / "plain.hlp", adapters=len(adapters), min_rank=rank, max_rank=rank, dim=4, max_samples=5, **kind)
    with changed(plain, tmp_path / "pool.hlp") as changing:
        table = changing.table("adapters")
        for i, adapter in enumerate(adapters):
            table["content_sha256"][i] = np.frombuffer(adapter[0], np.uint8)
    options = {"select": "explicit", "adapters": list(range(len(adapters))), "adapter_weights": [float(a[3]) for a in adapters],
               "gate": gate, "variance_norm": norm, "rows": rows}
    answers = ask(tmp_path / "pool.hlp", [(None, options)], isa)
    if answers is None:
        pytest.skip("not on this processor")
    assert [(item["rocs"], item["weight_256"]) for item in answers[0]["route"]] == [adapter[2:] for adapter in adapters]
    assert answers[0]["digest"] == expected


@pytest.mark.parametrize("decompose", ["svd", "raw"])
def test_digests_of_compiled_pools(tmp_path, decompose):
    pool = programs.compile_pool(tmp_path / "pool.hlp", "--decompose", decompose, *example_adapters())
    file = hlp_reader.Pool(pool)
    content = {file.string(a["name"]).decode(): (a["content_sha256"].tobytes(), int(a["decomposition"])) for a in file.adapters}
    for prompt in sorted((REPOSITORY / "examples" / "prompts").glob("*.npy"))[:3]:
        for gate in GATES:
            for rows in ROWS:
                args = ["--gate", GATES[gate], "--rows", ROWS[rows], "--variance-norm", "on" if rows == 2 else "off"]
                document = run("hilora-route", pool, "--embedding", prompt, "--json", *args).expect(0).json()
                adapters = [(*content[item["adapter"]], item["rocs"], round(256 * item["weight"])) for item in document["route"]]
                assert document["digest"] == digest(gate, int(rows == 2), rows, adapters).hex()
