"""Version of this program: the one installed, or that of this checkout."""

from importlib.metadata import PackageNotFoundError, version

DISTRIBUTION = "espalier-nas"
"""Name on the package index, where `espalier` is another project."""


def installed_version() -> str:
    """The version of the installed distribution; "source" where there is none."""
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return "source"
