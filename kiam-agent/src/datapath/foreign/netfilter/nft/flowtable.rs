//! Flowtables of nf_tables: a packet that arrives by one of their interfaces and belongs to one of their connections is
//! forwarded immediately.

use super::Table;
use netlink_packet_core::{DefaultNla, NLA_TYPE_MASK, Nla as _, NlaBuffer, NlasIterator};
use netlink_packet_netfilter::NetfilterProtoFamily;

// `enum nft_flowtable_attributes`, `nft_flowtable_hook_attributes` and `nft_devices_attributes`
// (include/uapi/linux/netfilter/nf_tables.h).
const ATTR_TABLE: u16 = 1;
const ATTR_NAME: u16 = 2;
const ATTR_HOOK: u16 = 3;
const ATTR_HOOK_DEVICES: u16 = 3;
const ATTR_DEVICE_NAME: u16 = 1;
const ATTR_DEVICE_PREFIX: u16 = 2;

/// A flowtable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Flowtable {
    /// `ip`, `ip6` or `inet`.
    pub(crate) family: &'static str,
    /// Name of its table.
    pub(crate) table: String,
    /// Name.
    pub(crate) name: String,
    /// Interfaces that it is on.
    pub(crate) devices: Vec<Devices>,
}

/// Interfaces in the definition of a flowtable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Devices {
    /// The interface of this name.
    Named(String),
    /// All interfaces with this prefix.
    Prefix(String),
}

impl Flowtable {
    /// Returns whether it is on an interface.
    pub(crate) fn is_on(&self, interface: &str) -> bool {
        self.devices.iter().any(|devices| match devices {
            Devices::Named(name) => name == interface,
            Devices::Prefix(prefix) => interface.starts_with(prefix),
        })
    }
}

/// Reads a flowtable from its message; `None` if the message has no name or table.
pub(super) fn read(family: NetfilterProtoFamily, attributes: &[DefaultNla]) -> Option<Flowtable> {
    let value = |kind| attributes.iter().find_map(|attribute| value_of(attribute, kind));
    let table = Table { family, name: text(&value(ATTR_TABLE)?) };
    let devices = value(ATTR_HOOK).map(|hook| devices(&hook)).unwrap_or_default();
    Some(Flowtable { family: table.family_name(), table: table.name, name: text(&value(ATTR_NAME)?), devices })
}

fn value_of(attribute: &DefaultNla, kind: u16) -> Option<Vec<u8>> {
    let mut value = vec![0; attribute.value_len()];
    attribute.emit_value(&mut value);
    (attribute.kind() & NLA_TYPE_MASK == kind).then_some(value)
}

fn devices(hook: &[u8]) -> Vec<Devices> {
    let mut devices = Vec::new();
    for list in within(hook).filter(|attribute| attribute.kind() == ATTR_HOOK_DEVICES) {
        devices.extend(within(list.value()).filter_map(|device| self::device(&device)));
    }
    devices
}

fn device(attribute: &NlaBuffer<&[u8]>) -> Option<Devices> {
    let name = attribute.value();
    match attribute.kind() {
        // Linux 6.16 reports a prefix as a name that does not end with a zero.
        ATTR_DEVICE_NAME if name.last() == Some(&0) => Some(Devices::Named(text(name))),
        ATTR_DEVICE_NAME | ATTR_DEVICE_PREFIX => Some(Devices::Prefix(text(name))),
        _ => None,
    }
}

fn within(attributes: &[u8]) -> impl Iterator<Item = NlaBuffer<&[u8]>> {
    NlasIterator::new(attributes).filter_map(Result::ok)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.strip_suffix(&[0]).unwrap_or(bytes)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use netlink_packet_core::{Emitable as _, NLA_F_NESTED};

    fn bytes(attributes: &[DefaultNla]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for attribute in attributes {
            let mut one = vec![0; attribute.buffer_len()];
            attribute.emit(&mut one);
            bytes.extend(one);
        }
        bytes
    }

    fn nested(kind: u16, attributes: &[DefaultNla]) -> DefaultNla {
        DefaultNla::new(kind | NLA_F_NESTED, bytes(attributes))
    }

    fn plain(kind: u16, value: &[u8]) -> DefaultNla {
        DefaultNla::new(kind, value.to_vec())
    }

    /// Returns a message as the kernel sends it (`nf_tables_fill_flowtable_info`), including numbers and flags.
    fn message(devices: &[DefaultNla]) -> Vec<DefaultNla> {
        let hook = [plain(1, &[0; 4]), plain(2, &[0; 4]), nested(ATTR_HOOK_DEVICES, devices)];
        let numbers = [plain(4, &[0, 0, 0, 1]), plain(5, &[0; 8]), plain(7, &[0; 4])];
        [
            vec![plain(ATTR_TABLE, b"fw\0"), plain(ATTR_NAME, b"fast\0")],
            numbers.to_vec(),
            vec![nested(ATTR_HOOK, &hook)],
        ]
        .concat()
    }

    #[test]
    fn a_flowtable_is_read_with_its_interfaces() {
        let devices = [plain(ATTR_DEVICE_NAME, b"eth0\0"), plain(ATTR_DEVICE_NAME, b"cali1\0")];
        let found = read(NetfilterProtoFamily::Inet, &message(&devices)).unwrap();
        assert_eq!((found.family, found.table.as_str(), found.name.as_str()), ("inet", "fw", "fast"));
        assert!(found.is_on("cali1") && found.is_on("eth0"));
        assert!(!found.is_on("cali12") && !found.is_on("cali"));
    }

    /// A prefix matches each interface name that begins with it, in both formats that kernels use.
    #[test]
    fn prefix_matches_names_in_both_kernel_formats() {
        for device in [plain(ATTR_DEVICE_PREFIX, b"cali\0"), plain(ATTR_DEVICE_NAME, b"cali")] {
            let found = read(NetfilterProtoFamily::IPv4, &message(&[device])).unwrap();
            assert!(found.is_on("cali1") && !found.is_on("eth0"), "{found:?}");
        }
    }

    #[test]
    fn flowtable_without_interfaces() {
        let attributes = [plain(ATTR_TABLE, b"fw\0"), plain(ATTR_NAME, b"fast\0")];
        assert_eq!(read(NetfilterProtoFamily::IPv6, &attributes).unwrap().devices, []);
        assert_eq!(read(NetfilterProtoFamily::IPv6, &attributes[..1]), None);
    }
}
