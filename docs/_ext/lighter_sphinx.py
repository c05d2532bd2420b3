"""What Sphinx does for every page and every name, without the parts whose result is dropped; and an order of pages that fills processes.

The output is as without this extension. With as many objects as this package documents, what is left out took longer than all else that is
done with pages.
"""

import gc
from functools import lru_cache

from sphinx import addnodes
from sphinx.domains.python import PythonDomain


def setup(app):
    """Take the place of what Sphinx does."""
    gc.set_threshold(100_000, 50, 50)  # trees of pages live long, and looking for garbage among them takes its time
    app.add_domain(PythonNames, override=True)
    app.connect("env-before-read-docs", mix)
    app.connect("html-page-context", shorten_side_bar, priority=400)  # before the theme draws the bar
    return {"parallel_read_safe": True, "parallel_write_safe": True}


class PythonNames(PythonDomain):
    """The Python domain, which goes through all objects for every name in a signature, also for `int` and `Tensor`."""

    ends = (0, frozenset())

    def find_obj(self, env, modname, classname, name, type, searchmode=0):
        """What the parent finds, which is nothing where no object's name ends like this one."""
        if self.ends[0] != len(self.objects):
            self.ends = len(self.objects), frozenset(known.rpartition(".")[2] for known in self.objects)
        if searchmode == 1 and name.removesuffix("()").rpartition(".")[2] not in self.ends[1]:
            return []
        return super().find_obj(env, modname, classname, name, type, searchmode)


def mix(_app, _env, names):
    """Processes are given blocks of neighbours: spread the pages of families, which are slow and would all be in two of these."""
    names[:] = [name for first in range(4) for name in names[first::4]]


@lru_cache(maxsize=1)
def tables_of_titles(env):
    """The tables of contents of all pages with titles and what is below them, but no sections and objects."""
    tables = {name: table.deepcopy() for name, table in env.tocs.items()}
    for table in tables.values():
        for entry in table.children:
            if len(entry) > 1:
                entry[1][:] = list(entry.findall(addnodes.toctree))
                if not len(entry[1]):
                    entry.pop(1)
    return tables


def shorten_side_bar(app, _name, _template, context, _tree):
    """The side bar names pages alone, but Sphinx copies the entries of all objects for it, page by page, and then drops them."""
    draw = context["toctree"]

    def toctree(**options):
        whole = app.env.tocs
        if options.get("titles_only"):
            app.env.tocs = tables_of_titles(app.env)
        try:
            return draw(**options)
        finally:
            app.env.tocs = whole

    context["toctree"] = toctree
