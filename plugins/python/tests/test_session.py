"""Sessions: updates against the formula in NumPy, blends, lifetimes and misuse."""

import copy
import os
import pickle
import signal
import threading
import time

import numpy as np
import pytest

import hilora

ALL = {"gamma": 1.0, "rows": "f32"}


def delta(pool, name, module):
    """s B A of one adapter in one module, in float64; None where it changes nothing."""
    entry = pool.entry(name, module)
    if entry is None:
        return None
    a, b = (pool.tensor(name, module, side, "f64") for side in "ab")
    return entry.scale * b.T @ a


def weighted(pool, weights, module):
    parts = [weight * part for name, weight in weights.items() if (part := delta(pool, name, module)) is not None]
    return sum(parts)


@pytest.fixture
def session(pool):
    with hilora.Session(pool) as made:
        yield made


def test_all_components_are_the_adapters_weighted_sum(pool, session):
    rng, weights = np.random.default_rng(0), {"sql": 0.5, "medical": 0.25, "cooking": 0.25}
    session.prepare(pool.route(adapters=weights, **ALL))
    for module in pool.modules():
        x = rng.standard_normal((5, module.d_in), dtype=np.float32)
        y = np.ones((5, module.d_out), np.float32)
        session.apply(module.name, x, y)
        expected = x @ weighted(pool, weights, module.index).T
        assert np.linalg.norm(y - 1 - expected) <= 1e-5 * np.linalg.norm(expected) + 1e-6


def test_tokens_take_their_own_routes(pool, session):
    routes = [pool.route(adapters=[name], **ALL) for name in ("sql", "medical")]
    session.prepare(routes)
    module = pool.module("model.layers.0.self_attn.q_proj")
    x = np.random.default_rng(1).standard_normal((4, module.d_in), dtype=np.float32)
    y = np.zeros((4, module.d_out), np.float32)
    session.apply(module.index, x, y, [1, hilora.BASE, 0, 1])
    for token, name in ((0, "medical"), (2, "sql"), (3, "medical")):
        assert np.allclose(y[token], delta(pool, name, module.index) @ x[token], rtol=1e-4, atol=1e-5)
    assert not y[1].any()


def test_strides_and_types(pool, session):
    session.prepare(pool.route(adapters=["sql"], **ALL))
    module = pool.module(0)
    rng = np.random.default_rng(2)
    wide = rng.standard_normal((6, module.d_in + 9), dtype=np.float32)
    x = wide[::2, 4 : 4 + module.d_in]
    plain = np.zeros((3, module.d_out), np.float32)
    session.apply(0, np.ascontiguousarray(x), plain)
    room = np.zeros((3, module.d_out + 5), np.float32)
    session.apply(0, x, room[:, 2:-3])
    assert np.array_equal(room[:, 2:-3], plain) and not room[:, :2].any() and not room[:, -3:].any()
    half = np.zeros((3, module.d_out), np.float16)
    session.apply(0, x.astype(np.float16), half)
    assert np.allclose(half, plain, rtol=2e-3, atol=2e-3)
    brain = np.zeros((3, module.d_out), np.uint16)
    session.apply(0, (np.ascontiguousarray(x).view(np.uint32) >> 16).astype(np.uint16), brain, dtype="bf16")
    assert np.allclose((brain.astype(np.uint32) << 16).view(np.float32), plain, rtol=4e-2, atol=4e-2)


def test_arrays_that_do_not_fit_are_refused(pool, session):
    session.prepare(pool.route(adapters=["sql"]))
    module = pool.module(0)
    x, y = np.ones((2, module.d_in), np.float32), np.zeros((2, module.d_out), np.float32)
    frozen = y.copy()
    frozen.flags.writeable = False
    both = np.zeros((2, module.d_in + module.d_out), np.float32)
    for bad in [(x[:, :-1], y), (x, y[:, :-1]), (x, y[:1]), (x.astype(np.float64), y), (x, y.astype(np.float16)), (x[0], y[0]),
                (np.asfortranarray(x), y), (x, frozen), (both[:, : module.d_in], both[:, module.d_in - 1 : -1])]:
        with pytest.raises(ValueError):
            session.apply(0, *bad)
    with pytest.raises(ValueError):
        session.apply(0, x, y, [0])
    with pytest.raises(hilora.ArgumentError):
        session.apply(0, x, y, [0, 5])
    with pytest.raises(hilora.NotFoundError):
        session.apply("nowhere", x, y)
    assert not y.any()


@pytest.mark.parametrize("rows", ["f32", "source"])
def test_rows_make_the_update(pool, session, rows):
    route = pool.route(adapters=["cooking"], gamma=1.0, rows=rows)
    session.prepare(route)
    for entry in pool.entries("cooking"):
        view = session.rows(0, "cooking", entry.module)
        a, b = view.floats()
        expected = delta(pool, "cooking", entry.module)
        assert np.linalg.norm(view.scale * b.T @ a - expected) <= (1e-6 if rows == "f32" else 6e-4) * np.linalg.norm(expected)
        assert view.rocs == entry.rank and not view.a.flags.writeable
        assert np.allclose(view.b_norm, np.linalg.norm(b, axis=1), rtol=1e-3)
    with pytest.raises(hilora.NotFoundError):
        session.rows(0, "sql", 0)


def test_rows_in_use_are_not_pulled_away(pool, session):
    route = pool.route(adapters=["sql"], **ALL)
    session.prepare(route)
    part = session.rows(0, "sql", 0).a[1:3]
    with pytest.raises(BufferError, match="in use"):
        session.prepare([])
    before = part.copy()
    session.close()
    assert np.array_equal(part, before)
    with pytest.raises(hilora.ClosedError, match="session is closed"):
        session.info()


def test_copied_rows_do_not_hold_the_session(pool, session):
    session.prepare(pool.route(adapters=["sql"], **ALL))
    rows = session.rows(0, "sql", 0, copy=True)
    session.prepare([])
    assert rows.a.flags.writeable


def test_a_blend_is_the_static_route(pool, session):
    route = pool.route(adapters={"sql": 3, "medical": 1}, gate="static", rows="f32", gamma=0.5)
    session.prepare(route)
    blend = session.blend(route)
    assert blend.rank <= sum(item.rocs for item in route)
    for part in blend:
        x = np.random.default_rng(3).standard_normal((3, part.a.shape[1]), dtype=np.float32)
        y = np.zeros((3, part.b.shape[1]), np.float32)
        session.apply(part.module, x, y)
        assert np.allclose(y, x @ part.a.T @ part.b, rtol=1e-4, atol=1e-5)
    with pytest.raises(hilora.ArgumentError):
        session.blend(_empty_route(pool))


def _empty_route(pool):
    z = np.zeros(pool.info().dim, np.float32)
    z[0] = 1
    route = pool.route(z, fallback="base")
    assert not len(route) and not route.familiar
    return route


def test_a_cache_that_is_too_small_says_what_it_needs(pool, prompt):
    with hilora.Session(pool, cache_bytes=4096) as session:
        with pytest.raises(hilora.CacheError):
            session.prepare(pool.route(adapters=["sql"], **ALL))
        needed = session.info().needed_bytes
    with hilora.Session(pool, cache_bytes=needed, threads=2) as session:
        session.prepare(pool.route(adapters=["sql"], **ALL))
        assert session.info().threads == 2 and session.info().routes == 1


def test_a_route_of_another_pool_is_refused(pool, pool_path, session):
    with pytest.raises(hilora.ArgumentError):
        session.prepare(hilora.Pool(pool_path).route(adapters=["sql"]))


def test_two_threads_in_one_session_are_told(pool, session):
    assert session._busy.acquire()
    errors = []

    def work():
        try:
            session.info()
        except RuntimeError as error:
            errors.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    session._busy.release()
    assert "another thread" in errors[0]
    assert session.info().routes == 0


@pytest.mark.parametrize("stored, said", [(">f4", "f32"), ("<i4", "f32"), ("<f2", "bf16"), ("<u2", "f16"), ("<f4", "bf16"),
                                          (">f2", None), ("<u2", None)])
def test_bits_of_another_type_are_refused(pool, session, stored, said):
    session.prepare(pool.route(adapters=["sql"], **ALL))
    module = pool.module(0)
    x, y = np.ones((2, module.d_in), stored), np.zeros((2, module.d_out), stored)
    with pytest.raises(ValueError, match="float32"):
        session.apply(module.index, x, y, dtype=said)
    assert not y.any()


@pytest.mark.parametrize("routes", [[2**32, 0], [-1, 0], [0.5, 0.0], ["0", "0"]])
def test_routes_of_tokens_are_positions(pool, session, routes):
    session.prepare(pool.route(adapters=["sql"], **ALL))
    module = pool.module(0)
    x, y = np.ones((2, module.d_in), np.float32), np.zeros((2, module.d_out), np.float32)
    with pytest.raises(ValueError, match="route_of_token"):
        session.apply(module.index, x, y, routes)


def test_addresses_are_not_pickled_and_deep_copies_share(pool, session):
    route = pool.route(adapters=["sql"], **ALL)
    for each in (pool, route):
        with pytest.raises(TypeError, match="pickle"):
            pickle.dumps(each)
    copied = copy.deepcopy(route)
    route.close()
    session.prepare(copied)
    assert copied[0].name == "sql" and copy.deepcopy(pool).verify() == []


@pytest.mark.parametrize("threads", [1, 3])
def test_a_fork_goes_on_alone(pool, threads):
    """A session with helpers cannot work in the child, which they did not follow; it says so, and the child ends."""
    session = hilora.Session(pool, threads=threads)
    session.prepare(pool.route(adapters=["sql"], **ALL))
    module = pool.module(0)
    x, y = np.ones((300, module.d_in), np.float32), np.zeros((300, module.d_out), np.float32)
    child = os.fork()
    if child == 0:
        try:
            session.apply(module.index, x, y)
            told = threads == 1
        except RuntimeError as error:
            told = threads > 1 and "fork" in str(error)
        session.close()
        del session
        os._exit(0 if told and pool.verify() == [] else 1)
    for _ in range(200):
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        time.sleep(0.05)
    else:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        pytest.fail("the child hangs")
    assert os.waitstatus_to_exitcode(status) == 0
    session.apply(module.index, x, y)
    assert y.any()
