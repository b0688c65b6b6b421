"""What operators see from outside: Prometheus metrics, OpenTelemetry spans and logs without payloads.

Metrics and spans are plugins like any other; their packages are extras and imported only where they are switched on.
"""
