//! The node: inside the TEE, beside the engine.
