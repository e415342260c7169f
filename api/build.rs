//! Compiles `proto/muster/v1` in pure Rust (no `protoc`): messages, clients, servers, the descriptors
//! that JSON is written by, and two tables drawn from the `access` option of each rpc: who may call
//! it, and which field of its request names the tenant. An rpc that does not state its access fails
//! the build here, with its name.

use prost_reflect::{
    DescriptorPool, DynamicMessage, Kind, MessageDescriptor, MethodDescriptor, ReflectMessage,
};
use std::{collections::BTreeMap, env, error::Error, fmt::Write as _, fs, path::PathBuf};

type Failure = Box<dyn Error>;

/// Messages that carry a secret: their `Debug` is written by hand and shows none.
const SECRETIVE: [&str; 4] = [
    "muster.v1.JoinResponse",
    "muster.v1.CreateTokenResponse",
    "muster.v1.EnrolRequest",
    "muster.v1.PeerPayload",
];

fn main() -> Result<(), Failure> {
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=build.rs");
    let out = PathBuf::from(env::var("OUT_DIR")?);

    let mut files = Vec::new();
    for entry in fs::read_dir("proto/muster/v1")? {
        files.push(entry?.path());
    }
    files.sort();
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).include_source_info(true).open_files(&files)?;
    let pool = compiler.descriptor_pool();
    let descriptors = compiler.file_descriptor_set();

    fs::write(out.join("access_table.rs"), access_table(&pool)?)?;
    compiler.include_source_info(false);
    fs::write(out.join("descriptors.bin"), compiler.encode_file_descriptor_set())?;

    let mut config = tonic_prost_build::Config::new();
    config.enable_type_names();
    tonic_prost_build::configure()
        .btree_map(".")
        .bytes(".")
        .skip_debug(SECRETIVE)
        .emit_rerun_if_changed(false)
        .compile_fds_with_config(descriptors, config)?;
    Ok(())
}

/// One `Requirement` per rpc, by path, and one `TenantNamed` per request that names a tenant.
fn access_table(pool: &DescriptorPool) -> Result<String, Failure> {
    let extension = pool.get_extension_by_name("muster.v1.access").ok_or("no option `access`")?;
    let mut rows = BTreeMap::new();
    let mut tenants: BTreeMap<String, String> = BTreeMap::new();
    for method in pool.services().flat_map(|service| service.methods().collect::<Vec<_>>()) {
        let name = method.full_name().to_owned();
        let options = method.options();
        if !options.has_extension(&extension) {
            return Err(format!("rpc {name} does not state its option (muster.v1.access)").into());
        }
        let value = options.get_extension(&extension);
        let access = value.as_message().ok_or("option `access` is not a message")?;
        let row = requirement(access).map_err(|problem| format!("rpc {name}: {problem}"))?;
        let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
        rows.insert(path, row);
        if let Some((message, code)) =
            tenant_named(&method, access).map_err(|problem| format!("rpc {name}: {problem}"))?
        {
            let before = tenants.insert(message.clone(), code.clone());
            if before.is_some_and(|before| before != code) {
                return Err(format!("{message} names its tenant in two ways").into());
            }
        }
    }
    let mut text = String::from(
        "/// What every rpc asks of its caller, ordered by path.\n\
         pub const TABLE: &[(&str, Requirement)] = &[\n",
    );
    for (path, row) in rows {
        writeln!(text, "    ({path:?}, {row}),")?;
    }
    text.push_str("];\n");
    for code in tenants.into_values() {
        text.push_str(&code);
    }
    Ok(text)
}

/// The `Requirement` literal of one option.
fn requirement(access: &DynamicMessage) -> Result<String, Failure> {
    let role = match word(access, "role", "ACCESS_ROLE_")?.as_str() {
        "None" => "None".to_owned(),
        role => format!("Some(Role::{role})"),
    };
    let scope = word(access, "scope", "ACCESS_SCOPE_")?;
    let field = access.get_field_by_name("callers").ok_or("no field callers")?;
    let mut callers = Vec::new();
    for caller in field.as_list().ok_or("callers is not a list")? {
        let number = caller.as_enum_number().ok_or("callers holds no enum")?;
        let caller = enum_word(access, "callers", number, "ACCESS_CALLER_")?;
        callers.push(format!("CallerKind::{caller}"));
    }
    if callers.is_empty() {
        return Err("names no kind of caller".into());
    }
    Ok(format!(
        "Requirement {{ role: {role}, scope: RequiredScope::{scope}, callers: &[{}] }}",
        callers.join(", ")
    ))
}

/// The request message and the code that finds the tenant in it, for scope TENANT.
fn tenant_named(
    method: &MethodDescriptor,
    access: &DynamicMessage,
) -> Result<Option<(String, String)>, Failure> {
    let field = access.get_field_by_name("tenant_from").ok_or("no field tenant_from")?;
    let path = field.as_str().ok_or("tenant_from is not a text")?;
    let scoped = word(access, "scope", "ACCESS_SCOPE_")? == "Tenant";
    if path.is_empty() == scoped {
        return Err("tenant_from is set for scope TENANT, and only then".into());
    }
    if !scoped {
        return Ok(None);
    }
    let input = method.input();
    let mut value = "Some(self)".to_owned();
    let mut message: Option<MessageDescriptor> = Some(input.clone());
    let mut last = "";
    for part in path.split('.') {
        let parent = message.take().ok_or("tenant_from goes through a field that is no message")?;
        let field = parent
            .get_field_by_name(part)
            .ok_or_else(|| format!("{} has no field {part}", parent.name()))?;
        match field.kind() {
            Kind::Message(inner) => {
                write!(value, ".and_then(|message| message.{part}.as_ref())")?;
                message = Some(inner);
            }
            Kind::String => write!(value, ".map(|message| message.{part}.as_str())")?,
            _ => return Err("tenant_from ends in a field that is no text".into()),
        }
        last = part;
    }
    let reader = match last {
        "tenant" => "tenant_name",
        "resource" => "tenant_of_resource",
        _ => return Err("tenant_from ends in neither `tenant` nor `resource`".into()),
    };
    let name = input.name();
    let code = format!(
        "impl TenantNamed for v1::{name} {{\n    fn tenant_named(&self) -> Result<Name, Rejection> \
         {{\n        {reader}({path:?}, {value})\n    }}\n}}\n"
    );
    Ok(Some((name.to_owned(), code)))
}

/// The CamelCase word of an enum field that must be set.
fn word(access: &DynamicMessage, field: &str, prefix: &str) -> Result<String, Failure> {
    let value = access.get_field_by_name(field).ok_or_else(|| format!("no field {field}"))?;
    let number = value.as_enum_number().ok_or_else(|| format!("{field} is no enum"))?;
    enum_word(access, field, number, prefix)
}

fn enum_word(
    access: &DynamicMessage,
    field: &str,
    number: i32,
    prefix: &str,
) -> Result<String, Failure> {
    let field = access.descriptor().get_field_by_name(field).ok_or("no such field")?;
    let Kind::Enum(kind) = field.kind() else { return Err("not an enum".into()) };
    let value = kind.get_value(number).ok_or("unknown enum number")?;
    let text = value.name().strip_prefix(prefix).ok_or("enum value without its prefix")?;
    if number == 0 {
        return Err(format!("does not state its {}", field.name()).into());
    }
    let camel = |part: &str| {
        part.chars().take(1).chain(part.to_lowercase().chars().skip(1)).collect::<String>()
    };
    Ok(text.split('_').map(camel).collect())
}
