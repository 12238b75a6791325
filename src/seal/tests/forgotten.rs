//! Secrets that are gone are nowhere in the process's memory, used or not.

use zeroize::Zeroize as _;

use super::{known_answers::Fixed, *};
use crate::{
    leftovers::{Needle, tried_alone},
    seal::{
        EhbpKeys, EhbpSecret, SeedKeys, SeedSecret,
        context::{RequestOpening, RequestSealing},
        enc::Enc,
        labels,
        suite::Header,
        x_wing::fixed,
    },
};

/// Holds what `needles` tell to be there while `held` lives, and to be gone after it.
fn gone_with<T>(held: T, needles: &[Needle], never: &[Needle]) {
    for needle in needles {
        assert!(needle.count() > 0, "{} is not there", needle.name);
    }
    for needle in never {
        assert_eq!(needle.count(), 0, "{} has no place", needle.name);
    }
    drop(held);
    for needle in needles {
        assert_eq!(needle.count(), 0, "{} is still there", needle.name);
    }
}

#[test]
fn keys_of_a_node_are_gone_when_they_are_dropped() {
    if tried_alone(
        module_path!(),
        "keys_of_a_node_are_gone_when_they_are_dropped",
    ) {
        return;
    }
    for kem in KEMS {
        for uses in [0, 3] {
            let node = Node::of(kem);
            let (needles, never) = node.keys.needles();
            for _ in 0..uses {
                let (request, _) = node.sealed(b"{}", Padding::Off);
                assert!(node.open([&request[..]]).is_ok());
            }
            gone_with(node, &needles, &never);
        }
    }
    let mut keys = EhbpKeys::new();
    keys.insert(3, EhbpSecret::generate().unwrap());
    let needles = keys.needles();
    gone_with(keys, &needles, &[]);
    let mut keys = SeedKeys::new();
    keys.insert(3, SeedSecret::generate().unwrap());
    let needles = keys.needles();
    gone_with(keys, &needles, &[]);
}

/// Both sides of an exchange: what was drawn for it, and what the reply is sealed with.
#[test]
fn secrets_of_an_exchange_are_gone_with_it() {
    if tried_alone(module_path!(), "secrets_of_an_exchange_are_gone_with_it") {
        return;
    }
    for kem in KEMS {
        let node = Node::of(kem);
        let recipient = node.recipient();
        let header = Header {
            key_id: KEY_ID,
            suite: recipient.suite,
        };
        let info = labels::request_info(&header.encode());
        let mut drawn = Fixed((0..64).map(|at| 0x5a ^ (3 * at)).collect());
        // What ML-KEM draws in its place here comes of aws-lc in truth.
        let own = match kem {
            Kem::X25519 => &drawn.0[..32],
            Kem::XWing => &drawn.0[32..],
        };
        let needle = Needle::new("what was drawn", own);
        let sealed = fixed::with(|| {
            RequestSealing::setup(recipient.suite, recipient.public_key, &info, &mut drawn)
        });
        let (enc, sealing, secret) = sealed.unwrap();
        assert_eq!(needle.count(), 1, "{kem:?}: where it was drawn from");
        drawn.0.zeroize();
        assert_eq!(needle.count(), 0, "{kem:?}: {}", needle.name);
        let needle = Needle::new("a sealer's secret of the reply", secret.as_bytes());
        gone_with((sealing, secret), &[needle], &[]);

        let enc = Enc::read(kem, enc.as_bytes()).unwrap();
        let secret = node.keys.get(KEY_ID).unwrap();
        let context = RequestOpening::setup(recipient.suite, secret, &enc, &info).unwrap();
        let label = labels::RESPONSE_EXPORT_LABEL;
        let secret = context.reply_secret(enc, label).unwrap();
        let needle = Needle::new("a node's secret of the reply", secret.as_bytes());
        gone_with((context, secret), &[needle], &[]);
    }
}
