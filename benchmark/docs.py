"""The command line of the documentation: pages whose numbers come from the records.

    python -m benchmark.docs                   docs/_templates -> README.md and docs/
    python -m benchmark.docs --check           writes nothing; exit code 1 where a page is not current
    python -m benchmark.docs --written-about   says that the texts were read again and are true of today's records

How to write a template: ``benchmark.findings.texts``. A page that has no template is left alone.
"""

from pathlib import Path
from typing import Annotated

from typer import Option

from .cli import Claims, Params, Records, command, console
from .findings.claims import judge, overview, read_claims
from .findings.tables import open_results
from .findings.texts import TEMPLATES, WRITTEN_ABOUT, Numbers, digest, environment, located, written_about
from .records import read_json, write_json, write_text

MADE = "<!-- Made from {template} by python -m benchmark.docs: change the template, not this file. -->\n"


def pages(templates: Path, numbers: Numbers) -> dict[Path, str]:
    """Every page and its text: README.md lies above the folder that the templates' folder is in, the others in it."""
    docs, made = templates.parent, {}
    loaded = environment(numbers, templates)
    for path in sorted(templates.rglob("*.md")):
        name = path.relative_to(templates).as_posix()
        if not name.startswith("claims/"):
            with located(templates):
                text = loaded.get_template(name).render()
            comment = MADE.format(template=path.relative_to(docs.parent).as_posix())
            made[(docs.parent if name == "README.md" else docs) / name] = comment + text
    return made


@command
def main(
    params: Params = Path("params.yaml"),
    results: Records = Path("results"),
    claims: Claims = Path("claims.yaml"),
    templates: Annotated[Path, Option(help="The folder with the templates.")] = TEMPLATES,
    check: Annotated[bool, Option("--check", help="Write nothing; name the pages that are not current.")] = False,
    note: Annotated[bool, Option("--written-about", help="First note that the texts are true of the records.")] = False,
) -> int:
    """Fill README.md and docs/ with the numbers of the first suite's records. The same records give the same bytes."""
    first, *_ = loaded = open_results(params, results)
    if note:
        known = read_json(templates / WRITTEN_ABOUT) or {}
        write_json(templates / WRITTEN_ABOUT, known | {part.suite: digest(part) for part in loaded})
    if not written_about(first, templates):
        console.print(f"The texts in {templates} were written about other records than those in {results}.")
        console.print("No page is made. Read the texts again, correct them, then add --written-about.")
        return int(check)
    verdicts = [judge(claim, first) for claim in read_claims(claims)]
    numbers = Numbers(first, verdicts, {"verdicts": overview(verdicts)})
    made = pages(templates, numbers)
    stale = [path for path in made if not path.is_file() or path.read_text(encoding="utf-8") != made[path]]
    for path in stale:
        console.print(f"{path}: {'not current' if check else 'written'}")
        if not check:
            write_text(path, made[path])
    return int(check and bool(stale))


if __name__ == "__main__":
    main()
