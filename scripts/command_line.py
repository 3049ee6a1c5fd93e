"""What every command line here shares: the script's docstring as its --help, and faults that end in one sentence.

Importing it is enough for the second, so scripts do that before the packages that may not be installed. A fault of the
world (a package, a file, Ctrl-C) is told in a sentence; every other one is ours and keeps its traceback.
"""

import argparse
import math
import os
import sys


def parser(docstring):
    """An argument parser whose --help begins with the script's docstring, line breaks and all."""
    return argparse.ArgumentParser(description=docstring, formatter_class=argparse.RawDescriptionHelpFormatter)


def spelled(p, args, without):
    """The script and its options as one would type them: those of `args` that are no defaults, nor in `without`."""
    words = [f"scripts/{p.prog}"]
    for action in p._actions:
        value = getattr(args, action.dest, action.default)
        if action.dest in without or value == action.default:
            continue
        if isinstance(value, bool):
            words.append(f"--{action.dest}" if value else f"--no-{action.dest}")
        else:
            text = ",".join(map(str, value)) if isinstance(value, tuple) else f"{value:g}" if isinstance(value, float) else str(value)
            words += [action.option_strings[0], text]
    return " ".join(words)


def whole(least):
    """The type of an argument: a whole number of at least `least`."""

    def parse(text):
        if text.isascii() and text.isdigit() and int(text) >= least:
            return int(text)
        raise argparse.ArgumentTypeError(f"expected a whole number of at least {least}, got {text!r}")

    return parse


def number(expected, accepts):
    """The type of an argument: a number that `accepts` says yes to; `expected` is what that means."""

    def parse(text):
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if accepts(value):
            return value
        raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}")

    return parse


count = whole(1)
seed = whole(0)
amount = number("a number above 0", lambda value: 0 < value < math.inf)
amount_or_none = number("a number of at least 0", lambda value: 0 <= value < math.inf)
share = number("a number from 0 to 1", lambda value: 0 <= value <= 1)
guidance = number("a number from 0 to 20", lambda value: 0 <= value <= 20)


def sentence(fault):
    """What to tell of a fault of the world; None where the fault is ours."""
    if isinstance(fault, ModuleNotFoundError):
        return f"the Python package {fault.name} is not installed: pip install -r scripts/requirements.txt"
    if isinstance(fault, OSError) and fault.filename is not None:
        return f"{fault.filename}: {fault.strerror.lower()}"
    if isinstance(fault, KeyboardInterrupt):
        return "stopped"
    return None


def explain(kind, fault, trace):
    """sys.excepthook: one sentence, or the traceback."""
    told = sentence(fault)
    if told is None:
        sys.__excepthook__(kind, fault, trace)
    else:
        print(f"{os.path.basename(sys.argv[0])}: {told}", file=sys.stderr)


sys.excepthook = explain
