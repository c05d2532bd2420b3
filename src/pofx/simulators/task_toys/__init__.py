"""Toys with closed-form truth, one module per task; :mod:`pofx.simulators.catalogue` has them by name."""

from __future__ import annotations
