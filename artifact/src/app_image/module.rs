//! Reads a module's folder: package.json and the payload beside it.
//!
//! ```json
//! {
//!   "name": "cart",                       "version": "1.4.0",
//!   "dependencies": {"prices": "^2.1"},   // modules of the same image; optional
//!   "exports": ["checkout"],              // wasm only: promised, checked; optional
//!   "allow_unknown_imports": false        // wasm only: see `import-unknown`; default false
//! }
//! ```
//! The payload is `package.wasm`, or one or more of `package.exe.<arch>`, which count as one.

use std::collections::BTreeMap;

use semver::{Version, VersionReq};

use crate::app_image::{
    archive::Content,
    assemble::{self, FolderFiles},
    descriptor::{self, Fields},
    executable,
    manifest::{Architecture, File, Payload},
    violation::{Findings, ViolationCode, WarningCode, printable},
    wasm,
};

/// The descriptor of a module.
pub(crate) const PACKAGE_JSON: &str = "package.json";
const PACKAGE_WASM: &str = "package.wasm";
/// What an executable's file name begins with; the architecture follows.
pub(crate) const PACKAGE_EXE: &str = "package.exe.";
/// Payloads of other kinds, known to be meant as payloads but not run yet.
const PACKAGE_OTHER: [&str; 5] =
    ["package.lua", "package.jar", "package.container", "package.container.json", "package.exe"];

/// The host functions that are there for every module.
const WASI: &str = "wasi_snapshot_preview1";
/// Exports that every command has, which nobody needs to list.
const EXPORTS_IMPLIED: [&str; 2] = ["_start", "memory"];

/// A module as far as its own folder tells.
#[derive(Debug)]
pub(crate) struct Draft {
    /// Empty if it could not be read.
    pub(crate) name: String,
    pub(crate) version: Version,
    pub(crate) folder: String,
    pub(crate) dependencies: BTreeMap<String, VersionReq>,
    pub(crate) exports: Vec<String>,
    /// `None` if there is no usable one.
    pub(crate) payload: Option<Payload>,
    allow_unknown_imports: bool,
}

/// Reads a module's folder; `files` are those that lie in it directly.
pub(crate) fn read(folder: &str, files: &FolderFiles<'_>, findings: &mut Findings) -> Draft {
    let path = format!("{folder}/{PACKAGE_JSON}");
    let mut draft = Draft {
        name: String::new(),
        version: Version::new(0, 0, 0),
        folder: folder.to_owned(),
        dependencies: BTreeMap::new(),
        exports: Vec::new(),
        payload: None,
        allow_unknown_imports: false,
    };
    let scanned = files.get(PACKAGE_JSON).copied().flatten();
    if let Some(fields) = scanned.and_then(|scanned| assemble::parse(&path, scanned, findings)) {
        read_package_json(fields, &mut draft, findings);
    }
    let mut executables = BTreeMap::new();
    let mut wasm = None;
    let mut other = false;
    for (name, scanned) in files.iter().filter(|(name, _)| **name != PACKAGE_JSON) {
        let path = format!("{folder}/{name}");
        if *name == PACKAGE_WASM {
            wasm = Some((path, *scanned));
        } else if PACKAGE_OTHER.contains(name) {
            findings.add(ViolationCode::UnsupportedPayload, &path, "the payload cannot be run");
            other = true;
        } else if let Some(text) = name.strip_prefix(PACKAGE_EXE) {
            if let Some(architecture) = Architecture::from_name(text) {
                executables.insert(architecture, (path, *scanned));
            } else {
                let detail = format!("`{}` is no architecture", printable(text));
                findings.add(ViolationCode::UnknownArchitecture, &path, detail);
                other = true;
            }
        } else if scanned.is_some() {
            let detail = "the file is neither package.json nor a payload";
            findings.add(ViolationCode::UnknownFileInModule, &path, detail);
        }
    }
    let place = format!("{folder}/");
    match (&wasm, executables.is_empty()) {
        (Some(_), false) => {
            let detail = "the module has package.wasm and executables";
            findings.add(ViolationCode::ModuleWithSeveralPayloads, &place, detail);
        }
        (None, true) if !other => {
            let detail = "the module has nothing to run";
            findings.add(ViolationCode::ModuleWithoutPayload, &place, detail);
        }
        _ => {}
    }
    if let Some((path, Some(scanned))) = wasm {
        check_wasm(&draft, &path, &scanned.content, findings);
        draft.payload = Some(Payload::Wasm(scanned.file(&path)));
    } else if !executables.is_empty() {
        let payload = read_executables(executables, findings);
        draft.payload = Some(Payload::Exec(payload));
        if !draft.exports.is_empty() {
            let detail = "the module is an executable";
            findings.add_field(ViolationCode::ExportsWithoutWasm, &path, "exports", detail);
        }
    }
    draft
}

fn read_package_json(mut fields: Fields<'_>, draft: &mut Draft, findings: &mut Findings) {
    if let Some(name) = descriptor::name(&mut fields, findings) {
        draft.name = name;
    }
    if let Some(version) = descriptor::version(&mut fields, findings) {
        draft.version = version;
    }
    for (name, text) in fields.text_map("dependencies", findings) {
        match VersionReq::parse(&text) {
            Ok(requirement) => _ = draft.dependencies.insert(name, requirement),
            Err(error) => {
                let field = format!("dependencies.{name}");
                let detail = format!("`{}` is not a requirement: {error}", printable(&text));
                fields.add(ViolationCode::BadVersionRequirement, &field, detail, findings);
            }
        }
    }
    draft.exports = fields.texts("exports", findings);
    draft.exports.sort();
    draft.exports.dedup();
    draft.allow_unknown_imports = fields.flag("allow_unknown_imports", findings);
    fields.finish(findings);
}

fn check_wasm(draft: &Draft, path: &str, content: &Content, findings: &mut Findings) {
    let facts = match content {
        Content::Module(Ok(facts)) => facts,
        Content::Module(Err(detail)) => {
            findings.add(ViolationCode::NotAWasmModule, path, detail);
            return;
        }
        Content::Descriptor(_) | Content::Head(_) | Content::Opaque => return,
    };
    if !facts.functions.contains("_start") {
        findings.add(ViolationCode::StartMissing, path, "the module exports no function `_start`");
    }
    for name in draft.exports.iter().filter(|name| !facts.exports.contains(*name)) {
        let detail = format!("the module does not export `{}`", printable(name));
        findings.add(ViolationCode::ExportMissing, path, detail);
    }
    let implied = |name: &str| EXPORTS_IMPLIED.contains(&name);
    let listed = |name: &String| draft.exports.binary_search(name).is_ok();
    let extra: Vec<_> = facts.exports.iter().filter(|n| !implied(n) && !listed(n)).collect();
    if !extra.is_empty() {
        let detail = format!("the module also exports {}", list(&extra));
        findings.warn(WarningCode::UndeclaredExport, path, detail);
    }
    check_imports(draft, path, facts, findings);
}

fn check_imports(draft: &Draft, path: &str, facts: &wasm::Facts, findings: &mut Findings) {
    let foreign: Vec<_> = facts.imports.iter().filter(|host| *host != WASI).collect();
    if foreign.is_empty() {
        return;
    }
    let detail = format!("the module imports from {}", list(&foreign));
    if draft.allow_unknown_imports {
        findings.warn(WarningCode::UnknownImportAllowed, path, detail);
    } else {
        findings.add(ViolationCode::ImportUnknown, path, detail);
    }
}

/// The first few names, for a human.
fn list(names: &[&String]) -> String {
    const SHOWN: usize = 8;
    let mut text: Vec<_> =
        names.iter().take(SHOWN).map(|name| format!("`{}`", printable(name))).collect();
    if names.len() > SHOWN {
        text.push(format!("{} more", names.len() - SHOWN));
    }
    text.join(", ")
}

fn read_executables(
    found: BTreeMap<Architecture, (String, Option<&crate::app_image::archive::Scanned>)>,
    findings: &mut Findings,
) -> BTreeMap<Architecture, File> {
    let mut files = BTreeMap::new();
    for (architecture, (path, scanned)) in found {
        let Some(scanned) = scanned else { continue };
        if let Content::Head(head) = &scanned.content
            && let Some((code, detail)) = executable::broken_rule(head, architecture)
        {
            findings.add(code, &path, detail);
        }
        files.insert(architecture, scanned.file(&path));
    }
    files
}
