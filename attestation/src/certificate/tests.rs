use proptest::prelude::*;

use super::*;
use crate::sev_snp::roots::AMD_ROOTS;

#[test]
fn refuses_what_is_not_exactly_one_certificate() {
    let der = AMD_ROOTS[0].ark;
    assert!(Certificate::parse(der).is_ok());
    let trailing = [der, &[0]].concat();
    assert_eq!(
        Certificate::parse(&trailing).err(),
        Some(CertificateError::Der)
    );
    for len in [0, 1, der.len() - 1] {
        assert_eq!(
            Certificate::parse(&der[..len]).err(),
            Some(CertificateError::Der)
        );
    }
    let long = vec![0x30; MAX_CERTIFICATE + 1];
    let error = CertificateError::TooLong {
        len: MAX_CERTIFICATE + 1,
    };
    assert_eq!(Certificate::parse(&long).err(), Some(error));
    let longest = Certificate::parse(&long[..MAX_CERTIFICATE]).err();
    assert_eq!(longest, Some(CertificateError::Der));
}

#[test]
fn version_and_algorithm_are_what_they_say() {
    let bent = |place: fn(&[u8]) -> Option<usize>, to: u8| {
        let mut der = AMD_ROOTS[0].ask.to_vec();
        let at = place(&der).unwrap();
        der[at] = to;
        Certificate::parse(&der).err()
    };
    let version = |der: &[u8]| {
        let field = [0xa0, 3, 2, 1, 2];
        Some(der.windows(5).position(|it| it == field)? + 4)
    };
    let outer_algorithm = |der: &[u8]| {
        let id = RSASSA_PSS.as_bytes();
        Some(der.windows(id.len()).rposition(|it| it == id)? + id.len() - 1)
    };
    let inconsistent = Some(CertificateError::Inconsistent);
    assert_eq!(bent(version, 1), inconsistent);
    assert_eq!(bent(outer_algorithm, 11), inconsistent);
}

/// A certificate that nobody signed, with so many extensions.
fn of_extensions(count: u8) -> Vec<u8> {
    use crate::software_root::der;
    let id = |number: u8| ObjectIdentifier::from_bytes(&[0x55, 0x1d, number]).unwrap();
    let extensions = (0..count).map(|number| der::extension(id(number), false, &[5, 0]));
    let extensions: Vec<_> = extensions.flatten().collect();
    let algorithm = der::rsa_pss_sha384();
    let name = der::name(&[]);
    let time = der::time("2026-06-01T00:00:00Z");
    let key = der::sequence(&[&der::with_null(RSA_ENCRYPTION), &der::bit_string(&[0])]);
    let body = der::sequence(&[
        &der::explicit(0, &der::integer(2)),
        &der::integer(1),
        &algorithm,
        &name,
        &der::sequence(&[&time, &time]),
        &name,
        &key,
        &der::explicit(3, &der::sequence(&[&extensions])),
    ]);
    der::sequence(&[&body, &algorithm, &der::bit_string(&[0])])
}

#[test]
fn extensions_are_few() {
    let most = Certificate::parse(&of_extensions(64));
    assert_eq!(most.unwrap().extensions().len(), MAX_EXTENSIONS);
    let more = Certificate::parse(&of_extensions(65)).err();
    assert_eq!(more, Some(CertificateError::TooManyExtensions(65)));
}

#[test]
fn an_rsa_key_is_two_numbers_and_no_more() {
    use crate::software_root::der;
    let key = der::sequence(&[&der::integer(5), &der::integer(3)]);
    assert_eq!(rsa_numbers(&key), Ok((&[5][..], &[3][..])));
    assert!(rsa_numbers(&[key, der::integer(1)].concat()).is_err());
}

/// An authority whose key usage (2.5.29.15) or basic constraints (2.5.29.19), both critical,
/// goes by another name.
#[test]
fn critical_extensions_are_known_and_each_is_there_once() {
    let renamed = |from: u8, to: u8| {
        let mut der = AMD_ROOTS[0].ask.to_vec();
        let at = der.windows(3).position(|id| id == [0x55, 0x1d, from]);
        der[at.unwrap() + 2] = to;
        Certificate::parse(&der).err()
    };
    let policy_constraints = ObjectIdentifier::new_unwrap("2.5.29.36");
    let unknown = Some(CertificateError::UnknownCritical(policy_constraints));
    assert_eq!(renamed(15, 36), unknown);
    assert_eq!(renamed(19, 36), unknown);
    let twice = Some(CertificateError::DuplicateExtension(BASIC_CONSTRAINTS));
    assert_eq!(renamed(15, 19), twice);
}

/// Every bit of an intermediate matters: a changed one is refused or is no longer issued.
#[test]
fn every_flipped_bit_of_a_certificate_is_refused() {
    let root = Certificate::parse(AMD_ROOTS[0].ark).unwrap();
    let mut der = AMD_ROOTS[0].ask.to_vec();
    for at in 0..der.len() {
        for bit in 0..8 {
            der[at] ^= 1 << bit;
            let accepted = Certificate::parse(&der)
                .is_ok_and(|changed| changed.check_issued_by(&root).is_ok());
            assert!(!accepted, "byte {at}, bit {bit}");
            der[at] ^= 1 << bit;
        }
    }
}

proptest! {
    #[test]
    fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        drop(Certificate::parse(&bytes));
    }

    #[test]
    fn never_panics_on_almost_certificates(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut der = AMD_ROOTS[1].ask.to_vec();
        let at = at.index(der.len());
        der[at] = byte;
        if let Ok(certificate) = Certificate::parse(&der) {
            let _ = certificate.check_authority(0, Scheme::RsaPss);
            let _ = certificate.check_leaf();
        }
    }
}
