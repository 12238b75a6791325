//! Configuration of the node.
