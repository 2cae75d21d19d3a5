"""The programs under test, run the way a user runs them.

The folder of the programs comes from HILORA_BIN (default: build/release/compiler/cli).
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLES = REPOSITORY / "examples"
FIXTURES = REPOSITORY / "tests" / "fixtures"
TIMEOUT_SECONDS = 120


def bin_folder() -> Path:
    return Path(os.environ.get("HILORA_BIN", REPOSITORY / "build" / "release" / "compiler" / "cli"))


@dataclass(frozen=True)
class Result:
    command: tuple[str, ...]
    status: int
    stdout: str
    stderr: str

    def json(self):
        return json.loads(self.stdout)

    def expect(self, status: int) -> "Result":
        """This result, when the exit status is that; else a failure that shows what the program said."""
        assert self.status == status, f"{' '.join(self.command)}: exit status {self.status}\n{self.stdout}{self.stderr}"
        return self


def run(program: str | Path, *args: object, env: dict[str, str] | None = None, cwd: Path | None = None) -> Result:
    """Runs a program of the build by its name, or any program by its path."""
    path = Path(program) if os.sep in str(program) else bin_folder() / program
    if not path.exists():
        raise FileNotFoundError(f"{path}: not built (cmake --build --preset release, or set HILORA_BIN)")
    command = (str(path), *map(str, args))
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, cwd=cwd,
                          env={**os.environ, **(env or {})})
    return Result(command, done.returncode, done.stdout, done.stderr)


def example_adapters() -> list[Path]:
    return sorted(folder for folder in (EXAMPLES / "adapters").iterdir() if folder.is_dir())


def compile_pool(output: Path, *arguments: object) -> Path:
    """hilora-compile over the adapters and options named in arguments; the pool's path."""
    run("hilora-compile", "-q", "-o", output, *arguments).expect(0)
    return output


def inspect(pool: Path, *arguments: object) -> dict:
    return run("hilora-inspect", "--json", *arguments, pool).expect(0).json()


def export_adapter(pool: Path, name: str, output: Path, *arguments: object) -> Path:
    """hilora-export of one adapter as a PEFT folder; the folder."""
    run("hilora-export", "--adapter", name, "-o", output, *arguments, pool).expect(0)
    return output
