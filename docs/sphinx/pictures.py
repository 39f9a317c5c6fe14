"""Mermaid's flowcharts and state diagrams as pictures in the pages, by Graphviz: Mermaid itself
needs a browser, and its library from the network. Only what our pages use is known; another line is
a warning. Without Graphviz a diagram's text is shown."""

import re
import shutil

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.ext.graphviz import graphviz
from sphinx.util.docutils import SphinxDirective

_NODE = re.compile(r'(\[\*\]|\w+)(?:(\[\()"(.+?)"\)\]|\["(.+?)"\]|\[(.+?)\])?')
_EDGE = re.compile(r' (?:(--|-\.) "?(.+?)"? )?(?:-->|\.->) ')
_GROUP = re.compile(r'subgraph (\w+)\["(.+)"\]')
_LOOK = """
    graph [compound=true, bgcolor=transparent, fontname="sans-serif", fontsize=11, color=gray]
    node [fontname="sans-serif", fontsize=11, shape=box, style="rounded,filled"]
    node [fillcolor="#f0f4f8"]
    edge [fontname="sans-serif", fontsize=10, arrowsize=0.7]"""


def dot_of(mermaid: str) -> str:
    """A diagram in Graphviz's language. Raises ValueError with a line that is not known."""
    first, *lines = (line.strip() for line in mermaid.strip().splitlines())
    kind, _, direction = first.partition(" ")
    if kind not in ("flowchart", "stateDiagram-v2"):
        raise ValueError(first)
    groups: dict[str, str] = {}  # name -> a node in it: edges to a group end at its border
    group, fresh = "", False
    out = [f"rankdir={direction or 'TB'}".replace("TD", "TB")]
    for line in lines:
        if found := _GROUP.fullmatch(line):
            group, fresh = found[1], True
            out.append(f"subgraph cluster_{group} {{ label={_quoted(found[2])}")
        elif line == "end":
            out.append("}")
            group = ""
        else:
            made, names = _chain(line, groups, state=kind != "flowchart")
            out += made
            if group and fresh:
                groups[group], fresh = names[0], False
    body = "\n    ".join(out)
    return f"digraph {{{_LOOK}\n    {body}\n}}"


def _chain(line: str, groups: dict[str, str], *, state: bool) -> tuple[list[str], list[str]]:
    """Nodes with edges between them, in a line: what Graphviz is told, and the nodes' names."""
    line, _, after = line.partition(": ") if state else (line, "", "")
    made, names, at, edge = [], [], 0, None
    while found := _NODE.match(line, at):
        name, at = found[1], found.end()
        if name == "[*]":
            name, shape = ("end", "doublecircle") if names else ("start", "circle")
            made.append(f'{name} [label="", shape={shape}, width=0.15, fillcolor=black]')
        elif text := found[3] or found[4] or found[5]:
            shape = ", shape=cylinder" if found[2] else ""
            made.append(f"{name} [label={_quoted(text)}{shape}]")
        if edge:
            style = "dashed" if edge[1] == "-." else "solid"
            head = f", lhead=cluster_{name}" if name in groups else ""
            label = _quoted(edge[2] or after)
            made.append(
                f"{names[-1]} -> {groups.get(name, name)} [label={label}, style={style}{head}]"
            )
        names.append(name)
        if at == len(line):
            return made, names
        edge = _EDGE.match(line, at)
        if edge is None:
            break
        at = edge.end()
    raise ValueError(line)


def _quoted(text: str) -> str:
    words, lines = text.split(), [""]
    for word in words:
        if len(lines[-1]) + len(word) > 28:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return '"' + "\\n".join(lines).replace('"', '\\"') + '"'


class _Mermaid(SphinxDirective):
    has_content = True

    def run(self) -> list[nodes.Node]:
        text = "\n".join(self.content)
        try:
            code = dot_of(text)
        except ValueError as error:
            return [self.state.document.reporter.warning(f"diagram: not known: {error}")]
        if not shutil.which("dot"):
            return [nodes.literal_block(text, text)]
        return [graphviz(code=code, options={"docname": self.env.docname}, alt=text)]


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.setup_extension("sphinx.ext.graphviz")
    app.add_directive("mermaid", _Mermaid)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
