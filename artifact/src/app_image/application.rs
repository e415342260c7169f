//! Reads application.json, the image's own descriptor.
//!
//! ```json
//! {
//!   "schema_version": 1,
//!   "name": "shop",                     "version": "1.4.0",
//!   "driver": "wasm",                   // optional: derived from the modules, checked if given
//!   "num_partitions": 8,                // default 1
//!   "on_disconnect": "keep_running",    // or stop, replace; default keep_running
//!   "limits": {"cpu_millis": 500, "memory_bytes": 67108864},   // default: none
//!   "stop_grace_ms": 10000,             // default 10000
//!   "modules": {"cart": {"args": ["--fast"], "env": {"LEVEL": "debug"}}}   // optional
//! }
//! ```

use std::collections::BTreeMap;

use semver::Version;

use crate::app_image::{
    descriptor::{self, Fields},
    manifest::{Driver, OnDisconnect, ResourceLimits},
    violation::{Findings, ViolationCode, printable},
};

/// The one version of the descriptor's format.
const SCHEMA_VERSION: u64 = 1;
/// How long a partition may take to stop unless something else is said.
const STOP_GRACE_MS_DEFAULT: u64 = 10_000;
const STOP_GRACE_MS_MAX: u64 = 3_600_000;
const CPU_MILLIS_MAX: u64 = 1_024_000;
const MEMORY_BYTES: std::ops::RangeInclusive<u64> = (1 << 20)..=(1 << 40);
/// How many arguments, and how many variables, a module may have.
const SETTINGS_MAX: usize = 64;
/// The size of one argument or value.
const SETTING_BYTES_MAX: usize = 4096;

/// application.json, read.
#[derive(Debug)]
pub(crate) struct Application {
    pub(crate) path: String,
    pub(crate) name: String,
    pub(crate) version: Version,
    pub(crate) driver: Option<Driver>,
    pub(crate) num_partitions: u16,
    pub(crate) on_disconnect: OnDisconnect,
    pub(crate) limits: ResourceLimits,
    pub(crate) stop_grace_ms: u64,
    pub(crate) settings: BTreeMap<String, Settings>,
}

/// What application.json says of one module.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settings {
    pub(crate) args: Vec<String>,
    pub(crate) env: BTreeMap<String, String>,
}

impl Default for Application {
    fn default() -> Self {
        Self {
            path: String::new(),
            name: String::new(),
            version: Version::new(0, 0, 0),
            driver: None,
            num_partitions: 1,
            on_disconnect: OnDisconnect::default(),
            limits: ResourceLimits::default(),
            stop_grace_ms: STOP_GRACE_MS_DEFAULT,
            settings: BTreeMap::new(),
        }
    }
}

/// Reads all fields.
pub(crate) fn read(mut fields: Fields<'_>, findings: &mut Findings) -> Application {
    let mut application = Application { path: fields.path().to_owned(), ..Application::default() };
    if let Some(found) = fields.number("schema_version", findings)
        && found != SCHEMA_VERSION
    {
        let detail = format!("schema_version is {found}, only {SCHEMA_VERSION} is known");
        fields.add(ViolationCode::UnsupportedSchemaVersion, "schema_version", detail, findings);
    }
    if let Some(name) = descriptor::name(&mut fields, findings) {
        application.name = name;
    }
    if let Some(version) = descriptor::version(&mut fields, findings) {
        application.version = version;
    }
    application.driver = read_driver(&mut fields, findings);
    if let Some(found) = fields.optional_number("num_partitions", findings) {
        match u16::try_from(found) {
            Ok(number @ 1..) => application.num_partitions = number,
            _ => {
                let detail = format!("num_partitions is {found}");
                let code = ViolationCode::PartitionsOutOfRange;
                fields.add(code, "num_partitions", detail, findings);
            }
        }
    }
    if let Some(on_disconnect) = read_on_disconnect(&mut fields, findings) {
        application.on_disconnect = on_disconnect;
    }
    if let Some(found) = fields.optional_number("stop_grace_ms", findings) {
        if found > STOP_GRACE_MS_MAX {
            let detail = format!("stop_grace_ms is {found}");
            fields.add(ViolationCode::StopGraceOutOfRange, "stop_grace_ms", detail, findings);
        }
        application.stop_grace_ms = found;
    }
    if let Some(limits) = fields.object("limits", findings) {
        application.limits = read_limits(limits, findings);
    }
    if let Some(mut modules) = fields.object("modules", findings) {
        for name in modules.names() {
            if let Some(settings) = modules.object(&name, findings) {
                application.settings.insert(name, read_settings(settings, findings));
            }
        }
        modules.finish(findings);
    }
    fields.finish(findings);
    application
}

fn read_driver(fields: &mut Fields<'_>, findings: &mut Findings) -> Option<Driver> {
    match fields.optional_text("driver", findings)?.as_str() {
        "wasm" => Some(Driver::Wasm),
        "exec" => Some(Driver::Exec),
        other => {
            let detail = format!("`{}` is no driver", printable(other));
            fields.add(ViolationCode::UnknownDriver, "driver", detail, findings);
            None
        }
    }
}

fn read_on_disconnect(fields: &mut Fields<'_>, findings: &mut Findings) -> Option<OnDisconnect> {
    match fields.optional_text("on_disconnect", findings)?.as_str() {
        "keep_running" => Some(OnDisconnect::KeepRunning),
        "stop" => Some(OnDisconnect::Stop),
        "replace" => Some(OnDisconnect::Replace),
        other => {
            let detail = format!("`{}` is no policy", printable(other));
            fields.add(ViolationCode::UnknownOnDisconnect, "on_disconnect", detail, findings);
            None
        }
    }
}

fn read_limits(mut fields: Fields<'_>, findings: &mut Findings) -> ResourceLimits {
    let mut limits = ResourceLimits::default();
    if let Some(found) = fields.optional_number("cpu_millis", findings) {
        match u32::try_from(found) {
            Ok(number @ 1..) if found <= CPU_MILLIS_MAX => limits.cpu_millis = Some(number),
            _ => {
                let detail = format!("cpu_millis is {found}");
                fields.add(ViolationCode::LimitOutOfRange, "cpu_millis", detail, findings);
            }
        }
    }
    if let Some(found) = fields.optional_number("memory_bytes", findings) {
        if !MEMORY_BYTES.contains(&found) {
            let detail = format!("memory_bytes is {found}");
            fields.add(ViolationCode::LimitOutOfRange, "memory_bytes", detail, findings);
        }
        limits.memory_bytes = Some(found);
    }
    fields.finish(findings);
    limits
}

fn read_settings(mut fields: Fields<'_>, findings: &mut Findings) -> Settings {
    let args = fields.texts("args", findings);
    if args.len() > SETTINGS_MAX {
        let detail = format!("there are {} arguments", args.len());
        fields.add(ViolationCode::BadArgument, "args", detail, findings);
    }
    for (position, argument) in args.iter().enumerate() {
        if !is_setting(argument) {
            let field = format!("args[{position}]");
            let detail = "the argument is too long or has a NUL";
            fields.add(ViolationCode::BadArgument, &field, detail, findings);
        }
    }
    let env = fields.text_map("env", findings);
    if env.len() > SETTINGS_MAX {
        let detail = format!("there are {} variables", env.len());
        fields.add(ViolationCode::BadEnvironment, "env", detail, findings);
    }
    for (name, value) in &env {
        let field = format!("env.{name}");
        if !is_variable(name) {
            let detail = "the variable's name is not allowed";
            fields.add(ViolationCode::BadEnvironment, &field, detail, findings);
        }
        if !is_setting(value) {
            let detail = "the value is too long or has a NUL";
            fields.add(ViolationCode::BadEnvironment, &field, detail, findings);
        }
    }
    fields.finish(findings);
    Settings { args, env }
}

fn is_setting(text: &str) -> bool {
    text.len() <= SETTING_BYTES_MAX && !text.contains('\0')
}

/// Whether an image may set this variable: muster's own are not for images to set.
fn is_variable(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 255
        && !name.starts_with(|first: char| first.is_ascii_digit())
        && !name.to_ascii_uppercase().starts_with("MUSTER_")
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}
