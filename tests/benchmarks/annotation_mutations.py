"""Mutations of annotation files: of JSON values, XML elements and lines, and of bytes. Shared by annotations_fuzz.py."""

import encodings.aliases
import json
import random
import xml.etree.ElementTree as ElementTree

DEEP = "DEEP NESTING"  # stands for a list of DEPTH levels
DEPTH = 100_000
VALUES = (None, True, False, "", "abc", "1", " 1 ", "1.0", "nan", "ünïcødé", "../../etc/passwd", "a\x00b", "x" * 5000, -1, 0, 1, 0.5, -0.0,
          1.5e308, float("inf"), float("-inf"), float("nan"), 2**31, 2**63, 2**64 + 1, -2**70, 10**400, [], {}, [[]], [None], {"id": 1},
          [1, 2], [1, 2, 3, 4], ["1", "2", "3", "4"], "\ud800", DEEP)
TEXTS = ("", "abc", "-1", "0", "1", "1e309", "nan", "inf", " 7 ", "7.5", "None", "1" * 5000, "99999999999", "True", "ü", "a b", "../a")
LINES = ("", " ", "-1", "a b c", '"a b"', '"', "../../x", "/etc/passwd", "C:\\a\\b.jpg", "x" * 100_000, "0 nan nan nan nan",
         "0 1e400 1 1 1", "99999999999999999999 0.5 0.5 0.1 0.1", "0 0.5 0.5 0.5", "\x00", "\ufeffa", "a -1", "a 1", "- [1", "{",
         "&a *a", "<<: *x", "? [a]: b", "!!python/x y")
ENCODINGS = sorted({*encodings.aliases.aliases.values(), "unknown", "utf8", "idna", "punycode", "hex", "unicode_escape", "x" * 300, ""})


def mutate(content: bytes, name: str, rng: random.Random) -> bytes:
    """Returns a mutated copy of a file: one to three mutations, of its structure or of its bytes."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        structural = {"json": mutate_json, "xml": mutate_xml}.get(name.rsplit(".", 1)[-1], mutate_lines)
        try:
            content = structural(content, rng) if rng.random() < 0.7 else mutate_bytes(content, rng)
        except (ValueError, LookupError, RecursionError, ElementTree.ParseError, Warning):  # an earlier mutation has broken the structure
            content = mutate_bytes(content, rng)
    return content


def mutate_json(content: bytes, rng: random.Random) -> bytes:
    tree = [json.loads(content)]
    places = list(_places(tree))
    container, key = rng.choice(places)
    action = rng.choice(("delete", "replace", "replace", "replace", "duplicate", "swap", "rename", "retype"))
    if action == "replace":
        container[key] = rng.choice(VALUES)
    elif action == "retype":
        container[key] = rng.choice((str, lambda value: [value], lambda value: {"value": value}, json.dumps))(container[key])
    elif action == "swap":
        other, other_key = rng.choice(places)
        container[key], other[other_key] = other[other_key], container[key]
    elif action == "duplicate" and isinstance(container, list):
        container.insert(rng.randint(0, len(container)), container[key])
    elif action == "rename" and isinstance(container, dict):
        container[rng.choice((key.upper(), key + "s", "id", ""))] = container.pop(key)
    elif container is not tree:
        del container[key]
    text = json.dumps(tree[0] if tree else None)
    return text.replace(f'"{DEEP}"', "[" * DEPTH + "]" * DEPTH).encode()


def _places(value):
    """Yields (container, key) of every value inside `value`."""
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], (dict, list)):
            yield from _places(value[key])


def mutate_xml(content: bytes, rng: random.Random) -> bytes:
    root = ElementTree.fromstring(content)
    elements = list(root.iter())
    element, other = rng.choice(elements), rng.choice(elements)
    parent = next((parent for parent in elements if element in list(parent)), root)
    action = rng.choice(("delete", "text", "text", "text", "duplicate", "rename", "move", "deep", "entity", "declare", "declare"))
    if action == "delete" and element is not root:
        parent.remove(element)
    elif action == "text":
        element.text = rng.choice(TEXTS)
    elif action == "duplicate":
        parent.append(element if element is not root else ElementTree.Element("object"))
    elif action == "rename":
        element.tag = rng.choice(("object", "polygon", "points", "part", "bndbox", "x1", "Name", element.tag.upper()))
    elif action == "move" and element not in list(other.iter()):
        element.append(other)
    text = ElementTree.tostring(root, encoding="unicode")
    if action == "deep":
        tag = rng.choice(("object", "polygon", "part", "annotation"))
        text = text.replace("</annotation>", f"<{tag}>" * DEPTH + f"</{tag}>" * DEPTH + "</annotation>", 1)
    if action == "entity":
        text = _billion_laughs() + text.replace("</name>", "&e9;</name>", 1)
    if action == "declare":
        name = rng.choice(ENCODINGS)
        try:
            return f'<?xml version="1.0" encoding="{name}"?>{text}'.encode(rng.choice((name, "utf-8")))
        except (LookupError, ValueError):
            return f'<?xml version="1.0" encoding="{name}"?>{text}'.encode()
    return text.encode()


def _billion_laughs() -> str:
    entities = "".join(f'<!ENTITY e{level} "{f"&e{level - 1};" * 10}">' for level in range(1, 10))
    return f'<!DOCTYPE annotation [<!ENTITY e0 "lol">{entities}]>'


def mutate_lines(content: bytes, rng: random.Random) -> bytes:
    """Mutates lists, label files and YAML."""
    lines = content.decode().split("\n")
    index = rng.randrange(len(lines))
    action = rng.choice(("delete", "replace", "insert", "duplicate", "swap", "word", "word", "word", "join", "quote", "ending", "deep"))
    words = lines[index].split(" ")
    if action == "delete":
        del lines[index]
    elif action == "duplicate":
        lines.insert(rng.randint(0, len(lines)), lines[index])
    elif action == "swap":
        other = rng.randrange(len(lines))
        lines[index], lines[other] = lines[other], lines[index]
    elif action == "word":
        words[rng.randrange(len(words))] = rng.choice((*TEXTS, "[1, 2]", "{a: 1}", "null", "~", "2026-01-01", "0x1F", "1_000", ".nan"))
        lines[index] = " ".join(words)
    else:
        lines[index] = {"join": lines[index] + (lines[index + 1] if index + 1 < len(lines) else ""), "quote": f'"{lines[index]}"',
                        "replace": rng.choice(LINES), "insert": lines[index] + "\n" + rng.choice(LINES),
                        "ending": lines[index] + rng.choice((".jpg", ".xml", ".json", "\\", "/", "\r", "\t")),
                        "deep": lines[index] + "[" * 5000}[action]
    return "\n".join(lines).encode()


def mutate_bytes(content: bytes, rng: random.Random) -> bytes:
    data = bytearray(content)
    first, last = sorted(rng.randint(0, len(data)) for _ in range(2))
    action = rng.choice(("flip", "flip", "flip", "cut", "insert", "delete", "repeat", "empty", "encode", "mark"))
    if action == "flip" and data:
        for _ in range(rng.choice((1, 1, 3, 20))):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif action == "cut":
        del data[first:]
    elif action == "insert":
        data[first:first] = rng.randbytes(rng.choice((1, 2, 10, 1000)))
    elif action == "delete":
        del data[first:first + rng.choice((1, 5, last - first))]
    elif action == "repeat":
        data[last:last] = data[first:last]
    elif action == "empty":
        return rng.choice((b"", b"\x00", b" \n", b"null", b"\xff\xfe", b"{}", b"[]"))
    elif action == "encode":
        text = content.decode("utf-8", "replace")
        return text.encode(rng.choice(("utf-16", "utf-16-le", "utf-32", "utf-8-sig", "latin-1", "cp1252", "gbk", "utf-7", "cp037")),
                           "replace")
    elif action == "mark":
        return rng.choice((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")) + content
    return bytes(data)
