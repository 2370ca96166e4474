"""Prints how large the program is: modules, lines, largest function. `make figures`."""

import ast
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[2] / "proxy" / "icr_proxy"


def figures() -> str:
    """Measure every module of the product."""
    files = sorted(path for path in ROOT.rglob("*.py") if path.name != "__init__.py")
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    folders: dict[Path, list[int]] = {}
    for path, length in lines.items():
        folders.setdefault(path.parent, []).append(length)
    rows = [
        f"{folder.relative_to(ROOT.parent)!s:32} {len(each):3} modules {sum(each):6} lines"
        for folder, each in folders.items()
    ]
    longest = max(lines, key=lines.__getitem__)
    size, name = max(_functions(path) for path in files)
    return "\n".join(
        [
            *rows,
            f"{len(files)} modules, {sum(lines.values())} lines, median {median(lines.values()):g}",
            f"longest module: {longest.relative_to(ROOT.parent)}, {lines[longest]} lines",
            f"largest function: {name}, {size} lines",
        ]
    )


def _functions(path: Path) -> tuple[int, str]:
    """Give the largest function of a module, without its docstring and its decorators."""
    found = [(0, "")]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = node.body[0] if ast.get_docstring(node) else None
            said = docstring.end_lineno - docstring.lineno + 1 if docstring else 0  # type: ignore[operator]
            size = (node.end_lineno or node.lineno) - node.lineno + 1 - said
            found.append((size, f"{path.relative_to(ROOT.parent)}:{node.lineno} {node.name}"))
    return max(found)


if __name__ == "__main__":
    print(figures())  # noqa: T201
