//! What an executable payload begins with: an ELF header of the right architecture, or `#!/`.
//!
//! A script is as good as a program: its interpreter is found on the host, so it fits every
//! architecture. Only the head is looked at; the kernel judges the rest when it is started.

use crate::app_image::{manifest::Architecture, violation::ViolationCode};

/// How many bytes of a file `broken_rule` wants to see.
pub(crate) const HEAD_BYTES: usize = 64;

/// The rule that an executable with this head breaks, if any, and what was found.
pub(crate) fn broken_rule(
    head: &[u8],
    architecture: Architecture,
) -> Option<(ViolationCode, String)> {
    if head.starts_with(b"#!/") {
        return None;
    }
    let not = |detail: &str| Some((ViolationCode::NotAnElf, detail.to_owned()));
    if !head.starts_with(b"\x7fELF") {
        return not("the file begins neither as ELF nor with `#!/`");
    }
    let Some(machine) = head.get(18..20).filter(|_| head.len() >= HEAD_BYTES) else {
        return not("the ELF header is cut short");
    };
    if head[4] != 2 || head[5] != 1 {
        return not("the ELF file is not of 64 bits, little-endian");
    }
    // Executables are of type 2, or 3 when position-independent.
    if !matches!(head[16..18], [2 | 3, 0]) {
        return not("the ELF file is not an executable");
    }
    let machine = u16::from_le_bytes([machine[0], machine[1]]);
    let expected = match architecture {
        Architecture::X86 => 62,
        Architecture::Arm => 183,
    };
    if machine != expected {
        let detail = format!("the ELF machine is {machine}, {architecture} is {expected}");
        return Some((ViolationCode::WrongArch, detail));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elf(class: u8, kind: u8, machine: u8) -> Vec<u8> {
        let mut head = vec![0; HEAD_BYTES];
        head[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', class, 1]);
        head[16] = kind;
        head[18] = machine;
        head
    }

    #[test]
    fn elf_of_the_named_architecture_and_scripts_pass() {
        use ViolationCode::{NotAnElf, WrongArch};
        for (head, architecture, expected) in [
            (elf(2, 2, 62), Architecture::X86, None),
            (elf(2, 3, 183), Architecture::Arm, None),
            (b"#!/bin/sh\n".to_vec(), Architecture::Arm, None),
            (b"#! bin/sh\n".to_vec(), Architecture::Arm, Some(NotAnElf)),
            (b"echo".to_vec(), Architecture::X86, Some(NotAnElf)),
            (Vec::new(), Architecture::X86, Some(NotAnElf)),
            (elf(1, 2, 62), Architecture::X86, Some(NotAnElf)),
            (elf(2, 1, 62), Architecture::X86, Some(NotAnElf)),
            (elf(2, 2, 62)[..20].to_vec(), Architecture::X86, Some(NotAnElf)),
            (elf(2, 2, 62), Architecture::Arm, Some(WrongArch)),
        ] {
            let found = broken_rule(&head, architecture).map(|(code, _)| code);
            assert_eq!(found, expected, "{head:?}");
        }
    }
}
