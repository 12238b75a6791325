//! Attested Oblivious HTTP: encapsulate and open, chunk by chunk. No IO.
