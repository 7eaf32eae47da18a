"""A quote as a PDF document for the customer: the same bytes for the same quote. Pure.

It says what is recorded and nothing else: no sum is made here, and the only dates are those of the
quote. Its fonts are `fonts/`; a character that they lack is printed as a box.

The library keeps fonts for the process and is not made for threads: one document at a time.
"""

from __future__ import annotations

from decimal import Decimal
from functools import cache, partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from xml.sax.saxutils import escape

from reportlab.lib import colors
from reportlab.lib.enums import TA_RIGHT
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import (
    CondPageBreak,
    Paragraph,
    SimpleDocTemplate,
    Spacer,
    Table,
    TableStyle,
)

from rapport.deals.v1.lines_pb2 import (
    BILLING_MONTHLY,
    BILLING_QUARTERLY,
    BILLING_YEARLY,
    QuoteDetails,
    Totals,
)
from rapport.deals.v1.quotes_pb2 import QUOTE_STATE_DRAFT, QUOTE_STATE_PENDING_APPROVAL
from services.kernel.iso4217 import EXPONENTS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from rapport.common.v1.money_pb2 import Money
    from rapport.deals.v1.lines_pb2 import LineItem
    from services.deals.quote import State

_FONTS: Final = Path(__file__).with_name("fonts")
_REGULAR: Final = "DejaVuSans"
_BOLD: Final = "DejaVuSans-Bold"
_MARGIN: Final = 18 * mm
_PADDING: Final = 6  # of the frame that the library puts text into, in points
_WIDTH: Final = A4[0] - 2 * _MARGIN - 2 * _PADDING
_GREY: Final = colors.HexColor("#5f6b7a")
_RULE: Final = colors.HexColor("#c9d1da")
_HEAD: Final = colors.HexColor("#eef2f6")
_FIGURES: Final = tuple(width * mm for width in (17, 27, 17, 13, 25))
_PLACE: Final = 8 * mm
_COLUMNS: Final = (_PLACE, _WIDTH - _PLACE - sum(_FIGURES), *_FIGURES)
_ROOM: Final = 50 * mm
_BILLED: Final = {
    BILLING_MONTHLY: "every month",
    BILLING_QUARTERLY: "every 3 months",
    BILLING_YEARLY: "every 12 months",
}
_UNAPPROVED: Final = {QUOTE_STATE_DRAFT, QUOTE_STATE_PENDING_APPROVAL}


def rendered(state: State) -> bytes:
    """The document of a quote."""
    _register_fonts()
    details, totals = QuoteDetails.FromString(state.details), Totals.FromString(state.totals)
    out = BytesIO()
    document = SimpleDocTemplate(
        out,
        pagesize=A4,
        leftMargin=_MARGIN,
        rightMargin=_MARGIN,
        topMargin=_MARGIN,
        bottomMargin=_MARGIN,
        title=_title(state),
        author=_first_line(details.issuer),
        subject=details.display_name,
        creator="Rapport",
        invariant=1,
    )
    story = [
        *_head(state, details),
        *_lines(details),
        *_sums(totals),
        *_rest(state, details),
    ]
    printed = partial(_NumberedCanvas, footer=_title(state), moment=state.send_time)
    document.build(story, canvasmaker=printed)
    return out.getvalue()


def file_name(state: State) -> str:
    """What its file may be called."""
    return f"{state.number_text}-{state.revision}.pdf"


def money_text(money: Money) -> str:
    """An amount as it is printed: `1,234.50 EUR`, with the digits that its currency has."""
    digits = EXPONENTS[money.currency]
    return f"{Decimal(money.amount_minor).scaleb(-digits):,.{digits}f} {money.currency}"


def _title(state: State) -> str:
    revision = f", revision {state.revision}" if state.revision > 1 else ""
    return f"Quote {state.number_text}{revision}"


def _head(state: State, details: QuoteDetails) -> Iterator[Any]:
    """Who offers what to whom, and until when."""
    if details.issuer:
        yield _text(details.issuer, size=8, color=_GREY)
        yield Spacer(1, 8 * mm)
    if details.recipient:
        yield _text(details.recipient)
        yield Spacer(1, 8 * mm)
    yield _text(_title(state), size=17, bold=True)
    if details.display_name:
        yield Spacer(1, 1.5 * mm)
        yield _text(details.display_name, size=11)
    yield Spacer(1, 3 * mm)
    dates = [
        "Draft: this is no offer yet" if state.state in _UNAPPROVED else "",
        f"Date: {state.send_time.date().isoformat()}" if state.send_time else "",
        f"Valid until: {details.valid_until}" if details.valid_until else "",
    ]
    yield _text("\n".join(filter(None, dates)), color=_GREY)
    yield Spacer(1, 6 * mm)


def _lines(details: QuoteDetails) -> Iterator[Any]:
    """The lines, with their heading on every page."""
    heading = ["", "Item", "Quantity", "Unit price", "Discount", "Tax", "Amount"]
    rows = [
        [_text(text, size=7.5, bold=True, right=place > 1) for place, text in enumerate(heading)],
        *(_row(place, item) for place, item in enumerate(details.line_items.items, start=1)),
    ]
    # A row that is longer than a page goes over pages; all others stay whole where they can.
    table = Table(rows, colWidths=_COLUMNS, repeatRows=1, splitInRow=1)
    style = [
        ("VALIGN", (0, 0), (-1, -1), "TOP"),
        ("BACKGROUND", (0, 0), (-1, 0), _HEAD),
        ("LINEBELOW", (0, 0), (-1, -1), 0.4, _RULE),
        ("LEFTPADDING", (0, 0), (-1, -1), 3),
        ("RIGHTPADDING", (0, 0), (-1, -1), 3),
    ]
    table.setStyle(TableStyle(style))
    # Else the first row would be cut for want of room, though it is no long one.
    yield CondPageBreak(_ROOM)
    yield table
    yield Spacer(1, 5 * mm)


def _row(place: int, item: LineItem) -> list[Any]:
    what = [_text(item.display_name)]
    if item.description:
        what.append(_text(" ".join(item.description.split()), size=7.5, color=_GREY))
    if item.billing in _BILLED:
        terms = f"{money_text(item.period_amount)} {_BILLED[item.billing]}"
        what.append(_text(f"{terms}, for {item.term_months} months", size=7.5, color=_GREY))
    currency = item.amount.currency
    discount = f"{_plain(item.discount_percent)} %" if item.discount_percent else ""
    if item.discount_minor:
        given = Decimal(item.discount_minor).scaleb(-EXPONENTS[currency])
        discount = f"{given:,.{EXPONENTS[currency]}f}"
    figures = [
        _plain(item.quantity),
        _price_text(item.unit_price, currency),
        discount,
        f"{_plain(item.tax_percent)} %" if item.tax_percent else "",
        money_text(item.amount).removesuffix(f" {currency}"),
    ]
    return [
        _text(str(place), size=7.5, color=_GREY),
        what,
        *(_text(text, size=8, right=True) for text in figures),
    ]


def _sums(totals: Totals) -> Iterator[Any]:
    """What it comes to, as it is recorded."""
    rows = [("Subtotal", money_text(totals.subtotal))]
    if totals.discount.amount_minor:
        rows.append(("Discount", f"-{money_text(totals.discount)}"))
    if totals.shipping.amount_minor:
        rows.append(("Shipping", money_text(totals.shipping)))
    for tax in totals.taxes:
        if Decimal(tax.tax_percent):
            label = f"Tax {tax.tax_percent} % of {money_text(tax.taxable)}"
            rows.append((label, money_text(tax.tax)))
    cells = [[_text(label, right=True), _text(amount, right=True)] for label, amount in rows]
    cells.append(
        [
            _text("Total", size=10, bold=True, right=True),
            _text(money_text(totals.total), size=10, bold=True, right=True),
        ]
    )
    table = Table(cells, colWidths=(_WIDTH - 45 * mm, 45 * mm))
    style = [
        ("LINEABOVE", (1, -1), (1, -1), 0.8, colors.black),
        ("VALIGN", (0, 0), (-1, -1), "TOP"),
        ("RIGHTPADDING", (0, 0), (-1, -1), 3),
        ("TOPPADDING", (0, 0), (-1, -1), 1.5),
        ("BOTTOMPADDING", (0, 0), (-1, -1), 1.5),
    ]
    table.setStyle(TableStyle(style))
    yield table
    recurring = totals.recurring
    if recurring.annual.amount_minor:
        yield Spacer(1, 2 * mm)
        paid = f"{money_text(recurring.monthly)} a month, {money_text(recurring.annual)} a year"
        yield _text(f"Recurring, without tax: {paid}", size=8, right=True, color=_GREY)


def _rest(state: State, details: QuoteDetails) -> Iterator[Any]:
    """The terms, and who accepted it."""
    if details.terms:
        yield Spacer(1, 8 * mm)
        yield _text("Terms", bold=True)
        yield Spacer(1, 1.5 * mm)
        # One paragraph a line: a long text may then be cut anywhere.
        for line in details.terms.splitlines():
            yield _text(line, size=8) if line.strip() else Spacer(1, 2 * mm)
    if state.accept_time is not None:
        yield Spacer(1, 8 * mm)
        day = state.accept_time.date().isoformat()
        yield _text(f"Accepted on {day} by {state.accepted_by}", bold=True)


def _text(
    text: str, *, size: float = 9, bold: bool = False, right: bool = False, color: Any = None
) -> Any:
    """Text as it is given, line by line: nothing in it is markup."""
    lines = [escape(_printable(line)) for line in text.splitlines()]
    return Paragraph("<br/>".join(lines), _style(size, bold, right, color or colors.black))


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text)


@cache
def _style(size: float, bold: bool, right: bool, color: Any) -> Any:  # noqa: FBT001
    return ParagraphStyle(
        f"{size} {bold} {right} {color}",
        fontName=_BOLD if bold else _REGULAR,
        fontSize=size,
        leading=size * 1.3,
        textColor=color,
        alignment=TA_RIGHT if right else 0,
        splitLongWords=1,
    )


def _plain(number: str) -> str:
    """A decimal without zeros in front, or at its end behind the point; none when empty."""
    return f"{Decimal(number or '0').normalize():,f}"


def _price_text(price: str, currency: str) -> str:
    """A price with at least the digits that its currency has, and more if it has more."""
    exponent = Decimal(price).normalize().as_tuple().exponent
    digits = max(EXPONENTS[currency], -exponent if isinstance(exponent, int) else 0)
    return f"{Decimal(price):,.{digits}f}"


def _first_line(text: str) -> str:
    return next(iter(text.splitlines()), "")


@cache
def _register_fonts() -> None:
    for name in (_REGULAR, _BOLD):
        pdfmetrics.registerFont(TTFont(name, _FONTS / f"{name}.ttf"))


class _NumberedCanvas(Canvas):  # type: ignore[misc]  # the library has no types
    """Pages that tell how many there are: each is kept until the last is known."""

    def __init__(self, *args: Any, footer: str, moment: datetime | None, **options: Any) -> None:
        super().__init__(*args, **options)
        if moment is not None:
            self.setDateFormatter(lambda *_: f"D:{moment:%Y%m%d%H%M%S}+00'00'")
        self._footer = footer
        self._kept: list[dict[str, Any]] = []

    def showPage(self) -> None:
        self._kept.append(dict(self.__dict__))
        self._startPage()

    def save(self) -> None:
        count = len(self._kept)
        for number, page in enumerate(self._kept, start=1):
            self.__dict__.update(page)
            self.setFont(_REGULAR, 7)
            self.setFillColor(_GREY)
            self.drawString(_MARGIN + _PADDING, 10 * mm, self._footer)
            self.drawRightString(A4[0] - _MARGIN - _PADDING, 10 * mm, f"Page {number} of {count}")
            super().showPage()
        super().save()
