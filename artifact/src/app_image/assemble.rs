//! Makes a manifest of the scanned files: which folder is what, and whether all of it fits together.
//!
//! A folder's kind follows from the descriptor that lies in it; its name means nothing. Templates
//! and static folders lie at the root or inside a module's folder. Every reader goes on after a
//! violation with a stand-in value, so that one pass lists all of them; the manifest is used only
//! when there was none.

use std::collections::{BTreeMap, BTreeSet};

use crate::app_image::{
    application::{self, Application},
    archive::{Content, Scan, Scanned},
    dependency,
    descriptor::Fields,
    manifest::{Architecture, Driver, Manifest, Module, Payload, StaticFolder, Template},
    module, template,
    violation::{Findings, ViolationCode, WarningCode},
};

/// The correct and the tolerated name of the root descriptor.
const APPLICATION_JSON: &str = "application.json";
const APPLICATION_JSON_MISSPELT: &str = "applicaton.json";

/// The files below one folder: path relative to it -> content.
pub(crate) type FolderFiles<'s> = BTreeMap<&'s str, Option<&'s Scanned>>;

/// What a folder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Module,
    Template,
    Static,
}

impl Kind {
    const ALL: [(&'static str, Self); 3] = [
        (module::PACKAGE_JSON, Self::Module),
        (template::WSTEMPLATE_JSON, Self::Template),
        (STATIC_JSON, Self::Static),
    ];
}

/// The descriptor of a static folder.
const STATIC_JSON: &str = "static.json";

/// Everything found in folders, each with the path of its descriptor.
#[derive(Debug, Default)]
struct Parts {
    modules: Vec<(String, module::Draft)>,
    templates: Vec<(String, Template)>,
    statics: Vec<(String, StaticFolder)>,
}

/// The manifest of an image, right only if `findings` stays empty.
pub(crate) fn assemble(scan: &Scan, findings: &mut Findings) -> Manifest {
    let application = read_application(scan, findings);
    let mut parts = Parts::default();
    let mut folders: BTreeMap<&str, FolderFiles<'_>> =
        scan.folders.iter().map(|folder| (folder.as_str(), BTreeMap::new())).collect();
    for (path, scanned) in &scan.files {
        if let Some((folder, rest)) = path.split_once('/') {
            folders.entry(folder).or_default().insert(rest, scanned.as_ref());
        }
    }
    for (folder, files) in &folders {
        match kind(folder, files, &Kind::ALL, findings) {
            Some(Kind::Module) => read_module(folder, files, &mut parts, findings),
            Some(kind) => read_data(kind, folder, files, &mut parts, findings),
            None => {}
        }
    }
    if parts.modules.is_empty() && !has_package_json(&folders) {
        findings.add(ViolationCode::NoModule, "", "no folder has a package.json");
    }
    check_names(&parts, findings);
    let order = dependency::order(&parts.modules, findings);
    let modules = settle(parts.modules, order, &application, findings);
    let driver = agree_on_driver(&modules, &application, findings);
    let architectures = common_architectures(driver, &modules, findings);
    parts.templates.sort_by(|a, b| a.1.name.cmp(&b.1.name));
    parts.statics.sort_by(|a, b| a.1.name.cmp(&b.1.name));
    Manifest {
        name: application.name,
        version: application.version,
        driver,
        architectures,
        num_partitions: application.num_partitions,
        on_disconnect: application.on_disconnect,
        limits: application.limits,
        stop_grace_ms: application.stop_grace_ms,
        modules,
        templates: parts.templates.into_iter().map(|(_, template)| template).collect(),
        statics: parts.statics.into_iter().map(|(_, folder)| folder).collect(),
    }
}

/// Whether some folder at least meant to be a module.
fn has_package_json(folders: &BTreeMap<&str, FolderFiles<'_>>) -> bool {
    folders.values().any(|files| files.contains_key(module::PACKAGE_JSON))
}

/// Reads the root's files.
fn read_application(scan: &Scan, findings: &mut Findings) -> Application {
    let mut found = None;
    for (path, scanned) in scan.files.iter().filter(|(path, _)| !path.contains('/')) {
        match path.as_str() {
            APPLICATION_JSON => found = Some((path, scanned)),
            APPLICATION_JSON_MISSPELT if found.is_some() => {
                let detail = "application.json is there as well";
                findings.add(ViolationCode::SeveralApplicationJson, path, detail);
            }
            APPLICATION_JSON_MISSPELT => {
                let detail = "the file is read as application.json";
                findings.warn(WarningCode::MisspeltApplicationJson, path, detail);
                found = Some((path, scanned));
            }
            _ if scanned.is_none() => {}
            _ => {
                let detail = "the file belongs to no folder";
                findings.add(ViolationCode::UnknownFileAtRoot, path, detail);
            }
        }
    }
    let Some((path, scanned)) = found else {
        let detail = "the root has no application.json";
        findings.add(ViolationCode::MissingApplicationJson, APPLICATION_JSON, detail);
        return Application::default();
    };
    let fields = scanned.as_ref().and_then(|scanned| parse(path, scanned, findings));
    fields.map_or_else(Application::default, |fields| application::read(fields, findings))
}

/// The fields of a descriptor whose text was kept.
pub(crate) fn parse<'p>(
    path: &'p str,
    scanned: &Scanned,
    findings: &mut Findings,
) -> Option<Fields<'p>> {
    match &scanned.content {
        Content::Descriptor(text) => Fields::parse(path, text, findings),
        _ => None,
    }
}

/// What a folder is, by the one descriptor in it.
fn kind(
    folder: &str,
    files: &FolderFiles<'_>,
    allowed: &[(&str, Kind)],
    findings: &mut Findings,
) -> Option<Kind> {
    let found: Vec<_> = allowed.iter().filter(|(name, _)| files.contains_key(name)).collect();
    match found.as_slice() {
        [(_, kind)] => Some(*kind),
        [] => {
            let names: Vec<_> = allowed.iter().map(|(name, _)| *name).collect();
            let detail = format!("the folder has none of {}", names.join(", "));
            findings.add(ViolationCode::UnknownFolder, &format!("{folder}/"), detail);
            None
        }
        several => {
            let names: Vec<_> = several.iter().map(|(name, _)| *name).collect();
            let detail = format!("the folder has {}", names.join(" and "));
            findings.add(ViolationCode::AmbiguousFolder, &format!("{folder}/"), detail);
            None
        }
    }
}

/// Reads a module's folder and the folders in it.
fn read_module(folder: &str, files: &FolderFiles<'_>, parts: &mut Parts, findings: &mut Findings) {
    let own = files.iter().filter(|(rest, _)| !rest.contains('/'));
    let own = own.map(|(rest, scanned)| (*rest, *scanned)).collect();
    let draft = module::read(folder, &own, findings);
    parts.modules.push((format!("{folder}/{}", module::PACKAGE_JSON), draft));
    let mut inner: BTreeMap<&str, FolderFiles<'_>> = BTreeMap::new();
    for (rest, scanned) in files {
        if let Some((sub, rest)) = rest.split_once('/') {
            inner.entry(sub).or_default().insert(rest, *scanned);
        }
    }
    for (sub, files) in &inner {
        let folder = format!("{folder}/{sub}");
        if let Some(kind) = kind(&folder, files, &Kind::ALL[1..], findings) {
            read_data(kind, &folder, files, parts, findings);
        }
    }
}

/// Reads a template's or a static folder.
fn read_data(
    kind: Kind,
    folder: &str,
    files: &FolderFiles<'_>,
    parts: &mut Parts,
    findings: &mut Findings,
) {
    if kind == Kind::Template {
        let path = format!("{folder}/{}", template::WSTEMPLATE_JSON);
        if let Some(template) = template::read(folder, files, findings) {
            parts.templates.push((path, template));
        }
        return;
    }
    let path = format!("{folder}/{STATIC_JSON}");
    let scanned = files.get(STATIC_JSON).copied().flatten();
    let Some(mut fields) = scanned.and_then(|scanned| parse(&path, scanned, findings)) else {
        return;
    };
    let name = crate::app_image::descriptor::name(&mut fields, findings);
    fields.finish(findings);
    if let Some(name) = name {
        let folder = folder.to_owned();
        parts.statics.push((path, StaticFolder { name, folder }));
    }
}

/// Notes names that occur twice among modules, templates or static folders.
fn check_names(parts: &Parts, findings: &mut Findings) {
    let modules = parts.modules.iter().map(|(path, module)| (path, module.name.as_str()));
    let templates = parts.templates.iter().map(|(path, template)| (path, template.name.as_str()));
    let statics = parts.statics.iter().map(|(path, folder)| (path, folder.name.as_str()));
    unique(modules, ViolationCode::DuplicateModuleName, findings);
    unique(templates, ViolationCode::DuplicateTemplateName, findings);
    unique(statics, ViolationCode::DuplicateStaticName, findings);
}

fn unique<'a>(
    names: impl Iterator<Item = (&'a String, &'a str)>,
    code: ViolationCode,
    findings: &mut Findings,
) {
    let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
    for (path, name) in names.filter(|(_, name)| !name.is_empty()) {
        if let Some(first) = seen.get(name) {
            let detail = format!("the name `{name}` is taken by {first}");
            findings.add_field(code, path, "name", detail);
        } else {
            seen.insert(name, path);
        }
    }
}

/// The modules in their order of start, with the settings that application.json has for them.
fn settle(
    drafts: Vec<(String, module::Draft)>,
    order: Vec<usize>,
    application: &Application,
    findings: &mut Findings,
) -> Vec<Module> {
    let names: BTreeSet<&str> = drafts.iter().map(|(_, draft)| draft.name.as_str()).collect();
    // A module whose name could not be read might be the one meant.
    if !names.contains("") {
        for name in application.settings.keys().filter(|name| !names.contains(name.as_str())) {
            findings.add_field(
                ViolationCode::SettingsForUnknownModule,
                &application.path,
                &format!("modules.{name}"),
                "the image has no module of this name",
            );
        }
    }
    let mut modules = Vec::new();
    let mut drafts: Vec<_> = drafts.into_iter().map(|(_, draft)| Some(draft)).collect();
    for position in order {
        let Some(draft) = drafts[position].take() else { continue };
        let Some(payload) = draft.payload else { continue };
        let settings = application.settings.get(&draft.name).cloned().unwrap_or_default();
        modules.push(Module {
            name: draft.name,
            version: draft.version,
            folder: draft.folder,
            dependencies: draft.dependencies,
            exports: draft.exports,
            payload,
            args: settings.args,
            env: settings.env,
        });
    }
    modules
}

/// The driver that all modules need.
fn agree_on_driver(
    modules: &[Module],
    application: &Application,
    findings: &mut Findings,
) -> Driver {
    let drivers: BTreeSet<Driver> = modules
        .iter()
        .map(|module| match module.payload {
            Payload::Wasm(_) => Driver::Wasm,
            Payload::Exec(_) => Driver::Exec,
        })
        .collect();
    if drivers.len() > 1 {
        let names = |wanted: Driver| {
            let of_driver = modules.iter().filter(|module| {
                matches!(module.payload, Payload::Wasm(_)) == (wanted == Driver::Wasm)
            });
            of_driver.map(|module| module.name.as_str()).collect::<Vec<_>>().join(", ")
        };
        let detail = format!("wasm: {}; exec: {}", names(Driver::Wasm), names(Driver::Exec));
        findings.add(ViolationCode::MixedDrivers, "", detail);
    }
    let derived = drivers.first().copied();
    if let (Some(declared), Some(derived), 1) = (application.driver, derived, drivers.len())
        && declared != derived
    {
        let detail = format!("the driver is {declared}, the modules need {derived}");
        findings.add_field(ViolationCode::DriverMismatch, &application.path, "driver", detail);
    }
    derived.unwrap_or(Driver::Wasm)
}

/// The architectures on which every module can run.
fn common_architectures(
    driver: Driver,
    modules: &[Module],
    findings: &mut Findings,
) -> Vec<Architecture> {
    let common: Vec<_> = Architecture::ALL
        .into_iter()
        .filter(|architecture| {
            modules.iter().all(|module| match &module.payload {
                Payload::Wasm(_) => true,
                Payload::Exec(by_architecture) => by_architecture.contains_key(architecture),
            })
        })
        .collect();
    if driver == Driver::Exec && common.is_empty() {
        let detail = "no architecture has an executable of every module";
        findings.add(ViolationCode::NoCommonArchitecture, "", detail);
    }
    common
}
