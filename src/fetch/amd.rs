//! AMD's key distribution service: revocation lists, chains, and certificates of chips' keys.

use super::{Client, FetchError, File, below, named};

/// The service's address.
pub const BASE: &str = "https://kdsintf.amd.com";

/// A processor and the versions that its key was derived from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Chip {
    /// `CHIP_ID` of a report, in hex: 128 digits, of which Turin's service takes the first 16.
    pub chip_id: String,
    /// Security version of the boot loader.
    pub bootloader: u8,
    /// Of the TEE.
    pub tee: u8,
    /// Of the SNP firmware.
    pub snp: u8,
    /// Of the microcode.
    pub microcode: u8,
    /// Of the FMC, which Turin alone has.
    pub fmc: Option<u8>,
}

/// The revocation list of a product (`Milan`, `Genoa`, `Turin`), and the certificates of chips.
///
/// # Errors
/// [`FetchError`] for the first file that cannot be had.
pub async fn fetch(
    client: &Client,
    base: &str,
    product: &str,
    chips: &[Chip],
) -> Result<Vec<File>, FetchError> {
    let address = below(base, &format!("/vcek/v1/{product}/crl"));
    let list = client.get(&address).await?;
    let mut files = vec![named(format!("amd-{product}.crl"), list.content, address)];
    for chip in chips {
        let address = below(base, &format!("/vcek/v1/{product}/{}", chip.query()));
        let certificate = client.get(&address).await?;
        let start = chip.chip_id.get(..16).unwrap_or(&chip.chip_id);
        let name = format!("amd-{product}-{start}-{}.der", chip.version());
        files.push(named(name, certificate.content, address));
    }
    Ok(files)
}

impl Chip {
    /// The versions' names are AMD's; their numbers have two digits at least.
    fn query(&self) -> String {
        let fmc = self
            .fmc
            .map_or_else(String::new, |fmc| format!("&fmcSPL={fmc:02}"));
        format!(
            "{}?blSPL={:02}&teeSPL={:02}&snpSPL={:02}&ucodeSPL={:02}{fmc}",
            self.chip_id, self.bootloader, self.tee, self.snp, self.microcode
        )
    }

    fn version(&self) -> String {
        let fmc = self.fmc.map_or_else(String::new, |fmc| format!("-{fmc}"));
        format!(
            "{}-{}-{}-{}{fmc}",
            self.bootloader, self.tee, self.snp, self.microcode
        )
    }
}
