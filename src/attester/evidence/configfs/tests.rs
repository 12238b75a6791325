//! A kernel in memory, and one whose entries are folders on disk.

use std::{
    collections::{BTreeMap, HashMap},
    fmt, fs,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use attestation::EvidenceKind;

use super::*;
use crate::attester::evidence::{
    certificate_table::tests::{GUIDS, table},
    tests::{milan, question, tdx_quote},
};

/// What the hardware answers to an `inblob`.
type Hardware = Arc<dyn Fn(&[u8]) -> Vec<u8> + Send + Sync>;

/// A kernel that behaves as `drivers/virt/coco` does, and misbehaves where told.
#[derive(Clone)]
pub(crate) struct Kernel {
    state: Arc<Mutex<State>>,
    hardware: Hardware,
}

struct State {
    provider: &'static str,
    auxblob: Option<Vec<u8>>,
    entries: BTreeMap<PathBuf, Entry>,
    /// The generation of a new entry.
    first_generation: u64,
    /// Errors to come, by operation or attribute.
    faults: HashMap<&'static str, Vec<io::ErrorKind>>,
    /// How many entries somebody else writes to after we did.
    meddled: u32,
    /// Most bytes of one read.
    piece: usize,
    made: u32,
    pauses: Vec<Duration>,
    privlevels: Vec<String>,
}

#[derive(Default)]
struct Entry {
    generation: u64,
    inblob: Vec<u8>,
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Kernel")
    }
}

impl Kernel {
    pub(crate) fn new(
        provider: &'static str,
        hardware: impl Fn(&[u8]) -> Vec<u8> + Send + Sync + 'static,
    ) -> Self {
        let state = State {
            provider,
            auxblob: None,
            entries: BTreeMap::new(),
            first_generation: 0,
            faults: HashMap::new(),
            meddled: 0,
            piece: usize::MAX,
            made: 0,
            pauses: Vec::new(),
            privlevels: Vec::new(),
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            hardware: Arc::new(hardware),
        }
    }

    fn with(self, change: impl FnOnce(&mut State)) -> Self {
        change(&mut self.state.lock().unwrap());
        self
    }

    /// The same, with a table of certificates from the host.
    pub(crate) fn with_table(self, table: Vec<u8>) -> Self {
        self.with(|state| state.auxblob = Some(table))
    }

    fn failing(self, what: &'static str, errors: &[io::ErrorKind]) -> Self {
        self.with(|state| {
            state.faults.insert(what, errors.to_vec());
        })
    }

    fn source(&self, certificates: Certificates) -> Configfs<Self> {
        Configfs::with_files(self.clone(), "/tsm".into(), None, certificates)
    }

    pub(crate) fn cpu(&self) -> impl CpuSource + use<> {
        self.source(Certificates::Host)
    }

    fn asked(&self) -> Result<EvidenceItem, String> {
        let asked = self.source(Certificates::Host).evidence(&question());
        let state = self.state.lock().unwrap();
        let left = !state.faults.get("rmdir").is_some_and(Vec::is_empty);
        assert!(state.entries.is_empty() || !left, "an entry is left behind");
        asked.map_err(|error| error.to_string())
    }
}

impl State {
    fn fault(&mut self, what: &str) -> io::Result<()> {
        match self.faults.get_mut(what).and_then(Vec::pop) {
            Some(kind) => Err(kind.into()),
            None => Ok(()),
        }
    }

    fn entry(&mut self, path: &Path) -> io::Result<(String, &mut Entry)> {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let entry = self.entries.get_mut(path.parent().unwrap());
        Ok((name, entry.ok_or(io::ErrorKind::NotFound)?))
    }
}

impl Files for Kernel {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        assert_eq!(path.parent().unwrap(), Path::new("/tsm"));
        state.made += 1;
        state.fault("mkdir")?;
        let entry = Entry {
            generation: state.first_generation,
            ..Entry::default()
        };
        let known = state.entries.insert(path.to_owned(), entry);
        assert!(known.is_none(), "names repeat");
        Ok(())
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        state.fault("rmdir")?;
        state.entries.remove(path).unwrap();
        Ok(())
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        let (name, _) = state.entry(path)?;
        state.fault(&name)?;
        let meddles = name == "inblob" && state.meddled > 0;
        if meddles {
            state.meddled -= 1;
        }
        match name.as_str() {
            "inblob" => state.entry(path)?.1.inblob = bytes.to_vec(),
            "privlevel" => state
                .privlevels
                .push(String::from_utf8(bytes.to_vec()).unwrap()),
            _ => return Err(io::ErrorKind::PermissionDenied.into()),
        }
        let (_, entry) = state.entry(path)?;
        entry.generation = entry.generation.wrapping_add(1);
        if meddles {
            entry.generation += 1;
            entry.inblob = vec![0; 64];
        }
        Ok(())
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Read>> {
        let mut state = self.state.lock().unwrap();
        let (name, entry) = state.entry(path)?;
        let (generation, inblob) = (entry.generation, entry.inblob.clone());
        state.fault(&name)?;
        let content = match name.as_str() {
            "provider" => format!("{}\n", state.provider).into_bytes(),
            "generation" => format!("{generation}\n").into_bytes(),
            "outblob" | "auxblob" if inblob.is_empty() => {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            "outblob" => (self.hardware)(&inblob),
            "auxblob" => state.auxblob.clone().ok_or(io::ErrorKind::NotFound)?,
            _ => return Err(io::ErrorKind::NotFound.into()),
        };
        let piece = state.piece;
        Ok(Box::new(Pieces(io::Cursor::new(content), piece)))
    }

    fn pause(&self, duration: Duration) {
        self.state.lock().unwrap().pauses.push(duration);
    }
}

/// Gives so many bytes at a time.
struct Pieces(io::Cursor<Vec<u8>>, usize);

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(self.1);
        self.0.read(&mut buffer[..most])
    }
}

/// A kernel of the machine that made the recorded Milan report, with its certificates.
fn milan_kernel() -> Kernel {
    let (report, vcek, ask) = milan();
    Kernel::new("sev_guest", move |_| report.clone())
        .with_table(table(&[(GUIDS[0], &vcek), (GUIDS[2], &ask)]))
}

#[test]
fn a_genuine_report_comes_with_the_hosts_certificates() {
    let (report, vcek, ask) = milan();
    let crl: &[u8] = &[0x30, 1, 7];
    let aux = table(&[(GUIDS[2], &ask), (GUIDS[0], &vcek), (GUIDS[3], crl)]);
    let kernel = milan_kernel().with(|state| state.auxblob = Some(aux));
    let item = kernel.asked().unwrap();
    assert_eq!(item.kind, EvidenceKind::SevSnp);
    assert_eq!(item.report, report);
    assert_eq!(item.certificates, [vcek.clone(), ask]);
    assert_eq!(item.collateral.amd_crls, [crl]);
    let files = Certificates::Files(vec![vcek.clone()]);
    let kernel = milan_kernel().failing("auxblob", &[io::ErrorKind::Other]);
    let item = kernel.source(files).evidence(&question()).unwrap();
    assert_eq!(item.certificates, [vcek], "the host is not asked");
    let none = milan_kernel().with(|state| state.auxblob = None);
    assert!(none.asked().unwrap().certificates.is_empty());
}

#[test]
fn a_genuine_quote_comes_alone() {
    let quote = tdx_quote();
    let kernel = Kernel::new("tdx_guest", move |_| tdx_quote());
    let item = kernel.asked().unwrap();
    assert_eq!((item.kind, item.report), (EvidenceKind::Tdx, quote));
    assert!(item.certificates.is_empty() && item.collateral.is_empty());
}

#[test]
fn the_question_is_what_the_hardware_signs() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&seen);
    let kernel = Kernel::new("tdx_guest", move |inblob| {
        told.lock().unwrap().push(inblob.to_vec());
        vec![1]
    });
    let source = Configfs::with_files(kernel.clone(), "/tsm".into(), Some(2), Certificates::Host);
    source.evidence(&question()).unwrap();
    assert_eq!(*seen.lock().unwrap(), [question().report_data]);
    assert_eq!(kernel.state.lock().unwrap().privlevels, ["2"]);
}

#[test]
fn reads_may_be_short_and_the_counter_may_wrap() {
    let (report, ..) = milan();
    for piece in [1, 7] {
        let kernel = milan_kernel().with(|state| state.piece = piece);
        assert_eq!(kernel.asked().unwrap().report, report);
    }
    let kernel = milan_kernel().with(|state| state.first_generation = u64::MAX);
    assert!(kernel.asked().is_ok());
}

#[test]
fn what_passes_is_tried_again_and_not_for_ever() {
    use io::ErrorKind::{Interrupted, ResourceBusy, TimedOut, WouldBlock};
    let passing = [
        ("mkdir", ResourceBusy),
        ("provider", WouldBlock),
        ("generation", ResourceBusy),
        ("inblob", ResourceBusy),
        ("outblob", WouldBlock),
        ("outblob", TimedOut),
        ("outblob", Interrupted),
        ("auxblob", WouldBlock),
    ];
    let last = usize::try_from(MAX_TRIES).unwrap();
    for (what, kind) in passing {
        let kernel = milan_kernel().failing(what, &vec![kind; last - 1]);
        assert!(kernel.asked().is_ok(), "{what}");
        let state = kernel.state.lock().unwrap();
        assert_eq!(state.made, MAX_TRIES, "{what}");
        let pauses: Vec<_> = state.pauses.iter().map(Duration::as_millis).collect();
        assert_eq!(pauses, [25, 50, 100, 200, 400, 800, 1600], "{what}");
        drop(state);
        let kernel = milan_kernel().failing(what, &vec![kind; last]);
        let error = kernel.asked().unwrap_err();
        assert!(error.contains("no report after 8 tries"), "{what}: {error}");
    }
}

#[test]
fn a_report_that_may_be_anothers_is_thrown_away() {
    let kernel = milan_kernel().with(|state| state.meddled = MAX_TRIES - 1);
    assert!(kernel.asked().is_ok());
    assert_eq!(kernel.state.lock().unwrap().made, MAX_TRIES);
    let kernel = milan_kernel().with(|state| state.meddled = MAX_TRIES);
    let error = kernel.asked().unwrap_err();
    assert!(error.contains("2 writes where 1 were made"), "{error}");
}

#[test]
fn what_does_not_pass_is_named_at_once() {
    use io::ErrorKind::{InvalidInput, NotFound, PermissionDenied};
    let other = |provider, hardware: fn(&[u8]) -> Vec<u8>| Kernel::new(provider, hardware);
    let cases = [
        (
            "another TEE",
            other("arm_cca_guest", |_| vec![1]),
            "the provider is \"arm_cca_guest\"",
        ),
        (
            "an oversized quote",
            other("tdx_guest", |_| vec![1; MAX_REPORT + 1]),
            "outblob: longer than 65536 bytes",
        ),
        (
            "an oversized table",
            milan_kernel().with(|state| state.auxblob = Some(vec![0; MAX_TABLE + 1])),
            "auxblob: longer than 65536 bytes",
        ),
        (
            "an empty quote",
            other("tdx_guest", |_| vec![]),
            "outblob: empty",
        ),
        (
            "a short report",
            other("sev_guest", |_| vec![1; 1183]),
            "a report of 1183 bytes, where 1184 are due",
        ),
        (
            "a broken table",
            milan_kernel().with(|state| state.auxblob = Some(vec![1; 24])),
            "entry 0 points outside",
        ),
        (
            "no configfs",
            milan_kernel().failing("mkdir", &[NotFound]),
            "/tsm is not there: this is no SEV-SNP or TDX guest",
        ),
        (
            "no right",
            milan_kernel().failing("mkdir", &[PermissionDenied]),
            "Access to the hardware",
        ),
        (
            "no kernel behind it",
            milan_kernel().failing("provider", &[NotFound]),
            "`root` must be a configfs",
        ),
        (
            "a refused question",
            milan_kernel().failing("outblob", &[InvalidInput]),
            "outblob: ",
        ),
        (
            "a name that is taken",
            milan_kernel().failing("mkdir", &[io::ErrorKind::AlreadyExists; 4]),
            "/tsm/sealgate-",
        ),
    ];
    for (name, kernel, expected) in cases {
        let error = kernel.asked().expect_err(name);
        assert!(error.contains(expected), "{name}: {error}");
        assert!(kernel.state.lock().unwrap().pauses.is_empty(), "{name}");
    }
}

#[test]
fn a_name_that_is_taken_is_followed_by_another() {
    let kernel = milan_kernel().failing("mkdir", &[io::ErrorKind::AlreadyExists; 3]);
    assert!(kernel.asked().is_ok());
    assert_eq!(kernel.state.lock().unwrap().made, MAX_NAMES);
}

#[test]
fn an_entry_that_cannot_be_ended_costs_no_report() {
    let kernel = milan_kernel().failing("rmdir", &[io::ErrorKind::ResourceBusy]);
    assert!(kernel.asked().is_ok());
    assert_eq!(kernel.state.lock().unwrap().entries.len(), 1);
}

/// The system's files, with a kernel's work done between the calls.
#[derive(Debug)]
struct OnDisk;

impl Files for OnDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        SystemFiles.create_dir(path)?;
        for (name, content) in [
            ("provider", "tdx_guest\n"),
            ("generation", "41\n"),
            ("inblob", ""),
        ] {
            fs::write(path.join(name), content)?;
        }
        Ok(())
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        for file in fs::read_dir(path)? {
            fs::remove_file(file?.path())?;
        }
        SystemFiles.remove_dir(path)
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        SystemFiles.write(path, bytes)?;
        let signed = fs::read(path)?;
        fs::write(
            path.with_file_name("outblob"),
            [b"signed ", &signed[..]].concat(),
        )?;
        fs::write(path.with_file_name("generation"), "42\n")
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Read>> {
        SystemFiles.open(path)
    }

    fn pause(&self, duration: Duration) {
        panic!("{duration:?}: nothing is busy")
    }
}

#[test]
fn the_systems_files_are_spoken_with_in_the_same_way() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().to_owned();
    let source = Configfs::with_files(OnDisk, root.clone(), None, Certificates::Host);
    let item = source.evidence(&question()).unwrap();
    assert_eq!(
        item.report,
        [b"signed ", &question().report_data[..]].concat()
    );
    assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
    // A folder that is no configfs has no attributes, and none are made.
    let plain = Configfs::new(root.clone(), None, Certificates::Host);
    let error = plain.evidence(&question()).unwrap_err().to_string();
    assert!(error.contains("`root` must be a configfs"), "{error}");
    assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
    let absent = Configfs::new(root.join("absent"), None, Certificates::Host);
    let error = absent.evidence(&question()).unwrap_err().to_string();
    assert!(error.contains("absent is not there"), "{error}");
    let wrote = SystemFiles.write(&root.join("inblob"), b"x");
    assert_eq!(wrote.unwrap_err().kind(), io::ErrorKind::NotFound);
}
