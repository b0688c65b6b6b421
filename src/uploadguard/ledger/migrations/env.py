"""Alembic's way in: migrates over the connection it is handed, inside that connection's transaction."""

from alembic import context

from uploadguard.ledger.schema import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, transaction_per_migration=False)
context.run_migrations()
