//! Whether a secret lies anywhere in the memory that this process can write, for tests that say that
//! it is gone.
//!
//! Linux alone tells a process of its memory as files. What is looked for is kept masked, so that it
//! is not found in what looks for it.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    process::Command,
};

use zeroize::Zeroize as _;

const MASK: u8 = 0xa5;
/// Bytes of memory that are looked at together.
const WINDOW: usize = 1 << 20;
/// Set where a test has the process to itself.
const ALONE: &str = "SEALGATE_TEST_ALONE";

/// What is looked for, and its name.
#[derive(Debug)]
pub(crate) struct Needle {
    pub(crate) name: &'static str,
    masked: Vec<u8>,
    /// A byte of it that is not everywhere, and where it stands.
    rare: (usize, u8),
}

impl Needle {
    pub(crate) fn new<'a>(name: &'static str, secret: impl IntoIterator<Item = &'a u8>) -> Self {
        let masked: Vec<u8> = secret.into_iter().map(|byte| byte ^ MASK).collect();
        assert!(masked.len() >= 16, "{name}: so few bytes can be anywhere");
        let common = [0, 1, 0xff];
        let mut bytes = masked.iter().map(|byte| byte ^ MASK).enumerate();
        let rare = bytes.find(|(_, byte)| !common.contains(byte)).unwrap();
        Self { name, masked, rare }
    }

    /// How often it is there.
    pub(crate) fn count(&self) -> usize {
        let memory = File::open("/proc/self/mem").unwrap();
        let mut window = vec![0; WINDOW];
        let own = window.as_ptr() as u64;
        let own = own..own + WINDOW as u64;
        let mut found = 0;
        for (begin, end) in writable() {
            let mut at = begin;
            while at < end {
                let len = WINDOW.min((end - at) as usize);
                // Some mappings are of devices, or have gone.
                let Ok(read) = memory.read_at(&mut window[..len], at) else {
                    break;
                };
                let places = self.places(&window[..read]);
                found += places
                    .filter(|place| !own.contains(&(at + *place as u64)))
                    .count();
                let step = read.saturating_sub(self.masked.len() - 1);
                if step == 0 {
                    break;
                }
                at += step as u64;
            }
        }
        window.zeroize();
        found
    }

    fn places(&self, memory: &[u8]) -> impl Iterator<Item = usize> {
        let (offset, byte) = self.rare;
        memchr::memchr_iter(byte, memory).filter_map(move |at| {
            let begin = at.checked_sub(offset)?;
            let there = memory.get(begin..begin + self.masked.len())?;
            let mut pairs = there.iter().zip(&self.masked);
            pairs
                .all(|(byte, masked)| byte ^ MASK == *masked)
                .then_some(begin)
        })
    }
}

/// The ranges of this process's memory that it can read and write.
fn writable() -> Vec<(u64, u64)> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let lines = maps.lines().filter_map(|line| {
        let (range, rest) = line.split_once(' ')?;
        let (begin, end) = range.split_once('-')?;
        let number = |text| u64::from_str_radix(text, 16).unwrap();
        rest.starts_with("rw").then(|| (number(begin), number(end)))
    });
    lines.collect()
}

/// Whether the test of that name in `module_path!()` was done by a process of its own, in which nothing
/// else moves memory; `false` in that process.
pub(crate) fn tried_alone(module: &str, test: &str) -> bool {
    if std::env::var_os(ALONE).is_some() {
        return false;
    }
    let (_, module) = module.split_once("::").unwrap();
    let test = format!("{module}::{test}");
    let output = Command::new(std::env::current_exe().unwrap())
        .args([&test, "--exact", "--test-threads=1", "--nocapture"])
        .env(ALONE, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.contains(" 1 passed"),
        "{said}\n{errors}"
    );
    true
}

/// What is there is found, and it is found once: neither the needle nor what was read counts.
#[test]
fn what_is_there_is_found() {
    if tried_alone(module_path!(), "what_is_there_is_found") {
        return;
    }
    let mut secret = Box::new([0_u8; 32]);
    for (at, byte) in (0..).zip(secret.iter_mut()) {
        *byte = 0x3b ^ (7 * at);
    }
    let needle = Needle::new("a test's", secret.iter());
    assert_eq!((needle.count(), needle.count()), (1, 1));
    let copy = secret.to_vec();
    assert_eq!(needle.count(), 2);
    std::hint::black_box(&copy);
    secret.zeroize();
    assert_eq!(needle.count(), 1);
    drop(copy);
}
