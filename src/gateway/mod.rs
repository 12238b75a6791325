//! The gateway: from the plain contract to a sealed request and back.
