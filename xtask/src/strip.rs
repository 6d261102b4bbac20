//! Takes DWARF out of an eBPF object and keeps BTF, maps and programs.
//!
//! Done here because binutils does not know eBPF and LLVM's tools are not on
//! every machine.

use anyhow::{Context as _, Result};
use object::{
    build::elf::{Builder, SectionData},
    elf::SHT_STRTAB,
};

/// The object without its DWARF sections and without what refers only to them.
pub(crate) fn without_dwarf(object: &[u8]) -> Result<Vec<u8>> {
    let mut builder = Builder::read(object).context("read the object")?;
    for section in &mut builder.sections {
        section.delete = is_dwarf(section.name.as_slice());
    }
    builder.delete_orphans();
    give_section_names_a_table(&mut builder);
    let mut stripped = Vec::new();
    builder.write(&mut stripped).context("write the object")?;
    Ok(stripped)
}

/// LLVM keeps the names of sections and of symbols in one table; the writer wants two.
fn give_section_names_a_table(builder: &mut Builder<'_>) {
    if builder.sections.iter().any(|section| matches!(section.data, SectionData::SectionString)) {
        return;
    }
    let section = builder.sections.add();
    section.name = b".shstrtab".as_slice().into();
    section.sh_type = SHT_STRTAB;
    section.sh_addralign = 1;
    section.data = SectionData::SectionString;
}

fn is_dwarf(section: &[u8]) -> bool {
    let relocated =
        section.strip_prefix(b".rela").or_else(|| section.strip_prefix(b".rel")).unwrap_or(section);
    relocated.starts_with(b".debug_")
}

#[cfg(test)]
mod tests {
    use object::{
        Architecture, BinaryFormat, Endianness, Object as _, ObjectSection as _, SectionKind,
        write::{Object, Relocation, RelocationFlags, Symbol, SymbolSection},
    };

    use super::*;

    #[test]
    fn dwarf_goes_and_programs_stay() {
        let stripped = without_dwarf(&sample()).unwrap();

        let file = object::File::parse(stripped.as_slice()).unwrap();
        let names: Vec<&str> = file.sections().filter_map(|section| section.name().ok()).collect();
        assert!(!names.iter().any(|name| name.contains("debug")), "{names:?}");
        assert_eq!(file.section_by_name("xdp").unwrap().data().unwrap(), [7; 16]);
        assert_eq!(file.section_by_name(".BTF").unwrap().data().unwrap(), [8; 4]);
        assert_eq!(file.section_by_name("xdp").unwrap().relocations().count(), 1);
    }

    #[test]
    fn stripping_twice_changes_nothing() {
        let once = without_dwarf(&sample()).unwrap();
        assert_eq!(without_dwarf(&once).unwrap(), once);
    }

    #[test]
    fn text_is_refused() {
        assert!(without_dwarf(b"fn main() {}").is_err());
    }

    fn sample() -> Vec<u8> {
        let mut object = Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);
        let program = object.add_section(Vec::new(), b"xdp".to_vec(), SectionKind::Text);
        object.append_section_data(program, &[7; 16], 8);
        let btf = object.add_section(Vec::new(), b".BTF".to_vec(), SectionKind::Other);
        object.append_section_data(btf, &[8; 4], 4);
        let debug = object.add_section(Vec::new(), b".debug_info".to_vec(), SectionKind::Debug);
        object.append_section_data(debug, &[9; 64], 1);
        let map = object.add_symbol(Symbol {
            name: b"MAP".to_vec(),
            value: 0,
            size: 4,
            kind: object::SymbolKind::Data,
            scope: object::SymbolScope::Linkage,
            weak: false,
            section: SymbolSection::Section(btf),
            flags: object::SymbolFlags::None,
        });
        for section in [program, debug] {
            let flags = RelocationFlags::Elf { r_type: object::elf::R_BPF_64_64 };
            object.add_relocation(section, Relocation { offset: 0, symbol: map, addend: 0, flags }).unwrap();
        }
        object.write().unwrap()
    }
}
