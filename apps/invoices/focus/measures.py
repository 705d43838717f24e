"""What FOCUS calls our meters: units in its format, services in its categories."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """A meter in FOCUS's words.

    consumed_unit: of the counted quantity. pricing_unit: of what a price is for.
    """

    service: str
    category: str
    subcategory: str
    resource_type: str
    consumed_unit: str
    pricing_unit: str


_KNOWN = {
    "gpu_hours": Measure(
        service="GPU time",
        category="Compute",
        subcategory="Virtual Machines",
        resource_type="GPU allocation",
        consumed_unit="GPU-Seconds",
        pricing_unit="GPU-Hours",
    ),
    "instance_hours": Measure(
        service="Instance time",
        category="Compute",
        subcategory="Virtual Machines",
        resource_type="Instance",
        consumed_unit="Instance-Seconds",
        pricing_unit="Instance-Hours",
    ),
    "storage_gb_hours": Measure(
        service="Storage",
        category="Storage",
        subcategory="Other (Storage)",
        resource_type="Volume",
        consumed_unit="GB-Hours",
        pricing_unit="GB-Hours",
    ),
    "egress_gb": Measure(
        service="Outgoing traffic",
        category="Networking",
        subcategory="Network Connectivity",
        resource_type="Network",
        consumed_unit="GB",
        pricing_unit="GB",
    ),
    "requests": Measure(
        service="Requests",
        category="AI and Machine Learning",
        subcategory="AI Platforms",
        resource_type="Endpoint",
        consumed_unit="Requests",
        pricing_unit="Requests",
    ),
    "tokens": Measure(
        service="Tokens",
        category="AI and Machine Learning",
        subcategory="Generative AI",
        resource_type="Endpoint",
        consumed_unit="Tokens",
        pricing_unit="Tokens",
    ),
}


def measure_of(meter: str) -> Measure:
    """Return a meter's words; one that the operator defined counts units of an other service."""
    return _KNOWN.get(meter) or Measure(
        service=meter.replace("_", " ").capitalize(),
        category="Other",
        subcategory="Other (Other)",
        resource_type="Resource",
        consumed_unit="Units",
        pricing_unit="Units",
    )
