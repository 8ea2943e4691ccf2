"""The agent that keeps the database it runs beside."""
