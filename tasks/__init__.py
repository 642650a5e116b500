"""The five stages as Prefect tasks: read artifacts, call knowrl_core, commit artifacts, log."""
