//! The built binary is static: no interpreter, no shared library, no relocation that would cost every executor
//! its own copy of a page.
#![expect(
    clippy::disallowed_methods,
    reason = "a test that cannot read the binary should panic right there"
)]

use std::fs;

const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;
/// `e_type` of a program at a fixed address.
const ET_EXEC: u16 = 2;

#[test]
fn the_binary_needs_nothing_of_the_machine() {
    let binary = fs::read(env!("CARGO_BIN_EXE_kplay")).expect("the built binary");
    let elf = Elf(&binary);
    assert_eq!(&binary[..5], b"\x7fELF\x02", "a 64-bit ELF file");
    let kinds = elf.program_headers();
    assert!(!kinds.is_empty(), "a program has program headers");
    assert!(!kinds.contains(&PT_INTERP), "it asks for an interpreter");
    assert!(!kinds.contains(&PT_DYNAMIC), "it asks for shared libraries");
    assert_eq!(elf.u16(0x10), ET_EXEC, "it is relocated at its start");
}

/// A little-endian 64-bit ELF file.
struct Elf<'a>(&'a [u8]);

impl Elf<'_> {
    /// `p_type` of every program header.
    fn program_headers(&self) -> Vec<u32> {
        let table = usize::try_from(self.u64(0x20)).expect("an offset in the file");
        let size = usize::from(self.u16(0x36));
        let count = usize::from(self.u16(0x38));
        (0..count).map(|i| self.u32(table + i * size)).collect()
    }

    fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.bytes(at))
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.bytes(at))
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.bytes(at))
    }

    fn bytes<const N: usize>(&self, at: usize) -> [u8; N] {
        self.0[at..at + N].try_into().expect("N bytes")
    }
}
