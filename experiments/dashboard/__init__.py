"""run_dashboard: optuna-dashboard on the studies of a database, running or finished."""
