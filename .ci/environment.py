"""Makes the virtual environment in the folder that is given, with the Python that runs this; `make` calls it.

An environment of the same Python is kept, one of another or a damaged one is made anew. What cannot become one is
refused before anything is made. Older Pythons must be able to read this, to be told that they are too old.
"""

import os
import shutil
import subprocess
import sys

OLDEST = (3, 10)
IDENTITY = "import os, sys; print([os.path.realpath(sys.base_prefix), sys.version])"


def main(folder):
    name = ".".join(map(str, sys.version_info[:3]))
    other = "; name another with `make ... PYTHON=python3.12`"
    if sys.version_info[:2] < OLDEST:
        sys.exit("error: Python " + name + " is too old: resnet-surgeon needs 3.10 or newer" + other)
    try:
        import ensurepip  # noqa: F401
        import venv
    except ImportError as error:
        sys.exit("error: Python " + name + " lacks " + str(error.name) + ": on Debian, install python3-venv" + other)
    if os.path.exists(os.path.join(folder, "made")) and identity(folder) == identity():
        return
    is_ours = os.path.exists(os.path.join(folder, "pyvenv.cfg")) or not os.path.isdir(folder) or not os.listdir(folder)
    if not is_ours:
        sys.exit("error: " + folder + " is not a virtual environment: remove it, or name another with `make ... VENV=`")
    try:
        venv.create(folder, clear=identity(folder) != identity(), with_pip=True, symlinks=True)
        with open(os.path.join(folder, "made"), "w") as stamp:
            stamp.write(identity())
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, Exception):
            sys.exit("error: the virtual environment could not be made: " + str(error) + other)
        raise


def identity(folder=None):
    """Which Python this is, or that of an environment; None for one that does not run."""
    command = [os.path.join(folder, "bin", "python") if folder else sys.executable, "-I", "-c", IDENTITY]
    try:
        return subprocess.check_output(command, stderr=subprocess.DEVNULL).decode()
    except (OSError, subprocess.CalledProcessError):
        return None


if __name__ == "__main__":
    main(sys.argv[1])
