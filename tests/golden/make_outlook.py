"""Write tests/data/outlook.msg with extract-msg, and check by extract-msg what it holds.

    python -m tests.golden.make_outlook          (pip install extract-msg==0.57.0)

A mail in 8-bit strings of code page 936, with characters that GB2312 lacks, a body in HTML, a text file, a
picture that stands in the HTML, and two messages inside: one whose text is in compressed Rich Text only, one
that has a message inside itself.
"""

import struct
from pathlib import Path

import compressed_rtf
import extract_msg
from extract_msg import OleWriter
from extract_msg.enums import ErrorBehavior

TARGET = Path(__file__).parents[1] / "data" / "outlook.msg"
STRING8, UNICODE, BINARY, INT32, BOOL = 0x001E, 0x001F, 0x0102, 0x0003, 0x000B
HTML = (
    '<html><head><meta charset="gbk"></head><body><p>喆总：报价见附件，合计 38,000 元。</p>'
    "<table><tr><th>品名</th><th>数量</th></tr><tr><td>轴承</td><td>12</td></tr></table>"
    '<img src="cid:logo@quarry"></body></html>'
)
RTF = rb"{\rtf1\ansi\ansicpg936\deff0{\fonttbl{\f0\fcharset134 SimSun;}}" + (
    rb"\f0 " + "".join(f"\\'{b:02x}" for b in "交货期为三十天。".encode("gbk")).encode() + rb"\par "
    rb"Delivery takes thirty days, thirty days at most, and thirty days from the order.\par}"
)


def add(writer: OleWriter, place: list[str], header: int, properties: dict[int, tuple[int, object]]) -> None:
    """Write the properties of one message, recipient or attachment."""
    rows = b""
    for key, (kind, value) in properties.items():
        if kind in (INT32, BOOL):
            rows += struct.pack("<IIII", key << 16 | kind, 6, int(value), 0)
            continue
        data = value if isinstance(value, bytes) else value.encode("gbk" if kind == STRING8 else "utf-16-le")
        writer.addEntry([*place, f"__substg1.0_{key:04X}{kind:04X}"], data)
        extra = {STRING8: 1, UNICODE: 2, BINARY: 0}[kind]
        rows += struct.pack("<IIII", key << 16 | kind, 6, len(data) + extra, 0)
    writer.addEntry([*place, "__properties_version1.0"], bytes(header) + rows)


def message(kind: int, subject: str, **more: tuple[int, object]) -> dict[int, tuple[int, object]]:
    return {
        0x001A: (kind, "IPM.Note"),
        0x340D: (INT32, 0x00040000 if kind == UNICODE else 0),
        0x0037: (kind, subject),
        0x3FFD: (INT32, 936),
        0x3FDE: (INT32, 936),
        **{int(key[1:], 16): value for key, value in more.items()},
    }


def main() -> None:
    writer = OleWriter()
    writer.addEntry(["__nameid_version1.0"], storage=True)
    for name in ("00020102", "00030102", "00040102"):
        writer.addEntry(["__nameid_version1.0", f"__substg1.0_{name}"], b"")
    sender = {
        "x0C1A": (STRING8, "陶总"),
        "x0C1F": (STRING8, "/O=QUARRY/CN=TAO"),
        "x5D01": (STRING8, "tao@example.cn"),
    }
    outer = message(
        STRING8,
        "报价：轴承",
        **sender,
        x1000=(STRING8, "喆总：报价见附件。"),
        x1013=(BINARY, HTML.encode("gbk")),
    )
    add(writer, [], 32, outer)
    for n, (kind, name, address) in enumerate(
        [(1, "李四", "li@example.cn"), (2, "王五", "wang@example.cn"), (3, "秘书", "secret@example.cn")]
    ):
        recipient = {0x3001: (STRING8, name), 0x39FE: (STRING8, address), 0x0C15: (INT32, kind)}
        add(writer, [f"__recip_version1.0_#{n:08X}"], 8, recipient)
    note = {
        0x3705: (INT32, 1),
        0x3707: (STRING8, "付款条件（喆总）.txt"),
        0x3701: (BINARY, "预付三成，余款货到付清。".encode("gb18030")),
    }
    logo = {
        0x3705: (INT32, 1),
        0x3707: (STRING8, "logo.png"),
        0x3712: (STRING8, "logo@quarry"),
        0x3701: (BINARY, b"\x89PNG"),
    }
    link = {0x3705: (INT32, 4), 0x3707: (STRING8, "elsewhere.docx")}
    for n, attachment in enumerate((note, logo, link)):
        add(writer, [f"__attach_version1.0_#{n:08X}"], 8, attachment)
    place = ["__attach_version1.0_#00000003"]
    add(writer, place, 8, {0x3705: (INT32, 5), 0x3001: (UNICODE, "交货期")})
    inner = [*place, "__substg1.0_3701000D"]
    rtf = compressed_rtf.compress(RTF, compressed=True)
    add(writer, inner, 24, message(UNICODE, "交货期", x1009=(BINARY, rtf)))
    place = ["__attach_version1.0_#00000004"]
    add(writer, place, 8, {0x3705: (INT32, 5), 0x3001: (UNICODE, "转发")})
    inner = [*place, "__substg1.0_3701000D"]
    add(writer, inner, 24, message(UNICODE, "转发", x1000=(UNICODE, "见下面的邮件。")))
    place = [*inner, "__attach_version1.0_#00000000"]
    add(writer, place, 8, {0x3705: (INT32, 5), 0x3001: (UNICODE, "原邮件")})
    inner = [*place, "__substg1.0_3701000D"]
    add(writer, inner, 24, message(UNICODE, "原邮件", x1000=(UNICODE, "质保期两年。")))
    writer.write(TARGET)

    # It takes 936 for GB2312, unless it is told otherwise; messages inside are in Unicode.
    kept = ErrorBehavior.ATTACH_SUPPRESS_ALL
    with extract_msg.openMsg(TARGET, overrideEncoding="gbk", errorBehavior=kept) as read:
        assert read.subject == "报价：轴承"
        assert read.htmlBody.decode("gbk") == HTML
    with extract_msg.openMsg(TARGET, errorBehavior=kept) as read:
        inside = [a.data for a in read.attachments if a.type.name == "MSG"]
        assert [each.subject for each in inside] == ["交货期", "转发"]
        assert inside[0].rtfBody.rstrip(b"\x00") == RTF
    print(f"{TARGET}: {TARGET.stat().st_size} bytes")


if __name__ == "__main__":
    main()
