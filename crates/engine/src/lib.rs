//! Runs accounts: schedule, run, pipeline, and the one place that decides what each failure means.
