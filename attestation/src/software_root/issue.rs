//! Issues the certificates of a software root, in the shape of AMD's.

use std::time::SystemTime;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use aws_lc_rs::signature::{KeyPair, RSA_PSS_SHA384, RsaKeyPair};
use x509_cert::der::asn1::ObjectIdentifier;

use crate::sev_snp::endorsement as amd;
use crate::software_root::SoftwareRootError;
use crate::software_root::der;
use crate::time::to_rfc3339;

const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
const ORGANIZATION: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.10");
const BASIC_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.19");
const KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.15");
const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const SECP384R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");

/// Stands in every subject, so that no one takes these certificates for AMD's.
const ORGANIZATION_NAME: &str = "sealgate software root";
const ARK_NAME: &str = "ARK-Software";
const ASK_NAME: &str = "SEV-Software";

/// keyCertSign alone: bit 5 of the first byte, two bits unused.
const KEY_CERT_SIGN: (u8, u8) = (2, 0b0000_0100);
/// keyCertSign and cRLSign, as AMD's roots have them.
const KEY_CERT_AND_CRL_SIGN: (u8, u8) = (1, 0b0000_0110);

/// The two authorities, with their private keys.
pub(crate) struct Issuer {
    ark_key: RsaKeyPair,
    ask_key: RsaKeyPair,
    not_before: SystemTime,
    not_after: SystemTime,
}

/// What a VCEK's certificate says. Each extension can be left out or changed, for tests.
pub(crate) struct Leaf<'a> {
    pub(crate) common_name: &'a str,
    pub(crate) public_key: &'a [u8],
    /// Ids and DER contents, in order.
    pub(crate) extensions: Vec<(ObjectIdentifier, Vec<u8>)>,
}

impl<'a> Leaf<'a> {
    /// AMD's extensions as a Genoa VCEK has them.
    pub(crate) fn genoa(public_key: &'a [u8], tcb: &[u8; 8], chip_id: &[u8; 64]) -> Self {
        let [bootloader, tee, _, _, _, _, snp, microcode] = *tcb;
        let mut extensions = vec![
            (amd::STRUCTURE_VERSION, der::integer(0)),
            (amd::PRODUCT_NAME, der::ia5_string("Genoa")),
            (amd::BOOTLOADER, der::integer(bootloader)),
            (amd::TEE, der::integer(tee)),
        ];
        extensions.extend(amd::RESERVED.map(|id| (id, der::integer(0))));
        extensions.extend([
            (amd::SNP, der::integer(snp)),
            (amd::MICROCODE, der::integer(microcode)),
            (amd::HWID, chip_id.to_vec()),
        ]);
        Self {
            common_name: "SEV-VCEK",
            public_key,
            extensions,
        }
    }
}

impl Issuer {
    pub(crate) fn new(
        ark_key: RsaKeyPair,
        ask_key: RsaKeyPair,
        not_before: SystemTime,
        not_after: SystemTime,
    ) -> Self {
        Self {
            ark_key,
            ask_key,
            not_before,
            not_after,
        }
    }

    /// The root, signed by itself.
    pub(crate) fn ark(&self) -> Result<Vec<u8>, SoftwareRootError> {
        let extensions = authority_extensions(None, KEY_CERT_AND_CRL_SIGN);
        let key = rsa_public_key(&self.ark_key);
        self.certificate(&self.ark_key, (ARK_NAME, ARK_NAME), &key, &extensions)
    }

    /// The authority that signs leaves.
    pub(crate) fn ask(&self) -> Result<Vec<u8>, SoftwareRootError> {
        let extensions = authority_extensions(Some(0), KEY_CERT_SIGN);
        let key = rsa_public_key(&self.ask_key);
        self.certificate(&self.ark_key, (ARK_NAME, ASK_NAME), &key, &extensions)
    }

    /// A leaf, as it is described.
    pub(crate) fn leaf(&self, leaf: &Leaf<'_>) -> Result<Vec<u8>, SoftwareRootError> {
        let algorithm = der::sequence(&[&der::oid(EC_PUBLIC_KEY), &der::oid(SECP384R1)]);
        let key = der::sequence(&[&algorithm, &der::bit_string(leaf.public_key)]);
        let extension =
            |(id, content): &(ObjectIdentifier, Vec<u8>)| der::extension(*id, false, content);
        let extensions: Vec<_> = leaf.extensions.iter().map(extension).collect();
        let names = (ASK_NAME, leaf.common_name);
        self.certificate(&self.ask_key, names, &key, &extensions.concat())
    }

    /// A certificate of `(issuer, subject)` (RFC 5280 section 4.1).
    fn certificate(
        &self,
        issuer_key: &RsaKeyPair,
        (issuer, subject): (&str, &str),
        public_key: &[u8],
        extensions: &[u8],
    ) -> Result<Vec<u8>, SoftwareRootError> {
        let mut serial = [0; 16];
        SystemRandom::new().fill(&mut serial)?;
        let algorithm = der::rsa_pss_sha384();
        let validity = [self.not_before, self.not_after].map(|time| der::time(&to_rfc3339(time)));
        let body = der::sequence(&[
            &der::explicit(0, &der::integer(2)),
            &der::serial(serial),
            &algorithm,
            &name(issuer),
            &der::sequence(&[&validity.concat()]),
            &name(subject),
            public_key,
            &der::explicit(3, &der::sequence(&[extensions])),
        ]);
        let mut signature = vec![0; issuer_key.public_modulus_len()];
        issuer_key.sign(&RSA_PSS_SHA384, &SystemRandom::new(), &body, &mut signature)?;
        Ok(der::sequence(&[
            &body,
            &algorithm,
            &der::bit_string(&signature),
        ]))
    }
}

fn name(common_name: &str) -> Vec<u8> {
    der::name(&[
        (ORGANIZATION, ORGANIZATION_NAME),
        (COMMON_NAME, common_name),
    ])
}

fn rsa_public_key(key: &RsaKeyPair) -> Vec<u8> {
    let bits = der::bit_string(key.public_key().as_ref());
    der::sequence(&[&der::with_null(RSA_ENCRYPTION), &bits])
}

fn authority_extensions(path_len: Option<u8>, (unused, byte): (u8, u8)) -> Vec<u8> {
    let constraints = der::authority_constraints(path_len);
    let usage = der::named_bits(unused, byte);
    [
        der::extension(BASIC_CONSTRAINTS, true, &constraints),
        der::extension(KEY_USAGE, true, &usage),
    ]
    .concat()
}
