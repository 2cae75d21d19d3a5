"""The definitions for ctypes against what the C compiler says of the headers."""

import ctypes
import re
import subprocess

import pytest

from hilora import _abi
from programs import REPOSITORY

C_NAMES = {("HL_GATE", "magnitude"): "HL_GATE_ACTIVATION"}


def c_name(prefix, name):
    return C_NAMES.get((prefix, name), f"{prefix}_{name.upper()}")


def c_program():
    """Prints one line `name value` for every size, offset and constant that _abi states."""
    lines = []
    for structure in _abi.STRUCTURES:
        name = structure._c_name_
        lines.append(f'printf("sizeof {name} %zu\\n", sizeof({name}));')
        for field, _ in structure._fields_:
            member = field.rstrip("_")
            lines.append(f'printf("{name}.{field} %zu %zu\\n", offsetof({name}, {member}), sizeof((({name} *)0)->{member}));')
    for prefix, values in _abi.ENUMS.values():
        lines += [f'printf("{c_name(prefix, value)} %d\\n", (int){c_name(prefix, value)});' for value in values]
    for name in ("HL_NONE", "HL_QUANTILES", "HL_DIAG_MESSAGE_SIZE"):
        lines.append(f'printf("{name} %llu\\n", (unsigned long long){name});')
    lines.append('printf("HL_NO_OFFSET %llu\\n", (unsigned long long)HL_NO_OFFSET);')
    return "#include <hilora/hilora.h>\n#include <stdio.h>\nint main(void) {\n" + "\n".join(lines) + "\nreturn 0; }\n"


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    work = tmp_path_factory.mktemp("abi")
    (work / "abi.c").write_text(c_program())
    subprocess.run(["cc", "-std=c11", f"-I{REPOSITORY / 'include'}", "-o", work / "abi", work / "abi.c"], check=True)
    return set(subprocess.run([work / "abi"], check=True, capture_output=True, text=True).stdout.splitlines())


@pytest.mark.parametrize("structure", _abi.STRUCTURES, ids=lambda structure: structure._c_name_)
def test_structures_are_laid_out_as_in_c(said, structure):
    name = structure._c_name_
    assert f"sizeof {name} {ctypes.sizeof(structure)}" in said
    for field, _ in structure._fields_:
        place = getattr(structure, field)
        assert f"{name}.{field} {place.offset} {place.size}" in said


def test_enumerations_have_c_s_values(said):
    for prefix, values in _abi.ENUMS.values():
        for name, value in values.items():
            assert f"{c_name(prefix, name)} {value}" in said
    for line in (f"HL_NONE {_abi.NONE}", f"HL_QUANTILES {_abi.QUANTILES}", f"HL_NO_OFFSET {_abi.NO_OFFSET}",
                 f"HL_DIAG_MESSAGE_SIZE {_abi.MESSAGE_SIZE}"):
        assert line in said


def test_no_enumerator_and_no_field_is_missing():
    text = "".join((REPOSITORY / "include" / "hilora" / f"{name}.h").read_text() for name in ("pool", "route", "session", "status"))
    for prefix, values in _abi.ENUMS.values():
        named = {c_name(prefix, value) for value in values}
        if prefix not in ("HL_MODULE", "HL_NORMALIZED", "HL_ADAPTER"):  # prefixes that other names share
            assert set(re.findall(rf"\b({prefix}_[A-Z0-9_]+)\b(?= *=)", text)) == named


def test_every_exported_function_is_declared():
    listed = {line.strip(" ;\t") for line in (REPOSITORY / "runtime" / "hilora.map").read_text().splitlines()
              if line.strip().startswith("hl_")}
    unused = {"hl_diag_clear", "hl_api_get"}
    assert listed - unused == set(_abi.FUNCTIONS)
