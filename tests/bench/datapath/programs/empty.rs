//! Yardstick for the programs: an empty one, attached to the same interface as ours.

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    programs::{SchedClassifier, TcAttachType},
};
use kiam_tests::node::netns::Netns;
use object::{
    Architecture, BinaryFormat, Endianness, SectionKind, SymbolFlags, SymbolKind, SymbolScope,
    write::{Object, Symbol, SymbolSection},
};

/// Name of the program, as `bpftool` shows it.
pub(super) const NAME: &str = "bench_empty";
/// `r0 = TCX_NEXT; exit` (RFC 9669): passes the packet to the next program and the stack.
const INSTRUCTIONS: [[u8; 8]; 2] = [[0xb7, 0, 0, 0, 0xff, 0xff, 0xff, 0xff], [0x95, 0, 0, 0, 0, 0, 0, 0]];

/// The program, attached to an interface of the node until this value is dropped.
pub(super) struct Empty(#[expect(dead_code, reason = "dropping it detaches the program")] Ebpf);

impl Empty {
    pub(super) fn attach(node: &Netns, interface: &str) -> Result<Self> {
        let mut object = Ebpf::load(&compiled()?)?;
        let program: &mut SchedClassifier = object.program_mut(NAME).context("the program just written")?.try_into()?;
        program.load()?;
        node.enter(|| Ok(program.attach(interface, TcAttachType::Ingress).map(drop)?))?;
        Ok(Self(object))
    }
}

/// Returns the object file that a compiler would produce for it.
fn compiled() -> Result<Vec<u8>> {
    let mut object = Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);
    let license = object.add_section(Vec::new(), b"license".to_vec(), SectionKind::Data);
    object.append_section_data(license, b"GPL\0", 1);
    let section = object.add_section(Vec::new(), b"classifier".to_vec(), SectionKind::Text);
    object.append_section_data(section, &INSTRUCTIONS.concat(), 8);
    object.add_symbol(Symbol {
        name: NAME.into(),
        value: 0,
        size: size_of_val(&INSTRUCTIONS) as u64,
        kind: SymbolKind::Text,
        scope: SymbolScope::Dynamic,
        weak: false,
        section: SymbolSection::Section(section),
        flags: SymbolFlags::None,
    });
    Ok(object.write()?)
}
