import fresh


def pytest_configure(config):
    # Patterns that match nothing are there on purpose; the rest comes from inside the pinned libraries.
    config.addinivalue_line("filterwarnings", "ignore:The following (rank|alpha)_pattern keys:RuntimeWarning")
    config.addinivalue_line("filterwarnings", "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


def pytest_terminal_summary(terminalreporter):
    terminalreporter.write_line(f"fresh adapters were those of HILORA_SEED={fresh.SEED}")
