"""run_report: the report of a study from its database, while it runs and after."""
