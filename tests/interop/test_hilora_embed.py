"""hilora-embed with an encoder that needs no PyTorch."""

import hashlib
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy
from safetensors import safe_open

import hilora_embed

DIM = 8


class FakeEncoder:
    """A deterministic embedding of length 3 for every text; notes what it was given."""

    def __init__(self, name="fake/encoder", revision="r1", normalizes=False, dim=DIM, scale=3.0):
        self.name, self.revision, self.normalizes, self.dim, self.scale = name, revision, normalizes, dim, scale
        self.texts = []

    def vector(self, text):
        digest = hashlib.sha512(text.encode()).digest()[: self.dim]
        values = np.frombuffer(digest, np.uint8).astype(np.float64) - 127.5
        return self.scale * values / np.linalg.norm(values)

    def encode(self, texts, batch_size):
        self.texts += texts
        return np.array([self.vector(text) for text in texts], dtype=np.float32)


@pytest.fixture
def encoder():
    return FakeEncoder()


@pytest.fixture
def embed(encoder):
    """Runs the program with the fake encoder; keeps what was asked of the loader in embed.loaded."""

    def call(*args):
        def load(name, revision, device):
            call.loaded = (name, revision, device)
            return encoder

        return hilora_embed.main([str(arg) for arg in args], load=load)

    call.loaded = None
    return call


@pytest.fixture
def adapter(tmp_path):
    """adapter(name, texts) -> a folder with samples.jsonl."""

    def make(name="a", texts=("one", "two", "three")):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "samples.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        return folder

    return make


def read(path):
    with safe_open(path, framework="np") as file:
        assert list(file.keys()) == ["embeddings"]
        return file.get_tensor("embeddings"), file.metadata()


def files_of(folder):
    return sorted(path.name for path in folder.iterdir())


# ---- What is written ---------------------------------------------------------------------------------------------


def test_writes_a_row_per_sample_scaled_to_length_one(embed, encoder, adapter):
    folder = adapter()
    assert embed(folder) == 0
    values, metadata = read(folder / "embeddings.safetensors")
    assert values.dtype == np.float32 and values.shape == (3, DIM)
    for row, text in zip(values, ("one", "two", "three")):
        np.testing.assert_allclose(row, encoder.vector(text) / 3, rtol=1e-6)
    assert metadata == {"encoder": "fake/encoder", "revision": "r1", "prefix": "", "normalized": "true"}
    assert files_of(folder) == ["embeddings.safetensors", "samples.jsonl"]


@pytest.mark.parametrize("encoder_normalizes, recorded", [(False, "false"), (True, "true")])
def test_no_normalize_leaves_the_encoder_s_values_and_records_what_they_are(embed, encoder, adapter, encoder_normalizes,
                                                                           recorded):
    encoder.normalizes = encoder_normalizes
    folder = adapter()
    assert embed("--no-normalize", folder) == 0
    values, metadata = read(folder / "embeddings.safetensors")
    np.testing.assert_allclose(np.linalg.norm(values, axis=1), 3, rtol=1e-6)
    assert metadata["normalized"] == recorded


def test_prefix_goes_before_every_text_and_into_the_metadata(embed, encoder, adapter):
    folder = adapter(texts=("one", "two"))
    assert embed("--prefix", "Represent: \u00e4\n", folder) == 0
    assert encoder.texts == ["Represent: \u00e4\none", "Represent: \u00e4\ntwo"]
    assert read(folder / "embeddings.safetensors")[1]["prefix"] == "Represent: \u00e4\n"


def test_equal_input_gives_equal_bytes(embed, adapter):
    first, second = adapter("a"), adapter("b")
    assert embed(first, second) == 0
    content = (first / "embeddings.safetensors").read_bytes()
    assert content == (second / "embeddings.safetensors").read_bytes()
    assert int.from_bytes(content[:8], "little") % 8 == 0, "the data are not aligned"


@pytest.mark.parametrize("name, content", [
    ("samples.jsonl", b'{"text": "one", "more": 1}\n"two"\n'),
    ("samples.jsonl", b'\xef\xbb\xbf{"text": "one"}\r\n\r\n  \n"two"'),
    ("samples.txt", b"one\ntwo\n"),
    ("samples.txt", b"\xef\xbb\xbfone\r\n\r\ntwo"),
])
def test_forms_of_sample_files(embed, encoder, tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert embed(tmp_path) == 0
    assert encoder.texts == ["one", "two"]


def test_file_permissions_follow_the_umask(embed, adapter):
    folder = adapter()
    old = os.umask(0o027)
    try:
        assert embed(folder) == 0
    finally:
        os.umask(old)
    assert (folder / "embeddings.safetensors").stat().st_mode & 0o777 == 0o640


def test_options_reach_the_loader(embed, adapter):
    assert embed("--encoder", "some/model", "--revision", "v2", "--device", "meta", adapter()) == 0
    assert embed.loaded == ("some/model", "v2", "meta")


def test_default_encoder(embed, adapter):
    assert embed(adapter()) == 0
    assert embed.loaded == ("sentence-transformers/all-MiniLM-L6-v2", None, "cpu")


# ---- Faults ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line, reason", [
    (b"{\"text\": 1}", "neither an object"),
    (b"{\"prompt\": \"x\"}", "neither an object"),
    (b"[\"x\"]", "neither an object"),
    (b"{\"text\": \"x\"", "not JSON"),
    (b"[" * 100_000, "nested too deeply"),
    (b"{\"text\": " + b"9" * 10_000 + b"}", "not JSON"),
    (b"\"\\ud800\"", "surrogate"),
    (b"{\"text\": \" \"}", "an empty text"),
    (b"\"caf\xe9\"", "not UTF-8"),
])
def test_bad_line_names_file_and_line(embed, tmp_path, capsys, line, reason):
    (tmp_path / "samples.jsonl").write_bytes(b"\"one\"\n" + line + b"\n\"two\"\n")
    assert embed(tmp_path) == 1
    error = capsys.readouterr().err
    assert re.search(rf"^error: {re.escape(str(tmp_path))}/samples.jsonl: line 2: .*{reason}", error, re.M), error
    assert error.count("\n") == 1
    assert files_of(tmp_path) == ["samples.jsonl"]


def test_all_faults_of_all_folders_are_reported_and_nothing_is_written(embed, adapter, tmp_path, capsys):
    good, bad, empty = adapter("good"), adapter("bad"), adapter("empty", texts=())
    (bad / "samples.jsonl").write_text("1\n\"fine\"\n2\n")
    assert embed(good, bad, empty, tmp_path / "absent") == 3
    error = capsys.readouterr().err
    for expected in ("bad/samples.jsonl: line 1", "bad/samples.jsonl: line 3", "empty/samples.jsonl: holds no text",
                     "absent: no such folder"):
        assert expected in error
    assert files_of(good) == ["samples.jsonl"]
    assert embed.loaded is None, "a bad run must not load the encoder"


def test_input_faults_alone_exit_with_one(embed, adapter):
    assert embed(adapter("empty", texts=())) == 1


def test_one_sample_and_repeated_samples_are_warnings(embed, adapter, capsys):
    assert embed(adapter("single", texts=("one",)), adapter("twice", texts=("x", "y", "x"))) == 0
    error = capsys.readouterr().err
    assert "warning: " in error and "single/samples.jsonl: holds one sample only" in error
    assert re.search(r"^warning: .*twice/samples.jsonl: line 3: the same text as line 1$", error, re.M)


def test_existing_embeddings_need_force(embed, adapter, capsys):
    folder = adapter()
    (folder / "embeddings.safetensors").write_bytes(b"old")
    assert embed(folder) == 3
    assert "--force" in capsys.readouterr().err
    assert (folder / "embeddings.safetensors").read_bytes() == b"old"
    assert embed("--force", folder) == 0
    assert read(folder / "embeddings.safetensors")[0].shape == (3, DIM)


@pytest.mark.parametrize("name", ["embeddings.npy", "embeddings.h5"])
def test_second_embeddings_file_is_refused(embed, adapter, name, capsys):
    folder = adapter()
    (folder / name).touch()
    assert embed("--force", folder) == 1
    assert name in capsys.readouterr().err


def test_two_sample_files_are_refused(embed, adapter):
    folder = adapter()
    (folder / "samples.txt").write_text("one\ntwo\n")
    assert embed(folder) == 1


def test_folder_without_samples(embed, tmp_path, capsys):
    assert embed(tmp_path) == 3
    assert "remedy: write about 20 sample prompts into samples.jsonl" in capsys.readouterr().err


@pytest.mark.parametrize("value, reason", [(np.nan, "not finite"), (np.inf, "not finite"), (0.0, "zero vector")])
def test_encoder_that_gives_nonsense_leaves_the_old_files(embed, encoder, adapter, capsys, value, reason):
    first, second = adapter("a"), adapter("b", texts=("good", "evil"))
    (first / "embeddings.safetensors").write_bytes(b"old")
    original = encoder.vector
    encoder.vector = lambda text: np.full(DIM, value) if text == "evil" else original(text)
    assert embed("--force", first, second) == 1
    error = capsys.readouterr().err
    assert "b/samples.jsonl" in error and reason in error and "text 2" in error
    assert (first / "embeddings.safetensors").read_bytes() == b"old"
    assert files_of(first) == ["embeddings.safetensors", "samples.jsonl"]
    assert files_of(second) == ["samples.jsonl"]


def test_encoder_that_fails(embed, encoder, adapter, capsys):
    def encode(texts, batch_size):
        raise RuntimeError("out of device memory")

    encoder.encode = encode
    folder = adapter()
    assert embed(folder) == 3
    assert "samples.jsonl: the encoder failed: out of device memory" in capsys.readouterr().err
    assert files_of(folder) == ["samples.jsonl"]


def test_encoder_that_cannot_be_loaded(adapter, capsys):
    def load(name, revision, device):
        raise hilora_embed.EncoderError("no such model", "look again")

    assert hilora_embed.main(["--encoder", "x/y", str(adapter())], load=load) == 3
    assert capsys.readouterr().err == "error: x/y: no such model (remedy: look again)\n"


def test_failed_rename_leaves_no_temporary_file(embed, adapter, monkeypatch, capsys):
    folder = adapter()

    def refuse(source, target):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(hilora_embed.os, "replace", refuse)
    assert embed(folder) == 3
    assert "Permission denied" in capsys.readouterr().err
    assert files_of(folder) == ["samples.jsonl"]


def test_names_cannot_forge_lines(embed, tmp_path, capsys):
    assert embed(tmp_path / "x\nerror: forged") == 3
    assert "\\x0Aerror: forged" in capsys.readouterr().err


# ---- Prompts -----------------------------------------------------------------------------------------------------


def test_prompts_go_into_an_npy_file_in_their_order(embed, encoder, tmp_path):
    (tmp_path / "more.txt").write_text("three\n")
    assert embed("--text", "one", "--text", "two", "--prompts", tmp_path / "more.txt", "-o", tmp_path / "q.npy") == 0
    values = np.load(tmp_path / "q.npy", allow_pickle=False)
    assert values.dtype == np.dtype("<f4") and values.flags.c_contiguous
    np.testing.assert_allclose(values, [encoder.vector(text) / 3 for text in ("one", "two", "three")], rtol=1e-6)


def test_prompts_into_safetensors_carry_the_metadata(embed, tmp_path):
    assert embed("--text", "one", "--prefix", "p: ", "-o", tmp_path / "q.safetensors") == 0
    values, metadata = read(tmp_path / "q.safetensors")
    assert values.shape == (1, DIM) and metadata["prefix"] == "p: "


def test_prompt_output_is_replaced_only_by_success(embed, encoder, tmp_path):
    (tmp_path / "q.npy").write_bytes(b"old")
    vector, encoder.vector = encoder.vector, lambda text: np.full(DIM, np.nan)
    assert embed("--text", "x", "-o", tmp_path / "q.npy") == 1
    assert (tmp_path / "q.npy").read_bytes() == b"old"
    encoder.vector = vector
    assert embed("--text", "x", "-o", tmp_path / "q.npy") == 0
    assert np.load(tmp_path / "q.npy").shape == (1, DIM)


def test_output_through_a_link_and_with_the_longest_name(embed, tmp_path):
    real, link, long = tmp_path / "real.npy", tmp_path / "link.npy", tmp_path / ("n" * 251 + ".npy")
    real.write_bytes(b"old")
    link.symlink_to("real.npy")
    assert embed("--text", "x", "-o", link) == 0 and embed("--text", "x", "-o", long) == 0
    assert link.is_symlink() and real.read_bytes() == long.read_bytes() != b"old"
    assert len(list(tmp_path.iterdir())) == 3


def test_output_that_is_a_pipe(embed, tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe.npy")
    assert embed("--text", "x", "-o", tmp_path / "pipe.npy") == 3
    assert "special file" in capsys.readouterr().err and (tmp_path / "pipe.npy").is_fifo()


def test_output_that_is_a_folder_or_has_none(embed, tmp_path):
    (tmp_path / "q.npy").mkdir()
    assert embed("--text", "x", "-o", tmp_path / "q.npy") == 3
    assert embed("--text", "x", "-o", tmp_path / "no" / "q.npy") == 3


# ---- --like ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("normalize", ["--normalize", "--no-normalize"])
@pytest.mark.parametrize("as_folder", [True, False])
def test_like_takes_the_settings_over(embed, encoder, adapter, tmp_path, normalize, as_folder):
    folder = adapter()
    assert embed("--encoder", "my/model", "--prefix", "p: ", normalize, folder) == 0
    like = folder if as_folder else folder / "embeddings.safetensors"
    assert embed("--like", like, "--text", "one", "-o", tmp_path / "q.npy") == 0
    assert embed.loaded == ("fake/encoder", "r1", "cpu")
    np.testing.assert_array_equal(np.load(tmp_path / "q.npy")[0], read(folder / "embeddings.safetensors")[0][0])


def test_like_notices_another_encoder_by_its_embeddings(embed, encoder, adapter, tmp_path, capsys):
    folder = adapter()
    assert embed(folder) == 0
    vector = encoder.vector
    encoder.vector = lambda text: vector(text + " in another model")
    assert embed("--like", folder, "--text", "one", "-o", tmp_path / "q.npy") == 1
    assert "gives another embedding" in capsys.readouterr().err
    assert not (tmp_path / "q.npy").exists()


def test_like_without_samples_warns_of_another_revision(embed, encoder, adapter, tmp_path, capsys):
    folder = adapter()
    assert embed(folder) == 0
    (folder / "samples.jsonl").unlink()
    assert embed("--like", folder, "--text", "one", "-o", tmp_path / "q.npy") == 0
    assert "warning" not in capsys.readouterr().err
    encoder.revision = "r2"
    assert embed("--like", folder, "--text", "one", "-o", tmp_path / "q.npy") == 0
    assert "warning" in capsys.readouterr().err


def test_like_refuses_another_dimension(embed, encoder, adapter, tmp_path, capsys):
    folder = adapter()
    assert embed(folder) == 0
    (folder / "samples.jsonl").unlink()
    encoder.dim = DIM + 1
    assert embed("--like", folder, "--text", "one", "-o", tmp_path / "q.npy") == 1
    assert "dimension 9" in capsys.readouterr().err


def safetensors_of(metadata):
    return safetensors.numpy.save({"embeddings": np.ones((1, DIM), np.float32)}, metadata)


@pytest.mark.parametrize("content, status", [
    (None, 3),
    (b"", 1),
    (b"version https://git-lfs.github.com/spec/v1\n", 1),
    (b"\x02\0\0\0\0\0\0\0{}", 1),
    (safetensors_of({}), 1),
    (safetensors_of({"encoder": "fake/encoder", "revision": "r1", "prefix": ""}), 1),
    (safetensors_of({"normalized": "true", "revision": "r1", "prefix": ""}), 1),
])
def test_like_refuses_what_is_no_embeddings_file(embed, tmp_path, content, status, capsys):
    if content is not None:
        (tmp_path / "e.safetensors").write_bytes(content)
    assert embed("--like", tmp_path / "e.safetensors", "--text", "x", "-o", tmp_path / "q.npy") == status
    assert str(tmp_path / "e.safetensors") in capsys.readouterr().err


# ---- The command line --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("args", [
    [],
    ["--text", "x"],
    ["--text", "x", "-o", "q.txt"],
    ["--text", " ", "-o", "q.npy"],
    ["--text", "x", "-o", "q.npy", "folder"],
    ["-o", "q.npy", "folder"],
    ["--prompts", "p.csv", "-o", "q.npy"],
    ["--prompts", "p.txt", "-o", "p.txt"],
    ["--like", "q.safetensors", "--text", "x", "-o", "q.safetensors"],
    ["--like", "folder", "--prefix", "p", "--text", "x", "-o", "q.npy"],
    ["--like", "folder", "--no-normalize", "other"],
    ["--batch-size", "0", "folder"],
    ["--batch-size", "many", "folder"],
    ["--encoder", ".", "--revision", "main", "folder"],
    ["--text", "\udce9", "-o", "q.npy"],
    ["folder", "./folder"],
    ["--unknown", "folder"],
])
def test_misuse_exits_with_two(embed, args, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit_info:
        embed(*args)
    assert exit_info.value.code == 2
    assert "usage: hilora-embed" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_options_may_stand_after_operands(embed, encoder, adapter):
    assert embed(adapter("a"), "--prefix", "p: ", adapter("b"), "-q") == 0
    assert encoder.texts[0] == "p: one" and len(encoder.texts) == 6


def test_quiet(embed, adapter, capsys):
    assert embed("-q", adapter("a")) == 0
    assert capsys.readouterr() == ("", "")
    assert embed(adapter("b")) == 0
    output, error = capsys.readouterr()
    assert output == "" and error == "hilora-embed: 3 texts into 1 file, fake/encoder\n"


def test_help_and_version(repository):
    program = [sys.executable, repository / "tools" / "hilora_embed.py"]
    version = subprocess.run([*program, "--version"], capture_output=True, text=True)
    project = re.search(r"project\(hilora VERSION ([0-9.]+)", (repository / "CMakeLists.txt").read_text())[1]
    assert (version.returncode, version.stdout, version.stderr) == (0, f"hilora-embed {project}\n", "")
    usage = subprocess.run([*program, "--help"], capture_output=True, text=True)
    assert usage.returncode == 0 and usage.stdout.startswith("usage: hilora-embed") and not usage.stderr
