//! From the kernel's texts to facts: pure, and content with whatever it is given.

use std::collections::BTreeSet;

use crate::discover::{OperatingSystem, Processor};

/// The text of `os-release`: shell assignments, possibly quoted.
pub(crate) fn operating_system(text: &str) -> OperatingSystem {
    let value = |key: &str| {
        let mut values = text.lines().filter_map(|line| line.trim().strip_prefix(key));
        let value = values.find_map(|rest| rest.strip_prefix('=')).unwrap_or_default();
        value.trim_matches(|quote| quote == '"' || quote == '\'').to_owned()
    };
    OperatingSystem { id: value("ID"), name: value("NAME"), version: value("VERSION_ID") }
}

/// The text of `/proc/cpuinfo`, of x86 or ARM.
pub(crate) fn processor(text: &str) -> Processor {
    let values = |key: &'static str| {
        text.lines().filter_map(move |line| {
            let (name, value) = line.split_once(':')?;
            (name.trim() == key).then(|| value.trim().to_owned())
        })
    };
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let threads = count(values("processor").filter(|value| value.parse::<u32>().is_ok()).count());
    let sockets = values("physical id");
    let cores: BTreeSet<_> = sockets.zip(values("core id")).collect();
    Processor {
        // ARM names the model once at the end, or only in numbers.
        model: ["model name", "Model", "Hardware", "CPU part"]
            .into_iter()
            .find_map(|key| values(key).next())
            .unwrap_or_default(),
        threads,
        cores: if cores.is_empty() { threads } else { count(cores.len()) },
    }
}

/// The total in the text of `/proc/meminfo`.
pub(crate) fn memory_bytes(text: &str) -> u64 {
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = total.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0).saturating_mul(1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const X86: &str = "\
processor\t: 0
model name\t: Example(R) Processor @ 2.00GHz
physical id\t: 0
core id\t\t: 0
processor\t: 1
model name\t: Example(R) Processor @ 2.00GHz
physical id\t: 0
core id\t\t: 0
processor\t: 2
model name\t: Example(R) Processor @ 2.00GHz
physical id\t: 0
core id\t\t: 1
";
    const ARM: &str = "\
processor\t: 0
BogoMIPS\t: 108.00
CPU part\t: 0xd08
processor\t: 1
CPU part\t: 0xd08
Model\t\t: Example Board Rev 1.4
";

    #[test]
    fn cores_are_counted_apart_from_threads() {
        let cpu = processor(X86);
        assert_eq!((cpu.threads, cpu.cores), (3, 2));
        assert_eq!(cpu.model, "Example(R) Processor @ 2.00GHz");
    }

    #[test]
    fn an_arm_board_has_a_model_and_no_core_ids() {
        let cpu = processor(ARM);
        assert_eq!((cpu.threads, cpu.cores, cpu.model.as_str()), (2, 2, "Example Board Rev 1.4"));
    }

    #[test]
    fn os_release_values_may_be_quoted_or_missing() {
        let os =
            operating_system("PRETTY_NAME='x'\nNAME='Arch Linux'\nID=arch\nBUILD_ID=rolling\n");
        assert_eq!(
            (os.id.as_str(), os.name.as_str(), os.version.as_str()),
            ("arch", "Arch Linux", "")
        );
    }

    #[test]
    fn memory_that_is_not_told_is_none() {
        assert_eq!(memory_bytes("MemTotal:       16384 kB\nMemFree: 1 kB\n"), 16 << 20);
        assert_eq!(memory_bytes("MemTotal: lots"), 0);
    }
}
