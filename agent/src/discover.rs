//! What a host is made of, read bottom up from /proc, /sys and /etc.
//!
//! `discover` is the thin layer of file reading; `parse` turns texts into facts and is pure. A fact
//! that the machine does not tell is empty, never invented, and never an error: an agent must come
//! up on odd hardware. The same machine gives equal facts, in a fixed order, so that only a real
//! change is a change. Components have an identity that outlives a new size or a lost link: the
//! device name of a disk or NIC, bus and address of a USB device.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::cgroup::Cgroups;
use crate::driver::Capability;

mod isolation;
mod parse;

pub use isolation::Limiters;

/// More components of a kind than this are not reported.
const COMPONENTS_MAX: usize = 256;

/// Everything found out about a host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// The name the machine gives itself.
    pub hostname: String,
    /// Processor architecture, as `uname -m` says it.
    pub arch: String,
    /// Kernel release.
    pub kernel: String,
    /// The operating system.
    pub os: OperatingSystem,
    /// Changes with each boot.
    pub boot_id: String,
    /// The processors.
    pub cpu: Processor,
    /// Usable memory.
    pub memory_bytes: u64,
    /// Disks with a medium, by device name.
    pub disks: Vec<Disk>,
    /// Network interfaces except loopback, by device name.
    pub nics: Vec<Nic>,
    /// USB devices, by bus and address.
    pub usb: Vec<Usb>,
    /// Where limits come from.
    pub cgroups: Limiters,
    /// What can run here, with the isolation it gets.
    pub drivers: Vec<Capability>,
}

/// The operating system, from `os-release`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatingSystem {
    /// Short identifier, such as `debian`.
    pub id: String,
    /// Name for people.
    pub name: String,
    /// Version, empty on rolling systems.
    pub version: String,
}

/// The processors of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Processor {
    /// Model name.
    pub model: String,
    /// Logical processors.
    pub threads: u32,
    /// Physical cores; equal to `threads` where the kernel does not tell.
    pub cores: u32,
}

/// A disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// Its identity.
    pub device_name: String,
    /// Model, empty for virtual disks.
    pub model: String,
    /// Size.
    pub size_bytes: u64,
    /// It has moving parts, as far as the kernel knows.
    pub rotational: bool,
}

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nic {
    /// Its identity.
    pub device_name: String,
    /// Hardware address.
    pub mac: String,
    /// It has a link.
    pub up: bool,
    /// Largest packet.
    pub mtu_bytes: u32,
}

/// A USB device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usb {
    /// Bus number; with the address its identity.
    pub bus: u32,
    /// Address on the bus.
    pub address: u32,
    /// Vendor and product identifiers, `1d6b:0002`.
    pub id: String,
    /// Product name.
    pub product: String,
}

/// The identity of a component within its host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ComponentId {
    /// The isolation that jobs of a driver really get, by the driver's name. First in order: of a host
    /// with many devices this is what must be told.
    Isolation(String),
    /// A disk by device name.
    Disk(String),
    /// A network interface by device name.
    Nic(String),
    /// A USB device by bus and address.
    Usb {
        /// Bus number.
        bus: u32,
        /// Address on the bus.
        address: u32,
    },
}

impl ComponentId {
    /// `isolation`, `disk`, `nic` or `usb`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Isolation(_) => "isolation",
            Self::Disk(_) => "disk",
            Self::Nic(_) => "nic",
            Self::Usb { .. } => "usb",
        }
    }
}

/// The name within the kind.
impl fmt::Display for ComponentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Isolation(name) | Self::Disk(name) | Self::Nic(name) => f.write_str(name),
            Self::Usb { bus, address } => write!(f, "{bus}:{address}"),
        }
    }
}

impl Facts {
    /// Every component by its identity, described in one line for people.
    pub fn components(&self) -> BTreeMap<ComponentId, String> {
        let isolation = self.drivers.iter().map(|driver| {
            (
                ComponentId::Isolation(driver.kind.name().to_owned()),
                isolation::words(driver, &self.cgroups),
            )
        });
        let disks = self.disks.iter().map(|disk| {
            let text = format!("{} bytes {}", disk.size_bytes, disk.model);
            (ComponentId::Disk(disk.device_name.clone()), text.trim_end().to_owned())
        });
        let nics = self.nics.iter().map(|nic| {
            let text = format!("{} {}", nic.mac, if nic.up { "up" } else { "down" });
            (ComponentId::Nic(nic.device_name.clone()), text)
        });
        let usb = self.usb.iter().map(|usb| {
            let text = format!("{} {}", usb.id, usb.product);
            (ComponentId::Usb { bus: usb.bus, address: usb.address }, text.trim_end().to_owned())
        });
        isolation.chain(disks).chain(nics).chain(usb).collect()
    }
}

/// Reads the facts of the machine whose file system is at `root` (`/`, or a copy in a test). Takes
/// a few milliseconds of file reading: call it at the start and now and then, not per heartbeat.
pub fn discover(root: &Path, drivers: Vec<Capability>) -> Facts {
    let read = |path: &str| text(&root.join(path));
    let os_release = match read("etc/os-release") {
        missing if missing.is_empty() => read("usr/lib/os-release"),
        found => found,
    };
    Facts {
        hostname: read("proc/sys/kernel/hostname"),
        arch: std::env::consts::ARCH.to_owned(),
        kernel: read("proc/sys/kernel/osrelease"),
        os: parse::operating_system(&os_release),
        boot_id: read("proc/sys/kernel/random/boot_id"),
        cpu: parse::processor(&read("proc/cpuinfo")),
        memory_bytes: parse::memory_bytes(&read("proc/meminfo")),
        disks: each(&root.join("sys/block"), disk),
        nics: each(&root.join("sys/class/net"), nic),
        usb: usb_devices(&root.join("sys/bus/usb/devices")),
        cgroups: Limiters::of(&Cgroups::detect()),
        drivers,
    }
}

/// A small file's text without the line end; empty if it cannot be read.
fn text(path: &Path) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&bytes).trim_end().to_owned()
}

fn number<T: std::str::FromStr + Default>(path: &Path) -> T {
    text(path).parse().unwrap_or_default()
}

/// What `look` finds in the entries of a directory, by name.
fn each<T>(dir: &Path, look: impl Fn(&str, &Path) -> Option<T>) -> Vec<T> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort_unstable();
    names.iter().filter_map(|name| look(name, &dir.join(name))).take(COMPONENTS_MAX).collect()
}

const SECTOR_BYTES: u64 = 512;
/// Block devices that are made of other things than a disk.
const NOT_DISKS: [&str; 6] = ["loop", "ram", "zram", "dm-", "md", "nbd"];

fn disk(name: &str, dir: &Path) -> Option<Disk> {
    let size_bytes = number::<u64>(&dir.join("size")).saturating_mul(SECTOR_BYTES);
    if size_bytes == 0 || NOT_DISKS.iter().any(|prefix| name.starts_with(prefix)) {
        return None;
    }
    Some(Disk {
        device_name: name.to_owned(),
        model: text(&dir.join("device/model")),
        size_bytes,
        rotational: text(&dir.join("queue/rotational")) == "1",
    })
}

fn nic(name: &str, dir: &Path) -> Option<Nic> {
    (name != "lo" && dir.join("address").is_file()).then(|| Nic {
        device_name: name.to_owned(),
        mac: text(&dir.join("address")),
        up: text(&dir.join("operstate")) == "up",
        mtu_bytes: number(&dir.join("mtu")),
    })
}

fn usb_devices(dir: &Path) -> Vec<Usb> {
    let mut found = each(dir, |_, dir| {
        let vendor = text(&dir.join("idVendor"));
        // Interfaces lie among the devices and have no vendor.
        (!vendor.is_empty()).then(|| Usb {
            bus: number(&dir.join("busnum")),
            address: number(&dir.join("devnum")),
            id: format!("{vendor}:{}", text(&dir.join("idProduct"))),
            product: text(&dir.join("product")),
        })
    });
    found.sort_unstable_by_key(|usb| (usb.bus, usb.address));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn components_are_found_and_keep_their_identity() {
        let root = machine(&[
            ("etc/os-release", "ID=debian\nNAME=\"Debian GNU/Linux\"\nVERSION_ID=\"12\"\n"),
            ("proc/meminfo", "MemTotal:  2048 kB\n"),
            ("sys/block/sda/size", "4096\n"),
            ("sys/block/sda/device/model", "Disk 9000  \n"),
            ("sys/block/sda/queue/rotational", "1\n"),
            ("sys/block/loop0/size", "16\n"),
            ("sys/block/sr0/size", "0\n"),
            ("sys/class/net/lo/address", "00:00:00:00:00:00\n"),
            ("sys/class/net/eth0/address", "02:00:00:00:00:01\n"),
            ("sys/class/net/eth0/operstate", "up\n"),
            ("sys/class/net/eth0/mtu", "1500\n"),
            ("sys/bus/usb/devices/1-1/idVendor", "1d6b\n"),
            ("sys/bus/usb/devices/1-1/idProduct", "0002\n"),
            ("sys/bus/usb/devices/1-1/busnum", "1\n"),
            ("sys/bus/usb/devices/1-1/devnum", "7\n"),
            ("sys/bus/usb/devices/1-1:1.0/bInterfaceClass", "09\n"),
        ]);
        let facts = discover(root.path(), Vec::new());
        assert_eq!((facts.os.id.as_str(), facts.memory_bytes), ("debian", 2 << 20));
        let names: Vec<_> =
            facts.components().into_keys().map(|id| format!("{}/{id}", id.kind())).collect();
        assert_eq!(names, ["disk/sda", "nic/eth0", "usb/1:7"]);
        assert_eq!((facts.disks[0].size_bytes, facts.disks[0].rotational), (2 << 20, true));
        assert_eq!((facts.nics[0].up, facts.nics[0].mtu_bytes), (true, 1_500));

        let before = facts.components();
        fs::write(root.path().join("sys/class/net/eth0/operstate"), "down").unwrap();
        let after = discover(root.path(), Vec::new()).components();
        let changed: Vec<_> =
            after.iter().filter(|(id, text)| before.get(id) != Some(text)).collect();
        assert_eq!(changed.len(), 1, "a lost link changes one component and adds none");
        assert_eq!(before.len(), after.len());
    }

    #[test]
    fn a_machine_that_tells_nothing_has_empty_facts() {
        let root = machine(&[]);
        let facts = discover(root.path(), Vec::new());
        assert_eq!((facts.hostname.as_str(), facts.cpu.threads), ("", 0));
        assert!(facts.components().is_empty());
    }

    #[test]
    fn this_machine_tells_what_matters() {
        let facts = discover(Path::new("/"), Vec::new());
        assert!(facts.cpu.threads > 0 && facts.memory_bytes > 0, "{facts:?}");
        assert!(!facts.kernel.is_empty() && !facts.boot_id.is_empty(), "{facts:?}");
        assert_eq!(facts, discover(Path::new("/"), Vec::new()), "looking twice sees the same");
    }
}
