//! What describes the admin API to programs: at /openapi.json of the admin listener, for whoever has its
//! token. The document of the callers' listener names none of it.

/// An OpenAPI document.
pub(super) const TEXT: &str = include_str!("openapi.json");
