//! Packages, their applications, and images, to and from the wire.

use super::{
    field::{self, Read, Within},
    host::{driver_from_proto, driver_to_proto, resources_from_proto, resources_to_proto},
    meta,
};
use crate::{reason::bad_field, resource, v1};
use model::{Application, Image, Key, Name, OnDisconnect, Package, Value};
use std::collections::BTreeMap;

/// The message of a tenant's package version.
pub fn to_proto(tenant: &Name, package: &Package) -> v1::Package {
    let key = Key::Package(tenant.clone(), package.meta.name.clone(), package.version.clone());
    v1::Package {
        meta: Some(meta::to_proto(&key, &package.meta)),
        version: package.version.clone(),
        applications: package.applications.iter().map(application_to_proto).collect(),
    }
}

/// The tenant and package version of a message.
///
/// # Errors
/// `FIELD` at the first field that is missing or malformed.
pub fn from_proto(package: v1::Package) -> Read<(Name, Package)> {
    let (Key::Package(tenant, _, version), meta) = meta::from_proto(package.meta)? else {
        return Err(resource::other_kind("meta.resource", v1::Kind::Package));
    };
    if version != package.version {
        let message = "version is not the one that meta.resource says";
        return Err(bad_field("version", message, "make the two agree"));
    }
    let applications = applications_from_proto(package.applications)?;
    Ok((tenant, Package { meta, version, applications }))
}

/// The message of a tenant's image.
pub fn image_to_proto(tenant: &Name, image: &Image) -> v1::Image {
    v1::Image {
        meta: Some(meta::to_proto(&Key::Image(tenant.clone(), image.digest), &image.meta)),
        digest: image.digest.to_string(),
        size_bytes: image.size_bytes,
        application: Some(application_to_proto(&image.application)),
    }
}

/// The tenant and image of a message.
///
/// # Errors
/// `FIELD` at the first field that is missing or malformed.
pub fn image_from_proto(image: v1::Image) -> Read<(Name, Image)> {
    let (Key::Image(tenant, named), meta) = meta::from_proto(image.meta)? else {
        return Err(resource::other_kind("meta.resource", v1::Kind::Image));
    };
    let digest = field::digest("digest", &image.digest)?;
    if digest != named {
        let message = "digest is not the one that meta.resource says";
        return Err(bad_field("digest", message, "make the two agree"));
    }
    let application = field::required("application", image.application)?;
    let application = application_from_proto(application).within("application")?;
    Ok((tenant, Image { meta, digest, size_bytes: image.size_bytes, application }))
}

pub(crate) fn application_to_proto(application: &Application) -> v1::Application {
    let artifact = |(role, digest): (&Name, &model::Digest)| (role.to_string(), digest.to_string());
    v1::Application {
        name: application.name.to_string(),
        version: application.version.clone(),
        driver: driver_to_proto(application.driver).into(),
        num_partitions: application.num_partitions,
        artifacts: application.artifacts.iter().map(artifact).collect(),
        limits: Some(resources_to_proto(application.limits)),
        on_disconnect: policy_to_proto(application.on_disconnect).into(),
        stop_grace_ms: application.stop_grace_ms,
        env: env_to_proto(&application.env),
        zones: application.zones.iter().map(Name::to_string).collect(),
    }
}

pub(crate) fn application_from_proto(application: v1::Application) -> Read<Application> {
    let on_disconnect = match application.on_disconnect {
        0 => OnDisconnect::default(),
        stated => policy_from_proto("on_disconnect", stated)?,
    };
    Ok(Application {
        name: field::name("name", &application.name)?,
        version: field::version("version", application.version)?,
        driver: driver_from_proto("driver", application.driver)?,
        num_partitions: application.num_partitions,
        artifacts: field::name_map("artifacts", application.artifacts, |text| {
            field::digest("", &text)
        })?,
        limits: resources_from_proto("limits", application.limits)?,
        on_disconnect,
        stop_grace_ms: application.stop_grace_ms,
        env: env_from_proto(application.env)?,
        zones: field::names("zones", &application.zones)?,
    })
}

pub(crate) fn applications_from_proto(
    applications: Vec<v1::Application>,
) -> Read<Vec<Application>> {
    let read = |(at, application)| {
        application_from_proto(application).within(format_args!("applications[{at}]"))
    };
    applications.into_iter().enumerate().map(read).collect()
}

pub(crate) fn policy_to_proto(policy: OnDisconnect) -> v1::OnDisconnect {
    match policy {
        OnDisconnect::KeepRunning => v1::OnDisconnect::KeepRunning,
        OnDisconnect::Stop => v1::OnDisconnect::Stop,
        OnDisconnect::Replace => v1::OnDisconnect::Replace,
    }
}

pub(crate) fn policy_from_proto(field: &str, policy: i32) -> Read<OnDisconnect> {
    match v1::OnDisconnect::try_from(policy) {
        Ok(v1::OnDisconnect::KeepRunning) => Ok(OnDisconnect::KeepRunning),
        Ok(v1::OnDisconnect::Stop) => Ok(OnDisconnect::Stop),
        Ok(v1::OnDisconnect::Replace) => Ok(OnDisconnect::Replace),
        Ok(v1::OnDisconnect::Unspecified) | Err(_) => {
            field::unknown_word(field, "keep_running, stop, replace")
        }
    }
}

pub(crate) fn env_to_proto(env: &BTreeMap<String, Value>) -> BTreeMap<String, v1::Value> {
    let value = |value: &Value| match value {
        Value::Literal(text) => v1::value::Value::Literal(text.clone()),
        Value::SecretRef { name, key } => {
            v1::value::Value::SecretRef(v1::SecretRef { name: name.to_string(), key: key.clone() })
        }
    };
    env.iter().map(|(key, found)| (key.clone(), v1::Value { value: Some(value(found)) })).collect()
}

pub(crate) fn env_from_proto(env: BTreeMap<String, v1::Value>) -> Read<BTreeMap<String, Value>> {
    let read = |value: v1::Value| match field::required("value", value.value)? {
        v1::value::Value::Literal(text) => Ok(Value::Literal(text)),
        v1::value::Value::SecretRef(secret) => Ok(Value::SecretRef {
            name: field::name("name", &secret.name).within("secret_ref")?,
            key: secret.key,
        }),
    };
    let item = |(key, value): (String, v1::Value)| {
        let value = read(value).within(format_args!("env[{key:?}]"))?;
        Ok((key, value))
    };
    env.into_iter().map(item).collect()
}
