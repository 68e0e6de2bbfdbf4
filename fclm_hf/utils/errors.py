"""Errors that `except Exception` does not catch."""


def is_panic(error: BaseException) -> bool:
    """Return whether an error is a panic of Rust code, as that of tokenizers, which `except Exception` does not catch.

    Example:
        >>> is_panic(ValueError())
        False
    """
    return type(error).__name__ == "PanicException"
