"""Whether values.schema.json describes each value as values.yaml does, whose comments the chart's README is made from.

    values.py VALUES SCHEMA            says where they differ
    values.py --write VALUES SCHEMA    takes the descriptions over into SCHEMA
"""

import json
import re
import sys


def comments(path):
    """By path of a value, such as ("image", "tag"): the comment before it, which `# --` begins."""
    found, at, comment = {}, [], None
    with open(path) as file:
        for line in file:
            words = re.match(r"\s*#( -- | ?)(.*)", line)
            key = re.match(r"( *)([A-Za-z]\w*):", line)
            if words and words[1] == " -- ":
                comment = words[2]
            elif words and comment:
                comment += " " + words[2]
            elif key:
                del at[len(key[1]) // 2 :]
                at.append(key[2])
                found[tuple(at)] = comment
                comment = None
            else:
                comment = None
    return found


def described(schema, at=()):
    """Yields the path and the schema of each value, whatever a value holds."""
    for name, it in schema.get("properties", {}).items():
        yield (*at, name), it
        yield from described(it, (*at, name))


def main():
    write = sys.argv[1] == "--write"
    values, path = sys.argv[1 + write :]
    said = comments(values)
    with open(path) as file:
        schema = json.load(file)
    schemas = dict(described(schema))
    wrong = [f"{'.'.join(it)}: not in {path}" for it in said.keys() - schemas.keys() if said[it]]
    wrong += [f"{'.'.join(it)}: not in {values}" for it in schemas.keys() - said.keys()]
    for at in said.keys() & schemas.keys():
        was = schemas[at].get("description")
        if was != said[at]:
            wrong.append(f"{'.'.join(at)}:\n  {values}: {said[at]}\n  {path}: {was}")
            if write and said[at]:
                schemas[at]["description"] = said[at]
    if write:
        with open(path, "w") as file:
            json.dump(schema, file, indent=2, ensure_ascii=False)
            file.write("\n")
    elif wrong:
        sys.exit("\n".join(f"values: {it}" for it in sorted(wrong)))


main()
