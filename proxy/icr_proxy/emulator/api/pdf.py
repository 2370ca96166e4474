"""The smallest PDF that a viewer opens: one page, one font, a few lines of text."""

from collections.abc import Sequence

_TOP = 760
_LEADING = 22


def render(lines: Sequence[str]) -> bytes:
    """Write lines of text on one page."""
    objects = (
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 5 0 R /Resources 6 0 R >>",
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        _stream(lines),
        b"<< /Font << /F1 4 0 R >> >>",
    )
    # The marker of high bytes tells tools that the file is binary (ISO 32000-1, 7.5.2).
    out = bytearray(b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n")
    offsets = []
    for number, content in enumerate(objects, start=1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%b\nendobj\n" % (number, content)
    table = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    for offset in offsets:
        out += b"%010d 00000 n \n" % offset
    out += b"trailer\n<< /Size %d /Root 1 0 R >>\n" % (len(objects) + 1)
    return bytes(out + b"startxref\n%d\n%%%%EOF\n" % table)


def _stream(lines: Sequence[str]) -> bytes:
    text = b"BT /F1 12 Tf %d TL 60 %d Td\n" % (_LEADING, _TOP)
    for line in lines:
        text += b"(%b) Tj T*\n" % _escaped(line)
    text += b"ET"
    return b"<< /Length %d >>\nstream\n%b\nendstream" % (len(text), text)


def _escaped(line: str) -> bytes:
    raw = line.encode("latin-1", "replace")
    for special in (b"\\", b"(", b")"):
        raw = raw.replace(special, b"\\" + special)
    return raw.replace(b"\r", b" ").replace(b"\n", b" ")
