//! `sealgate bundle fetch`: files from vendors' services, as they gave them.

use std::{
    io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use attestation::{nvidia::with_root, ocsp};
use clap::Subcommand;
use zeroize::Zeroizing;

use super::{Error, create, piece, read};
use crate::{
    cli::{terminal, verify::input},
    fetch::{Bearer, Client, FetchError, File, amd, intel, nvidia},
};

/// Longest chain or manifest that OCSP requests are made of, in bytes.
const MAX_CHAIN_FILE: usize = rim::MAX_RIM;
/// Longest key for a service, in bytes.
const MAX_BEARER: usize = 4 * 1024;
/// Certificates of a device's chain, whose leaf the device made itself: no responder knows it.
const DEVICE_CHAIN_LEN: usize = 5;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct FetchArgs {
    /// Where the files go; one that is there is written over.
    #[arg(long, value_name = "DIR", global = true, default_value = ".")]
    out: PathBuf,
    /// The proxy to go through, such as http://proxy:3128.
    #[arg(long, value_name = "URL", global = true)]
    proxy: Option<String>,
    /// Certificates (PEM) that the services' TLS must hang from, instead of the public roots.
    #[arg(long, value_name = "FILE", global = true)]
    ca: Option<PathBuf>,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// AMD: a product's revocation list, and the certificate of a chip's key.
    Amd {
        /// Milan, Genoa or Turin.
        #[arg(long, value_parser = ["Milan", "Genoa", "Turin"])]
        product: String,
        /// The chip's id in hex, 128 digits, or 16 for Turin; with it, the versions of its firmware.
        #[arg(long, value_name = "HEX", value_parser = parse_chip_id, requires_all = ["bootloader", "tee", "snp", "microcode"])]
        chip_id: Option<String>,
        /// Security version of the boot loader.
        #[arg(long, value_name = "N", requires = "chip_id")]
        bootloader: Option<u8>,
        /// Security version of the TEE.
        #[arg(long, value_name = "N", requires = "chip_id")]
        tee: Option<u8>,
        /// Security version of the SNP firmware.
        #[arg(long, value_name = "N", requires = "chip_id")]
        snp: Option<u8>,
        /// Security version of the microcode.
        #[arg(long, value_name = "N", requires = "chip_id")]
        microcode: Option<u8>,
        /// Security version of the FMC, on Turin.
        #[arg(long, value_name = "N", requires = "chip_id")]
        fmc: Option<u8>,
        /// The service, or a mirror of it.
        #[arg(long, value_name = "URL", default_value = amd::BASE)]
        base_url: String,
    },
    /// Intel: TCB info, QE identity and revocation lists for a family of platforms, in one file.
    Intel {
        /// The family, 12 hex digits.
        #[arg(long, value_name = "HEX", value_parser = parse_fmspc)]
        fmspc: String,
        /// Who certified the platform's key.
        #[arg(long, value_parser = ["platform", "processor"], default_value = "platform")]
        ca_of_pck: String,
        /// The service, or a mirror of it.
        #[arg(long, value_name = "URL", default_value = intel::BASE)]
        base_url: String,
        /// Where the root's revocation list lies, or a mirror of it.
        #[arg(long, value_name = "URL", default_value = intel::ROOT_BASE)]
        root_base_url: String,
    },
    /// NVIDIA: manifests by id, and the state of certificates.
    Nvidia {
        /// A manifest, such as NV_GPU_DRIVER_GH100_550.90.07; may be given several times.
        #[arg(long, value_name = "ID", value_parser = parse_rim_id)]
        rim: Vec<String>,
        /// A device's chain (PEM, leaf first, with or without the root) or a manifest (XML, or the
        /// service's JSON) whose certificates are asked about; may be given several times.
        #[arg(long, value_name = "FILE")]
        ocsp: Vec<PathBuf>,
        /// A file with a key for the service, sent as a bearer token, and never over plain http but to
        /// this machine.
        #[arg(long, value_name = "FILE")]
        api_key: Option<PathBuf>,
        /// The service for manifests, or a mirror of it.
        #[arg(long, value_name = "URL", default_value = nvidia::RIM_BASE)]
        base_url: String,
        /// The OCSP responder, or a mirror of it.
        #[arg(long, value_name = "URL", default_value = nvidia::OCSP_BASE)]
        ocsp_base_url: String,
    },
}

/// Why nothing was fetched.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchFailed {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("{}: not a chain of certificates in PEM, nor a manifest of NVIDIA's", .0.display())]
    Chain(PathBuf),
    #[error("{}: not one line that a header field can carry", .0.display())]
    ApiKey(PathBuf),
    #[error("nothing to fetch: give --rim or --ocsp")]
    Nothing,
    #[error("cannot start: {0}")]
    Runtime(io::Error),
}

pub(super) fn run(args: &FetchArgs) -> Result<ExitCode, Error> {
    let client = Client::try_new(args.proxy.as_deref(), args.ca.as_deref());
    let client = client.map_err(FetchFailed::from)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(FetchFailed::Runtime)?;
    let mut keep = |file: File| keep(&args.out, &file);
    runtime.block_on(fetch(&client, &args.what, &mut keep))?;
    Ok(ExitCode::SUCCESS)
}

async fn fetch(
    client: &Client,
    what: &What,
    keep: &mut dyn FnMut(File) -> Result<(), Error>,
) -> Result<(), Error> {
    match what {
        What::Amd {
            product, base_url, ..
        } => {
            let chips: Vec<_> = what.chip().into_iter().collect();
            let files = amd::fetch(client, base_url, product, &chips).await;
            files
                .map_err(FetchFailed::from)?
                .into_iter()
                .try_for_each(keep)
        }
        What::Intel {
            fmspc,
            ca_of_pck,
            base_url,
            root_base_url,
        } => {
            let file = intel::fetch(client, base_url, root_base_url, fmspc, ca_of_pck).await;
            keep(file.map_err(FetchFailed::from)?)
        }
        What::Nvidia {
            rim,
            ocsp,
            api_key,
            base_url,
            ocsp_base_url,
        } => {
            if rim.is_empty() && ocsp.is_empty() {
                return Err(FetchFailed::Nothing.into());
            }
            let bearer = api_key.as_deref().map(read_bearer).transpose()?;
            let requests: Vec<_> = ocsp
                .iter()
                .map(|path| requests(path))
                .collect::<Result<_, _>>()?;
            for id in rim {
                let file = nvidia::fetch_rim(client, base_url, id, bearer.as_ref()).await;
                keep(file.map_err(FetchFailed::from)?)?;
            }
            for request in requests.into_iter().flatten() {
                let file = nvidia::fetch_ocsp(client, ocsp_base_url, request).await;
                keep(file.map_err(FetchFailed::from)?)?;
            }
            Ok(())
        }
    }
}

impl What {
    fn chip(&self) -> Option<amd::Chip> {
        let Self::Amd {
            chip_id,
            bootloader,
            tee,
            snp,
            microcode,
            fmc,
            ..
        } = self
        else {
            return None;
        };
        Some(amd::Chip {
            chip_id: chip_id.clone()?,
            bootloader: (*bootloader)?,
            tee: (*tee)?,
            snp: (*snp)?,
            microcode: (*microcode)?,
            fmc: *fmc,
        })
    }
}

/// Writes a file, and beside it where it came from, which `create` puts into the manifest.
fn keep(out: &Path, file: &File) -> Result<(), Error> {
    let path = out.join(&file.name);
    let note = out.join(format!("{}.{}", file.name, create::SOURCE_EXTENSION));
    create::write(&path, &file.content)?;
    create::write(&note, file.source.as_bytes())?;
    terminal::say(format_args!(
        "{}: {} bytes from {}",
        path.display(),
        file.content.len(),
        file.source
    ));
    Ok(())
}

/// An OCSP request for each certificate of a chain that has its issuer after it.
fn requests(path: &Path) -> Result<Vec<Vec<u8>>, Error> {
    let bytes = read(path, MAX_CHAIN_FILE)?;
    let wrong = || FetchFailed::Chain(path.to_owned());
    let chain = match piece::manifest_xml(bytes.clone()) {
        Some(xml) => rim::certificates(&xml).map_err(|_| wrong())?,
        None => with_root(input::certificates_in(bytes)),
    };
    let own = usize::from(chain.len() == DEVICE_CHAIN_LEN);
    let pairs = chain.iter().zip(chain.iter().skip(1)).skip(own);
    let requests = pairs.map(|(certificate, issuer)| ocsp::request(certificate, issuer));
    let requests: Vec<_> = requests.collect::<Result<_, _>>().map_err(|_| wrong())?;
    if requests.is_empty() {
        return Err(wrong().into());
    }
    Ok(requests)
}

fn read_bearer(path: &Path) -> Result<Bearer, Error> {
    let key = Zeroizing::new(read(path, MAX_BEARER)?);
    let key = std::str::from_utf8(&key).ok().and_then(Bearer::try_new);
    key.ok_or_else(|| FetchFailed::ApiKey(path.to_owned()).into())
}

/// What goes into an address is made of these alone.
fn parse_hex(text: &str, lengths: &[usize]) -> Option<String> {
    let hex = text.bytes().all(|b| b.is_ascii_hexdigit());
    (hex && lengths.contains(&text.len())).then(|| text.to_owned())
}

fn parse_chip_id(text: &str) -> Result<String, &'static str> {
    parse_hex(text, &[16, 128]).ok_or("neither 128 hex digits nor Turin's 16")
}

fn parse_fmspc(text: &str) -> Result<String, &'static str> {
    parse_hex(text, &[12]).ok_or("not 12 hex digits")
}

fn parse_rim_id(text: &str) -> Result<String, &'static str> {
    let known = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    let ok = text.starts_with("NV_") && text.len() <= 128 && text.bytes().all(known);
    ok.then(|| text.to_owned())
        .ok_or("an id is NV_, then letters, digits, `_`, `.` and `-`")
}

#[cfg(test)]
mod tests {
    use base64::{Engine as _, prelude::BASE64_STANDARD};

    use super::*;

    const CHAIN: &str =
        include_str!("../../../attestation/tests/data/nvidia/hopper/cert_chain.pem");
    const DRIVER: &[u8] =
        include_bytes!("../../../rim/tests/data/NV_GPU_DRIVER_GH100_550.90.07.xml");
    /// What NVIDIA answered, for the lower certificate first.
    const OF_DEVICE: [&[u8]; 3] = [
        include_bytes!("../../../attestation/tests/data/nvidia/hopper/ocsp-l4.der"),
        include_bytes!("../../../attestation/tests/data/nvidia/hopper/ocsp-l3.der"),
        include_bytes!("../../../attestation/tests/data/nvidia/hopper/ocsp-l2.der"),
    ];
    const OF_DRIVER: [&[u8]; 3] = [
        include_bytes!("../../../rim/tests/data/ocsp/driver-l4.der"),
        include_bytes!("../../../rim/tests/data/ocsp/l3.der"),
        include_bytes!("../../../rim/tests/data/ocsp/l2.der"),
    ];

    /// A request ends with what its response repeats: digests of the issuer, and a serial number.
    #[test]
    fn all_that_can_be_revoked_is_asked_about() {
        let end = CHAIN.trim_end().rfind("-----BEGIN").unwrap();
        let answer = serde_json::json!({ "id": "NV_a", "rim": BASE64_STANDARD.encode(DRIVER) });
        let answer = answer.to_string();
        let cases = [
            ("a device's chain", CHAIN.as_bytes(), OF_DEVICE),
            ("without its root", &CHAIN.as_bytes()[..end], OF_DEVICE),
            ("a manifest", DRIVER, OF_DRIVER),
            ("a service's answer", answer.as_bytes(), OF_DRIVER),
        ];
        let file = tempfile::NamedTempFile::new().unwrap();
        for (name, bytes, responses) in cases {
            std::fs::write(file.path(), bytes).unwrap();
            let requests = requests(file.path()).unwrap();
            assert_eq!(requests.len(), responses.len(), "{name}");
            for (request, response) in requests.iter().zip(responses) {
                let end = &request[request.len() - 100..];
                assert!(response.windows(end.len()).any(|it| it == end), "{name}");
            }
        }
        for bytes in [
            &b""[..],
            b"<a/>",
            b"{\"id\":\"NV_a\",\"rim\":\"*\"}",
            OF_DEVICE[0],
        ] {
            std::fs::write(file.path(), bytes).unwrap();
            let error = requests(file.path()).unwrap_err().to_string();
            assert!(error.ends_with("nor a manifest of NVIDIA's"), "{error}");
        }
    }

    #[test]
    fn what_goes_into_an_address_has_no_other_letters() {
        for text in ["", "../", "00?", &"0".repeat(127), &"g".repeat(16)] {
            assert!(parse_chip_id(text).is_err(), "{text}");
        }
        assert!(parse_chip_id(&"0a".repeat(64)).is_ok());
        assert!(parse_chip_id(&"0A".repeat(8)).is_ok());
        assert!(parse_fmspc("00A067110000").is_ok());
        assert!(parse_fmspc("00A06711000").is_err());
        assert!(parse_rim_id("NV_GPU_DRIVER_GH100_550.90.07").is_ok());
        for text in ["ids", "NV_/../a", "NV_a?b", "NV_a b"] {
            assert!(parse_rim_id(text).is_err(), "{text}");
        }
    }
}
