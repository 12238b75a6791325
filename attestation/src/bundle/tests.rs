#![allow(clippy::arithmetic_side_effects, reason = "an overflow fails its test")]

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use super::*;
use crate::check::Check;
use crate::nvidia::GoldenMeasurement;

const NOW: u64 = 1_780_272_000;
const DAY: u64 = 24 * 60 * 60;

fn at(unix: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(unix)
}

fn item(path: &str, kind: ItemKind, content: &[u8], end: u64) -> BundleItem {
    BundleItem {
        path: path.to_owned(),
        kind,
        sha256: sha256(&[content]),
        source: "a test".to_owned(),
        fetched_at: at(NOW),
        valid_until: at(end),
    }
}

fn golden(id: &str) -> Vec<u8> {
    let measurement = GoldenMeasurement {
        index: 8,
        values: vec![vec![7; 48]],
    };
    let golden = GoldenMeasurements {
        id: id.to_owned(),
        version: "1".to_owned(),
        measurements: vec![measurement],
    };
    golden.to_json().unwrap()
}

/// A folder in memory, and a signer.
struct Folder {
    key: BundleKey,
    manifest: Manifest,
    files: BTreeMap<String, Vec<u8>>,
}

impl Folder {
    fn of(files: &[(&str, ItemKind, Vec<u8>, u64)]) -> Self {
        let items = files.iter();
        let items = items.map(|(path, kind, content, end)| item(path, *kind, content, *end));
        Self {
            key: BundleKey::generate().unwrap().0,
            manifest: Manifest {
                created: at(NOW - DAY),
                valid_until: at(NOW + 10 * DAY),
                items: items.collect(),
            },
            files: files
                .iter()
                .map(|(path, _, content, _)| ((*path).to_owned(), content.clone()))
                .collect(),
        }
    }

    fn whole() -> Self {
        use ItemKind::*;
        Self::of(&[
            ("crl/a", AmdCrl, b"crl a".to_vec(), NOW + 5 * DAY),
            ("crl/b", AmdCrl, b"crl b".to_vec(), NOW + DAY),
            ("vcek", AmdCertificate, b"vcek".to_vec(), NOW + 7 * DAY),
            ("tdx.json", TdxCollateral, b"{}".to_vec(), NOW + 4 * DAY),
            ("ocsp", Ocsp, b"good".to_vec(), NOW + 2 * DAY),
            ("one", GpuGoldenMeasurements, golden("one"), NOW + 3 * DAY),
            ("two", GpuGoldenMeasurements, golden("two"), NOW + 6 * DAY),
            ("one.xml", GpuRim, b"<a/>".to_vec(), NOW + 3 * DAY),
        ])
    }

    fn load(&self) -> Result<Bundle, BundleError> {
        let manifest = self.manifest.to_json().unwrap();
        let signature = self.key.sign(&manifest);
        self.load_signed(&manifest, signature.as_bytes(), &[self.key.public_key()])
    }

    fn load_signed(
        &self,
        manifest: &[u8],
        signature: &[u8],
        signers: &[[u8; 32]],
    ) -> Result<Bundle, BundleError> {
        Bundle::load(manifest, signature, signers, &mut |path| {
            let file = self.files.get(path).cloned();
            file.ok_or_else(|| io::ErrorKind::NotFound.into())
        })
    }
}

#[test]
fn each_file_is_where_its_kind_belongs() {
    let folder = Folder::whole();
    let bundle = folder.load().unwrap();
    let expected = Collateral {
        amd_crls: vec![b"crl a".to_vec(), b"crl b".to_vec()],
        amd_certificates: vec![b"vcek".to_vec()],
        tdx: vec![b"{}".to_vec()],
        ocsp: vec![b"good".to_vec()],
    };
    assert_eq!(*bundle.collateral(), expected);
    let ids = bundle.golden_measurements().iter().map(|it| it.id.as_str());
    assert_eq!(ids.collect::<Vec<_>>(), ["one", "two"]);
    let manifest = folder.manifest.to_json().unwrap();
    assert_eq!(bundle.digest(), Some(&sha256(&[&manifest])));
    assert_eq!(bundle.signer(), Some(&folder.key.public_key()));
    assert_eq!(bundle.manifest(), Some(&folder.manifest));
    assert_eq!(bundle.items(), folder.manifest.items);
}

#[test]
fn the_empty_bundle_says_nothing() {
    let empty = Bundle::empty();
    let mut checks = Checks::default();
    empty.check(&mut checks, at(NOW));
    assert!(checks.into_vec().is_empty());
    assert_eq!(empty.not_after(at(NOW)), None);
    assert_eq!((empty.digest(), empty.signer()), (None, None));
    assert!(empty.manifest().is_none() && empty.items().is_empty());
    assert!(empty.in_force(at(NOW)).collateral().is_empty());
}

#[test]
fn a_bundle_is_believed_for_its_signer_alone() {
    let folder = Folder::whole();
    let manifest = folder.manifest.to_json().unwrap();
    let own = folder.key.public_key();
    let other = BundleKey::generate().unwrap().0;
    let signature = folder.key.sign(&manifest);
    let load = |manifest: &[u8], signature: &str, signers: &[[u8; 32]]| {
        let loaded = folder.load_signed(manifest, signature.as_bytes(), signers);
        loaded.map(|bundle| *bundle.signer().unwrap())
    };
    let signers = [other.public_key(), own];
    assert_eq!(load(&manifest, &signature, &signers).unwrap(), own);
    let by_other = other.sign(&manifest);
    assert_eq!(load(&manifest, &by_other, &signers).unwrap(), signers[0]);

    let mut changed = manifest.clone();
    changed[manifest.len() / 2] ^= 1;
    let cases = [
        ("signer not named", manifest.clone(), by_other.as_str()),
        ("another manifest", changed, signature.as_str()),
        ("a blank before", manifest.clone(), &format!(" {signature}")),
        ("hex", manifest.clone(), &"00".repeat(64)),
        ("empty", manifest.clone(), ""),
    ];
    for (name, manifest, signature) in cases {
        let error = load(&manifest, signature, &[own]).unwrap_err();
        assert!(
            matches!(error, BundleError::Signature(1)),
            "{name}: {error}"
        );
    }
    let error = load(&manifest, &signature, &[]).unwrap_err();
    assert!(matches!(error, BundleError::NoSigners), "{error}");
}

#[test]
fn every_flipped_bit_of_manifest_and_signature_is_refused() {
    let folder = Folder::of(&[("a", ItemKind::AmdCrl, b"a".to_vec(), NOW + DAY)]);
    let mut manifest = folder.manifest.to_json().unwrap();
    let mut signature = folder.key.sign(&manifest).trim_end().as_bytes().to_vec();
    let own = [folder.key.public_key()];
    for part in 0..2 {
        let len = [manifest.len(), signature.len()][part];
        for byte in 0..len {
            for bit in 0..8 {
                [&mut manifest, &mut signature][part][byte] ^= 1 << bit;
                let loaded = folder.load_signed(&manifest, &signature, &own);
                [&mut manifest, &mut signature][part][byte] ^= 1 << bit;
                assert!(loaded.is_err(), "part {part}, byte {byte}, bit {bit}");
            }
        }
    }
    assert!(folder.load_signed(&manifest, &signature, &own).is_ok());
}

#[test]
fn files_are_the_ones_that_the_manifest_names() {
    let refusal = |change: &dyn Fn(&mut Folder)| {
        let mut folder = Folder::whole();
        change(&mut folder);
        folder.load().unwrap_err().to_string()
    };
    let put = |path: &str, content: Vec<u8>| {
        let path = path.to_owned();
        move |folder: &mut Folder| {
            let listed = &mut folder.manifest.items;
            let item = listed.iter_mut().find(|it| it.path == path).unwrap();
            item.sha256 = sha256(&[&content]);
            folder.files.insert(path.clone(), content.clone());
        }
    };
    assert_eq!(
        refusal(&|folder| drop(folder.files.remove("vcek"))),
        "cannot read `vcek`: entity not found"
    );
    assert_eq!(
        refusal(&|folder| drop(folder.files.insert("one.xml".to_owned(), Vec::new()))),
        "`one.xml` has another digest than the manifest says"
    );
    assert_eq!(
        refusal(&put("ocsp", vec![0; MAX_FILE + 1])),
        "`ocsp` of 262145 bytes exceeds the limit of 262144, or all of 67108864"
    );
    assert_eq!(
        refusal(&put("two", golden("one"))),
        "golden measurements for `one` are there twice"
    );
    let error = refusal(&put("two", b"{}".to_vec()));
    assert_eq!(error, "`two`: member `measurements` is missing");

    let mut folder = Folder::whole();
    put("ocsp", vec![0; MAX_FILE])(&mut folder);
    assert!(folder.load().is_ok(), "the longest file");
    let most = MAX_FILES / MAX_FILE;
    let many = |count: usize| {
        let paths: Vec<_> = (0..count).map(|number| format!("f{number}")).collect();
        let files = paths.iter();
        let files = files.map(|path| (path.as_str(), ItemKind::Ocsp, vec![0; MAX_FILE], NOW + DAY));
        Folder::of(&files.collect::<Vec<_>>()).load()
    };
    assert!(many(most).is_ok(), "the most bytes");
    let error = many(most + 1).unwrap_err();
    assert!(matches!(error, BundleError::TooLong { .. }), "{error}");
}

#[test]
fn what_has_ended_is_not_offered() {
    let bundle = Folder::whole().load().unwrap();
    let offered = |unix: u64| {
        let kept = bundle.in_force(at(unix));
        let collateral = kept.collateral();
        assert_eq!(kept.digest(), bundle.digest());
        let golden = kept.golden_measurements().iter().map(|it| it.id.as_str());
        let golden: String = golden.map(|id| &id[..1]).collect();
        let counts = [
            collateral.amd_crls.len(),
            collateral.amd_certificates.len(),
            collateral.tdx.len(),
            collateral.ocsp.len(),
        ];
        (counts, golden)
    };
    let all = ([2, 1, 1, 1], "ot".to_owned());
    let none = ([0, 0, 0, 0], String::new());
    let cases = [
        ("before it was made", NOW - DAY - 1, none.clone()),
        ("as it was made", NOW - DAY, all.clone()),
        ("now", NOW, all.clone()),
        ("the last second of a list", NOW + DAY - 1, all),
        // What revokes goes on revoking.
        ("a list ended", NOW + DAY, ([2, 1, 1, 1], "ot".to_owned())),
        ("OCSP ended", NOW + 2 * DAY, ([2, 1, 1, 1], "ot".to_owned())),
        (
            "golden ended",
            NOW + 3 * DAY,
            ([2, 1, 1, 1], "t".to_owned()),
        ),
        ("TDX ended", NOW + 4 * DAY, ([2, 1, 0, 1], "t".to_owned())),
        ("both lists", NOW + 5 * DAY, ([2, 1, 0, 1], "t".to_owned())),
        ("no golden", NOW + 6 * DAY, ([2, 1, 0, 1], String::new())),
        (
            "all files ended",
            NOW + 7 * DAY,
            ([2, 0, 0, 1], String::new()),
        ),
    ];
    for (name, unix, expected) in cases {
        assert_eq!(offered(unix), expected, "{name}");
    }
}

#[test]
fn a_manifest_that_has_ended_offers_nothing() {
    let mut folder = Folder::whole();
    folder.manifest.valid_until = at(NOW + DAY / 2);
    let bundle = folder.load().unwrap();
    let last = bundle.in_force(at(NOW + DAY / 2 - 1));
    assert_eq!(last.collateral(), bundle.collateral());
    let ended = bundle.in_force(at(NOW + DAY / 2));
    assert!(ended.collateral().is_empty() && ended.golden_measurements().is_empty());
}

#[test]
fn nothing_outlives_the_manifest_or_a_file_in_force() {
    let bundle = Folder::whole().load().unwrap();
    let cases = [
        (NOW, NOW + DAY),
        (NOW + DAY - 1, NOW + DAY),
        (NOW + DAY, NOW + 2 * DAY),
        (NOW + 6 * DAY, NOW + 7 * DAY),
        (NOW + 7 * DAY, NOW + 10 * DAY),
    ];
    for (now, end) in cases {
        assert_eq!(bundle.not_after(at(now)), Some(at(end)), "{now}");
    }
    let mut folder = Folder::whole();
    folder.manifest.valid_until = at(NOW + DAY / 2);
    let bundle = folder.load().unwrap();
    assert_eq!(bundle.not_after(at(NOW)), Some(at(NOW + DAY / 2)));
}

#[test]
fn the_check_says_what_is_in_force() {
    let bundle = Folder::whole().load().unwrap();
    let checked = |unix: u64| -> Check {
        let mut checks = Checks::default();
        bundle.check(&mut checks, at(unix));
        let mut made = checks.into_vec();
        assert_eq!(made.len(), 1);
        made.remove(0)
    };
    let passes = [NOW - DAY, NOW, NOW + 10 * DAY - 1];
    let fails = [NOW - DAY - 1, NOW + 10 * DAY];
    assert!(passes.into_iter().all(|unix| checked(unix).passed()));
    assert!(!fails.into_iter().any(|unix| checked(unix).passed()));

    let digest = hex::encode(bundle.digest().unwrap());
    let dates = "from 2026-05-31T00:00:00Z to 2026-06-11T00:00:00Z";
    let now = checked(NOW);
    assert_eq!(now.name, "bundle");
    assert_eq!(
        now.expected,
        "a bundle that is in force at 2026-06-01T00:00:00Z"
    );
    assert_eq!(now.seen, format!("sha256 {digest}, {dates}"));
    let later = checked(NOW + 2 * DAY).seen;
    let ended = "past their date: crl/b since 2026-06-02T00:00:00Z, \
                 ocsp since 2026-06-03T00:00:00Z";
    assert_eq!(later, format!("sha256 {digest}, {dates}; {ended}"));
}

#[test]
fn a_manifest_breaks_no_rule() {
    let text = String::from_utf8(Folder::whole().manifest.to_json().unwrap()).unwrap();
    let first = "\"path\": \"crl/a\"";
    let long = format!("\"path\": \"{}\"", "a".repeat(256));
    let source = format!("\"source\": \"{}\"", "a".repeat(1025));
    let created = "\"created\": \"2026-05-31T00:00:00Z\"";
    let cases = [
        (
            "version",
            "\"version\": 1",
            "\"version\": 2",
            "manifest version 2 is unknown",
        ),
        (
            "no version",
            "\"version\": 1",
            "\"a\": 1",
            "member `version` is missing",
        ),
        (
            "date",
            created,
            "\"created\": \"2026-05-31\"",
            "`created` is not a time such as 2026-06-01T00:00:00Z",
        ),
        (
            "ended",
            created,
            "\"created\": \"2026-06-11T00:00:00Z\"",
            "`valid_until` is not after `created`",
        ),
        (
            "twice",
            first,
            "\"path\": \"vcek\"",
            "`vcek` is listed twice",
        ),
        (
            "parent",
            first,
            "\"path\": \"../a\"",
            "\"../a\" is not a plain path below the bundle's folder",
        ),
        (
            "dots inside",
            first,
            "\"path\": \"a/../b\"",
            "\"a/../b\" is not a plain path below the bundle's folder",
        ),
        (
            "absolute",
            first,
            "\"path\": \"/a\"",
            "\"/a\" is not a plain path below the bundle's folder",
        ),
        (
            "folder",
            first,
            "\"path\": \"a/\"",
            "\"a/\" is not a plain path below the bundle's folder",
        ),
        (
            "empty",
            first,
            "\"path\": \"\"",
            "\"\" is not a plain path below the bundle's folder",
        ),
        (
            "hidden",
            first,
            "\"path\": \".a\"",
            "\".a\" is not a plain path below the bundle's folder",
        ),
        (
            "other letters",
            first,
            "\"path\": \"a b\"",
            "\"a b\" is not a plain path below the bundle's folder",
        ),
        (
            "backslash",
            first,
            "\"path\": \"a\\\\b\"",
            "\"a\\\\b\" is not a plain path below the bundle's folder",
        ),
        (
            "itself",
            first,
            "\"path\": \"manifest.json\"",
            "\"manifest.json\" is not a plain path below the bundle's folder",
        ),
        (
            "its signature",
            first,
            "\"path\": \"manifest.sig\"",
            "\"manifest.sig\" is not a plain path below the bundle's folder",
        ),
        (
            "long",
            first,
            &long,
            &format!(
                "{:?} is not a plain path below the bundle's folder",
                "a".repeat(256)
            ),
        ),
        (
            "kind",
            "\"gpu-rim\"",
            "\"rim\"",
            "\"rim\" is no kind of item",
        ),
        (
            "source",
            "\"source\": \"a test\"",
            &source,
            "a source of 1025 bytes exceeds the limit of 1024",
        ),
        (
            "digest",
            "\"sha256\": \"",
            "\"sha256\": \"0",
            "`sha256` is not 32 bytes of lower-case hex",
        ),
        (
            "end of a file",
            "\"fetched_at\": \"2026-06-01T00:00:00Z\"",
            "\"fetched_at\": 1",
            "`fetched_at` is not a string",
        ),
        (
            "member twice",
            "\"version\": 1",
            "\"version\": 1, \"version\": 1",
            "invalid JSON: a member appears twice at line 2 column 27",
        ),
    ];
    for (name, from, to, expected) in cases {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text, "{name}");
        let error = Manifest::from_json(changed.as_bytes()).unwrap_err();
        if name == "member twice" {
            assert!(matches!(error, ManifestError::Json(_)), "{error}");
            continue;
        }
        assert_eq!(error.to_string(), expected, "{name}");
    }
    let longest = text.replacen(first, &long.replace("aa\"", "a\""), 1);
    assert!(Manifest::from_json(longest.as_bytes()).is_ok());
    let longest = text.replacen("\"source\": \"a test\"", &source.replace("aa\"", "a\""), 1);
    assert!(Manifest::from_json(longest.as_bytes()).is_ok());
}

#[test]
fn manifests_are_bounded() {
    let item = |number| item(&format!("f{number}"), ItemKind::Ocsp, b"", NOW + DAY);
    let of = |count| Manifest {
        created: at(NOW),
        valid_until: at(NOW + DAY),
        items: (0..count).map(item).collect(),
    };
    let mut most = of(1024).to_json().unwrap();
    assert_eq!(Manifest::from_json(&most).unwrap(), of(1024));
    let error = of(1025).to_json().unwrap_err();
    assert!(
        matches!(error, ManifestError::TooManyItems(1025)),
        "{error}"
    );
    most.resize(MAX_MANIFEST, b' ');
    assert!(Manifest::from_json(&most).is_ok());
    most.push(b' ');
    let error = Manifest::from_json(&most).unwrap_err();
    assert!(matches!(error, ManifestError::TooLong { .. }), "{error}");
}

#[test]
fn a_key_is_read_as_it_was_written() {
    let (key, pem) = BundleKey::generate().unwrap();
    let read = BundleKey::from_pem(&pem).unwrap();
    assert_eq!(read.public_key(), key.public_key());
    assert_eq!(read.sign(b"a"), key.sign(b"a"));
    assert_eq!(format!("{key:?}"), "BundleKey(..)");
    let folded = pem.replacen("MC", "MC\n", 1);
    assert!(folded == *pem || BundleKey::from_pem(&folded).is_ok());
    let cases = [
        ("", "empty"),
        (&pem[1..], "no begin"),
        (&pem[..pem.len() - 2], "no end"),
        (
            "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n",
            "no key",
        ),
    ];
    for (pem, name) in cases {
        assert_eq!(
            BundleKey::from_pem(pem).err(),
            Some(BundleKeyError::Form),
            "{name}"
        );
    }
}

#[test]
fn a_policy_names_at_most_16_signers() {
    let policy = |count: usize| {
        let list = vec![format!("\"{}\"", "ab".repeat(32)); count].join(", ");
        let text = format!("version = 1\nbundle_signers = [{list}]\n");
        crate::Policy::from_toml(&text, &mut |_| unreachable!())
    };
    assert_eq!(policy(16).unwrap().bundle_signers(), [[0xab; 32]; 16]);
    assert!(policy(0).unwrap().bundle_signers().is_empty());
    let error = policy(17).unwrap_err().to_string();
    assert_eq!(error, "`bundle_signers` is not a list of at most 16 keys");
}
