"""Updates that libhilora computes from compiled pools, against PEFT's results and against the formula in NumPy."""

import math

import numpy as np
import pytest

import hlp_reader
import lora
import programs
import roundtrip
from programs import FIXTURES, example_adapters
from tensors import read_metadata, read_tensors

SOURCE, F32, F16 = 1, 2, 3  # hl_rows
ACTIVATION, CONTRIBUTION, STATIC = 1, 2, 3  # hl_gate
OFF, ON = 1, 2  # hl_switch
PEFT = FIXTURES / "peft"
OPTIONS = [(), ("--codec", "store"), ("--decompose", "raw"), ("--decompose", "raw", "--codec", "store")]
RELATIVE = 1e-5
UNIT = 2.0**-24


@pytest.fixture(scope="module", params=OPTIONS, ids=" ".join)
def pool(request, tmp_path_factory):
    """The examples and PEFT's corner cases for one base model, compiled; and their folders by name."""
    work = tmp_path_factory.mktemp("apply")
    corner = [folder for folder in sorted((PEFT / "adapters").iterdir())]
    folders = {folder.name: folder for folder in [*example_adapters(), *corner]}
    pools = {}
    for kind, members in (("examples", example_adapters()), ("corner", roundtrip.with_embeddings(corner, work))):
        path = programs.compile_pool(work / f"{kind}.hlp", *request.param, *members)
        pools.update({folder.name: path for folder in members})
    return pools, folders


def modules_of(pool):
    """Name, d_in and d_out of a pool's modules, in its order."""
    return [(pool.string(module["name"]).decode(), int(module["d_in"]), int(module["d_out"])) for module in pool.modules]


def apply(path, route, inputs, tmp_path, rows=F32, gate=ACTIVATION, gamma=1.0, norm=OFF, mode="apply"):
    """Updates by module name; inputs: by module name, one row a token."""
    modules = modules_of(hlp_reader.Pool(path))
    tokens = len(next(iter(inputs.values())))
    x_path, y_path = tmp_path / "x.bin", tmp_path / "y.bin"
    x_path.write_bytes(b"".join(inputs[name].astype("<f4").tobytes() for name, _, _ in modules))
    program = programs.bin_folder().parents[1] / "tests" / "support" / "apply_route"
    named = [part for name, weight in route.items() for part in (name, repr(float(weight)))]
    programs.run(program, mode, path, x_path, y_path, tokens, rows, gate, gamma, norm, *named).expect(0)
    y, outputs = np.fromfile(y_path, "<f4").astype(np.float64), {}
    for name, _, d_out in modules:
        outputs[name], y = y[: tokens * d_out].reshape(tokens, d_out), y[tokens * d_out :]
    assert y.size == 0
    return outputs


def inputs_like(arrays, path):
    """PEFT's x for the widths that it has, zeros for modules of other adapters in the pool."""
    return {name: arrays.get(f"x/{d_in}", np.zeros((2, d_in))) for name, d_in, _ in modules_of(hlp_reader.Pool(path))}


def random_inputs(path, tokens, seed=0):
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal((tokens, d_in)).astype(np.float32).astype(np.float64)
            for name, d_in, _ in modules_of(hlp_reader.Pool(path))}


def assert_near(actual, expected, size, relative=RELATIVE):
    """Relative to the output, and where that is small by cancellation to the sizes of what was multiplied."""
    error = np.linalg.norm(actual - expected)
    assert error <= relative * np.linalg.norm(expected) or error <= 4 * UNIT * size, (error, np.linalg.norm(expected), size)


def size_of(module, x):
    return abs(module.scale) * np.linalg.norm(module.b) * np.linalg.norm(module.a) * np.linalg.norm(x)


SINGLE = sorted(path.stem for path in (PEFT / "expected").glob("*.safetensors") if not path.stem.startswith("cat-p")
                and not path.stem.startswith("cat-s"))


def expected_of(name):
    return {key: tensor.float64() for key, tensor in read_tensors(PEFT / "expected" / f"{name}.safetensors").items()}


def test_all_cases_are_here():
    assert len(SINGLE) == len(list((PEFT / "expected").iterdir())) - 2


def test_all_components_of_one_adapter_are_peft_s_forward(pool, tmp_path):
    pools, folders = pool
    for name in SINGLE:
        arrays, adapter = expected_of(name), lora.read_adapter(folders[name])
        inputs = inputs_like(arrays, pools[name])
        outputs = apply(pools[name], {name: 1}, inputs, tmp_path)
        for module in outputs:
            if f"y/{module}" in arrays:
                assert_near(outputs[module], arrays[f"y/{module}"], size_of(adapter[module], inputs[module]))
            else:
                assert not outputs[module].any()


@pytest.mark.parametrize("name", ["cat-plain", "cat-scaled"])
def test_three_with_weights_are_peft_s_cat(pool, tmp_path, name):
    pools, folders = pool
    arrays = expected_of(name)
    named = [part.rsplit("/", 1)[1] for part in read_metadata(PEFT / "expected" / f"{name}.safetensors")["adapters"].split(",")]
    adapters = [lora.read_adapter(folders[each]) for each in named]
    inputs = inputs_like(arrays, pools[named[0]])
    route = dict(zip(named, arrays["weights"]))
    for mode in ("apply", "blend"):
        outputs = apply(pools[named[0]], route, inputs, tmp_path, mode=mode)
        for module in (key.removeprefix("y/") for key in arrays if key.startswith("y/")):
            size = sum(size_of(adapter[module], inputs[module]) for adapter in adapters if module in adapter)
            assert_near(outputs[module], arrays[f"y/{module}"], size)


# ---- the token level ----


def chosen(u, b_prime, gate, count):
    """Positions of the active components, and whether rounding might decide otherwise."""
    key = np.abs(u) * (np.linalg.norm(b_prime, axis=0) if gate == CONTRIBUTION else 1)
    if gate == STATIC or count >= len(u):
        return np.arange(count), False
    order = sorted(range(len(u)), key=lambda j: (-key[j], j))
    last, next_ = key[order[count - 1]], key[order[count]]
    return np.array(order[:count]), last - next_ <= 1e-4 * last and last > 1e-9 * key.max()


def routed(pool, items, module, x, gate, norm):
    """The update of one token by the formula of docs/ROUTING.md; None where rounding might decide."""
    y = 0
    for adapter, rank, rocs, weight in items:
        entry = next((e for e in pool.entries_of(adapter) if pool.entries[e]["module"] == module), None)
        if entry is None:
            continue
        b_prime, a_prime = pool.components(entry)
        u, own = a_prime @ x, len(a_prime)
        count = -(-rocs * own // rank)
        active, close = chosen(u, b_prime, gate, count)
        if close:
            return None
        y = y + weight * (math.sqrt(own / count) if norm == ON else 1) * b_prime[:, active] @ u[active]
    return y


def allocation(pool, weights, gamma):
    """Budget by largest remainder; the cases here reach no cap."""
    names = [pool.string(adapter["name"]).decode() for adapter in pool.adapters]
    adapters = {name: names.index(name) for name in weights}
    ranks = {name: int(pool.adapters[adapters[name]]["rank"]) for name in weights}
    budget = max(len(weights), math.floor(gamma * sum(ranks.values()) + 0.5))
    shares = {name: budget * weight for name, weight in weights.items()}
    rocs = {name: math.floor(share) for name, share in shares.items()}
    for name in sorted(weights, key=lambda n: (-(shares[n] - rocs[n]), adapters[n]))[: budget - sum(rocs.values())]:
        rocs[name] += 1
    assert all(0 < rocs[name] <= ranks[name] for name in weights)
    return [(adapters[name], ranks[name], rocs[name], weights[name]) for name in sorted(weights, key=str.encode)]


def check_gated(path, tmp_path, gate, norm):
    """Routes over three of the examples against the formula, whatever their components."""
    weights, tokens, gamma, undecided = {"cooking": 0.5, "medical": 0.25, "sql": 0.25}, 12, 0.45, 0
    file, inputs = hlp_reader.Pool(path), random_inputs(path, tokens)
    items = allocation(file, weights, gamma)
    outputs = apply(path, weights, inputs, tmp_path, gate=gate, gamma=gamma, norm=norm)
    for module, (name, _, _) in enumerate(modules_of(file)):
        for token in range(tokens):
            expected = routed(file, items, module, inputs[name][token], gate, norm)
            undecided += expected is None
            if expected is not None:
                assert_near(outputs[name][token], expected, np.linalg.norm(inputs[name][token]))
    assert undecided <= tokens


@pytest.mark.parametrize("gate", [ACTIVATION, CONTRIBUTION, STATIC])
@pytest.mark.parametrize("norm", [OFF, ON])
def test_gated_routes_follow_the_formula(pool, tmp_path, gate, norm):
    check_gated(pool[0]["cooking"], tmp_path, gate, norm)


# ---- precision of rows ----


def deltas(path, name, tmp_path, rows):
    """The whole update matrix of each module, found with unit vectors."""
    modules = modules_of(hlp_reader.Pool(path))
    tokens = max(d_in for _, d_in, _ in modules)
    inputs = {module: np.eye(tokens, d_in) for module, d_in, _ in modules}
    outputs = apply(path, {name: 1}, inputs, tmp_path, rows=rows)
    return {module: outputs[module][:d_in].T for module, d_in, _ in modules}


def test_float32_rows_are_off_by_a_few_units(pool, tmp_path):
    """Rounding of gauge, rows and sums: 5e-8 of |s| |B| |A| is usual, 1e-7 the goal."""
    pools, folders = pool
    errors = []
    for name in SINGLE:
        found = deltas(pools[name], name, tmp_path, F32)
        for module, own in lora.read_adapter(folders[name]).items():
            size = abs(own.scale) * np.linalg.norm(own.b) * np.linalg.norm(own.a)
            error = np.linalg.norm(found[module] - own.delta())
            errors.append(error / size if size else error)
    assert np.max(errors) <= 1e-7, (np.mean(errors), np.max(errors))


def test_float16_rows_are_off_by_3e_4(pool, tmp_path):
    """Each row is rounded to 11 bits: at most 2^-11 an element on either side, 2e-4 in the mean square of uniform mantissas;
    two sides and a factor of 1.7 for narrow matrices are 5e-4."""
    pools, folders = pool
    for name in ("patterns", "one-module", "german-translation"):
        found = deltas(pools[name], name, tmp_path, F16)
        for module, own in lora.read_adapter(folders[name]).items():
            assert np.linalg.norm(found[module] - own.delta()) <= 5e-4 * np.linalg.norm(own.delta())


def test_source_rows_are_float16_where_the_source_is(pool, tmp_path):
    pools, folders = pool
    for name, module, own in (("mixed-dtypes", "layers.0.", F16), ("mixed-dtypes", "layers.1.", F32), ("patterns", "", F16),
                              ("float64", "", F32), ("one-module", "", F16)):
        by_source, fixed = (deltas(pools[name], name, tmp_path, rows) for rows in (SOURCE, own))
        for key in lora.read_adapter(folders[name]):
            if module in key:
                assert (by_source[key] == fixed[key]).all(), (name, key)


def test_faults_are_told(tmp_path, pool):
    path = pool[0]["sql"]
    inputs = random_inputs(path, 1)
    with pytest.raises(AssertionError, match="argument|not found"):
        apply(path, {"no such adapter": 1}, inputs, tmp_path)
    damaged = tmp_path / "damaged.hlp"
    content = bytearray(path.read_bytes())
    file = hlp_reader.Pool(path)
    chunk = file.chunks[file.entries[file.entries_of([file.string(a["name"]) for a in file.adapters].index(b"sql"))[0]]["chunk_b"]]
    content[int(chunk["offset"]) + int(chunk["stored"]) // 2] ^= 4
    damaged.write_bytes(content)
    with pytest.raises(AssertionError, match="corrupt.*chunk"):
        apply(damaged, {"sql": 1}, inputs, tmp_path)
    apply(damaged, {"medical": 1}, inputs, tmp_path)
