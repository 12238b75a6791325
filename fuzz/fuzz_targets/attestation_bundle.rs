//! The manifest of a bundle, behind a signature that holds, so that all of it is read.

#![no_main]

use std::sync::LazyLock;

use attestation::Bundle;
use attestation::bundle::{BundleKey, Manifest};
use libfuzzer_sys::fuzz_target;

static KEY: LazyLock<BundleKey> = LazyLock::new(|| BundleKey::generate().expect("random bytes").0);

fuzz_target!(|manifest: &[u8]| {
    let signature = KEY.sign(manifest);
    let signers = [KEY.public_key()];
    let load = |signature: &[u8]| {
        Bundle::load(manifest, signature, &signers, &mut |path| {
            Ok(path.as_bytes().to_vec())
        })
    };
    if let Ok(bundle) = load(signature.as_bytes()) {
        let written = bundle.manifest().map(Manifest::to_json);
        assert!(written.is_some_and(|written| written.is_ok()));
    }
    let _ = load(manifest);
});
