"""Work in directories: runs, audits, studies and suites, each resumable and finished only once."""
