"""Rendering of the Jinja2 templates that lie in the folder beside this module."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

TEMPLATES = Path(__file__).with_name("templates")
_ENVIRONMENT = Environment(
    loader=FileSystemLoader(TEMPLATES),
    autoescape=select_autoescape(enabled_extensions=("html.jinja",)),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.filters |= {"thousands": "{:,}".format, "fixed": "{:.4f}".format}


def rendered(template: str, **values: object) -> str:
    """A template with these values in it, which are escaped in HTML and left as they are in
    Markdown."""
    return _ENVIRONMENT.get_template(template).render(values)
