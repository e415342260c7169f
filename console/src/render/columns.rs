//! Which columns a table of each kind has, and how a cell is written.

use crate::{client::now_ms, noun::Noun};
use serde_json::Value;

/// A column: its heading, and a cell from a resource as JSON.
#[derive(Clone, Copy)]
pub(crate) struct Column {
    pub(crate) header: &'static str,
    pub(crate) cell: fn(&Value) -> String,
}

const fn column(header: &'static str, cell: fn(&Value) -> String) -> Column {
    Column { header, cell }
}

/// The columns of a kind.
pub(crate) fn columns(noun: Noun, wide: bool) -> Vec<Column> {
    let (narrow, more): (&[Column], &[Column]) = match noun {
        Noun::Tenant => (TENANT, &[]),
        Noun::Host => (HOST, HOST_WIDE),
        Noun::Cluster => (CLUSTER, CLUSTER_WIDE),
        Noun::Image => (IMAGE, &[]),
        Noun::Package => (PACKAGE, &[]),
        Noun::Deployment => (DEPLOYMENT, DEPLOYMENT_WIDE),
        Noun::Job => (JOB, JOB_WIDE),
        Noun::RoleBinding => (ROLE, &[]),
        Noun::Token => (TOKEN, &[]),
        Noun::Node => (NODE, &[]),
    };
    let mut all = narrow.to_vec();
    if wide {
        all.extend_from_slice(more);
    }
    all
}

const NAME: Column = column("NAME", |it| word(&it["meta"]["name"]));
const AGE: Column = column("AGE", |it| age(&it["meta"]["created_at"]));
const STATUS: Column = column("STATUS", |it| word(&it["status"]["text"]));

const TENANT: &[Column] =
    &[NAME, column("DISPLAY NAME", |it| word(&it["display_name"])), STATUS, AGE];
const HOST: &[Column] = &[
    NAME,
    column("CONTACT", contact),
    column("ZONE", |it| word(&it["zone"])),
    column("DRIVERS", |it| words(&it["drivers"])),
    column("CPU", |it| format!("{}m", number(&it["capacity"]["cpu_millis"]))),
    column("MEMORY", |it| bytes(number(&it["capacity"]["memory_bytes"]))),
    STATUS,
    AGE,
];
const HOST_WIDE: &[Column] = &[
    column("SITE", |it| word(&it["site"])),
    column("NODE", |it| word(&it["contact"]["node"])),
    column("FENCED", |it| word(&it["fenced"])),
    column("OS", |it| word(&it["facts"]["os"])),
    column("KERNEL", |it| word(&it["facts"]["kernel"])),
];
const CLUSTER: &[Column] = &[
    NAME,
    column("ENVIRONMENT", |it| word(&it["spec"]["environment"])),
    column("HOSTS", |it| count(&it["spec"]["members"])),
    STATUS,
    AGE,
];
const CLUSTER_WIDE: &[Column] = &[
    column("LABELS", |it| pairs(&it["meta"]["labels"])),
    column("MEMBERS", |it| words(&it["spec"]["members"])),
];
const IMAGE: &[Column] = &[
    NAME,
    column("VERSION", |it| word(&it["application"]["version"])),
    column("DRIVER", |it| word(&it["application"]["driver"])),
    column("PARTITIONS", |it| word(&it["application"]["num_partitions"])),
    column("SIZE", |it| bytes(number(&it["size_bytes"]))),
    column("DIGEST", |it| word(&it["digest"])),
    AGE,
];
const PACKAGE: &[Column] = &[
    NAME,
    column("VERSION", |it| word(&it["version"])),
    column("APPLICATIONS", |it| {
        let all = it["applications"].as_array().into_iter().flatten();
        all.map(|app| word(&app["name"])).collect::<Vec<_>>().join(",")
    }),
    AGE,
];
const DEPLOYMENT: &[Column] = &[
    NAME,
    column("PACKAGE", |it| {
        format!("{}@{}", word(&it["spec"]["package"]), word(&it["spec"]["version"]))
    }),
    column("STATE", |it| word(&it["state"])),
    column("RUNNING", |it| {
        format!("{}/{}", number(&it["counts"]["running"]), number(&it["counts"]["total"]))
    }),
    STATUS,
    AGE,
];
const DEPLOYMENT_WIDE: &[Column] = &[
    column("GENERATION", |it| word(&it["meta"]["generation"])),
    column("PENDING", |it| number(&it["counts"]["pending"]).to_string()),
    column("UNKNOWN", |it| number(&it["counts"]["unknown"]).to_string()),
    column("FAILED", |it| number(&it["counts"]["failed"]).to_string()),
];
const JOB: &[Column] = &[
    column("JOB", job_name),
    column("HOST", |it| word(&placement(it)["host"])),
    column("PHASE", phase),
    column("RESTARTS", |it| number(&placement(it)["current"]["restarts"]).to_string()),
    column("SINCE", |it| age(&placement(it)["current"]["since"])),
    column("DETAIL", detail),
];
const JOB_WIDE: &[Column] = &[
    column("ASSIGNMENT", |it| word(&placement(it)["assignment"])),
    column("POLICY", |it| word(&it["workload"]["on_disconnect"])),
    column("IMAGE", |it| word(&it["workload"]["image"])),
];
const ROLE: &[Column] = &[
    NAME,
    column("SCOPE", |it| {
        let tenant = it["tenant"].as_str();
        tenant.map_or_else(|| "everywhere".to_owned(), |tenant| format!("tenant {tenant}"))
    }),
    column("ROLE", |it| word(&it["role"])),
    AGE,
];
const TOKEN: &[Column] = &[
    NAME,
    column("KIND", |it| compact(&it["kind"])),
    column("USES LEFT", |it| number(&it["uses_left"]).to_string()),
    column("EXPIRES", |it| word(&it["expires_at"])),
];
const NODE: &[Column] = &[
    column("ID", |it| word(&it["id"])),
    column("CLIENT ADDRESS", |it| word(&it["client_addr"])),
    column("PEER ADDRESS", |it| word(&it["peer_addr"])),
    column("ALIVE", |it| word(&it["alive"])),
    column("RULES", |it| word(&it["rules_max"])),
    AGE,
];

/// `deployment/cluster/application/slot`.
pub(crate) fn job_name(job: &Value) -> String {
    let resource = job["resource"].as_str().unwrap_or_default();
    resource.splitn(4, '/').nth(3).unwrap_or(resource).to_owned()
}

/// Columns of the members of the control plane.
pub(crate) fn member_columns() -> &'static [Column] {
    MEMBER
}

const MEMBER: &[Column] = &[
    column("ID", |it| word(&it["id"])),
    column("NAME", |it| word(&it["name"])),
    column("ROLE", |it| word(&it["role"])),
    column("STATE", member_state),
    column("CLIENT ADDRESS", |it| word(&it["client_addr"])),
    column("PEER ADDRESS", |it| word(&it["peer_addr"])),
    column("LAG", |it| word(&it["lag"])),
    column("REVISION", |it| word(&it["applied_revision"])),
    column("VERSION", |it| word(&it["version"])),
    column("RULES", |it| match number(&it["rules_max"]) {
        0 => "-".to_owned(),
        level => format!("1-{level}"),
    }),
];

/// Whether a member answers, and since when the leader has not heard it.
fn member_state(member: &Value) -> String {
    let answers = if member["answers"] == true { "up" } else { "no answer" };
    match &member["lost_since"] {
        Value::Null => answers.to_owned(),
        since => format!("{answers}, lost {}", age(since)),
    }
}

fn contact(host: &Value) -> String {
    let state = word(&host["contact"]["state"]);
    if host["contact"]["since"].is_null() {
        state
    } else {
        format!("{state} {}", age(&host["contact"]["since"]))
    }
}

/// The newest placement of a job.
pub(crate) fn placement(job: &Value) -> &Value {
    job["placements"].as_array().and_then(|all| all.last()).unwrap_or(&Value::Null)
}

/// How a job is, in one word.
pub(crate) fn phase(job: &Value) -> String {
    let placement = placement(job);
    match placement["current"]["phase"].as_str() {
        Some(phase) => phase.to_owned(),
        None if placement.is_null() => "PENDING".to_owned(),
        None => "SCHEDULED".to_owned(),
    }
}

/// What is wrong with a job: its own trouble, or the error of its newest copy.
fn trouble(job: &Value) -> Option<&Value> {
    let texts = [&job["trouble"], &placement(job)["current"]["error"]];
    texts.into_iter().find(|it| it["text"].is_string())
}

/// The reason why a job is not as asked, in one word.
pub(crate) fn reason(job: &Value) -> Option<&str> {
    trouble(job)?["reason"].as_str()
}

/// Why a job is not as asked.
pub(crate) fn detail(job: &Value) -> String {
    let current = &placement(job)["current"];
    match trouble(job) {
        Some(it) => {
            let again = current["next_retry_at"].as_str().filter(|_| it == &current["error"]);
            let again = again.map_or_else(String::new, |at| format!("; tried again at {at}"));
            format!("{}: {}{again}", word(&it["reason"]), word(&it["text"]))
        }
        None if current["data_left_behind"] == true => "its data stayed on another host".to_owned(),
        None => String::new(),
    }
}

/// A scalar as text; `-` for nothing.
pub(crate) fn word(value: &Value) -> String {
    match value {
        Value::String(text) if !text.is_empty() => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        _ => "-".to_owned(),
    }
}

/// A number, whether it came as one or as text.
pub(crate) fn number(value: &Value) -> u64 {
    value.as_u64().or_else(|| value.as_str()?.parse().ok()).unwrap_or(0)
}

fn count(list: &Value) -> String {
    list.as_array().map_or(0, Vec::len).to_string()
}

fn words(list: &Value) -> String {
    let all: Vec<_> = list.as_array().into_iter().flatten().map(word).collect();
    if all.is_empty() { "-".to_owned() } else { all.join(",") }
}

fn pairs(map: &Value) -> String {
    let all: Vec<_> = map
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    if all.is_empty() { "-".to_owned() } else { all.join(",") }
}

fn compact(value: &Value) -> String {
    match value {
        Value::Object(map) => match map.iter().next() {
            Some((key, inner)) => {
                let inner = inner.as_object().and_then(|it| it.values().next()).map(word);
                inner.map_or_else(|| key.clone(), |inner| format!("{key} {inner}"))
            }
            None => "-".to_owned(),
        },
        other => word(other),
    }
}

/// `1.5GiB`: the largest unit that gives a number of at least 1.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    for (unit, size) in UNITS {
        if bytes >= size {
            let tenths = bytes.saturating_mul(10) / size;
            return if tenths.is_multiple_of(10) {
                format!("{}{unit}", tenths / 10)
            } else {
                format!("{}.{}{unit}", tenths / 10, tenths % 10)
            };
        }
    }
    format!("{bytes}B")
}

/// How long ago a moment (RFC 3339, as the API writes it) was: `5m`, `3h`, `12d`.
pub(crate) fn age(moment: &Value) -> String {
    match moment.as_str().and_then(unix_ms) {
        Some(then) => duration(now_ms().saturating_sub(then)),
        None => "-".to_owned(),
    }
}

/// A span in its largest unit; two units while it is short.
pub(crate) fn duration(ms: u64) -> String {
    let seconds = ms / 1_000;
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 => format!("{}m{}s", seconds / 60, seconds % 60),
        600..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Unix milliseconds of `2026-11-21T15:04:05.123Z`; `None` for any other shape.
fn unix_ms(text: &str) -> Option<u64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let mut date = date.splitn(3, '-').map(|part| part.parse::<u64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let mut time = time.splitn(3, ':');
    let (hour, minute) = (time.next()?.parse::<u64>().ok()?, time.next()?.parse::<u64>().ok()?);
    let seconds: f64 = time.next()?.parse().ok()?;
    if !(1970..10_000).contains(&year)
        || !(1..=12).contains(&month)
        || !(0.0..61.0).contains(&seconds)
    {
        return None;
    }
    // Days from civil: https://howardhinnant.github.io/date_algorithms.html
    let shifted = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (shifted / 400, shifted % 400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day.checked_sub(1)?;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year;
    let days = days.checked_sub(719_468)?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 61,000")]
    let ms = (seconds * 1_000.0) as u64;
    Some((days * 86_400 + hour * 3_600 + minute * 60) * 1_000 + ms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn moments_are_read() {
        assert_eq!(unix_ms("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(unix_ms("2026-11-21T15:04:05.250Z"), Some(1_795_273_445_250));
        assert_eq!(unix_ms("2000-02-29T00:00:00Z"), Some(951_782_400_000));
        assert_eq!(unix_ms("yesterday"), None);
    }

    #[test]
    fn spans_and_sizes_are_short() {
        assert_eq!(duration(59_000), "59s");
        assert_eq!(duration(125_000), "2m5s");
        assert_eq!(duration(90_000_000), "25h");
        assert_eq!(bytes(512), "512B");
        assert_eq!(bytes(3 << 29), "1.5GiB");
    }

    #[test]
    fn a_job_without_a_host_is_pending() {
        let job = json!({"trouble": {"reason": "UNSCHEDULABLE", "text": "2 hosts: CPU_SHORT"}});
        assert_eq!(phase(&job), "PENDING");
        assert_eq!(detail(&job), "UNSCHEDULABLE: 2 hosts: CPU_SHORT");
    }
}
