//! Logs: an allow-list of fields, never content.
