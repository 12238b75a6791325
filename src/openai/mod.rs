//! The public contract: requests, replies, errors, server-sent events. No IO.
