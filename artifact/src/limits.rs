//! How much of an image is looked at before it is refused.
//!
//! Every number bounds work or memory that bytes from outside could otherwise choose. Nothing here
//! trusts a header: the counts are of bytes and entries really read.

/// The bounds on one application image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The zip itself, in bytes.
    pub image_bytes_max: u64,
    /// Files and folders in the zip.
    pub entries_max: usize,
    /// The zip's central directory, which is kept in memory for a while, in bytes.
    pub directory_bytes_max: u64,
    /// One inflated file, in bytes.
    pub entry_bytes_max: u64,
    /// All inflated files together, in bytes.
    pub total_bytes_max: u64,
    /// Inflated bytes per stored byte of one file.
    pub ratio_max: u64,
    /// A file that inflates to no more than this is not judged by its ratio, in bytes: a small
    /// file of one repeated letter is no bomb.
    pub ratio_free_bytes: u64,
    /// One path inside the image, in bytes.
    pub path_bytes_max: usize,
    /// One json descriptor, in bytes.
    pub descriptor_bytes_max: u64,
    /// All json descriptors together, in bytes.
    pub descriptors_bytes_max: u64,
    /// The import or the export section of one wasm module, in bytes.
    pub wasm_section_bytes_max: u64,
    /// Violations listed before the rest is left out.
    pub violations_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        const MIB: u64 = 1024 * 1024;
        Self {
            image_bytes_max: 1024 * MIB,
            entries_max: 10_000,
            directory_bytes_max: 10 * MIB,
            entry_bytes_max: 512 * MIB,
            total_bytes_max: 2048 * MIB,
            ratio_max: 100,
            ratio_free_bytes: 64 * 1024,
            path_bytes_max: 512,
            descriptor_bytes_max: MIB / 4,
            descriptors_bytes_max: 16 * MIB,
            wasm_section_bytes_max: MIB,
            violations_max: 1000,
        }
    }
}
