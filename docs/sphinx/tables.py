"""The tables of `Milter.macros` as a part of a page: what each MTA sends, and could send."""

from Milter.macros import MTAS, STAGES


def _names(names: tuple[str, ...]) -> str:
    return " ".join(f"`{name}`" for name in names) or "nothing"


def macros() -> str:
    """The part of a page that shows them: by stage, then by macro."""
    parts = []
    for mta in MTAS.values():
        parts += [
            f"### {mta.mta}: what it sends at each stage\n",
            f"| stage | macros | setting in `{mta.file}` |\n| --- | --- | --- |",
            *(
                f"| `{stage}` | {_names(mta.sent.get(stage, ()))} | `{mta.settings[stage]}` |"
                for stage in STAGES
            ),
            f"\n### {mta.mta}: what it knows\n",
            "| macro | has a value from | if |\n| --- | --- | --- |",
            *(
                f"| `{name}` | `{macro.since}` on | {macro.when or 'always'} |"
                for name, macro in sorted(
                    mta.known.items(), key=lambda each: (STAGES.index(each[1].since), each[0])
                )
            ),
            "",
        ]
    return "\n".join(parts)
