"""Tables and pages: pure functions of a run's summary and samples."""
