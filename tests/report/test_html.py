"""Reports are well-formed, self-contained, and show what users write as it is."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from matplotlib.figure import Figure

from pofx.report import Merit, Report, Value
from pofx.report.numbers import show

NASTY = '<script>alert("x")</script> & \x00 \'"'


def parsed(report: Report) -> ElementTree.Element:
    return ElementTree.fromstring(report.html().replace("<!DOCTYPE html>", ""))


def full_report() -> Report:
    report = Report(NASTY, NASTY).finding("warning", NASTY).finding("good", "fine")
    report.section(NASTY).text(NASTY).figure(NASTY, Figure(), NASTY).table([NASTY], [[NASTY], [1.5], [None]], NASTY)
    report.merits(
        [Merit(NASTY, Value(1.0, 0.1), Value(0.5), "< 2", True), Merit("b", Value(3.0), bar="< 2", passed=False)]
    )
    report.section("two").details(NASTY, {"a": NASTY}).facts({NASTY: NASTY})
    return report.reproduce(NASTY, {"fit": 1}, data="abc")


def test_well_formed_and_escaped():
    root = parsed(full_report())
    assert not list(root.iter("script"))
    assert '<script>alert("x")</script>' in "".join(root.itertext())


def test_self_contained():
    text = full_report().html()
    sources = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert sources
    assert all(s.startswith(("data:image/png;base64,", "#s")) or s.endswith(".pdf") for s in sources)
    assert not re.search(r"https?:|@import|url\(", text)


def test_contents_link_to_every_section():
    root = parsed(full_report())
    ids = {section.get("id") for section in root.iter("section")}
    links = {a.get("href", "")[1:] for nav in root.iter("nav") for a in nav.iter("a")}
    assert ids == links == {"s1", "s2", "s3"}


def test_warnings_come_first():
    text = full_report().html()
    assert text.index('<li class="warning">') < text.index('<li class="good">')


def test_merits_show_bar_and_verdict():
    text = full_report().html()
    assert "1.00 ± 0.10" in text
    assert '<td class="good">pass</td>' in text
    assert '<td class="warning">FAIL</td>' in text


def test_long_tables_are_folded():
    assert "<details>" in Report("t").table(["a"], [[i] for i in range(30)]).html()
    assert "<details>" not in Report("t").table(["a"], [[1]]).html()


def test_write_puts_figures_beside(tmp_path):
    path = Report("t").figure("one", Figure(), "c").write(tmp_path / "deep" / "r.html")
    assert (path.parent / "r-figures" / "one.pdf").exists()
    assert 'href="r-figures/one.pdf"' in path.read_text()
    assert not (Report("t").text("x").write(tmp_path / "s.html").parent / "s-figures").exists()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Value(12.3456, 0.0321), "12.346 ± 0.032"),
        (Value(-5270.28, 0.26), "-5270.28 ± 0.26"),
        (Value(1.5e-39, 2e-41, "cm^2"), "(1.500 ± 0.020)e-39 cm^2"),
        (Value(0.0, 0.0), "0 ± 0"),
        (Value(0.001, 0.5), "0.00 ± 0.50"),
        (Value(1234567.0, 10.0), "(1.234567 ± 0.000010)e6"),
        (Value(float("nan"), 1.0), "nan ± 1"),
        (Value(2.0), "2"),
    ],
)
def test_values(value, text):
    assert show(value) == text
