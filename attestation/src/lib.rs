//! Appraisal of TEE evidence.
