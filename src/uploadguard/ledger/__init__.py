"""The durable half: decisions, review cases, the outbox of reports and callbacks, preserved files, the audit log. One
SQLAlchemy schema for SQLite and PostgreSQL; nothing here is imported where ``ledger.path`` is not set.
"""
