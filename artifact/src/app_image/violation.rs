//! What can be wrong with an application image: one stable code for each rule.
//!
//! A violation says where (the path inside the image, and the field of a json file), what was found
//! there, and, by its code, which rule was broken and what to do. `docs/image-violations.md` has a
//! paragraph for each code; a test keeps the two lists equal.

use std::fmt;

use serde::{Serialize, Serializer};

/// Declares an enum of codes with their stable text, rule and remedy.
macro_rules! codes {
    ($(#[$doc:meta])* $name:ident { $($variant:ident $code:literal $rule:literal $remedy:literal;)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name {
            $(#[doc = $rule] $variant,)*
        }

        impl $name {
            /// Every code, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The stable, kebab-case code.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }

            /// The code of that text.
            #[must_use]
            pub fn from_code(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|code| code.code() == text)
            }

            /// The rule that the code stands for, one sentence.
            #[must_use]
            pub const fn rule(self) -> &'static str {
                match self { $(Self::$variant => $rule,)* }
            }

            /// What to do about it, one sentence.
            #[must_use]
            pub const fn remedy(self) -> &'static str {
                match self { $(Self::$variant => $remedy,)* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.code())
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.code())
            }
        }
    };
}

codes! {
    /// Why an image is refused.
    ViolationCode {
        NotAZip "not-a-zip" "An image is one zip file with a readable central directory." "Give the folder itself, or pack it with any zip tool and give that file.";
        ImageTooLarge "image-too-large" "The zip is no larger than the limit." "Leave large data out of the image, or split the application.";
        TooManyEntries "too-many-entries" "The zip has no more entries than the limit." "Pack many small files into one data file.";
        DirectoryTooLarge "directory-too-large" "The zip's central directory is no larger than the limit." "Pack again without comments and extra fields, and with short names.";
        EntryTooLarge "entry-too-large" "No file inflates to more than the limit." "Split the file, or fetch it at run time.";
        TotalTooLarge "total-too-large" "All files together inflate to no more than the limit." "Leave large data out of the image.";
        ZipBombRatio "zip-bomb-ratio" "No file inflates to more than the allowed multiple of its stored size." "Store such a file uncompressed, or generate it at run time.";
        EncryptedEntry "encrypted-entry" "No entry is encrypted." "Pack without a password; keep secrets out of images.";
        UnsupportedCompression "unsupported-compression" "Every entry is stored or deflated." "Pack with the methods store or deflate.";
        CorruptEntry "corrupt-entry" "Every entry inflates to its declared size and checksum." "Pack again; the file was damaged or cut short.";
        HeaderMismatch "header-mismatch" "What the central directory says of an entry is what the entry's own header says, and no entry is left unlisted." "Pack again with an ordinary zip tool.";
        OverlappingEntries "overlapping-entries" "No byte of the zip belongs to two entries." "Pack again with an ordinary zip tool.";
        Symlink "symlink" "No entry is a symbolic link." "Put the file itself into the image.";
        SpecialFile "special-file" "Every entry is a plain file or a folder." "Remove devices, pipes and sockets from the image.";
        AbsolutePath "absolute-path" "Every path is relative to the image's root." "Pack from inside the image's folder, with relative paths.";
        PathEscape "path-escape" "No path has a `..` part." "Pack from inside the image's folder.";
        BadPath "bad-path" "A path is UTF-8, short, with forward slashes, and without empty or `.` parts and control characters." "Rename the file.";
        DuplicateEntry "duplicate-entry" "A path occurs once." "Remove one of the two entries.";
        CaseCollision "case-collision" "No two paths differ only in upper and lower case." "Rename one of them.";
        FileAndFolder "file-and-folder" "No path is both a file and a folder." "Rename one of them.";
        MissingApplicationJson "missing-application-json" "The root has an application.json." "Add application.json with schema_version, name and version.";
        SeveralApplicationJson "several-application-json" "The root has application.json once, in one spelling." "Remove `applicaton.json`.";
        UnknownFileAtRoot "unknown-file-at-root" "The root has application.json and folders only." "Move the file into a module, template or static folder, or leave it out.";
        UnknownFolder "unknown-folder" "Every folder has one of package.json, wstemplate.json and static.json." "Add the json that says what the folder is, or leave the folder out.";
        AmbiguousFolder "ambiguous-folder" "No folder has two of package.json, wstemplate.json and static.json." "Split the folder in two.";
        UnknownFileInModule "unknown-file-in-module" "A module folder has package.json, its payload, and template and static folders only." "Move the file into a static or template folder, or leave it out.";
        NoModule "no-module" "An image has at least one module." "Add a folder with package.json and package.wasm or package.exe.<arch>.";
        MalformedJson "malformed-json" "A descriptor is one json object in UTF-8." "Correct the json at the line and column named.";
        DescriptorTooLarge "descriptor-too-large" "Descriptors are no larger than the limit, each and together." "Move data out of the json into data files.";
        DuplicateField "duplicate-field" "A json object names each field once." "Remove one of the two.";
        UnknownField "unknown-field" "A descriptor has only fields that its format knows." "Correct the field's name, or remove it.";
        MissingField "missing-field" "A descriptor has every field that its format requires." "Add the field.";
        WrongType "wrong-type" "A field has the json type that its format requires." "Write the value as the type named.";
        UnsupportedSchemaVersion "unsupported-schema-version" "schema_version is 1." "Write `\"schema_version\": 1`.";
        BadName "bad-name" "A name is 1 to 63 of a-z, 0-9 and `-`, begins with a letter and does not end with `-`." "Choose such a name.";
        BadVersion "bad-version" "A version is a semantic version." "Write a version like 1.4.0.";
        BadVersionRequirement "bad-version-requirement" "A dependency's value is a semantic version requirement." "Write a requirement like ^1.4, or * for any version.";
        PartitionsOutOfRange "partitions-out-of-range" "num_partitions is 1 to 65535." "Choose a number in that range; it cannot be changed after the first deployment.";
        LimitOutOfRange "limit-out-of-range" "cpu_millis is 1 to 1024000 and memory_bytes is 1 MiB to 1 TiB." "Choose a limit in that range, or leave it out.";
        StopGraceOutOfRange "stop-grace-out-of-range" "stop_grace_ms is 0 to 3600000." "Choose a grace of an hour or less.";
        UnknownOnDisconnect "unknown-on-disconnect" "on_disconnect is keep_running, stop or replace." "Write one of the three.";
        UnknownDriver "unknown-driver" "driver is wasm or exec." "Write one of the two, or leave the field out.";
        BadArgument "bad-argument" "Arguments are at most 64, each of at most 4096 bytes without NUL." "Shorten the arguments, or put them into a file.";
        BadEnvironment "bad-environment" "Variables are at most 64, named A-Z, a-z, 0-9 and _, not beginning with a digit or MUSTER_, with values of at most 4096 bytes without NUL." "Rename the variable or shorten its value.";
        SettingsForUnknownModule "settings-for-unknown-module" "application.json has settings only for modules of the image." "Correct the module's name, or remove the settings.";
        DriverMismatch "driver-mismatch" "The driver named in application.json is the one that its modules need." "Remove `driver`, or correct the payloads.";
        MixedDrivers "mixed-drivers" "All modules of an image need the same driver." "Make two applications of it.";
        NoCommonArchitecture "no-common-architecture" "There is an architecture for which every module has an executable." "Add the missing package.exe.<arch> files.";
        DuplicateModuleName "duplicate-module-name" "Module names are unique in an image." "Rename one of the modules in its package.json.";
        DuplicateTemplateName "duplicate-template-name" "Template names are unique in an image." "Rename one of the templates in its wstemplate.json.";
        DuplicateStaticName "duplicate-static-name" "Names of static folders are unique in an image." "Rename one of them in its static.json.";
        ModuleWithoutPayload "module-without-payload" "A module has package.wasm or package.exe.<arch>." "Build the module into its folder.";
        ModuleWithSeveralPayloads "module-with-several-payloads" "A module has either package.wasm or executables, not both." "Make two modules of it.";
        UnsupportedPayload "unsupported-payload" "A payload is package.wasm or package.exe.<arch>; other kinds are not run yet." "Build the module to wasm or to an executable.";
        UnknownArchitecture "unknown-architecture" "<arch> in package.exe.<arch> is x86_64 or aarch64." "Rename or remove the file.";
        DependencyMissing "dependency-missing" "Every dependency is a module of the same image." "Add that module to the image.";
        DependencyVersion "dependency-version" "The module in the image satisfies the version asked for." "Put an acceptable version into the image, or widen the requirement.";
        DependencyCycle "dependency-cycle" "No module depends on itself, directly or through others." "Break the cycle.";
        ExportMissing "export-missing" "Every export listed in package.json is exported by the module." "Export it, or remove it from the list.";
        ExportsWithoutWasm "exports-without-wasm" "Only a wasm module lists exports." "Remove `exports` from this package.json.";
        NotAWasmModule "not-a-wasm-module" "package.wasm is a well-formed core WebAssembly module." "Build to the target wasm32-wasi (preview 1); components are not run yet.";
        StartMissing "start-missing" "A wasm module is a WASI command: it exports the function `_start`." "Link it as a command (with a main function), not as a reactor or library.";
        ImportUnknown "import-unknown" "A wasm module imports from wasi_snapshot_preview1 only, unless package.json says allow_unknown_imports." "Build without that import.";
        NotAnElf "not-an-elf" "package.exe.<arch> is a 64-bit ELF executable, or a script that begins with `#!/`." "Build an executable for Linux, or begin the script with its interpreter.";
        WrongArch "wrong-arch" "An ELF executable is of the architecture in its file's name." "Rename the file or build for that architecture.";
        BadDigest "bad-digest" "A digest is written sha256: and 64 lower-case hex digits." "Write the output of `sha256sum` after `sha256:`.";
        TemplateDataMissing "template-data-missing" "Every data file that wstemplate.json lists is in the template's folder." "Add the file, or remove it from the list.";
        TemplateDigestMismatch "template-digest-mismatch" "A template's data file has the digest that wstemplate.json gives." "List the digest of the file as it is packed.";
        TemplateDataUnlisted "template-data-unlisted" "wstemplate.json lists every file of the template's folder." "List the file with its digest, or leave it out.";
        TooManyViolations "too-many-violations" "The list of violations is cut at the limit." "Correct what is listed and validate again.";
    }
}

codes! {
    /// What is odd about an image that is accepted all the same.
    WarningCode {
        MisspeltApplicationJson "misspelt-application-json" "The root descriptor is spelt `applicaton.json`, which is accepted for application.json." "Rename the file to application.json.";
        UndeclaredExport "undeclared-export" "The module exports more than its package.json lists." "List the exports that others may rely on.";
        UnknownImportAllowed "unknown-import-allowed" "The module imports from hosts other than wasi_snapshot_preview1, which package.json allows." "Remove allow_unknown_imports when no longer needed: the module does not start where the import is missing.";
    }
}

/// One broken rule, and where.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Violation {
    /// The path inside the image, unprintable characters escaped; empty for the image as a whole.
    pub path: String,
    /// The field of the json file at `path`, as `limits.memory_bytes`; empty when none is meant.
    pub field: String,
    /// The rule.
    pub code: ViolationCode,
    /// What was found, one clause without a full stop.
    pub detail: String,
}

/// One oddity, and where.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Warning {
    /// The path inside the image.
    pub path: String,
    /// What kind of oddity.
    pub code: WarningCode,
    /// What was found, one clause without a full stop.
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = if self.path.is_empty() { "(image)" } else { &self.path };
        write!(f, "{path}: ")?;
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        write!(f, "{} [{}]", self.detail, self.code)
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} [{}]", self.path, self.detail, self.code)
    }
}

/// Collects what is found, up to a bound.
#[derive(Debug)]
pub(crate) struct Findings {
    violations: Vec<Violation>,
    warnings: Vec<Warning>,
    max: usize,
    cut: bool,
}

impl Findings {
    pub(crate) fn new(max: usize) -> Self {
        Self { violations: Vec::new(), warnings: Vec::new(), max, cut: false }
    }

    /// Notes a violation at a path.
    pub(crate) fn add(&mut self, code: ViolationCode, path: &str, detail: impl Into<String>) {
        self.add_field(code, path, "", detail);
    }

    /// Notes a violation at a field of the json file at a path.
    pub(crate) fn add_field(
        &mut self,
        code: ViolationCode,
        path: &str,
        field: &str,
        detail: impl Into<String>,
    ) {
        if self.violations.len() >= self.max {
            self.cut = true;
            return;
        }
        self.violations.push(Violation {
            path: printable(path),
            field: printable(field),
            code,
            detail: detail.into(),
        });
    }

    /// Notes an oddity at a path.
    pub(crate) fn warn(&mut self, code: WarningCode, path: &str, detail: impl Into<String>) {
        if self.warnings.len() < self.max {
            self.warnings.push(Warning { path: printable(path), code, detail: detail.into() });
        }
    }

    /// How many violations were noted so far.
    pub(crate) fn count(&self) -> usize {
        self.violations.len()
    }

    /// The warnings of a clean image, or the violations in order of path.
    pub(crate) fn finish(mut self) -> Result<Vec<Warning>, Vec<Violation>> {
        if self.violations.is_empty() {
            self.warnings.sort();
            return Ok(self.warnings);
        }
        self.violations.sort();
        if self.cut {
            self.violations.push(Violation {
                path: String::new(),
                field: String::new(),
                code: ViolationCode::TooManyViolations,
                detail: format!("only the first {} are listed", self.max),
            });
        }
        Err(self.violations)
    }
}

/// `text` fit for a terminal: control characters escaped, at most 256 characters.
pub(crate) fn printable(text: &str) -> String {
    const CHARACTERS_MAX: usize = 256;
    let mut printed = String::new();
    for (position, character) in text.chars().enumerate() {
        if position == CHARACTERS_MAX {
            printed.push('…');
            break;
        }
        // Format characters turn the text around on a terminal: they are escaped like controls.
        if character.is_control() || ('\u{200b}'..='\u{206f}').contains(&character) {
            printed.extend(character.escape_default());
        } else {
            printed.push(character);
        }
    }
    printed
}
