"""Driving the library's routing from Python: random pools, requests, and what the reference would say."""

from __future__ import annotations

import json
import math
import subprocess

import numpy as np

import hlp_reader
import programs
import routing_reference as reference

ROUTABLE, CALIBRATED, SQUEEZED, CONDITIONAL = 1, 2, 4, 16
OK, ARGUMENT, INPUT, UNSUPPORTED = 0, 1, 2, 3
ISA_MISSING = 77  # exit status of route_ask


def read_adapter(file, i):
    record, stats = file.adapters[i], file.stats[i]
    flags, padding = int(record["flags"]), int(file.pool["stride"]) - int(file.pool["dim"])
    mean, basis, singular, _ = file.statistics(i)
    return reference.Adapter(
        rank=int(record["rank"]), content=record["content_sha256"].tobytes(),
        decomposition=2 if flags & SQUEEZED else int(record["decomposition"]),
        routable=bool(flags & ROUTABLE), threshold=float(record["threshold"]) if flags & CONDITIONAL else None,
        quantiles=tuple(map(float, stats["quantiles"])) if flags & CALIBRATED else None,
        m=int(stats["m"]), rho=float(stats["rho"]), lam=float(stats["lambda"]), log_norm=float(stats["log_norm"]),
        mean=np.pad(mean, (0, padding)), basis=np.pad(basis, ((0, 0), (0, padding))), sv=singular)


def read_pool(path):
    """A pool as the reference wants it, through the reader that knows FORMAT.md alone."""
    file = hlp_reader.Pool(path)
    record, dim = file.pool, int(file.pool["dim"])
    return reference.Pool(
        adapters=[read_adapter(file, i) for i in range(len(file.adapters))], dim=dim,
        normalized=record["normalized"] == 1,
        whiten=file.section(14).reshape(dim, dim) if record["whitening"] else None,
        quantiles=tuple(map(float, record["quantiles"])) if record["calibrated"] else None,
        temperature=float(record["temperature"]),
        defaults=dict(k=int(record["top_k"]), wide_k=int(record["wide_k"]), max_adapters=int(record["max_adapters"]),
                      gamma=float(record["gamma"]), p=float(record["nucleus_p"]), familiar=float(record["familiar"]),
                      gate=int(record["gate"]) + 1, variance_norm=int(record["variance_norm"])))


def same(a, b):
    return a == b or (isinstance(a, float) and isinstance(b, float) and math.isnan(a) and math.isnan(b))


def difference(got, expected):
    """The first key in which the library's answer differs from the reference's."""
    for key in ("familiar", "threshold", "wanted", "allowed", "best", "best_position", "budget", "digest"):
        if not same(got[key], expected[key]):
            return key
    if len(got["route"]) != len(expected["route"]):
        return "length"
    for a, b in zip(got["route"], expected["route"]):
        for key in b:
            if not same(a[key], b[key]):
                return key
    for i, (a, b) in enumerate(zip(got.get("fates", ()), expected["fates"])):
        if not all(map(same, a, b)):
            return f"fate of {i}: {a}, {b}"
    return None


# ---- asking ----

CHOICES = {"select": ("", "posterior", "paper", "calibrated", "nucleus", "top-k", "cosine", "explicit"),
           "fallback": ("", "wide", "base", "none"), "weights": ("", "posterior", "mean", "sum"),
           "allocate": ("", "proportional", "multinomial")}
DTYPES = {np.dtype(np.float16): 1, np.dtype(np.float32): 3, np.dtype(np.float64): 4}
FAMILIAR_LOWEST = -1  # hl_route_options.familiar for the quantile 0


def tool(name):
    return programs.bin_folder().parents[1] / "tests" / "support" / name


def make_pool(path, **spec):
    """A random pool (tests/support/pool_builder.h); its path."""
    programs.run(tool("make_pool"), path, *(f"{key}={float(value)!r}" if isinstance(value, float) else f"{key}={int(value)}"
                                            for key, value in spec.items())).expect(0)
    return path


def words_of(key, value):
    if key in CHOICES:
        value = CHOICES[key].index(value)
    if key == "variance_norm":
        value += 1
    if key == "familiar" and value == 0:
        value = FAMILIAR_LOWEST
    if isinstance(value, (list, tuple)):
        return " ".join([key, str(len(value)), *map(repr, map(float if key in ("adapter_weights", "thresholds") else int, value))])
    return f"{key} {value!r}"


def request_of(z, options):
    """A line for route_ask. z: float16, float32 or float64, or None; options: the reference's."""
    words = [words_of(key, value) for key, value in options.items()]
    if z is not None:
        words.append(f"dtype {DTYPES[z.dtype]} z {len(z)} " + " ".join(repr(float(x)) for x in z))
    return " ".join(words)


def ask(path, requests, isa=0):
    """The library's answers to (z, options) pairs; None when the processor lacks the instruction set."""
    lines = "".join(request_of(z, options) + "\n" for z, options in requests)
    done = subprocess.run([tool("route_ask"), path, str(isa)], input=lines, capture_output=True, text=True,
                          timeout=programs.TIMEOUT_SECONDS)
    if done.returncode == ISA_MISSING:
        return None
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == len(requests)
    return answers


def disagreement(pool, z, options, answer):
    """What differs between the library's answer and the reference's; None when nothing does."""
    try:
        with np.errstate(over="ignore"):
            expected = reference.route(pool, z, options)
    except reference.RoutingError as error:
        return None if answer["status"] in (ARGUMENT, INPUT, UNSUPPORTED) else f"not refused: {error}"
    return answer["message"] or "status" if answer["status"] != OK else difference(answer, expected)
