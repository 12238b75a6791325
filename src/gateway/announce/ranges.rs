//! Addresses that no node may announce: whoever could have the gateway ask there would reach what
//! only this machine or this network reaches.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What an address is to the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// Anybody's, anywhere.
    Global,
    /// This machine's or this network's.
    Private,
    /// Nobody's, a group's, another address in disguise, or where clouds keep their secrets.
    Never,
}

/// Services that clouds give their machines alone, credentials among them; some of these addresses
/// look like anybody's.
const METADATA_V4: [Ipv4Addr; 5] = [
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::new(169, 254, 170, 2),
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(168, 63, 129, 16),
    Ipv4Addr::new(192, 0, 0, 192),
];
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

/// What `address` is (the IANA registries of special-purpose addresses, RFC 6890).
pub(super) fn reach(address: IpAddr) -> Reach {
    match address {
        IpAddr::V4(v4) => reach_v4(v4),
        IpAddr::V6(v6) => reach_v6(v6),
    }
}

fn reach_v4(address: Ipv4Addr) -> Reach {
    if METADATA_V4.contains(&address) {
        return Reach::Never;
    }
    match address.octets() {
        [0 | 224..=255, ..] => Reach::Never,
        [10 | 127, ..]
        | [100, 64..=127, ..]
        | [169, 254, ..]
        | [172, 16..=31, ..]
        | [192, 0, 0 | 2, _]
        | [192, 88, 99, _]
        | [192, 168, ..]
        | [198, 18 | 19, ..]
        | [198, 51, 100, _]
        | [203, 0, 113, _] => Reach::Private,
        _ => Reach::Global,
    }
}

fn reach_v6(address: Ipv6Addr) -> Reach {
    if address == METADATA_V6 {
        return Reach::Never;
    }
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 1] => Reach::Private,
        // Others that look like one: 6to4 and Teredo hold an address of the older kind.
        [0x2002, ..] | [0x2001, 0, ..] => Reach::Never,
        [0x2001, 1..=0x1ff | 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Reach::Private,
        [0x2000..=0x3fff, ..] => Reach::Global,
        // Unique-local and link-local.
        [0xfc00..=0xfdff | 0xfe80..=0xfebf, ..] => Reach::Private,
        // The rest is multicast, mapped, translated, unspecified, or given to nobody.
        _ => Reach::Never,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_global_only_if_it_is_nothing_else() {
        use Reach::{Global, Never, Private};
        let cases = [
            ("1.1.1.1", Global),
            ("100.63.255.255", Global),
            ("172.32.0.1", Global),
            ("192.0.1.1", Global),
            ("223.255.255.255", Global),
            ("2606:4700::1", Global),
            ("2001:4860::1", Global),
            ("127.0.0.1", Private),
            ("127.255.255.254", Private),
            ("10.0.0.1", Private),
            ("172.16.0.1", Private),
            ("172.31.255.255", Private),
            ("192.168.1.1", Private),
            ("100.64.0.1", Private),
            ("100.127.255.255", Private),
            ("169.254.0.1", Private),
            ("192.0.0.1", Private),
            ("192.0.2.1", Private),
            ("192.88.99.1", Private),
            ("198.18.0.1", Private),
            ("198.51.100.1", Private),
            ("203.0.113.1", Private),
            ("::1", Private),
            ("fe80::1", Private),
            ("febf::1", Private),
            ("fc00::1", Private),
            ("fdff::1", Private),
            ("2001:db8::1", Private),
            ("2001:10::1", Private),
            ("3fff::1", Private),
            ("0.0.0.0", Never),
            ("0.1.2.3", Never),
            ("224.0.0.1", Never),
            ("240.0.0.1", Never),
            ("255.255.255.255", Never),
            ("169.254.169.254", Never),
            ("169.254.170.2", Never),
            ("100.100.100.200", Never),
            ("168.63.129.16", Never),
            ("192.0.0.192", Never),
            ("::", Never),
            ("::ffff:127.0.0.1", Never),
            ("::ffff:1.1.1.1", Never),
            ("::127.0.0.1", Never),
            ("64:ff9b::7f00:1", Never),
            ("64:ff9b:1::1", Never),
            ("100::1", Never),
            ("2002:7f00:1::1", Never),
            ("2001:0:1::1", Never),
            ("fec0::1", Never),
            ("ff02::1", Never),
            ("fd00:ec2::254", Never),
            ("4000::1", Never),
        ];
        for (address, expected) in cases {
            assert_eq!(reach(address.parse().unwrap()), expected, "{address}");
        }
    }
}
