"""XML as far as OpenVINO writes it: elements with attributes and texts, no DOCTYPE, no entities."""

import re
from typing import NamedTuple
from xml.etree.ElementTree import ParseError, XMLParser

from refrnn.files.errors import FileError, clip, shown

MAX_XML = 64 << 20  # bytes; an operation takes about 500
MAX_DEPTH = 32
MAX_ELEMENTS = 1_000_000
FORBIDDEN = re.compile(r"<!\s*(DOCTYPE|ENTITY)", re.IGNORECASE)


class Element(NamedTuple):
    tag: str
    attributes: dict[str, str]
    children: "list[Element]"
    text: list[str]

    def all(self, tag: str) -> "list[Element]":
        return [child for child in self.children if child.tag == tag]

    def one(self, tag: str) -> "Element":
        """The first child of that name, an empty one where there is none."""
        return next(iter(self.all(tag)), Element(tag, {}, [], []))


class _Builder:
    """What the parser tells of a file, as elements."""

    def __init__(self) -> None:
        self.open = [Element("", {}, [], [])]
        self.left = MAX_ELEMENTS

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        self.left -= 1
        if len(self.open) > MAX_DEPTH or self.left < 0:
            raise FileError(
                f"has elements {MAX_DEPTH} deep or more than {MAX_ELEMENTS}, expected fewer"
            )
        element = Element(tag, attributes, [], [])
        self.open[-1].children.append(element)
        self.open.append(element)

    def end(self, tag: str) -> None:
        self.open.pop()

    def data(self, text: str) -> None:
        self.open[-1].text.append(text)

    def close(self) -> Element:
        return self.open[0]


def parse(data: bytes) -> Element:
    """The root element. Raises FileError for what is no XML, or declares entities."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise FileError(f"is no UTF-8 from byte {error.start} on, expected XML") from None
    if FORBIDDEN.search(text):
        raise FileError("declares a DOCTYPE or an entity, expected none: OpenVINO writes none")
    builder = _Builder()
    parser = XMLParser(target=builder)
    try:
        parser.feed(text)
        parser.close()
    except (ParseError, ValueError) as error:
        if isinstance(error, FileError):
            raise
        raise FileError(f"is no XML: {clip(str(error))}") from None
    roots = builder.open[0].children
    if len(roots) != 1:
        raise FileError(f"has the elements {shown([e.tag for e in roots])}, expected one")
    return roots[0]
