"""plan(): a pure function from a Bundle and a Host to a Plan. Composes steps; opens nothing, loads no ctypes."""

from __future__ import annotations

from cloche.plan.bundle import Bundle, Joining
from cloche.plan.container import plan, plan_joining

__all__ = ["Bundle", "Joining", "plan", "plan_joining"]
