"""Applications: functions for the user's own data, the classical baseline, metrics with errors, and a benchmark with known truth."""
