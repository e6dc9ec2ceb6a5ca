"""The checks, by subject. Each is a pure function of ``Facts``; ``benchbox.doctor.table`` has a row for each."""
