"""The style sheet of every report: readable on a screen, printable, nothing fetched from elsewhere."""

from __future__ import annotations

__all__ = ["CSS"]

CSS = """
body { max-width: 78rem; margin: 2rem auto; padding: 0 1.2rem; color: #1f1f1f; background: #fff;
  font: 16px/1.5 system-ui, "Segoe UI", Helvetica, Arial, sans-serif; }
h1 { font-size: 1.8rem; line-height: 1.2; margin: 0 0 .3rem; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2.2rem 0 .6rem; padding-bottom: .2rem; border-bottom: 1px solid #ccc; }
.subtitle { color: #555; margin: 0 0 1rem; }
nav ol { columns: 16rem; margin: 1rem 0; padding: .7rem 1rem .7rem 2.4rem; background: #f5f6f8; border-radius: .4rem; }
a { color: #0a5c8f; }
p { max-width: 48rem; }
.scroll { overflow-x: auto; margin: .8rem 0; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: #555; padding: .2rem 0 .4rem; max-width: 48rem; }
th, td { text-align: left; padding: .22rem .8rem .22rem 0; border-bottom: 1px solid #e3e3e3; vertical-align: top; overflow-wrap: anywhere; }
th { border-bottom: 1.5px solid #888; font-weight: 600; }
td.number { white-space: nowrap; }
table.facts td:first-child { color: #555; white-space: nowrap; }
td.good { color: #00704f; font-weight: 600; }
td.warning { color: #b02a10; font-weight: 600; }
figure { margin: 1.2rem 0; break-inside: avoid; }
figure img { max-width: 100%; height: auto; display: block; }
figcaption { font-size: .9rem; color: #444; max-width: 52rem; margin-top: .3rem; }
.findings { list-style: none; padding: 0; margin: 1rem 0; }
.findings li { padding: .4rem .8rem; margin: .25rem 0; border-left: 5px solid #999; background: #f5f6f8; }
.findings li.good { border-color: #009e73; background: #eff8f5; }
.findings li.warning { border-color: #cc3311; background: #fdf1ee; }
.findings b { display: inline-block; width: 1.1rem; }
details { margin: .8rem 0; }
summary { cursor: pointer; color: #0a5c8f; }
pre { background: #f5f6f8; padding: .7rem; overflow-x: auto; font-size: .8rem; line-height: 1.35; border-radius: .4rem; }
@media print {
  body { max-width: none; margin: 0; font-size: 10.5pt; }
  nav { display: none; }
  h2 { break-after: avoid; }
  .scroll, pre { overflow: visible; white-space: pre-wrap; }
}
"""
