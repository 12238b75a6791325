//! What ties a CPU report to one statement, one nonce and one set of devices
//! (`docs/wire.md`, "Binding").

use crate::digest::{Nonce, StatementDigest, sha256, sha512};

const REPORT_DATA_LABEL: &[u8] = b"sealgate report data v1\0";
const GPU_NONCE_LABEL: &[u8] = b"sealgate gpu nonce v1\0";

/// `SHA-512("sealgate report data v1" || 0x00 || statement digest || nonce || device_digest)`,
/// where `device_digest` is SHA-256 over the SHA-256 of every device's report, in list order.
///
/// This is the CPU report's user field; `devices` are the raw reports of the items after the CPU's.
pub fn report_data(statement: &StatementDigest, nonce: &Nonce, devices: &[&[u8]]) -> [u8; 64] {
    let digests: Vec<[u8; 32]> = devices.iter().map(|report| sha256(&[report])).collect();
    let device_digest = sha256(&[digests.as_flattened()]);
    sha512(&[
        REPORT_DATA_LABEL,
        statement.as_bytes(),
        nonce.as_bytes(),
        &device_digest,
    ])
}

/// `SHA-256("sealgate gpu nonce v1" || 0x00 || statement digest || nonce)`: the nonce that a GPU's
/// report must carry.
pub fn gpu_nonce(statement: &StatementDigest, nonce: &Nonce) -> [u8; 32] {
    sha256(&[GPU_NONCE_LABEL, statement.as_bytes(), nonce.as_bytes()])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The expected values were computed with Python's hashlib from the formulas.
    #[test]
    fn known_answers() {
        let statement = StatementDigest::of(b"{}");
        let nonce = Nonce::from([7; 32]);
        let data = |devices: &[&[u8]]| hex::encode(report_data(&statement, &nonce, devices));
        assert_eq!(data(&[]), NO_DEVICES);
        assert_eq!(data(&[b"one", b"two"]), TWO_DEVICES);
        assert_ne!(data(&[b"two", b"one"]), TWO_DEVICES);
        assert_ne!(data(&[b"onetwo"]), TWO_DEVICES);
        assert_eq!(hex::encode(gpu_nonce(&statement, &nonce)), GPU_NONCE);
    }

    const NO_DEVICES: &str = "7c4caf432f4b87285eec12588d648f1a9233e80e8bf926cd4ad3f712fc2891ff4c8b6bd59165211ec059ed89f23cc719e07de16ff219bdc2cf12edd0da1ea313";
    const TWO_DEVICES: &str = "623ad946856b8814637c88482c96fb9a82f628204a2172cfc51b9b26f82b65ae907e3902b295955cb18ac4f75c3a35014cd782ad3d051ba58509827b66a00b1a";
    const GPU_NONCE: &str = "01b448dc0ede4632cf3d254e9463d9bb97ad7e2038ab038364ac507ba7f7b132";
}
